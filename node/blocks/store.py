"""The block store: verified blocks as files under a quota; S3-FIFO says which leave first.

A block is written to ``blocks/.tmp``, its index row committed as *arriving*, and the file then
renamed to ``blocks/ab/<cid>`` (``ab``: the digest's first byte in hex). The row becomes *whole* only
after file and folder are on the disk; a block to evict becomes *leaving* before its file goes.
Whatever moment the process or the machine dies at, the rows that are not *whole* name every file
that needs a second look at the next start, and nothing else is read then. ``batch`` does the same
for many blocks at once.

Look-ups (``has``, ``path``) touch neither lock nor disk; hashing, writing and syncing files happen
outside the lock; under it are only renames and index commits. Over 400 lines because every method
keeps the same few invariants between index, files and memory.
"""

from __future__ import annotations

import errno
import itertools
import shutil
import threading
from collections.abc import Callable, Container, Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge

from ...protocol.cid import Bytes, Cid
from ...protocol.errors import LocalError, RemoteError, StoreFullError
from ...protocol.ports import BlockStore, TierName
from .batch import Batch, Harbour, Written
from .blockfiles import BLOCK_LIMIT_BYTES, BlockFiles, give_way
from .index import Arriving, BlockIndex, Brought, State
from .s3fifo import Place, Queue, S3Fifo

