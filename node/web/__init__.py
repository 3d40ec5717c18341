"""The web player: a page for browsers without a node, on origin and relays.

A Service Worker checks every block from the publisher's signature down and doubles whoever is late;
where there is none, hls.js is steered from server to server. A browser trusts the site in its address
bar for this page, the catalog and the publishers' keys; all other servers are checked or only late.
"""

from __future__ import annotations

import asyncio
import functools
import gzip
from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ...protocol.catalog import Entry
from ...protocol.errors import RefusedError, RemoteError
from ...protocol.manifest import Manifest
from ..http.exchange import Answer, Exchange, Handler, Router
from ..http.ranges import content_tag
from ..steering.pathway import ORIGIN, Pathway, place
from ..steering.routes import Map
from .scripts import PACKAGE, SCRIPTS, minified, script

if TYPE_CHECKING:
    from jinja2 import Environment

TITLES_SHOWN = 500
KEY_BYTES = 16
"""Pulses name a relay by so much of its key."""
POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
SCRIPT, STYLE = "text/javascript; charset=utf-8", "text/css; charset=utf-8"
ASSETS = {
    **{name: (PACKAGE, name, SCRIPT) for name in SCRIPTS},
    **{f"{name}.map": (PACKAGE, f"small/{name}.map", "application/json") for name in SCRIPTS},
    "web.css": (PACKAGE, "web.css", STYLE),
    "style.css": ("farcast.node.page", "style.css", STYLE),
    "icon.svg": ("farcast.node.page", "icon.svg", "image/svg+xml"),
    "hls.min.js": ("farcast.node.page", "vendor/hls.min.js", SCRIPT),
}
_HEADERS = {
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}


class Titles:
    """What the page needs of the library, with the fetch that brings what this box has not got."""

    def __init__(
        self,
        listed: Callable[[], Sequence[str]],
        entry: Callable[[str], Entry],
        held: Callable[[str], Manifest],
        learn: Callable[[str], Awaitable[Manifest]],
    ) -> None:
        """``held`` raises ``RemoteError`` where the manifest is not here; ``learn`` fetches it."""
        self.listed = listed
        self.entry = entry
        self.held = held
        self.learn = learn


