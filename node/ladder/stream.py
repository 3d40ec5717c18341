"""A file of a title as it arrives: each block is sent once it is verified, while the next are fetched.

What the store keeps is read from its file piece by piece, so a slow reader holds one piece and no
block; only what the store had no room for is held, by few streams at a time.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import NamedTuple

from ...protocol.cid import RAW, Cid
from ...protocol.errors import RefusedError, RemoteError
from ...protocol.unixfs import Leaf, content
from ..blocks.store import DiskStore

AHEAD = 3
"""Blocks fetched at once behind the one being sent; the first is fetched alone, so that it is soon here."""
PIECE_BYTES = 128 << 10
HELD_BLOCKS = 16
"""Blocks that all streams together may hold in memory while the disk takes none."""
HELD_WAIT_S = 10.0

Fetch = Callable[[Cid], Awaitable[bytes]]


class Piece(NamedTuple):
    """What a stream needs of one leaf: ``length`` bytes of its file bytes from ``skip`` on."""

    leaf: Leaf
    skip: int
    length: int


def pieces(leaves: Sequence[Leaf], first: int, length: int) -> list[Piece]:
    """Return what of ``leaves`` lies in ``length`` bytes from byte ``first`` of the file."""
    found: list[Piece] = []
    for leaf in leaves:
        skip = max(first - leaf.offset, 0)
        end = min(first + length - leaf.offset, leaf.size)
        if skip < end:
            found.append(Piece(leaf, skip, end - skip))
    return found


class Streams:
    """Makes the bodies of answers whose blocks are not all here yet; one for each box."""

    def __init__(self, store: DiskStore) -> None:
        self._store = store
        self._room = asyncio.Semaphore(HELD_BLOCKS)

    async def open(self, wanted: Sequence[Piece], fetch: Fetch) -> AsyncGenerator[bytes, None]:
        """Return the bytes of ``wanted``, once the first block is here; the others come on the way.

        Whatever ``fetch`` raises for a later block ends the iteration by that error.

        Raises:
            RemoteError: what ``fetch`` raises for the first block.

        """
        unkept = b""
        if wanted and not self._store.has(wanted[0].leaf.cid):
            unkept = await fetch(wanted[0].leaf.cid)
        return self._send(wanted, fetch, unkept)

    async def _send(
        self, wanted: Sequence[Piece], fetch: Fetch, unkept: bytes
    ) -> AsyncGenerator[bytes, None]:
        loop = asyncio.get_running_loop()
        coming: deque[asyncio.Task[bool]] = deque()
        keeps = True
        try:
            for at, piece in enumerate(wanted):
                if at and coming:
                    keeps = await coming.popleft()
                if keeps:  # what the disk does not take is not fetched before it can be sent
                    for one in wanted[at + 1 + len(coming) : at + 1 + AHEAD]:
                        coming.append(loop.create_task(self._bring(one.leaf.cid, fetch)))
                async for data in self._read(piece, fetch, unkept):
                    yield data
                unkept = b""
        finally:
            for task in coming:
                task.cancel()
            await asyncio.gather(*coming, return_exceptions=True)

    async def _bring(self, cid: Cid, fetch: Fetch) -> bool:
        """Have a block fetched into the store; False where the store did not keep it."""
        if not self._store.has(cid):
            await fetch(cid)
        return self._store.has(cid)

    async def _read(self, piece: Piece, fetch: Fetch, unkept: bytes) -> AsyncGenerator[bytes, None]:
        cid = piece.leaf.cid
        if cid.codec == RAW and not cid.is_identity and (place := self._store.path(cid)) is not None:
            try:
                fd = await asyncio.to_thread(os.open, place[0], os.O_RDONLY)
            except FileNotFoundError:
                fd = -1  # evicted since: it is fetched again
            if fd >= 0:
                try:
                    async for data in _file(fd, piece):
                        yield data
                finally:
                    os.close(fd)
                return
        try:
            async with asyncio.timeout(HELD_WAIT_S):
                await self._room.acquire()
        except TimeoutError:
            message = "the disk keeps no more blocks and memory is full of others; try again"
            raise RefusedError(message, status=503, retry_after_s=5, reason="no_room") from None
        try:
            held = None if unkept else await asyncio.to_thread(self._store.get, cid)
            block = unkept or held or await fetch(cid)
            body = content(piece.leaf, block)
            for at in range(piece.skip, piece.skip + piece.length, PIECE_BYTES):
                yield body[at : min(at + PIECE_BYTES, piece.skip + piece.length)]
        finally:
            self._room.release()


async def _file(fd: int, piece: Piece) -> AsyncGenerator[bytes, None]:
    offset, end = piece.skip, piece.skip + piece.length
    while offset < end:
        data = await asyncio.to_thread(os.pread, fd, min(PIECE_BYTES, end - offset), offset)
        if not data:
            raise RemoteError(f"the block {piece.leaf.cid} was cut short on this disk", reason="truncated")
        yield data
        offset += len(data)
