"""The trustless gateway: ``GET /ipfs/{cid}[/path]`` for blocks and CARs (trustless gateway specification).

It answers from the store; with a fill that may bring what a catalog root reaches, never anything
else, and for nobody who asks with HEAD or only-if-cached. A CAR is streamed, one block in memory at
a time; where one of its blocks does not come, the answer ends abnormally.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from ...protocol import car
from ...protocol.cid import CBOR, DAG_CBOR, DAG_JSON, DAG_PB, JSON, RAW, Cid
from ...protocol.errors import RefusedError, RemoteError
from ...protocol.traversal import READABLE, Place, Selection, Walk, resolution, size_of
from ..blocks.store import DiskStore
from ..http.exchange import Answer, Exchange, FilePart, Router
from ..http.head import Head
from .headers import block_headers, car_headers, with_path
from .terms import Terms

CARS_AT_ONCE = 64
WALKED_LIMIT = 1 << 20
"""Blocks that all CARs under way may have behind them together: each is remembered until its CAR ends."""
CAR_RETRY_S = 2.0
IN_THREAD_BYTES = 32 << 10
"""A node larger than this is not parsed on the event loop."""

Fill = Callable[[Cid, str | None], Awaitable[bytes]]
Denied = Callable[[Cid], bool]

T = TypeVar("T")
_CODECS = (RAW, DAG_PB, DAG_CBOR, DAG_JSON, CBOR, JSON)


class _Errand(NamedTuple):
    """How blocks are brought for one request: for which title, and the refusal where none may be."""

    title: str | None
    absent: int | None


class TrustlessGateway:
    """Serves blocks and CARs; ``denied`` says what this box refuses to serve."""

    def __init__(
        self,
        store: DiskStore,
        fill: Fill,
        denied: Denied = lambda _: False,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Serve ``store``; ``headers`` are added to every answer."""
        self._store = store
        self._fill = fill
        self._denied = denied
        self._headers = dict(headers or {})
        self._cars = 0
        self._walked = 0

    def add_to(self, router: Router) -> None:
        """Add the gateway's routes to ``router``."""
        router.route("GET", "/ipfs/{cid}", self.answer)
        router.route("GET", "/ipfs/{cid}/{path...}", self.answer)

    def lookup(self, head: Head) -> Answer | None:
        """Answer at once where one raw block is asked for that is held: the byte server's fast path."""
        if head.query != "format=raw" or not head.path.startswith("/ipfs/") or "%" in head.path:
            return None
        try:
            cid = Cid.parse(head.path[6:])
        except RemoteError:
            return None
        return None if cid.is_identity else self.held(cid, head.path[6:])

    def held(self, cid: Cid, named: str = "") -> Answer | None:
        """Answer a raw block that is held and not denied, without touching the disk; None for all else."""
        place = self._store.path(cid)
        if place is None or self._denied(cid):
            return None
        headers = with_path(block_headers(cid), (), (cid,), named=named) | self._headers
        return Answer(200, headers, [FilePart(str(place[0]), 0, place[1])])

    async def answer(self, exchange: Exchange) -> Answer:
        """``GET /ipfs/{cid}[/path]``, and HEAD.

        Raises:
            RefusedError: 400 for what cannot be meant, 404 for what is not here, 406 for a form it
                has not got, 410 for what is denied, 412 where only-if-cached asks for what is not
                held, 429 for one CAR too many; and what the fill raises.

        """
        terms = Terms.of(exchange.query, exchange.headers.get("accept", ""))
        root = Cid.parse(exchange.match["cid"])
        path = [part for part in exchange.match.get("path", "").split("/") if part]
        absent = 404 if exchange.method == "HEAD" else None
        if "only-if-cached" in exchange.headers.get("cache-control", "").lower():
            absent = 412
        errand = _Errand(exchange.headers.get("farcast-title"), absent)
        if terms.name == "car":
            return await self._car(exchange, root, path, terms, errand)
        return await self._block(exchange, root, path, terms, errand)

    # -- one block

    async def _block(
        self, exchange: Exchange, root: Cid, path: Sequence[str], terms: Terms, errand: _Errand
    ) -> Answer:
        place = await self._resolve(root, path, errand)
        cid = place.cid
        if place.inside is not None:
            message = f"the path ends within the block {cid}; ask for it with ?format=car, or for the block"
            raise RefusedError(message, status=404, reason="within_a_block")
        if terms.form.codec not in (None, cid.codec):
            message = f"{cid} is in another codec than {terms.name}; ask with ?format=raw and convert it"
            raise RefusedError(message, status=406, reason="other_codec")
        self._check(cid)
        headers = block_headers(cid, terms, name=exchange.query.get("filename", ""))
        headers = with_path(
            headers, path, place.roots,
            named=exchange.match["cid"], location=terms.location, here=exchange.path,
        ) | self._headers  # fmt: skip
        if cid.is_identity:
            return Answer(200, headers, cid.digest)
        if exchange.method != "HEAD":
            await self.mend([cid])
        part = self._part(cid)
        if part is None:
            data = await self._bring(cid, errand)
            part = self._part(cid)
            if part is None:  # the disk is full: it could not be kept
                return Answer(200, headers, data)
        return Answer(200, headers, [part])

    async def mend(self, cids: Sequence[Cid]) -> None:
        """Drop blocks whose file is gone or has another size, so that they are fetched again."""
        for cid in cids:
            place = None if cid.is_identity else self._store.path(cid, use=False)
            if place is not None and not _is_whole(*place):
                await asyncio.to_thread(self._store.recheck, cid)

    def _part(self, cid: Cid) -> FilePart | None:
        held = self._held_as(cid)
        place = None if held is None else self._store.path(held)
        return None if place is None else FilePart(str(place[0]), 0, place[1])

    # -- a CAR

    async def _car(
        self, exchange: Exchange, root: Cid, path: Sequence[str], terms: Terms, errand: _Errand
    ) -> Answer:
        if exchange.method == "HEAD" and errand.absent == 412:  # noqa: PLR2004 - only-if-cached: the index alone
            self._check(root)
            self._must_hold(root, errand.absent)
            roots: Sequence[Cid] = (root,)
        else:
            roots = await self._promise(exchange.method, root, path, terms, errand)
        headers = car_headers(root, path, terms, name=exchange.query.get("filename", ""))
        headers = with_path(
            headers, path, roots,
            named=exchange.match["cid"], location=terms.location, here=exchange.path,
        ) | self._headers  # fmt: skip
        if self._cars >= CARS_AT_ONCE or self._walked >= WALKED_LIMIT:
            raise _too_many()
        return Answer(200, headers, self._sections(root, path, terms, errand))

    async def _promise(
        self, method: str, root: Cid, path: Sequence[str], terms: Terms, errand: _Errand
    ) -> Sequence[Cid]:
        """Have the path and the block at its end here before 200 is said; returns the path's roots."""
        place = await self._resolve(root, path, errand)
        cid = place.cid
        self._check(cid)
        if terms.scope == "all" and cid.codec not in READABLE:
            message = f"the links of {cid} cannot be read here; ask with dag-scope=block"
            raise RefusedError(message, status=400, reason="unknown_codec")
        if method == "HEAD" and terms.span is None:
            self._must_hold(cid, errand.absent or 404)
            return place.roots
        data = await self._bring(cid, errand)
        size = size_of(cid, data) if terms.span is not None else None
        if size and terms.span is not None and _outside(terms.span.first, terms.span.last, size):
            message = f"entity-bytes lies outside of the {size} bytes that are there"
            raise RefusedError(message, status=400, reason="bad_query")
        return place.roots

    async def _sections(
        self, root: Cid, path: Sequence[str], terms: Terms, errand: _Errand
    ) -> AsyncIterator[bytes]:
        self._cars += 1
        walked = 0
        try:
            yield car.header([root])
            walk = Selection(root, path, terms.scope, span=terms.span, dups=terms.dups)
            while walk.wants is not None:
                cid, fresh = walk.wants, walk.fresh
                walked += 1
                self._walked += 1
                if self._walked > WALKED_LIMIT:
                    raise _too_many()
                data = await self._bring(cid, errand)
                if fresh:
                    yield car.section(cid, data)
                await _give(walk, data)
        finally:
            self._cars -= 1
            self._walked -= walked

    # -- blocks for a walk

    async def _resolve(self, root: Cid, path: Sequence[str], errand: _Errand) -> Place:
        data: bytes | None = None
        walk: Walk[Place] | None = None
        while True:
            try:
                if walk is None or data is None:
                    walk = resolution(root, path)
                else:
                    await _give(walk, data)
            except RemoteError as error:
                status = 400 if error.reason == "unknown_codec" else 404
                raise RefusedError(str(error), status=status, reason=error.reason) from error
            if walk.wants is None:
                return walk.result
            data = await self._bring(walk.wants, errand)

    async def _bring(self, cid: Cid, errand: _Errand) -> bytes:
        """Return a block, verified, from the store or, where that is allowed, by the fill."""
        self._check(cid)
        if cid.is_identity:
            return cid.digest
        held = self._held_as(cid)
        if held is not None:
            data = await asyncio.to_thread(self._store.get, held)
            if data is not None:  # else it was damaged, is dropped, and comes anew
                return data
        if errand.absent is not None:
            self._must_hold(cid, errand.absent)
        return await self._fill(cid, errand.title)

    def _held_as(self, cid: Cid) -> Cid | None:
        """Return the CID under which these bytes are held: a block is its multihash, whatever the codec."""
        if self._store.has(cid):
            return cid
        others = (Cid(codec, cid.digest, cid.hash_code) for codec in _CODECS)
        found = next((other for other in others if self._store.has(other)), None)
        if found is not None:
            self._check(found)
        return found

    def _must_hold(self, cid: Cid, absent: int) -> None:
        if self._held_as(cid) is None:
            raise RefusedError(f"{cid} is not held here", status=absent, reason="not_held")

    def _check(self, cid: Cid) -> None:
        if self._denied(cid):
            message = f"{cid} was taken down; this box does not serve it"
            raise RefusedError(message, status=410, reason="denied")


def _too_many() -> RefusedError:
    message = "this box sends as many CARs as it can; ask for single blocks, or again soon"
    return RefusedError(message, status=429, retry_after_s=CAR_RETRY_S, reason="too_many_cars")


async def _give(walk: Walk[T], data: bytes) -> None:
    if len(data) <= IN_THREAD_BYTES or walk.wants is None or walk.wants.codec == RAW:
        walk.give(data)
    else:
        await asyncio.to_thread(walk.give, data)


def _outside(first: int, last: int | None, size: int) -> bool:
    """Say whether a range lies wholly before or behind a file's bytes."""
    return first >= size or (last is not None and last < -size)


def _is_whole(path: str, size_bytes: int) -> bool:
    try:
        found = os.lstat(path)  # a link in the store is nobody's block
        return stat.S_ISREG(found.st_mode) and found.st_size == size_bytes
    except OSError:
        return False
