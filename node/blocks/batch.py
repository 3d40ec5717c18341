"""A batch: many blocks made on this box on their way into the store, in groups and durably.

One block at a time pays for a transaction of the index and for syncing a file and two folders. A
batch writes blocks as drafts and brings them in by groups: one transaction announces all of them,
they are renamed to their places. Every thousand blocks, and at the end, files and folders are synced
all at a time; only then their rows may say whole.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

from ...protocol.cid import Bytes, Cid
from ...protocol.errors import StoreFullError

GROUP_BLOCKS = 32
"""Blocks that one transaction brings in."""
ANCHOR_BLOCKS = 1_024
"""Blocks that a crash leaves to be hashed again at most."""
ANCHOR_BYTES = 512 << 20
"""Bytes that may lie in the system's cache before they are synced."""


class Written(NamedTuple):
    """A block in a draft on the disk, with room reserved for it; ``tier`` 0 for blocks made on this box."""

    cid: Cid
    key: bytes
    draft: str
    size_bytes: int
    tier: int


class Harbour(NamedTuple):
    """What a batch asks of its store; all of it may be called from any thread."""

    verify: Callable[[Cid, Bytes, bool], bool]
    """Says whether a block is welcome, that is not here yet; raises as ``BlockStore.put``."""
    write: Callable[[Cid, Bytes], Written]
    """Reserves room and writes a draft; raises ``StoreFullError``."""
    land: Callable[[list[Written]], dict[bytes, int]]
    """Brings drafts in; returns what to ``anchor``."""
    anchor: Callable[[dict[bytes, int]], object]
    """Brings what has landed to the disk; raises where the disk does not keep it."""
    sink: Callable[[list[Written]], object]
    """Deletes drafts and gives up their room."""


class Batch:
    """Blocks on their way in; use as ``with store.batch() as batch``, from any thread.

    The store has a block once its group has landed; after the ``with`` block all are there. Where it
    raises, what has not landed is given up.
    """

    def __init__(self, harbour: Harbour) -> None:
        self._harbour = harbour
        self._lock = threading.Lock()
        self._landing = threading.Lock()
        self._keys: set[bytes] = set()
        self._group: list[Written] = []
        self._landed: dict[bytes, int] = {}
        self._landed_bytes = 0
        self._error: BaseException | None = None

    def put(self, cid: Cid, data: Bytes, *, hashed: bool = False) -> bool:
        """Verify and take a block; True where neither store nor batch had it.

        Raises:
            RemoteError: ``hash_mismatch``, ``too_large``.
            StoreFullError: no room, for this block or for one of an earlier group.

        """
        if not self._harbour.verify(cid, data, hashed):
            return False
        key = cid.encode()
        with self._lock:
            if self._error is not None:
                raise self._error
            if key in self._keys:
                return False
            self._keys.add(key)
        try:
            written = self._write(cid, data)
        except BaseException:
            with self._lock:
                self._keys.discard(key)
            raise
        with self._lock:
            self._group.append(written)
            full = len(self._group) >= GROUP_BLOCKS
        if full:
            self._land(GROUP_BLOCKS)
        return True

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Bring in what is left, or give it up where the block raised."""
        if kind is not None or self._error is not None:
            self._harbour.sink(self._group)
        if kind is not None:
            return
        if self._error is not None:
            raise self._error
        self._land()
        self._harbour.anchor(self._landed)

    def _write(self, cid: Cid, data: Bytes) -> Written:
        try:
            return self._harbour.write(cid, data)
        except StoreFullError:
            self._land()  # what has landed may be evicted, what is on its way may not
            return self._harbour.write(cid, data)

    def _land(self, least_blocks: int = 1) -> None:
        """Bring in what was written, unless another thread did that meanwhile."""
        with self._landing:
            with self._lock:
                if len(self._group) < least_blocks:
                    return
                group, self._group = self._group, []
            try:
                self._landed |= self._harbour.land(group)
                self._landed_bytes += sum(written.size_bytes for written in group)
                if len(self._landed) >= ANCHOR_BLOCKS or self._landed_bytes >= ANCHOR_BYTES:
                    self._harbour.anchor(self._landed)
                    self._landed, self._landed_bytes = {}, 0
            except BaseException as error:
                self._error = error
                raise
