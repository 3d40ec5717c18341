"""The assets: templates rendered and the files they name served, below one path token."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ...protocol.errors import RefusedError
from ..http.exchange import Answer, Exchange
from ..http.ranges import content_tag
from ..radio import heard

if TYPE_CHECKING:
    from jinja2 import Environment

PACKAGE = "farcast.node.page"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src {media}; "
    "connect-src 'self'; base-uri 'none'; form-action {forms}; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY.format(forms="'none'", media="'self'"),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
SCRIPT, STYLE = "text/javascript; charset=utf-8", "text/css; charset=utf-8"
SCRIPTS = ("controls", "engine", "keep", "keys", "live", "native", "place", "player", "storyboard")
HLS = "vendor/hls.min.js"
ASSETS = {
    "icon.svg": "image/svg+xml",
    "style.css": STYLE,
    "viewer.css": STYLE,
    "plain.css": STYLE,
    **{f"{name}.js": SCRIPT for name in SCRIPTS},
    HLS: SCRIPT,
}


def there(name: str) -> bool:
    """Say whether a file of the page is here: hls.js comes by npm and may be missing."""
    return files(PACKAGE).joinpath(name).is_file()


class Assets:
    """Renders templates and serves the files they name."""

    def __init__(
        self, token: str, more: Mapping[str, Callable[..., str]] | None = None, *, forms: bool = False
    ) -> None:
        """Serve below ``token``; ``more`` are further filters of a role's own template.

        With ``forms`` a page may send forms to this box, and nowhere else, and play films.
        """
        self._base = f"/{token}"
        self._more = more or {}
        self._headers = HEADERS
        if forms:
            # hls.js feeds the video by a blob, and its subtitles to a track of nothing (data:,WEBVTT)
            policy = POLICY.format(forms="'self'", media="'self' blob: data:")
            self._headers = HEADERS | {"content-security-policy": policy}

    @functools.cached_property
    def _templates(self) -> Environment:
        from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

        templates = Environment(
            loader=PackageLoader(PACKAGE, "."),
            autoescape=select_autoescape(["j2", "html"]),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        filters: dict[str, Any] = templates.filters
        filters |= {
            "count": _count, "size": _size, "clock": _clock, "moment": _moment, "iso": _iso, "heard": heard,
            **self._more,
        }  # fmt: skip
        return templates

    def render(self, exchange: Exchange, template: str, *, code: int = 200, **values: object) -> Answer:
        """Answer a template; it knows ``base`` (path) and ``here`` (the same with scheme and host)."""
        here = self.address(exchange)
        text = self._templates.get_template(template).render(base=self._base, here=here, **values)
        return Answer(code, {**self._headers, "content-type": "text/html; charset=utf-8"}, text.encode())

    def address(self, exchange: Exchange, path: str = "") -> str:
        """Return the whole address of ``path`` below the token, as this browser reaches it."""
        return f"http://{exchange.host}{self._base}{path}"

    def back(self, path: str) -> Answer:
        """Answer a form: look at ``path`` below the token now (RFC 9110 section 15.4.4)."""
        return Answer(303, {"location": self._base + path, "cache-control": "no-store"})

    async def asset(self, exchange: Exchange) -> Answer:
        """``GET /{token}/assets/{name}``: style, scripts, icon; a browser asks whether they changed."""
        name = exchange.match["name"]
        if name not in ASSETS or not there(name):
            raise RefusedError("no such asset", status=404, reason="unknown_asset")
        data = await asyncio.to_thread(files(PACKAGE).joinpath(name).read_bytes)
        headers = {"content-type": ASSETS[name], "cache-control": "no-cache", "etag": content_tag(data)}
        return Answer(200, self._headers | headers, data)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _size(size_bytes: int) -> str:
    if size_bytes >= 1e9:  # noqa: PLR2004
        return f"{size_bytes / 1e9:,.1f} GB"
    return f"{size_bytes / 1e6:,.1f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.0f} kB"  # noqa: PLR2004


def _clock(seconds: int) -> str:
    hours, rest = divmod(seconds, 3_600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def _moment(at_ms: int) -> str:
    """Return a time on this machine's own clock and day, as its people read it."""
    return datetime.fromtimestamp(at_ms / 1_000, UTC).astimezone().strftime("%a %H:%M:%S")


def _iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1_000, UTC).isoformat(timespec="seconds")
