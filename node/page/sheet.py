"""The sheet: the page of a box without films to show."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from ..http.exchange import Answer, Exchange, Router
from .assets import Assets


class Sheet:
    """Shows a box's name, its verdict and every fact of ``status``, which may block."""

    def __init__(self, status: Callable[[], Mapping[str, object]], token: str) -> None:
        self._status = status
        self._assets = Assets(token)

    def add_to(self, router: Router) -> None:
        """Add the page's routes below the path token."""
        router.route("GET", "/", self.show)
        router.route("GET", "/assets/{name...}", self._assets.asset)

    async def show(self, exchange: Exchange) -> Answer:
        """``GET /{token}/``: the sheet."""
        status = dict(await asyncio.to_thread(self._status))
        name = status.pop("name", None) or status.pop("origin", "") or "Farcast"
        verdict, warnings = status.pop("verdict", ""), status.pop("warnings", ())
        return self._assets.render(
            exchange, "sheet.html.j2", name=name, verdict=verdict, warnings=warnings, facts=status
        )
