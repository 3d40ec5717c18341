"""The routes of steering: derived HLS masters and MPDs, and the steering server players ask next.

``/watch/{title}/`` stays the title's immutable folder; what is derived from it for one moment and one
viewer has addresses of its own below ``/web/{title}/``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter

from ...protocol.directory import RelayRecord
from ...protocol.errors import RefusedError
from ...protocol.keyring import Keyring
from ..http.exchange import Answer, Exchange, Handler, Router
from . import dash, hls
from .answer import steering
from .health import PathwayHealth
from .pathway import TURNS, Pathway, Site, pathways, ranked

MASTER, MPD = "master.m3u8", "manifest.mpd"
PLAYLIST_LIMIT_BYTES = 1 << 20
DIGITS = 5
HEADERS = {
    "cache-control": "no-store",
    "access-control-allow-origin": "*",
    "x-content-type-options": "nosniff",
}

Read = Callable[[str, str, int], Awaitable[bytes]]
"""Returns a file of a title, at most so many bytes; raises ``RefusedError`` where there is none."""


class Map(NamedTuple):
    """Where the pathways come from: this site, the keyring, the directory, its names on the web, the time."""

    site: Site
    keyring: Callable[[], Keyring | None]
    records: Callable[[], Sequence[RelayRecord]]
    web_names: Callable[[], frozenset[str]]
    clock_ms: Callable[[], int]

    def https(self, exchange: Exchange) -> bool:
        """Say whether a request came by a ``web`` endpoint: pages there may read https alone."""
        return exchange.secure or exchange.host in self.web_names()

    def ways(self, exchange: Exchange, title: str, turn: int) -> list[Pathway]:
        """Return the ways to a title for whoever asks; players may take those that are ``playable``."""
        return pathways(
            self.site, title, self.keyring(), self.records(), self.clock_ms(),
            https=self.https(exchange), turn=turn,
        )  # fmt: skip


class Steering:
    """Answers players that have no node; ``draw`` gives a random turn below ``TURNS`` for each viewer."""

    def __init__(
        self,
        read: Read,
        where: Map,
        health: PathwayHealth,
        draw: Callable[[], int],
        registry: CollectorRegistry,
    ) -> None:
        self._read = read
        self._map = where
        self._health = health
        self._draw = draw
        self._answers = Counter(
            "farcast_node_steering_answers", "Derived playlists and steering manifests given.", ["kind"],
            registry=registry,
        )  # fmt: skip
        for kind in ("hls", "dash", "steering"):
            self._answers.labels(kind)

    def add_to(self, router: Router, guard: Callable[[Handler], Handler]) -> None:
        """Add the routes; ``guard`` refuses what was taken down."""
        router.route("GET", f"/web/{{title}}/{MASTER}", guard(self.hls))
        router.route("GET", f"/web/{{title}}/{MPD}", guard(self.dash))
        router.route("GET", "/v1/steering/{title}", guard(self.steer))

    async def hls(self, exchange: Exchange) -> Answer:
        """``GET /web/{title}/master.m3u8``: the derived master."""
        return await self._derive(exchange, MASTER, hls.derived, "hls", "application/vnd.apple.mpegurl")

    async def dash(self, exchange: Exchange) -> Answer:
        """``GET /web/{title}/manifest.mpd``: the derived MPD; 404 where the title has none."""
        return await self._derive(exchange, MPD, dash.derived, "dash", "application/dash+xml")

    async def steer(self, exchange: Exchange) -> Answer:
        """``GET /v1/steering/{title}``: the steering manifest of HLS and DASH."""
        title = exchange.match["title"]
        turn = _turn(exchange)
        ids = hls.stable((await self._read(title, MASTER, PLAYLIST_LIMIT_BYTES)).decode())
        ways = self._ways(exchange, title, turn)
        self._answers.labels("steering").inc()
        found: dict[str, Any] = steering(
            ways,
            self._health.lost,
            _address(title, turn),
            _folder(title),
            ids,
            https=self._map.https(exchange),
        )
        answer = Answer.json(found)
        answer.headers |= HEADERS
        return answer

    async def _derive(
        self,
        exchange: Exchange,
        file: str,
        derive: Callable[[str, str, Sequence[Pathway], str, str], str],
        kind: str,
        media_type: str,
    ) -> Answer:
        title, turn = exchange.match["title"], self._draw() % TURNS
        text = (await self._read(title, file, PLAYLIST_LIMIT_BYTES)).decode()
        ways = self._ways(exchange, title, turn)
        self._answers.labels(kind).inc()
        order = ranked(ways, self._health.lost)
        body = derive(text, _folder(title), order, _address(title, turn), order[0].name)
        return Answer(200, {**HEADERS, "content-type": media_type}, body.encode())

    def _ways(self, exchange: Exchange, title: str, turn: int) -> list[Pathway]:
        """Return the ways for a player, and look at them from now on."""
        ways = [way for way in self._map.ways(exchange, title, turn) if way.playable]
        self._health.want(ways)
        return ways


def _folder(title: str) -> str:
    return f"/watch/{title}/"


def _address(title: str, turn: int) -> str:
    return f"/v1/steering/{title}?turn={turn}"


def _turn(exchange: Exchange) -> int:
    text = exchange.query.get("turn", "0")
    if not text.isascii() or not text.isdigit() or len(text) > DIGITS or int(text) >= TURNS:
        raise RefusedError(f"turn must be a whole number below {TURNS}", status=400, reason="bad_query")
    return int(text)
