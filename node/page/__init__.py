"""The box's page: what plays, how it comes, what leaves; plain HTML that works without scripts.

A viewer's node has the overview and a player; other boxes have one sheet of what they say of themselves.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ...protocol.errors import RefusedError
from ..http.exchange import Answer, Exchange, Router

if TYPE_CHECKING:
    from jinja2 import Environment

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
SCRIPT, STYLE = "text/javascript; charset=utf-8", "text/css; charset=utf-8"
ASSETS = {
    "icon.svg": "image/svg+xml",
    "style.css": STYLE,
    "player.js": SCRIPT,
    "vendor/hls.min.js": SCRIPT,
}

Facts = Mapping[str, object]


class Assets:
    """Renders templates and serves the files they name, below one path token."""

    def __init__(self, token: str, more: Mapping[str, Callable[..., str]] | None = None) -> None:
        """Serve below ``token``; ``more`` are further filters of a role's own template."""
        self._base = f"/{token}"
        self._more = more or {}

    @functools.cached_property
    def _templates(self) -> Environment:
        from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

        templates = Environment(
            loader=PackageLoader("farcast.node.page", "."),
            autoescape=select_autoescape(["j2", "html"]),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        filters: dict[str, Any] = templates.filters
        filters |= {"count": _count, "size": _size, "clock": _clock, **self._more}
        return templates

    def render(self, exchange: Exchange, template: str, **values: object) -> Answer:
        """Answer a template; it knows ``base`` (path) and ``here`` (the same with scheme and host)."""
        here = f"http://{exchange.host}{self._base}"
        text = self._templates.get_template(template).render(base=self._base, here=here, **values)
        return Answer(200, {**HEADERS, "content-type": "text/html; charset=utf-8"}, text.encode())

    async def asset(self, exchange: Exchange) -> Answer:
        """``GET /{token}/assets/{name}``: style, scripts and the icon."""
        name = exchange.match["name"]
        place = files("farcast.node.page").joinpath(name)
        if name not in ASSETS or not place.is_file():
            raise RefusedError("no such asset", status=404, reason="unknown_asset")
        return Answer(
            200, {**HEADERS, "content-type": ASSETS[name]}, await asyncio.to_thread(place.read_bytes)
        )


class Page:
    """A viewer's page; ``status`` and ``titles`` give what is shown and may block."""

    def __init__(
        self,
        status: Callable[[], Facts],
        titles: Callable[[], list[dict[str, object]]],
        token: str,
    ) -> None:
        self._status = status
        self._titles = titles
        self._assets = Assets(token)

    def add_to(self, router: Router) -> None:
        """Add the page's routes below the path token."""
        router.route("GET", "/", self.overview)
        router.route("GET", "/play/{title}", self.player)
        router.route("GET", "/assets/{name...}", self._assets.asset)

    async def overview(self, exchange: Exchange) -> Answer:
        """``GET /{token}/``: verdict, titles, tiers, pulses."""
        status, titles = await asyncio.to_thread(lambda: (self._status(), self._titles()))
        return self._assets.render(exchange, "overview.html.j2", status=status, titles=titles)

    async def player(self, exchange: Exchange) -> Answer:
        """``GET /{token}/play/{title}``: the player page."""
        title = exchange.match["title"]
        titles = await asyncio.to_thread(self._titles)
        found = next((row for row in titles if row["title"] == title), None)
        if found is None:
            raise RefusedError(f"no title {title!r} in this catalog", status=404, reason="unknown_title")
        scripted = files("farcast.node.page").joinpath("vendor/hls.min.js").is_file()
        return self._assets.render(exchange, "player.html.j2", title=found, scripted=scripted)


class Sheet:
    """The page of a box without films to show: its name, its verdict and every fact of ``status``."""

    def __init__(self, status: Callable[[], Facts], token: str) -> None:
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


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.0f} kB"  # noqa: PLR2004


def _clock(seconds: int) -> str:
    hours, rest = divmod(seconds, 3_600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"
