"""A batch: many blocks made on this box on their way into the store, in groups and durably.

One block at a time pays for a transaction of the index and for syncing two folders. A batch writes
blocks as drafts and brings them in by groups, in threads of its own while the next ones are hashed:
the drafts are synced, one transaction announces all of them, they are renamed to their places. Every
thousand blocks, and at the end, each folder is synced once; only then their rows may say whole.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple, Self

from ...protocol.cid import Bytes, Cid
from ...protocol.errors import StoreFullError

GROUP_BLOCKS = 32
"""Blocks that one transaction brings in."""
GROUPS_LIMIT = 4
"""Groups written but not yet durable: beyond this ``put`` waits for the disk."""
ANCHOR_BLOCKS = 1_024
"""Blocks that a crash leaves to be hashed again at most."""
_WORKERS = 2


class Written(NamedTuple):
    """A block in a draft, with room reserved for it; ``tier`` 0 for blocks made on this box."""

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
    """Brings drafts in, their bytes on the disk; returns what to ``anchor``."""
    anchor: Callable[[dict[bytes, int]], object]
    """Brings the names of what has landed to the disk."""
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
        self._waiting = threading.Lock()
        self._keys: set[bytes] = set()
        self._group: list[Written] = []
        self._slots = threading.BoundedSemaphore(GROUPS_LIMIT)
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="batch")
        self._landed: dict[bytes, int] = {}
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
            group = self._group if len(self._group) >= GROUP_BLOCKS else []
            if group:
                self._group = []
        self._send(group)
        return True

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Bring in what is left, or give it up where the block raised; then wait for the disk."""
        group, self._group = self._group, []
        if kind is None:
            self._send(group)
        else:
            self._harbour.sink(group)
        self._pool.shutdown()
        if kind is not None:
            return
        if self._error is not None:
            raise self._error
        self._harbour.anchor(self._landed)

    def _write(self, cid: Cid, data: Bytes) -> Written:
        try:
            return self._harbour.write(cid, data)
        except StoreFullError:
            self._wait()  # what has landed may be evicted, what is on its way may not
            return self._harbour.write(cid, data)

    def _wait(self) -> None:
        """Return when every block taken so far has landed."""
        with self._lock:
            group, self._group = self._group, []
        self._send(group)
        with self._waiting:
            for _ in range(GROUPS_LIMIT):
                self._slots.acquire()
            self._slots.release(GROUPS_LIMIT)

    def _send(self, group: list[Written]) -> None:
        if group:
            self._slots.acquire()
            self._pool.submit(self._land, group)

    def _land(self, group: list[Written]) -> None:
        anchored: dict[bytes, int] = {}
        try:
            if self._error is not None:
                self._harbour.sink(group)
                return
            landed = self._harbour.land(group)
            with self._lock:
                self._landed |= landed
                if len(self._landed) >= ANCHOR_BLOCKS:
                    anchored, self._landed = self._landed, {}
            if anchored:
                self._harbour.anchor(anchored)
        except BaseException as error:  # noqa: BLE001 - raised where the caller is
            self._error = error
        finally:
            self._slots.release()
