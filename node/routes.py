"""The public routes every box answers: blocks, titles, trust, catalog, beacons, acks, health."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from ..protocol import car
from ..protocol.catalog import ENTRIES_PER_PAGE
from ..protocol.cid import Cid
from ..protocol.codec import encode
from ..protocol.errors import RefusedError
from ..protocol.unixfs import parse, resolve
from .blocks.store import DiskStore
from .catalog.library import Library
from .catalog.replica import Heads
from .http.exchange import Answer, Exchange, FilePart, Router
from .readyanswers import ReadyAnswers

IMMUTABLE = "public, max-age=29030400, immutable"
BRIEF = "public, max-age=5"
RAW = "application/vnd.ipld.raw"
CAR = "application/vnd.ipld.car"
MSGPACK = "application/vnd.farcast+msgpack"
PROBE = "bafkqaaa"
CAR_BLOCKS = 400_000

Fill = Callable[[Cid, str | None], Awaitable[bytes]]


class PublicRoutes:
    """Serves what the store holds; with ``fill`` a GET may bring in what is missing.

    ``trust_files`` returns the TUF metadata by name; ``acks`` the signed acks for a ticket id.
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
    ) -> None:
        self._store = store
        self._library = library
        self._heads = heads
        self._fill = fill
        self._trust_files = trust_files
        self._acks = acks
        ready = ReadyAnswers(store, heads, self._raw_held, self._file_held)
        self.lookup, self.epoch = ready.lookup, ready.epoch  # the byte server's fast path
        self._cors = {"access-control-allow-origin": "*"} if cors else {}

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
        """``GET /ipfs/{cid}[/path]``: one raw block or a CAR (trustless gateway specification)."""
        form = _format(exchange.query, exchange.headers.get("accept", ""))
        if form is None:
            message = "this is a trustless gateway: ask with ?format=raw or ?format=car"
            raise RefusedError(message, status=400, reason="no_format")
        cid = Cid.parse(exchange.match["cid"])
        title = exchange.headers.get("farcast-title")
        absent = 404 if exchange.method == "HEAD" else None  # HEAD answers without filling
        if "only-if-cached" in exchange.headers.get("cache-control", ""):
            absent = 412
        path = [part for part in exchange.match.get("path", "").split("/") if part]
        if path:
            cid = await self._library.walk(lambda load: resolve(cid, path, load), self._filler(title, absent))
        if form == "raw":
            return await self._raw(cid, title, absent)
        await self._filler(title, absent)(cid)
        scope = exchange.query.get("dag-scope", "all")
        headers = {
            "content-type": f"{CAR}; version=1; order=dfs; dups=n",
            "content-disposition": f'attachment; filename="{cid}.car"',
            "x-content-type-options": "nosniff",
            "accept-ranges": "none",
            "cache-control": IMMUTABLE,
            "etag": f'W/"{cid}.car.{scope}"',
            **self._cors,
        }
        return Answer(200, headers, self._car(cid, title, whole=scope != "block"))

    async def watch(self, exchange: Exchange) -> Answer:
        """``GET /watch/{title}/{file}``: a file of a title, from verified blocks."""
        title, path = exchange.match["title"], exchange.match["path"]

        async def fetch(cid: Cid) -> bytes:
            return await self._fill(cid, title)

        plan = await self._library.plan(title, path, fetch)
        if exchange.method != "HEAD":
            await self._mend([leaf.cid for leaf in plan.leaves])
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

    def _filler(self, title: str | None, absent: int | None) -> Callable[[Cid], Awaitable[bytes]]:
        """Return what brings a block: the fill, or, where none is allowed, a refusal ``absent``."""

        async def fetch(cid: Cid) -> bytes:
            if absent is not None and not self._store.has(cid):
                raise RefusedError(f"{cid} is not held here", status=absent, reason="not_held")
            return await self._fill(cid, title)

        return fetch

    async def _raw(self, cid: Cid, title: str | None, absent: int | None) -> Answer:
        if cid.is_identity:
            return Answer(200, self._raw_headers(cid), cid.digest)
        await self._mend([cid])
        held = self._raw_held(cid)
        if held is None:
            data = await self._filler(title, absent)(cid)
            return self._raw_held(cid) or Answer(200, self._raw_headers(cid), data)
        return held

    async def _mend(self, cids: Sequence[Cid]) -> None:
        """Drop blocks whose file is gone or has another size, so that they are fetched again."""
        for cid in cids:
            place = None if cid.is_identity else self._store.path(cid)
            if place is not None and not _is_whole(*place):
                await asyncio.to_thread(self._store.recheck, cid)

    def _raw_held(self, cid: Cid) -> Answer | None:
        place = self._store.path(cid)
        if place is None:
            return None
        path, size = place
        return Answer(200, self._raw_headers(cid), [FilePart(str(path), 0, size)])

    def _raw_headers(self, cid: Cid) -> dict[str, str]:
        return {
            "content-type": RAW,
            "content-disposition": f'attachment; filename="{cid}.bin"',
            "x-content-type-options": "nosniff",
            "x-ipfs-path": f"/ipfs/{cid}",
            "x-ipfs-roots": str(cid),
            "cache-control": IMMUTABLE,
            "etag": f'"{cid}.raw"',
            **self._cors,
        }

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

    async def _car(self, root: Cid, title: str | None, *, whole: bool) -> AsyncIterator[bytes]:
        """Yield a CAR depth first, every block once; a missing child ends the stream abnormally."""
        yield car.header([root])
        seen: set[Cid] = set()
        todo = [root]
        while todo:
            cid = todo.pop()
            if cid in seen or cid.is_identity:
                continue
            if len(seen) >= CAR_BLOCKS:
                raise RefusedError("a CAR of more blocks than any film", status=502, reason="too_large")
            seen.add(cid)
            data = await self._fill(cid, title)
            yield car.section(cid, data)
            if whole:
                todo += [link.cid for link in reversed(parse(cid, data).links)]


def _is_whole(path: str, size_bytes: int) -> bool:
    try:
        return os.stat(path).st_size == size_bytes  # noqa: PTH116 - the hot path's strings
    except OSError:
        return False


def _format(query: dict[str, str], accept: str) -> str | None:
    """Return ``raw`` or ``car``; the parameter wins over Accept (IPIP-523)."""
    asked = query.get("format")
    if asked in ("raw", "car"):
        return asked
    if asked is not None:
        return None
    return "raw" if RAW in accept else "car" if CAR in accept else None


def _number(exchange: Exchange, name: str, default: int) -> int:
    text = exchange.query.get(name, str(default))
    if not text.isascii() or not text.isdigit() or len(text) > 15:  # noqa: PLR2004 - far above any log
        raise RefusedError(f"{name} must be a whole number", status=400, reason="bad_query")
    return int(text)


def _brief(data: bytes | None, media_type: str, absent: str) -> Answer:
    if not data:
        raise RefusedError(absent, status=503, retry_after_s=5, reason="not_ready")
    return Answer(200, {"content-type": media_type, "cache-control": BRIEF}, data)
