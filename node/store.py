"""The block store: verified blocks as files, an index in SQLite, the least recently used leave first.

A block is written to ``blocks/.tmp``, its index row committed as *arriving*, and the file then
renamed to ``blocks/ab/cd/<cid>`` (``abcd``: the digest's first two bytes in hex). The row becomes
*whole* only after file and folder are on the disk; a block to evict becomes *leaving* before its
file goes. Whatever moment the process or the machine dies at, the rows that are not *whole* name
every file that needs a second look at the next start, and nothing else is read then.

Look-ups (``has``, ``path``) touch neither lock nor disk. Hashing and file writes happen outside
the lock. Over 400 lines it would be two files: what is scrubbed is in ``node/scrub.py``.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import sqlite_utils
from prometheus_client import CollectorRegistry, Counter, Gauge

from ..protocol.cid import Cid
from ..protocol.errors import RemoteError, StoreFullError
from ..protocol.ports import BlockStore, TierName
from .database import open_database, transaction, translated

BLOCK_LIMIT_BYTES = 2 << 20
"""No block anywhere is larger (docs/protocol.md, "Blocks")."""
SPARE_BYTES = 64 << 20
"""Disk space the store leaves free for the databases beside it."""
UNSYNCED_BLOCKS = 128
"""How many of the newest blocks may wait for their fsync; the next start hashes them again."""
_VICTIMS = 64
_TOUCHES = 1_024
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

ARRIVING, WHOLE, LEAVING = 0, 1, 2

MIGRATIONS = sqlite_utils.Migrations("store")


@MIGRATIONS(name="0001_blocks")
def _blocks(db: sqlite_utils.Database) -> None:
    """``last_used`` is a counter, not a clock: order is all that eviction asks for."""
    db.table("block").create(
        {"cid": bytes, "size": int, "last_used": int, "pins": int, "tier": int, "state": int},
        pk="cid",
        not_null={"size", "last_used", "pins", "tier", "state"},
    )
    db.execute("CREATE INDEX block_by_use ON block(last_used) WHERE pins = 0 AND state < 2")
    db.execute("CREATE INDEX block_pinned ON block(size) WHERE pins > 0 AND state < 2")
    db.execute("CREATE INDEX block_unsettled ON block(state) WHERE state <> 1")
    db.table("pin").create({"label": str, "cid": bytes}, pk=("label", "cid"))
    db.table("pin").create_index(["cid"])
    db.table("brought").create({"tier": int, "blocks": int, "bytes": int}, pk="tier")


class _Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.bytes = Gauge("farcast_node_store_bytes", "Bytes of blocks held.", registry=registry)
        self.blocks = Gauge("farcast_node_store_blocks", "Blocks held.", registry=registry)
        self.quota = Gauge("farcast_node_store_quota_bytes", "Bytes blocks may take.", registry=registry)
        self.evicted = Counter(
            "farcast_node_store_evicted_blocks", "Blocks dropped to make room.", registry=registry
        )
        self.corrupt = Counter(
            "farcast_node_store_corrupt_blocks", "Blocks found damaged or missing on disk.", registry=registry
        )
        self.brought = Counter(
            "farcast_node_block_bytes", "Bytes of blocks first stored, by tier.", ["tier"], registry=registry
        )


class Brought(NamedTuple):
    """What one tier first put into this store, over all its life."""

    blocks: int
    bytes: int


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
        """Open the store under ``home`` and mend what a crash left.

        Raises:
            LocalError: the index is damaged or cannot be used.

        """
        self.folder = home / "blocks"
        self.quota_bytes = quota_bytes
        self._index = home / "index.db"
        self._free_bytes = free_bytes
        self._metrics = _Metrics(registry)
        self._lock = threading.Lock()
        self._names = itertools.count()
        self._touched: dict[bytes, int] = {}
        self._unsynced: deque[bytes] = deque()
        self._settled: list[bytes] = []
        self._gone: list[bytes] = []
        self._victims: deque[tuple[bytes, int, int]] = deque()
        self._reserved = 0
        self._tmp = self.folder / ".tmp"
        shutil.rmtree(self._tmp, ignore_errors=True)
        self._tmp.mkdir(mode=0o700, parents=True)
        self._conn = open_database(self._index, MIGRATIONS, synchronous="NORMAL")
        with self._transaction():
            self._mend()
            self._held: dict[bytes, int] = dict(self._conn.execute("SELECT cid, size FROM block WHERE state = 1"))
            self._brought = {
                tier: Brought(blocks, size)
                for tier, blocks, size in self._conn.execute("SELECT tier, blocks, bytes FROM brought")
            }
            self._pinned_bytes = self._count_pinned()
            [(newest,)] = self._conn.execute("SELECT coalesce(max(last_used), 0) FROM block")
        self._bytes = sum(self._held.values())
        self._uses = itertools.count(newest + 1)
        for tier in TierName:
            self._metrics.brought.labels(tier.label).inc(self._brought.get(tier, Brought(0, 0)).bytes)
        self._metrics.quota.set(quota_bytes)
        with self._lock:
            self._evict_until(self._excess)
            self._gauge()

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
        self._touched[key] = next(self._uses)
        return str(self._place(cid)), size

    @property
    def held_bytes(self) -> int:
        """Bytes of all blocks held."""
        return self._bytes

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
            return {tier: self._brought.get(tier, Brought(0, 0)) for tier in TierName}

    # -- reading

    def get(self, cid: Cid) -> bytes | None:
        """Return the block, hashed again on the way out; a corrupt one is dropped and None returned."""
        if cid.is_identity:
            return cid.digest
        key = cid.encode()
        if key not in self._held:
            return None
        data = _read(self._place(cid))
        if data is None or not cid.matches(data):
            self.report_corrupt(cid)
            return None
        self._touched[key] = next(self._uses)
        if len(self._touched) >= _TOUCHES:
            with self._transaction():
                self._flush()
        return data

    def report_corrupt(self, cid: Cid) -> None:
        """Look at a block whose file disappointed a reader; drop and count it if it is damaged."""
        with self._transaction():
            if cid.encode() not in self._held:
                return  # evicted or dropped meanwhile
            data = _read(self._place(cid))  # again, under the lock: an eviction may have won the race
            if data is None or not cid.matches(data):
                self._metrics.corrupt.inc()
                self._forget(cid.encode())
        self._collect()

    # -- writing

    def put(self, cid: Cid, data: bytes, *, tier: TierName | None = None, hashed: bool = False) -> bool:
        """Verify and keep a block; True where it was not here before.

        ``tier`` is the tier whose source brought it, None for blocks made on this box; ``hashed``
        says that the caller has just computed ``cid`` from these very bytes.

        Raises:
            RemoteError: ``hash_mismatch``, ``too_large``.
            StoreFullError: no room and nothing may be evicted, or the disk is full.

        """
        if len(data) > BLOCK_LIMIT_BYTES:
            message = f"the block {cid} of {len(data)} bytes is over the limit of {BLOCK_LIMIT_BYTES}"
            raise RemoteError(message, reason="too_large")
        if not hashed and not cid.matches(data):
            raise RemoteError(f"bytes that are not the block {cid}", reason="hash_mismatch")
        key = cid.encode()
        if cid.is_identity or key in self._held:
            return False
        with self._room(len(data)):
            return self._keep(cid, key, data, int(tier or 0))

    def drop(self, cid: Cid) -> bool:
        """Remove a block, pinned or not; True where it was here."""
        key = cid.encode()
        with self._transaction():
            if key not in self._held:
                return False
            self._forget(key)
        self._collect()
        return True

    def sync(self) -> None:
        """Return when every block put so far is durable; call it before naming blocks to others."""
        while self._settle_one():
            pass
        with self._transaction():
            self._flush()

    def close(self) -> None:
        """Make everything durable and close the index."""
        self.sync()
        with self._lock:
            self._conn.close()

    # -- pins

    def pin(self, label: str, cids: Iterable[Cid]) -> None:
        """Keep these blocks from eviction under ``label``; blocks not here yet are pinned as they come."""
        keys = [cid.encode() for cid in cids]
        with self._transaction() as conn:
            conn.executemany("INSERT OR IGNORE INTO pin VALUES (?, ?)", ((label, key) for key in keys))
            self._recount(keys)

    def unpin(self, label: str) -> None:
        """Give up every pin of ``label``."""
        with self._transaction() as conn:
            keys = [key for (key,) in conn.execute("SELECT cid FROM pin WHERE label = ?", (label,))]
            conn.execute("DELETE FROM pin WHERE label = ?", (label,))
            self._recount(keys)

    def pinned(self) -> dict[str, list[Cid]]:
        """Return the pinned CIDs by label, held or not."""
        with self._transaction() as conn:
            rows = conn.execute("SELECT label, cid FROM pin ORDER BY label, cid").fetchall()
        labels: dict[str, list[Cid]] = {}
        for label, key in rows:
            labels.setdefault(label, []).append(Cid.decode(key))
        return labels

    def _recount(self, keys: list[bytes]) -> None:
        self._conn.executemany(
            "UPDATE block SET pins = (SELECT count(*) FROM pin WHERE pin.cid = block.cid) WHERE cid = ?",
            ((key,) for key in keys),
        )
        self._pinned_bytes = self._count_pinned()
        self._victims.clear()

    def _count_pinned(self) -> int:
        [(total,)] = self._conn.execute("SELECT coalesce(sum(size), 0) FROM block WHERE pins > 0 AND state < 2")
        return int(total)
