"""The hot set: blocks asked for again and again, kept in memory under a bound (S3-FIFO).

Used where a body passes through Python anyhow: HTTP/3, TLS and what aiohttp carries. Plain TCP sends
files by sendfile, which copies nothing. A block gets in after a few uses, read and
hashed once in a thread; afterwards it is sent as it is. A block that has left the store is never
looked for here, because nothing names it any more; ``sweep`` frees its memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from ...protocol.cid import Cid
from ...protocol.errors import RemoteError
from ..blocks.s3fifo import S3Fifo

USES = 3
"""A block is read into memory when it is asked for so often within the newest ``ASKED_KEPT`` others."""
ASKED_KEPT = 4_096
LARGEST_BYTES = 2 << 20
_LOADING = 4
_ROOM = 8
"""One part in so many of the quota is for what a block costs beside its bytes, and for those on their way."""
_NEVER = -1


class HotSet:
    """Blocks in memory by the path of their file, whose name is the block's CID."""

    def __init__(self, quota_bytes: int, damaged: Callable[[Cid], object] = lambda _: None) -> None:
        """Cost at most ``quota_bytes``, seven eighths of them blocks.

        ``damaged`` is told, in a thread, of a file that is not its CID.
        """
        self.hits = 0
        self.misses = 0
        self._fifo = S3Fifo[str](quota_bytes - quota_bytes // _ROOM)
        self._held: dict[str, bytes] = {}
        self._cids: dict[str, Cid] = {}
        self._asked: dict[str, int] = {}
        self._swept: object = None
        self._damaged = damaged
        self._loads: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def asked(self) -> int:
        """How many names of blocks are remembered that may get in."""
        return len(self._asked)

    @property
    def held_bytes(self) -> int:
        """Bytes of the blocks held."""
        return self._fifo.held_bytes

    def find(self, path: str) -> bytes | None:
        """Return the block in file ``path``, counting the use; None where it is not here (yet)."""
        data = self._held.get(path)
        if data is not None:
            self._fifo.hit(path)
            self.hits += 1
            return data
        self.misses += 1
        uses = self._asked.get(path, 0)
        if uses == _NEVER:
            return None
        if uses + 1 < USES and not self._fifo.wanted(path):
            if len(self._asked) >= ASKED_KEPT:
                self._asked.clear()
            self._asked[path] = uses + 1
        elif len(self._loads) < _LOADING:
            self._asked[path] = _NEVER  # until it is here
            load = asyncio.get_running_loop().create_task(self._load(path))
            self._loads.add(load)
            load.add_done_callback(self._loads.discard)
        return None

    def drop(self, path: str) -> None:
        """Let go of the block in file ``path``."""
        self._fifo.discard(path)
        self._let_go(path)

    def sweep(self, held: Callable[[Cid], bool], epoch: object) -> None:
        """Let go of blocks that ``held`` does not know any more; looks only where ``epoch`` is new."""
        if epoch != self._swept:
            self._swept = epoch
            for path in [path for path, cid in self._cids.items() if not held(cid)]:
                self.drop(path)

    async def close(self) -> None:
        """Let go of everything."""
        for load in self._loads:
            load.cancel()
        await asyncio.gather(*self._loads, return_exceptions=True)
        for path in list(self._held):
            self.drop(path)

    async def _load(self, path: str) -> None:
        found = await asyncio.to_thread(self._read, path)
        if found is None:
            return
        cid, data = found
        for gone in self._fifo.insert(path, len(data)):
            self._let_go(gone.key)
        if path in self._fifo:
            self._held[path], self._cids[path] = data, cid
            self._swept = None  # it may have left the store while it was read

    def _let_go(self, path: str) -> None:
        """Give up a block that the queue has evicted; its ghost stays."""
        self._held.pop(path, None)
        self._cids.pop(path, None)
        self._asked.pop(path, None)

    def _read(self, path: str) -> tuple[Cid, bytes] | None:
        try:
            cid = Cid.parse(path.rpartition("/")[2])
            with Path(path).open("rb", buffering=0) as file:
                data = file.read(LARGEST_BYTES + 1)
        except (RemoteError, OSError):
            return None
        if len(data) > LARGEST_BYTES:
            return None
        if not cid.matches(data):
            self._damaged(cid)
            return None
        return cid, data
