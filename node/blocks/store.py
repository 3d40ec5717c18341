"""The block store: verified blocks as files under a quota, the least recently used leave first.

A block is written to ``blocks/.tmp``, its index row committed as *arriving*, and the file then
renamed to ``blocks/ab/cd/<cid>`` (``abcd``: the digest's first two bytes in hex). The row becomes
*whole* only after file and folder are on the disk; a block to evict becomes *leaving* before its
file goes. Whatever moment the process or the machine dies at, the rows that are not *whole* name
every file that needs a second look at the next start, and nothing else is read then.

Look-ups (``has``, ``path``) touch neither lock nor disk; hashing, writing and syncing files happen
outside the lock; under it are only renames and index commits. Over 400 lines because every method
keeps the same few invariants between index, files and memory.
"""

from __future__ import annotations

import errno
import itertools
import shutil
import threading
from collections import deque
from collections.abc import Callable, Container, Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge

from ...protocol.cid import Cid
from ...protocol.errors import LocalError, RemoteError, StoreFullError
from ...protocol.ports import BlockStore, TierName
from .batch import Batch, Harbour, Written
from .blockfiles import BLOCK_LIMIT_BYTES, BlockFiles
from .index import Arriving, BlockIndex, Brought, State

SPARE_BYTES = 64 << 20  # of disk space are left free for the databases beside the blocks
UNSYNCED_BLOCKS = 128  # of the newest may wait for their fsync; after a crash they are hashed again
_VICTIMS = 64
_SETTLED = 32
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
        self._victims: deque[tuple[bytes, int]] = deque()
        self._files = BlockFiles(self.folder)
        self._index = BlockIndex(home / "index.db")
        self._mend()
        self._held = self._index.sizes()
        self.losses = 0
        """How many blocks left since the start: who remembers places of blocks looks again when it grows."""
        self._bytes = sum(self._held.values())
        self._pinned_bytes = self._index.pinned_bytes()
        self._uses = itertools.count(self._index.newest_use() + 1)
        self._brought = self._index.brought()
        for tier in TierName:  # every tier is a series from the start
            size = self._brought.setdefault(tier, Brought(0, 0)).bytes
            self._metrics.brought.labels(tier.label).inc(size)
        with self._lock:
            drafts = self._evict(self._bytes - quota_bytes)
            self._gauge()
        self._files.unlink(drafts)

    # -- look-ups: no lock, no disk

    def has(self, cid: Cid) -> bool:
        """Say whether the block is here; an identity CID always is, it carries its block."""
        return cid.is_identity or cid.encode() in self._held

    def path(self, cid: Cid) -> tuple[str, int] | None:
        """Return the block's file and size in bytes, and count that as a use; None where not held.

        The file may be evicted before it is opened: the opener treats that as a miss.
        """
        key = cid.encode()
        size = self._held.get(key)
        if size is None:
            return None
        self._index.touched[key] = next(self._uses)
        return self._files.place(cid), size

    def size(self, cid: Cid) -> int | None:
        """Return a held block's size in bytes without counting a use."""
        return self._held.get(cid.encode())

    @property
    def held_bytes(self) -> int:
        """Bytes of all blocks held."""
        return self._bytes

    @property
    def pinned_bytes(self) -> int:
        """Bytes of the blocks held that are pinned."""
        return self._pinned_bytes

    @property
    def held_blocks(self) -> int:
        """How many blocks are held."""
        return len(self._held)

    def cids(self) -> list[Cid]:
        """Return every block held, in no order."""
        return [Cid.decode(key) for key in list(self._held)]

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
        if key not in self._held:
            return None
        data = self._files.read(cid)
        if data is None or not cid.matches(data):
            self.recheck(cid)
            return None
        self._index.touched[key] = next(self._uses)
        return data

    def recheck(self, cid: Cid) -> bool:
        """Hash a block once more; False where it was damaged, and is now dropped and counted."""
        key = cid.encode()
        with self._lock:  # an eviction may have won a race against a reader; under the lock none can
            if key not in self._held:
                return True
            data = self._files.read(cid)
            if data is not None and cid.matches(data):
                return True
            self._metrics.corrupt.inc()
            drafts = self._remove([key])
            self._pinned_bytes = self._index.pinned_bytes()
        self._files.unlink(drafts)
        return False

    def check(self, cid: Cid) -> bool:
        """Hash a held block without counting a use; False where it was damaged and is now dropped."""
        data = self._files.read(cid)
        return (data is not None and cid.matches(data)) or self.recheck(cid)

    def adopt(self, cid: Cid) -> bool:
        """Take a file at a block's place that the index lost: True where it is the block, else it goes."""
        data = self._files.read(cid)
        if data is not None and cid.matches(data):
            return self.put(cid, data, hashed=True)
        with self._lock:
            if cid.encode() not in self._held:
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
        if len(self._unsynced) > UNSYNCED_BLOCKS:
            self._settle_oldest()
        return new

    def batch(self) -> Batch:
        """Return a way to put many blocks made on this box, durable at its end; see ``Batch``."""
        return Batch(Harbour(self._verify, self._write, self._land, self._sink, self.sync))

    def drop(self, cid: Cid) -> bool:
        """Remove a block, pinned or not; True where it was here."""
        key = cid.encode()
        with self._lock:
            if key not in self._held:
                return False
            drafts = self._remove([key])
            self._pinned_bytes = self._index.pinned_bytes()
        self._files.unlink(drafts)
        return True

    def sync(self) -> None:
        """Return when every block put so far is durable; call it before naming blocks to others."""
        while self._settle_oldest():
            pass
        left = True
        while left:
            with self._lock:
                left = self._index.flush()
        self._index.sync()

    def close(self) -> None:
        """Make everything durable and close the index."""
        self.sync()
        with self._lock:
            self._index.close()

    # -- pins

    def pin(self, label: str, cids: Iterable[Cid]) -> None:
        """Keep these blocks from eviction under ``label``; those not here yet are pinned as they come."""
        keys = [cid.encode() for cid in cids]
        with self._lock:
            self._index.pin(label, keys)
            self._victims.clear()
            self._pinned_bytes = self._index.pinned_bytes()

    def unpin(self, label: str) -> None:
        """Give up every pin of ``label``."""
        with self._lock:
            self._index.unpin(label)
            self._pinned_bytes = self._index.pinned_bytes()

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

    def _verify(self, cid: Cid, data: bytes, hashed: bool) -> bool:  # noqa: FBT001 - a batch's port
        """Say whether a block is welcome, that is not here yet."""
        if len(data) > BLOCK_LIMIT_BYTES:
            message = f"the block {cid} of {len(data)} bytes is over the limit of {BLOCK_LIMIT_BYTES}"
            raise RemoteError(message, reason="too_large")
        if not hashed and not cid.matches(data):
            raise RemoteError(f"bytes that are not the block {cid}", reason="hash_mismatch")
        return not self.has(cid)

    def _reserve(self, size_bytes: int) -> None:
        with self._lock:
            if size_bytes > self.quota_bytes - self._pinned_bytes - self._reserved:
                message = (
                    f"a block of {size_bytes} bytes finds no room in {self.folder}: pinned blocks fill the "
                    f"quota of {self.quota_bytes} bytes; raise [store] quota_bytes or drop a title"
                )
                raise StoreFullError(message)
            short_bytes = size_bytes + SPARE_BYTES - self._free_bytes(self.folder)
            over_bytes = self._bytes + self._reserved + size_bytes - self.quota_bytes
            drafts = self._evict(max(short_bytes, over_bytes))
            if short_bytes > 0 and not drafts:
                message = (
                    f"the disk of {self.folder} has less than {SPARE_BYTES >> 20} MiB left, which the home's "
                    "databases need; make room on it"
                )
                raise StoreFullError(message, reason="disk_full")
            self._reserved += size_bytes
        self._files.unlink(drafts)

    def _write(self, cid: Cid, data: bytes, tier: TierName | None = None) -> Written:
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

    def _draft(self, data: bytes) -> str:
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
                raise _disk_full(self.folder) from again

    def _sink(self, group: list[Written]) -> None:
        """Delete drafts and give up the room that was kept for them."""
        with self._lock:
            self._reserved -= sum(written.size_bytes for written in group)
        self._files.unlink(written.draft for written in group)

    def _land(self, group: list[Written]) -> None:
        """Bring drafts in so that they are durable and their rows may say whole."""
        whole = all(self._files.sync_file(written.draft) for written in group)
        uses = self._bring(group)
        cids = [written.cid for written in group if written.key in uses]
        if not whole or len(self._files.sync_folders(cids)) < len(cids):
            message = f"the disk of {self.folder} does not keep what is written to it; check and replace it"
            raise LocalError(message, reason="disk_failed")
        self._settle(uses, uses)

    def _bring(self, group: list[Written]) -> dict[bytes, int]:
        """Give written drafts their rows and places; returns the use number of each block that was new."""
        uses: dict[bytes, int] = {}
        placed: set[str] = set()
        with self._lock:
            self._reserved -= sum(written.size_bytes for written in group)
            # another thread may have brought one meanwhile
            fresh = {written.key: written for written in group if written.key not in self._held}
            rows = [Arriving(key, one.size_bytes, next(self._uses), one.tier) for key, one in fresh.items()]
            try:
                pinned = self._index.arrive(rows) if rows else set[bytes]()
                for row in rows:
                    self._files.admit(fresh[row.key].draft, fresh[row.key].cid)
                    placed.add(fresh[row.key].draft)
                    uses[row.key] = row.use
                    self._enter(row, pinned=row.key in pinned)
            except OSError as error:
                lost = [row.key for row in rows if row.key not in uses]
                self._index.leave(lost)
                self._index.depart(lost)
                if error.errno in _NO_ROOM:
                    raise _disk_full(self.folder) from error
                raise
            finally:
                self._files.unlink(written.draft for written in group if written.draft not in placed)
                self._gauge()
        return uses

    def _enter(self, row: Arriving, *, pinned: bool) -> None:
        """Count a block whose file has its place; wants the lock."""
        self._held[row.key] = row.size_bytes
        self._unsynced[row.key] = row.use
        self._bytes += row.size_bytes
        self._pinned_bytes += row.size_bytes if pinned else 0
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
            self._bytes -= self._held.pop(key)
            self.losses += 1
            self._unsynced.pop(key, None)
            drafts.append(self._files.displace(Cid.decode(key)))
        self._index.depart(keys)
        self._gauge()
        return drafts

    def _evict(self, need_bytes: int) -> list[str]:
        """Remove cold unpinned blocks until ``need_bytes`` are freed or none is left; as ``_remove``."""
        drafts: list[str] = []
        while need_bytes > 0 and (self._victims or self._pick_victims()):
            keys: list[bytes] = []
            while need_bytes > 0 and self._victims:
                key, size = self._victims.popleft()
                if key in self._held and key not in self._index.touched:
                    keys.append(key)
                    need_bytes -= size
            if keys:
                drafts += self._remove(keys)
                self._metrics.evicted.inc(len(keys))
        return drafts

    def _pick_victims(self) -> bool:
        """Queue the coldest blocks; where all of them were used since, write that down and look again."""
        while True:
            rows = self._index.coldest(_VICTIMS)
            touched = self._index.touched
            self._victims.extend(row for row in rows if row[0] in self._held and row[0] not in touched)
            if self._victims or not any(key in touched for key, _ in rows):
                return bool(self._victims)
            self._index.flush()

    def _settle_oldest(self) -> bool:
        """Bring the oldest unsynced blocks to the disk, so that rows say whole; False where none is."""
        with self._lock:
            uses = dict(itertools.islice(self._unsynced.items(), _SETTLED))
        durable = self._files.sync(Cid.decode(key) for key in uses)
        self._settle(uses, {cid.encode() for cid in durable})
        return bool(uses)

    def _settle(self, uses: dict[bytes, int], durable: Container[bytes]) -> None:
        """Note that blocks were synced; a row whose sync failed stays arriving, for the next start."""
        with self._lock:
            for key, use in uses.items():
                if self._unsynced.get(key) == use:  # not dropped and brought again meanwhile
                    del self._unsynced[key]
                    if key in durable:
                        self._index.settle(key)

    def _gauge(self) -> None:
        self._metrics.quota.set(self.quota_bytes)
        self._metrics.bytes.set(self._bytes)
        self._metrics.blocks.set(len(self._held))


def _disk_full(folder: Path) -> StoreFullError:
    return StoreFullError(f"the disk of {folder} is full; make room on it", reason="disk_full")
