"""The public routes every box answers: blocks, titles, trust, catalog, beacons, acks, health."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import NamedTuple

from ..protocol.catalog import ENTRIES_PER_PAGE
from ..protocol.cid import Cid
from ..protocol.codec import encode
from ..protocol.errors import RefusedError
from .blocks.store import DiskStore
from .catalog.library import Library
from .catalog.replica import Heads
from .http.exchange import Answer, Exchange, FilePart, Router
from .http.head import Head
from .ipfs.gateway import Denied, TrustlessGateway

BRIEF = "public, max-age=5"
MSGPACK = "application/vnd.farcast+msgpack"

READY_KEPT = 4_096
READY_S = 5.0
"""How long an answer is remembered; also how late a block's use is noted for eviction."""

Fill = Callable[[Cid, str | None], Awaitable[bytes]]


class _Ready(NamedTuple):
    answer: Answer
    losses: int
    entries: int
    until: float

    def holds(self, losses: int, entries: int, now: float) -> bool:
        """Say whether everything the answer was made from is still so."""
        return self.losses == losses and self.entries == entries and now < self.until


class PublicRoutes:
    """Serves what the store holds; with ``fill`` a GET may bring in what is missing.

    ``trust_files`` returns the TUF metadata by name; ``acks`` the signed acks for a ticket id;
    ``denied`` says which blocks are refused, by default the manifests that the catalog denies.
    """

    def __init__(
        self,
        store: DiskStore,
        library: Library,
        heads: Heads,
        fill: Fill,
        trust_files: Callable[[], dict[str, bytes]],
        acks: Callable[[Sequence[bytes]], list[bytes]],
        *,
        cors: bool,
        denied: Denied | None = None,
    ) -> None:
        self._store = store
        self._library = library
        self._heads = heads
        self._fill = fill
        self._trust_files = trust_files
        self._acks = acks
        self._ready: dict[str, _Ready] = {}
        self._cors = {"access-control-allow-origin": "*"} if cors else {}
        self._denied: tuple[int, frozenset[Cid]] = (0, frozenset())
        self._gateway = TrustlessGateway(store, fill, denied or self._taken_down, headers=self._cors)

    def add_to(self, router: Router) -> None:
        """Add every public route to ``router``."""
        router.route("GET", "/ipfs/{cid}", self.block)
        router.route("GET", "/ipfs/{cid}/{path...}", self.block)
        router.route("GET", "/watch/{title}/{path...}", self.watch)
        router.route("GET", "/v1/trust/{file...}", self.trust)
        router.route("GET", "/v1/catalog/checkpoint", self.checkpoint)
        router.route("GET", "/v1/catalog/entries", self.entries)
        router.route("GET", "/v1/catalog/proof", self.proof)
        router.route("GET", "/v1/relays", self.relays)
        router.route("GET", "/v1/beacons", self.beacons)
        router.route("GET", "/v1/acks/{tid}", self.acks)
        router.route("GET", "/healthz", self.health)
        router.route("GET", "/readyz", self.ready)

    def lookup(self, head: Head) -> Answer | None:
        """Answer at once what is held and needs no fetching: the byte server's fast path.

        What was answered is remembered for a few seconds, as long as no block leaves the store and
        the catalog stays as it is: a hot segment costs two look-ups.
        """
        ready = self._ready.get(head.target)
        if ready is not None and ready.holds(self._store.losses, self._heads.catalog.size, monotonic()):
            return ready.answer
        answer = self._look_up(head)
        if answer is not None and head.query in ("", "format=raw"):
            if len(self._ready) >= READY_KEPT:
                self._ready.clear()
            until = monotonic() + READY_S
            self._ready[head.target] = _Ready(answer, self._store.losses, self._heads.catalog.size, until)
        return answer

    def _look_up(self, head: Head) -> Answer | None:
        path = head.path
        if path.startswith("/ipfs/"):
            return self._gateway.lookup(head)
        if "%" in path:
            return None
        if path.startswith("/watch/"):
            title, _, file = path[7:].partition("/")
            return self._file_held(title, file)
        return None

    async def block(self, exchange: Exchange) -> Answer:
        """``GET /ipfs/{cid}[/path]``: blocks and CARs (trustless gateway specification)."""
        return await self._gateway.answer(exchange)

    async def watch(self, exchange: Exchange) -> Answer:
        """``GET /watch/{title}/{file}``: a file of a title, from verified blocks."""
        title, path = exchange.match["title"], exchange.match["path"]

        async def fetch(cid: Cid) -> bytes:
            return await self._fill(cid, title)

        plan = await self._library.plan(title, path, fetch)
        if exchange.method != "HEAD":
            await self._gateway.mend([leaf.cid for leaf in plan.leaves])
            for leaf in plan.leaves:
                if not self._store.has(leaf.cid):
                    await fetch(leaf.cid)
        held = self._file_held(title, path)
        if held is None and exchange.method != "HEAD":
            message = f"{path} of {title} left this store while it was asked for"
            raise RefusedError(message, status=503, retry_after_s=1, reason="evicted")
        if held is None:
            headers = {"content-type": plan.media_type, "content-length": str(plan.size), **self._cors}
            return Answer(200, headers, b"")
        return held

    async def trust(self, exchange: Exchange) -> Answer:
        """``GET /v1/trust/{file}``: TUF metadata and targets, verbatim."""
        data = self._trust_files().get(exchange.match["file"])
        if data is None:
            raise RefusedError("no such trust file", status=404, reason="unknown_trust_file")
        return Answer(200, {"content-type": "application/octet-stream", "cache-control": BRIEF}, data)

    async def checkpoint(self, exchange: Exchange) -> Answer:
        """``GET /v1/catalog/checkpoint``: the signed note."""
        del exchange
        return _brief(self._heads.checkpoint(), "text/plain; charset=utf-8", "no catalog here yet")

    async def entries(self, exchange: Exchange) -> Answer:
        """``GET /v1/catalog/entries?start=&end=``: one page of entries."""
        start, end = _number(exchange, "start", 0), _number(exchange, "end", self._heads.catalog.size)
        page = self._heads.catalog.page(start, min(end, start + ENTRIES_PER_PAGE))
        return Answer(200, {"content-type": MSGPACK, "cache-control": BRIEF}, encode(page))

    async def proof(self, exchange: Exchange) -> Answer:
        """``GET /v1/catalog/proof?from=&to=`` (consistency) or ``?index=&size=`` (inclusion)."""
        tree, size = self._heads.catalog.tree, self._heads.catalog.size
        if "index" in exchange.query:
            index, at = _number(exchange, "index", 0), _number(exchange, "size", size)
            if not index < at <= size:
                raise RefusedError(f"index < size <= {size} must hold", status=400, reason="bad_query")
            path = tree.inclusion_proof(index, at)
        else:
            old, new = _number(exchange, "from", 0), _number(exchange, "to", size)
            if not 0 < old <= new <= size:
                raise RefusedError(f"0 < from <= to <= {size} must hold", status=400, reason="bad_query")
            path = tree.consistency_proof(old, new)
        return Answer(200, {"content-type": MSGPACK}, encode(path))

    async def relays(self, exchange: Exchange) -> Answer:
        """``GET /v1/relays``: the signed directory."""
        del exchange
        return _brief(self._heads.directory(), MSGPACK, "no relay directory here yet")

    async def beacons(self, exchange: Exchange) -> Answer:
        """``GET /v1/beacons``: the recent signed beacons."""
        del exchange
        return Answer(200, {"content-type": MSGPACK, "cache-control": BRIEF}, encode(self._heads.beacons()))

    async def acks(self, exchange: Exchange) -> Answer:
        """``GET /v1/acks/{tid}``: the origin's acks that cover a ticket, 404 where there is none."""
        try:
            tid = bytes.fromhex(exchange.match["tid"])
        except ValueError:
            raise RefusedError("a ticket id is 32 hex digits", status=400, reason="bad_query") from None
        found = await asyncio.to_thread(self._acks, [tid])
        if not found:
            raise RefusedError("no ack for this ticket here yet", status=404, reason="no_ack")
        return Answer(200, {"content-type": MSGPACK, "cache-control": "no-store"}, encode(found))

    async def health(self, exchange: Exchange) -> Answer:
        """``GET /healthz``: the process answers."""
        del exchange
        return Answer(
            200, {"content-type": "text/plain; charset=utf-8", "cache-control": "no-store"}, b"ok\n"
        )

    async def ready(self, exchange: Exchange) -> Answer:
        """``GET /readyz``: 200 once there is a catalog, 503 before."""
        del exchange
        return _brief(self._heads.checkpoint() and b"ready\n", "text/plain; charset=utf-8", "no catalog yet")

    def _taken_down(self, cid: Cid) -> bool:
        catalog = self._heads.catalog
        if self._denied[0] != catalog.size:
            self._denied = (catalog.size, catalog.denied())
        return cid in self._denied[1]

    def _file_held(self, title: str, path: str) -> Answer | None:
        plan = self._library.planned(title, path)
        if plan is None:
            return None
        parts: list[FilePart] = []
        for leaf in plan.leaves:
            place = self._store.path(leaf.cid)
            if place is None:
                return None
            parts.append(FilePart(str(place[0]), 0, place[1]))
        headers = {"content-type": plan.media_type, "cache-control": BRIEF, "etag": plan.etag, **self._cors}
        return Answer(200, headers, parts)


def _number(exchange: Exchange, name: str, default: int) -> int:
    text = exchange.query.get(name, str(default))
    if not text.isascii() or not text.isdigit() or len(text) > 15:  # noqa: PLR2004 - far above any log
        raise RefusedError(f"{name} must be a whole number", status=400, reason="bad_query")
    return int(text)


def _brief(data: bytes | None, media_type: str, absent: str) -> Answer:
    if not data:
        raise RefusedError(absent, status=503, retry_after_s=5, reason="not_ready")
    return Answer(200, {"content-type": media_type, "cache-control": BRIEF}, data)