SPARE_BYTES = 64 << 20  # of disk space are left free for the databases beside the blocks
UNSYNCED_BLOCKS = 128  # of the newest may wait for their fsync; after a crash they are hashed again
_SETTLED = 32
_AHEAD_BYTES = 16 << 20
"""Evicted beyond the need, but of no store more than a 64th part: one transaction for many arrivals."""
_AHEAD_FROM_BYTES = 64 << 20
"""Of a smaller store nothing leaves ahead."""
_QUEUES = (Queue.SMALL, Queue.MAIN)  # as the index numbers them
_FLAT = "flat"
_SHA2_256_BYTES = 32  # the fourth byte of nearly every key; the digest follows it
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Metrics:
    """What the store tells Prometheus."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.bytes = Gauge("farcast_node_store_bytes", "Bytes of blocks held.", registry=registry)
        self.blocks = Gauge("farcast_node_store_blocks", "Blocks held.", registry=registry)
        self.quota = Gauge("farcast_node_store_quota_bytes", "Bytes that blocks may take.", registry=registry)
        self.evicted = Counter(
            "farcast_node_store_evicted_blocks", "Blocks dropped to make room.", registry=registry
        )
        self.corrupt = Counter(
            "farcast_node_store_corrupt_blocks", "Blocks found damaged or missing on disk.", registry=registry
        )
        self.refused = Counter(
            "farcast_node_store_refused_blocks",
            "Blocks not kept: pins fill the quota (store_full), no disk (disk_full), a disk that fails.",
            ["reason"],
            registry=registry,
        )
        for reason in ("store_full", "disk_full", "disk_failed"):
            self.refused.labels(reason)
        self.brought = Counter(
            "farcast_node_block_bytes", "Bytes of blocks first stored, by tier.", ["tier"], registry=registry
        )


class DiskStore(BlockStore):
    """The blocks of one home, which the caller has locked (``node/home.py``)."""

    def __init__(
        self,
        home: Path,
        quota_bytes: int,
        registry: CollectorRegistry,
        *,
        free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        """Open the store under ``home``, mend what a crash left and evict what is over the quota.

        Raises:
            LocalError: the index is damaged or cannot be used.

        """
        self.folder = home / "blocks"
        self.quota_bytes = quota_bytes
        self._free_bytes = free_bytes
        self._metrics = Metrics(registry)
        self._lock = threading.Lock()
        self._reserved = 0
        self._unsynced: dict[bytes, int] = {}
        self._used: dict[bytes, int] = {}
        self._files = BlockFiles(self.folder)
        self._index = BlockIndex(home / "index.db")
        if not self._index.note(_FLAT):
            self._files.flatten()
            self._index.keep_note(_FLAT, 1)
        self._mend()
        self._fifo = S3Fifo[bytes](quota_bytes, note_moves=True)
        self._recall()
        self.losses = 0
        """How many blocks left since the start: who remembers places of blocks looks again when it grows."""
        self._turns = itertools.count(self._index.newest_turn() + 1)
        self._brought = self._index.brought()
        for tier in TierName:  # every tier is a series from the start
            size = self._brought.setdefault(tier, Brought(0, 0)).bytes
            self._metrics.brought.labels(tier.label).inc(size)
        with self._lock:
            drafts = self._evict(self._fifo.held_bytes - quota_bytes)
            self._gauge()
        self._files.unlink(drafts)

    # -- look-ups: no lock, no disk

    def has(self, cid: Cid) -> bool:
        """Say whether the block is here; an identity CID always is, it carries its block."""
        return cid.is_identity or cid.encode() in self._fifo

    def path(self, cid: Cid, *, use: bool = True) -> tuple[str, int] | None:
        """Return the block's file and size in bytes, and count that as a ``use``; None where not held.

        The file may be evicted before it is opened: the opener treats that as a miss.
        """
        key = cid.encode()
        size = self._fifo.size(key)
        if size is None:
            return None
        if use:
            self._used[key] = self._used.get(key, 0) + 1
        return self._files.place(cid), size

    def size(self, cid: Cid) -> int | None:
        """Return a held block's size in bytes without counting a use."""
        return self._fifo.size(cid.encode())

    @property
    def held_bytes(self) -> int:
        """Bytes of all blocks held."""
        return self._fifo.held_bytes

    @property
    def pinned_bytes(self) -> int:
        """Bytes of the blocks held that are pinned."""
        return self._fifo.bytes_in(Queue.PINNED)

    @property
    def held_blocks(self) -> int:
        """How many blocks are held."""
        return len(self._fifo)

    def cids(self) -> list[Cid]:
        """Return every block held, in no order."""
        return [Cid.decode(key) for key in self._fifo.held_keys()]

    def bytes_by_tier(self) -> dict[TierName, Brought]:
        """Return what each tier first brought, evicted blocks included, since the home was made."""
        with self._lock:
            return {tier: self._brought[tier] for tier in TierName}

    # -- reading

    def get(self, cid: Cid) -> bytes | None:
        """Return the block, hashed again on the way out; a corrupt one is dropped and None returned."""
        if cid.is_identity:
            return cid.digest
        key = cid.encode()
        if key not in self._fifo:
            return None
        data = self._files.read(cid)
        if data is None or not cid.matches(data):
            self.recheck(cid)
            return None
        self._used[key] = self._used.get(key, 0) + 1
        return data

    def recheck(self, cid: Cid) -> bool:
        """Hash a block once more; False where it was damaged, and is now dropped and counted."""
        key = cid.encode()
        with self._lock:  # an eviction may have won a race against a reader; under the lock none can
            if key not in self._fifo:
                return True
            data = self._files.read(cid)
            if data is not None and cid.matches(data):
                return True
            self._metrics.corrupt.inc()
            drafts = self._remove([key])
        self._files.unlink(drafts)
        return False

    def check(self, cid: Cid) -> bool:
        """Hash a held block without counting a use; False where it was damaged and is now dropped."""
        data = self._files.read(cid)
        return (data is not None and cid.matches(data, give_way)) or self.recheck(cid)

    def held_in(self, folder: int) -> list[Cid]:
        """Return the blocks whose digests begin with the byte ``folder``: those that lie in one folder."""
        keys = self._fifo.held_keys()
        near = [key for key in keys if key[4] == folder or key[3] != _SHA2_256_BYTES]
        return [cid for cid in map(Cid.decode, near) if cid.digest[0] == folder]

    def note(self, name: str) -> int:
        """Return the number kept under ``name`` in the index, 0 where there is none."""
        with self._lock:
            return self._index.note(name)

    def keep_note(self, name: str, value: int) -> None:
        """Keep a number in the index for whoever works on the store at leisure."""
        with self._lock:
            self._index.keep_note(name, value)

    def adopt(self, cid: Cid) -> bool:
        """Take a file at a block's place that the index lost: True where it is the block, else it goes."""
        data = self._files.read(cid)
        if data is not None and cid.matches(data):
            return self.put(cid, data, hashed=True)
        with self._lock:
            if cid.encode() not in self._fifo:
                self._files.unlink([self._files.place(cid)])
        return False

    # -- writing

    def put(self, cid: Cid, data: bytes, *, tier: TierName | None = None, hashed: bool = False) -> bool:
        """Verify and keep a block; True where it was not here before.

        ``tier`` is the tier whose source brought it, None for blocks made on this box; ``hashed``
        says that the caller has just computed ``cid`` from these very bytes.

        Raises:
            RemoteError: ``hash_mismatch``, ``too_large``.
            StoreFullError: no room and nothing may be evicted, or the disk is full.

        """
        if not self._verify(cid, data, hashed):
            return False
        written = self._write(cid, data, tier)
        new = bool(self._bring([written]))
        give_way()
        if len(self._unsynced) > UNSYNCED_BLOCKS:
            self._settle_oldest()
        return new

    def batch(self) -> Batch:
        """Return a way to put many blocks made on this box; ``sync`` makes them durable as after ``put``."""
        return Batch(Harbour(self._verify, self._write_or_fail, self._bring, self._anchor, self._sink))

    def drop(self, cid: Cid) -> bool:
        """Remove a block, pinned or not; True where it was here."""
        key = cid.encode()
        with self._lock:
            if key not in self._fifo:
                return False
            drafts = self._remove([key])
        self._files.unlink(drafts)
        return True

    def sync(self) -> None:
        """Return when every block put so far is durable; call it before naming blocks to others."""
        while self._settle_oldest():
            pass
        left = True
        while left:
            with self._lock:
                self._count_uses()
                left = self._index.flush()
        self._index.sync()

    def close(self) -> None:
        """Make everything durable and close the index."""
        self.sync()
        with self._lock:
            self._index.keep_ghosts(self._fifo.ghost_sizes())
            self._index.close()

    # -- pins

    def pin(self, label: str, cids: Iterable[Cid]) -> None:
        """Keep these blocks from eviction under ``label``; those not here yet are pinned as they come."""
        keys = [cid.encode() for cid in cids]
        with self._lock:
            self._index.pin(label, keys)
            for key in keys:
                self._fifo.pin(key)
            self._note_moves()
        self._index.sync()

    def unpin(self, label: str) -> None:
        """Give up every pin of ``label``; what nothing else pins waits for eviction like a new block."""
        with self._lock:
            for key in self._index.unpin(label):
                self._fifo.unpin(key, Queue.SMALL)
            self._note_moves()

    def pinned(self) -> dict[str, list[Cid]]:
        """Return the pinned CIDs by label, held or not."""
        with self._lock:
            rows = self._index.pins()
        return {
            label: [Cid.decode(key) for _, key in group]
            for label, group in itertools.groupby(rows, key=lambda row: row[0])
        }

    def _mend(self) -> None:
        """Decide what a crash left open: finish evictions, keep arrivals that are whole, forget others."""
        for key, state in self._index.unsettled():
            cid = Cid.decode(key)
            data = self._files.read(cid) if state is State.ARRIVING else None
            if data is not None and cid.matches(data) and self._files.sync([cid]):
                self._index.settle(key)
            else:
                self._index.leave([key])
                self._files.unlink([self._files.place(cid)])
                self._index.depart([key])
        self._index.flush()

    def _recall(self) -> None:
        """Take up the queues where the last run left them."""
        for key, size_bytes in self._index.ghosts():
            self._fifo.restore_ghost(key, size_bytes)
        for row in self._index.rows():
            queue = Queue.PINNED if row.pins else _QUEUES[row.queue != 0]
            self._fifo.restore(row.key, Place(queue, row.size_bytes, row.frequency))

    def _verify(self, cid: Cid, data: Bytes, hashed: bool) -> bool:  # noqa: FBT001 - a batch's port
        """Say whether a block is welcome, that is not here yet."""
        if len(data) > BLOCK_LIMIT_BYTES:
            message = f"the block {cid} of {len(data)} bytes is over the limit of {BLOCK_LIMIT_BYTES}"
            raise RemoteError(message, reason="too_large")
        if not hashed and not cid.matches(data, give_way):
            raise RemoteError(f"bytes that are not the block {cid}", reason="hash_mismatch")
        return not self.has(cid)

    def _reserve(self, size_bytes: int) -> None:
        with self._lock:
            if size_bytes > self.quota_bytes - self._fifo.bytes_in(Queue.PINNED) - self._reserved:
                message = (
                    f"a block of {size_bytes} bytes finds no room in {self.folder}: pinned blocks fill the "
                    f"quota of {self.quota_bytes} bytes; raise [store] quota_bytes or drop a title"
                )
                self._metrics.refused.labels("store_full").inc()
                raise StoreFullError(message)
            short_bytes = size_bytes + SPARE_BYTES - self._free_bytes(self.folder)
            over_bytes = self._fifo.held_bytes + self._reserved + size_bytes - self.quota_bytes
            if over_bytes > 0 and self.quota_bytes >= _AHEAD_FROM_BYTES:
                over_bytes += min(_AHEAD_BYTES, self.quota_bytes >> 6)
            drafts = self._evict(max(short_bytes, over_bytes))
            if short_bytes > 0 and not drafts:
                message = (
                    f"the disk of {self.folder} has less than {SPARE_BYTES >> 20} MiB left, which the home's "
                    "databases need; make room on it"
                )
                self._metrics.refused.labels("disk_full").inc()
                raise StoreFullError(message, reason="disk_full")
            self._reserved += size_bytes
        self._files.unlink(drafts)

    def _write_or_fail(self, cid: Cid, data: Bytes) -> Written:
        """Write a draft; a disk that fails is named."""
        try:
            return self._write(cid, data)
        except OSError as error:
            raise self._disk_failed() from error

    def _write(self, cid: Cid, data: Bytes, tier: TierName | None = None) -> Written:
        """Reserve room and write a draft; where the disk is full, evict a little and try once more."""
        size_bytes = len(data)
        self._reserve(size_bytes)
        try:
            draft = self._draft(data)
        except BaseException:
            with self._lock:
                self._reserved -= size_bytes
            raise
        return Written(cid, cid.encode(), draft, size_bytes, int(tier or 0))

    def _draft(self, data: Bytes) -> str:
        try:
            return self._files.write(data)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            with self._lock:
                evicted = self._evict(len(data) + BLOCK_LIMIT_BYTES)
            self._files.unlink(evicted)
            try:
                return self._files.write(data)
            except OSError as again:
                raise self._disk_full() from again

    def _sink(self, group: list[Written]) -> None:
        """Delete drafts and give up the room that was kept for them."""
        with self._lock:
            self._reserved -= sum(written.size_bytes for written in group)
        self._files.unlink(written.draft for written in group)

    def _anchor(self, turns: dict[bytes, int]) -> None:
        """Bring landed blocks to the disk, so that their rows may say whole; what it does not keep goes."""
        durable = {cid.encode() for cid in self._files.sync_together(Cid.decode(key) for key in turns)}
        with self._lock:
            # what is not here any more was evicted meanwhile
            lost = [key for key in turns if key not in durable and key in self._fifo]
            drafts = self._remove(lost) if lost else []
        self._files.unlink(drafts)
        self._settle(turns, durable)
        if lost:
            raise self._disk_failed()

    def _bring(self, group: list[Written]) -> dict[bytes, int]:
        """Give written drafts their rows and places; returns the turn of each block that was new."""
        turns: dict[bytes, int] = {}
        placed: set[str] = set()
        with self._lock:
            self._reserved -= sum(written.size_bytes for written in group)
            # another thread may have brought one meanwhile
            fresh = {written.key: written for written in group if written.key not in self._fifo}
            rows = [
                Arriving(key, one.size_bytes, next(self._turns), one.tier, int(self._fifo.wanted(key)))
                for key, one in fresh.items()
            ]
            try:
                pinned = self._index.arrive(rows) if rows else set[bytes]()
                for row in rows:
                    self._files.admit(fresh[row.key].draft, fresh[row.key].cid)
                    placed.add(fresh[row.key].draft)
                    turns[row.key] = row.turn
                    self._enter(row, pinned=row.key in pinned)
            except OSError as error:
                lost = [row.key for row in rows if row.key not in turns]
                self._index.leave(lost)
                self._index.depart(lost)
                if error.errno in _NO_ROOM:
                    raise self._disk_full() from error
                raise
            finally:
                self._files.unlink(written.draft for written in group if written.draft not in placed)
                self._gauge()
        return turns

    def _enter(self, row: Arriving, *, pinned: bool) -> None:
        """Count a block whose file has its place; wants the lock."""
        queue = Queue.PINNED if pinned else _QUEUES[row.queue]
        self._fifo.restore(row.key, Place(queue, row.size_bytes, 0))
        self._unsynced[row.key] = row.turn
        if row.tier:
            tier = TierName(row.tier)
            before = self._brought[tier]
            self._brought[tier] = Brought(before.blocks + 1, before.bytes + row.size_bytes)
            self._metrics.brought.labels(tier.label).inc(row.size_bytes)

    def _remove(self, keys: list[bytes]) -> list[str]:
        """Take blocks out of index and place; wants the lock, and the caller unlinks the drafts after it."""
        self._index.leave(keys)
        drafts: list[str] = []
        for key in keys:
            if key in self._fifo:  # else evicted, and remembered as such
                self._fifo.discard(key)
            self.losses += 1
            self._unsynced.pop(key, None)
            drafts.append(self._files.displace(Cid.decode(key)))
        self._index.depart(keys)
        self._gauge()
        return drafts

    def _evict(self, need_bytes: int) -> list[str]:
        """Remove cold unpinned blocks until ``need_bytes`` are freed or none is left; as ``_remove``."""
        if need_bytes <= 0:
            return []
        self._count_uses()
        evicted = self._fifo.evict(need_bytes)
        self._note_moves()
        if not evicted:
            return []
        try:
            drafts = self._remove([one.key for one in evicted])
        except BaseException:  # the index could not be written: they are all still here
            for one in evicted:
                self._fifo.restore(one.key, Place(one.queue, one.size_bytes, 0))
            raise
        self._metrics.evicted.inc(len(evicted))
        return drafts

    def _count_uses(self) -> None:
        """Tell the queues what was used since the last time; wants the lock."""
        used, self._used = self._used, {}
        for key, times in list(used.items()):  # a reader may still be adding one
            if self._fifo.count(key, times):  # what is hot already is not written down again
                self._note_place(key)

    def _note_moves(self) -> None:
        for key in self._fifo.take_moved():
            self._note_place(key, next(self._turns))

    def _note_place(self, key: bytes, turn: int = 0) -> None:
        place = self._fifo.place(key)
        if place is not None and place.queue is not Queue.PINNED:
            self._index.wait(key, _QUEUES.index(place.queue), place.frequency, turn)

    def _settle_oldest(self) -> bool:
        """Bring the oldest unsynced blocks to the disk, so that rows say whole; False where none is."""
        with self._lock:
            turns = dict(itertools.islice(self._unsynced.items(), _SETTLED))
        durable = self._files.sync(Cid.decode(key) for key in turns)
        self._settle(turns, {cid.encode() for cid in durable})
        return bool(turns)

    def _settle(self, turns: dict[bytes, int], durable: Container[bytes]) -> None:
        """Note that blocks were synced; a row whose sync failed stays arriving, for the next start."""
        with self._lock:
            for key, turn in turns.items():
                if self._unsynced.get(key) == turn:  # not dropped and brought again meanwhile
                    del self._unsynced[key]
                    if key in durable:
                        self._index.settle(key)

    def _gauge(self) -> None:
        self._metrics.quota.set(self.quota_bytes)
        self._metrics.bytes.set(self._fifo.held_bytes)
        self._metrics.blocks.set(len(self._fifo))

    def _disk_full(self) -> StoreFullError:
        self._metrics.refused.labels("disk_full").inc()
        return StoreFullError(f"the disk of {self.folder} is full; make room on it", reason="disk_full")

    def _disk_failed(self) -> LocalError:
        self._metrics.refused.labels("disk_failed").inc()
        message = f"the disk of {self.folder} does not keep what is written to it; check and replace it"
        return LocalError(message, reason="disk_failed")
