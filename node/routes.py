"""The public routes every box answers: blocks, titles, trust, catalog, beacons, acks, health."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from ..protocol.catalog import ENTRIES_PER_PAGE
from ..protocol.cid import Cid
from ..protocol.codec import encode
from ..protocol.errors import RefusedError
from .blocks.store import DiskStore
from .catalog.library import FilePlan, Library
from .catalog.replica import Heads
from .http.exchange import Answer, Exchange, FilePart, Router
from .http.ranges import content_tag, negotiate
from .ipfs.gateway import Denied, TrustlessGateway
from .ladder.stream import Streams, pieces
from .readyanswers import ReadyAnswers

BRIEF = "public, max-age=5, stale-if-error=86400"
"""What is signed and changes: a cache asks again soon, and may help out while the origin is away."""
SHARED = "public, max-age=5, s-maxage=60, stale-while-revalidate=30, stale-if-error=86400"
"""A title's files: a CDN asks each minute whether the version still holds, by Etag, and moves no bytes."""
SETTLED = "public, max-age=3600"
"""What an append-only log answers to a question about entries it has."""
MSGPACK = "application/vnd.farcast+msgpack"

Fill = Callable[[Cid, str | None], Awaitable[bytes]]


class PublicRoutes:
    """Serves what the store holds; with ``fill`` a GET may bring in what is missing.

    ``trust_files`` returns the TUF metadata by name; ``acks`` the signed acks for a ticket id;
    ``denied`` says which blocks of a CAR are refused.
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
        denied: Denied = lambda _: False,
        streams: Streams | None = None,
    ) -> None:
        """With ``streams`` a file is answered while its blocks still arrive, else once all are here."""
        self._store = store
        self._library = library
        self._heads = heads
        self._fill = fill
        self._trust_files = trust_files
        self._acks = acks
        self._streams = streams
        self._cors = {"access-control-allow-origin": "*"} if cors else {}
        self._gateway = TrustlessGateway(store, fill, denied, headers=self._cors)
        ready = ReadyAnswers(store, heads, self._gateway.lookup, self._file_held)
        self.lookup, self.epoch = ready.lookup, ready.epoch  # the byte server's fast path

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
            if self._streams is not None and not all(self._store.has(leaf.cid) for leaf in plan.leaves):
                return await self._stream(exchange, plan, fetch, self._streams)
            for leaf in plan.leaves:
                if not self._store.has(leaf.cid):
                    await fetch(leaf.cid)
        held = self._file_held(title, path)
        if held is None and exchange.method != "HEAD":
            message = f"{path} of {title} left this store while it was asked for"
            raise RefusedError(message, status=503, retry_after_s=1, reason="evicted")
        if held is None:  # only its size is told
            return Answer(200, self._file_headers(plan), [FilePart("", 0, plan.size)])
        return held

    async def _stream(
        self, exchange: Exchange, plan: FilePlan, fetch: Callable[[Cid], Awaitable[bytes]], streams: Streams
    ) -> Answer:
        """Answer what is asked for of a file from its first verified block on; the rest is on its way."""
        whole = Answer(200, self._file_headers(plan), [FilePart("", 0, plan.size)])
        answer = negotiate(whole, exchange.method, exchange.headers)
        if isinstance(answer.body, bytes | AsyncIterator):  # not modified, or no such range
            return answer
        span = answer.body[0] if answer.body else FilePart("", 0, 0)
        headers = {**answer.headers, "content-length": str(span.length)}
        body = await streams.open(pieces(plan.leaves, span.offset, span.length), fetch)
        return Answer(answer.status, headers, body)

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
        size = self._heads.catalog.size
        page = encode(self._heads.catalog.page(start, min(end, start + ENTRIES_PER_PAGE)))
        caching = SETTLED if "end" in exchange.query and end <= size else BRIEF
        return Answer(
            200, {"content-type": MSGPACK, "cache-control": caching, "etag": content_tag(page)}, page
        )

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
        named = {"size", "to"} & exchange.query.keys()
        headers = {"content-type": MSGPACK, "cache-control": SETTLED if named else BRIEF}
        return Answer(200, headers, encode(path))

    async def relays(self, exchange: Exchange) -> Answer:
        """``GET /v1/relays``: the signed directory."""
        del exchange
        return _brief(self._heads.directory(), MSGPACK, "no relay directory here yet")

    async def beacons(self, exchange: Exchange) -> Answer:
        """``GET /v1/beacons``: the recent signed beacons."""
        del exchange
        return _brief(encode(self._heads.beacons()), MSGPACK, "no beacons here yet")

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
        answer = _brief(
            self._heads.checkpoint() and b"ready\n", "text/plain; charset=utf-8", "no catalog yet"
        )
        answer.headers["cache-control"] = "no-store"
        return answer

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
        return Answer(200, self._file_headers(plan), parts)

    def _file_headers(self, plan: FilePlan) -> dict[str, str]:
        return {"content-type": plan.media_type, "cache-control": SHARED, "etag": plan.etag, **self._cors}


def _number(exchange: Exchange, name: str, default: int) -> int:
    text = exchange.query.get(name, str(default))
    if not text.isascii() or not text.isdigit() or len(text) > 15:  # noqa: PLR2004 - far above any log
        raise RefusedError(f"{name} must be a whole number", status=400, reason="bad_query")
    return int(text)


def _brief(data: bytes | None, media_type: str, absent: str) -> Answer:
    if not data:
        raise RefusedError(absent, status=503, retry_after_s=5, reason="not_ready")
    headers = {"content-type": media_type, "cache-control": BRIEF, "etag": content_tag(data)}
    return Answer(200, headers, data)