class WebPlayer:
    """Pages, scripts and each title's ``film.json``; ``accounts`` where invitations are redeemed here."""

    def __init__(
        self, titles: Titles, where: Map, draw: Callable[[], int], name: Callable[[], str], *, accounts: bool
    ) -> None:
        """``draw`` gives a random turn for each viewer; ``name`` is the origin's, as people see it."""
        self._titles = titles
        self._map = where
        self._draw = draw
        self._name = name
        self._accounts = accounts

    def add_to(self, router: Router, guard: Callable[[Handler], Handler]) -> None:
        """Add the routes; ``guard`` refuses what was taken down."""
        router.route("GET", "/web", self.moved)
        router.route("GET", "/web/", self.overview)
        for name in ASSETS:
            router.route("GET", f"/web/{name}", functools.partial(self.asset, name))
        router.route("GET", "/web/{title}", guard(self.player))
        router.route("GET", "/web/{title}/film.json", guard(self.film))

    async def moved(self, exchange: Exchange) -> Answer:
        """``GET /web``: the pages' own folder, which is the Service Worker's scope."""
        del exchange
        return Answer(308, {"location": "/web/"})

    async def overview(self, exchange: Exchange) -> Answer:
        """``GET /web/``: the titles, and where an invitation is redeemed."""
        del exchange
        titles = await asyncio.to_thread(self._rows)
        return self._page(
            "web.html.j2", "connect-src 'self'; worker-src 'self'; img-src 'self'", titles=titles
        )

    async def player(self, exchange: Exchange) -> Answer:
        """``GET /web/{title}``: the player."""
        title = exchange.match["title"]
        manifest = await self._titles.learn(title)
        ways = self._ways(exchange, title)
        places = " ".join(dict.fromkeys(place(way.base) for way in ways if way.base))
        home = next((way.base for way in ways if way.name == ORIGIN), "")
        policy = (
            f"connect-src 'self' {places}; media-src 'self' blob: data: {places}; "
            "worker-src 'self'; img-src 'self'"
        )
        scripted = files("farcast.node.page").joinpath("vendor/hls.min.js").is_file()
        return self._page("player.html.j2", policy, title=manifest, scripted=scripted, home=home)

    async def film(self, exchange: Exchange) -> Answer:
        """``GET /web/{title}/film.json``: the manifest, the publishers' keys, and who may be asked."""
        title = exchange.match["title"]
        keyring = self._map.keyring()
        if keyring is None:
            raise RefusedError(
                "this box does not know its origin yet", status=503, retry_after_s=5, reason="no_key"
            )
        cid = self._titles.entry(title).cid
        answer = Answer.json(
            {
                "manifest": cid.digest.hex(),
                "publishers": [key.hex() for key in keyring.publishers],
                "sources": [
                    {"tier": int(way.tier), "relay": way.key[:KEY_BYTES].hex(), "url": way.base}
                    for way in self._ways(exchange, title)
                ],
            }
        )
        answer.headers |= {**_HEADERS, "cache-control": "no-store"}
        return answer

    async def asset(self, name: str, exchange: Exchange) -> Answer:
        """``GET /web/{name}``: scripts, style and icon; minified scripts name their source map."""
        # the Service Worker may learn of new servers while it lives; what they send is checked by hash
        schemes = "https:" if self._map.https(exchange) else "https: http:"
        policy = f"{POLICY}script-src 'self'; connect-src 'self' {schemes}"
        packed = "gzip" in exchange.headers.get("accept-encoding", "")
        body, tag = await asyncio.to_thread(_asset, name, packed=packed)
        headers = {
            **_HEADERS, "content-type": ASSETS[name][2], "content-security-policy": policy, "etag": tag,
        }  # fmt: skip
        if name in SCRIPTS and minified():
            headers["sourcemap"] = f"{name}.map"
        headers |= {"vary": "accept-encoding", **({"content-encoding": "gzip"} if packed else {})}
        return Answer(200, headers, body)

    def _ways(self, exchange: Exchange, title: str) -> list[Pathway]:
        """Return the ways in the order a Service Worker asks them: the CDN, then this box or its relays."""
        return self._map.ways(exchange, title, self._draw())

    def _rows(self) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = []
        for title in self._titles.listed()[:TITLES_SHOWN]:
            try:
                manifest = self._titles.held(title)
            except RemoteError:
                rows.append({"title": title, "name": title, "seconds": 0})
                continue
            rows.append({"title": title, "name": manifest.name, "seconds": manifest.duration_ms // 1_000})
        return rows

    def _page(self, template: str, policy: str, **values: object) -> Answer:
        text = (
            _templates().get_template(template).render(site=self._name(), accounts=self._accounts, **values)
        )
        headers = {
            **_HEADERS,
            "content-security-policy": f"{POLICY}script-src 'self'; style-src 'self'; {policy}",
            "content-type": "text/html; charset=utf-8",
        }
        return Answer(200, headers, text.encode())


@functools.cache
def _asset(name: str, *, packed: bool) -> tuple[bytes, str]:
    """Return an asset as it is sent, and its entity tag."""
    package, path, _ = ASSETS[name]
    if path.endswith(".map") and not minified():
        raise _missing()
    try:
        data = script(name) if name in SCRIPTS else files(package).joinpath(path).read_bytes()
    except FileNotFoundError:
        raise _missing() from None
    body = gzip.compress(data, 9, mtime=0) if packed else data
    return body, content_tag(body)


def _missing() -> RefusedError:
    return RefusedError("no such asset", status=404, reason="unknown_asset")


@functools.cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    templates = Environment(
        loader=PackageLoader(PACKAGE, "."),
        autoescape=select_autoescape(["j2", "html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = templates.filters
    filters["clock"] = _clock
    return templates


def _clock(seconds: int) -> str:
    hours, rest = divmod(seconds, 3_600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"
