"""The relay's page: what ``farcast relay status`` says, for a browser on the operator's own machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ..node.http.exchange import Answer, Exchange, Router
from ..node.page import Assets
from .lines import beside, rate, size, volume
from .payslip import payslip_lines

_MARKS = {"Serving": "good", "Degraded": "fair", "Paused": "fair", "Hibernating": "fair", "Waiting": "fair"}


class RelayPage:
    """One page without scripts; ``status`` gives what is shown and may block."""

    def __init__(self, status: Callable[[], dict[str, Any]], token: str) -> None:
        self._status = status
        self._assets = Assets(token, {"bytes": size, "rate": rate})

    def add_to(self, router: Router) -> None:
        """Add the page's routes below the path token."""
        router.route("GET", "/", self.show)
        router.route("GET", "/assets/{name...}", self._assets.asset)

    async def show(self, exchange: Exchange) -> Answer:
        """``GET /{token}/``: the verdict, then the numbers."""
        status = await asyncio.to_thread(self._status)
        word = status["verdict"].replace(":", " ").replace(",", " ").split(" ")[0]
        return self._assets.render(
            exchange,
            "relay.html.j2",
            relay=status,
            month=volume(status["contract"]),
            earned=payslip_lines(status["earnings"]),
            beside=beside(status),
            mark=_MARKS.get(word, "bad"),
        )
