"""The index of the block store: one SQLite row for every block, what pins it and how it came.

Not thread-safe but for ``touched``, which anybody may set entries of: the store calls everything
else under its lock. Uses, settled arrivals and finished departures wait in memory and are written
down inside the next transaction there is anyway, so reading a block never writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from enum import IntEnum
from pathlib import Path
from sqlite3 import Connection
from typing import NamedTuple

import sqlite_utils

from ..database import open_database, transaction

FLUSH_TOUCHES = 1_024
"""Uses written down at most in one transaction, so that none is long."""


class State(IntEnum):
    """A row's state; only ``WHOLE`` claims that the block is on the disk."""

    ARRIVING = 0
    WHOLE = 1
    LEAVING = 2


class Brought(NamedTuple):
    """What one tier first put into this store, over all its life."""

    blocks: int
    bytes: int


class Arriving(NamedTuple):
    """A row to be: ``use`` is its number in the order of uses, ``tier`` 0 for blocks made on this box."""

    key: bytes
    size_bytes: int
    use: int
    tier: int


MIGRATIONS = sqlite_utils.Migrations("store")


@MIGRATIONS(name="0001_blocks")
def _blocks(db: sqlite_utils.Database) -> None:
    # last_used is a counter, not a clock: order is all that eviction asks for
    db.table("block").create(
        {"cid": bytes, "size": int, "last_used": int, "pins": int, "tier": int, "state": int},
        pk="cid",
        not_null={"size", "last_used", "pins", "tier", "state"},
        strict=True,
    )
    db.conn.execute("CREATE INDEX block_coldest ON block(last_used) WHERE pins = 0 AND state < 2")
    db.conn.execute("CREATE INDEX block_pinned ON block(size) WHERE pins > 0 AND state < 2")
    db.conn.execute("CREATE INDEX block_unsettled ON block(state) WHERE state <> 1")
    db.table("pin").create({"label": str, "cid": bytes}, pk=("label", "cid"), strict=True)
    db.table("pin").create_index(["cid"])
    db.table("brought").create({"tier": int, "blocks": int, "bytes": int}, pk="tier", strict=True)


class BlockIndex:
    """The rows of one ``index.db``; a key is a binary CID."""

    def __init__(self, path: Path) -> None:
        """Open or create the index; raises ``LocalError`` where it is damaged."""
        self._path = path
        self._conn = open_database(path, MIGRATIONS, synchronous="NORMAL")
        self.touched: dict[bytes, int] = {}
        self._settled: list[bytes] = []
        self._gone: list[bytes] = []

    def close(self) -> None:
        """Close the database; what waits in memory must have been flushed."""
        self._conn.close()

    # -- what is there

    def sizes(self) -> dict[bytes, int]:
        """Return every block with its size in bytes."""
        return dict(self._conn.execute("SELECT cid, size FROM block"))

    def unsettled(self) -> list[tuple[bytes, State]]:
        """Return the rows that claim nothing: what a crash left open."""
        rows = self._conn.execute("SELECT cid, state FROM block WHERE state <> 1").fetchall()
        return [(key, State(state)) for key, state in rows]

    def newest_use(self) -> int:
        """Return the highest use number."""
        [(newest,)] = self._conn.execute("SELECT coalesce(max(last_used), 0) FROM block")
        return int(newest)

    def brought(self) -> dict[int, Brought]:
        """Return what each tier number brought; blocks made on this box belong to none."""
        rows = self._conn.execute("SELECT tier, blocks, bytes FROM brought")
        return {tier: Brought(blocks, size) for tier, blocks, size in rows}

    def coldest(self, limit: int) -> list[tuple[bytes, int]]:
        """Return the least recently used unpinned blocks and their sizes, as far as written down."""
        return self._conn.execute(
            "SELECT cid, size FROM block WHERE pins = 0 AND state < 2 ORDER BY last_used LIMIT ?", (limit,)
        ).fetchall()

    # -- how blocks come and go

    def arrive(self, rows: list[Arriving]) -> set[bytes]:
        """Announce blocks whose files come next; returns the keys of those that are pinned."""
        pinned: set[bytes] = set()
        with self._transaction() as conn:
            self._write_down()
            for key, size_bytes, use, tier in rows:
                [(pins,)] = conn.execute("SELECT count(*) FROM pin WHERE cid = ?", (key,))
                row = (key, size_bytes, use, pins, tier, State.ARRIVING)
                conn.execute("INSERT OR REPLACE INTO block VALUES (?, ?, ?, ?, ?, ?)", row)
                if pins:
                    pinned.add(key)
                if tier:
                    conn.execute(
                        "INSERT INTO brought VALUES (?1, 1, ?2) "
                        "ON CONFLICT(tier) DO UPDATE SET blocks = blocks + 1, bytes = bytes + ?2",
                        (tier, size_bytes),
                    )
        return pinned

    def settle(self, key: bytes) -> None:
        """Note that an arrival is on the disk."""
        self._settled.append(key)

    def leave(self, keys: list[bytes]) -> None:
        """Announce that these blocks' files go next."""
        with self._transaction() as conn:
            self._write_down()
            conn.executemany("UPDATE block SET state = 2 WHERE cid = ?", ((key,) for key in keys))

    def depart(self, keys: Iterable[bytes]) -> None:
        """Note that the files of leaving blocks are gone."""
        self._gone += keys

    def flush(self) -> bool:
        """Write down what waits in memory; True where uses are left for another call."""
        with self._transaction():
            self._write_down()
        return len(self.touched) >= FLUSH_TOUCHES

    def sync(self) -> None:
        """Return when every transaction so far is on the disk; may be called without the lock. Blocking.

        SQLite leaves that to its next checkpoint (``synchronous = NORMAL``); transactions lie one after
        the other in the write-ahead log, so one sync of that file covers them all. Opening and
        closing it loses none of SQLite's locks: those are on other files.
        """
        for name in (f"{self._path}-wal", str(self._path.parent)):
            with suppress(FileNotFoundError):  # an index that nothing was written to yet
                fd = os.open(name, os.O_RDONLY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)

    # -- pins

    def pin(self, label: str, keys: list[bytes]) -> None:
        """Pin ``keys`` under ``label``, whether they are here or not."""
        with self._transaction() as conn:
            conn.executemany("INSERT OR IGNORE INTO pin VALUES (?, ?)", ((label, key) for key in keys))
            self._recount(keys)

    def unpin(self, label: str) -> None:
        """Remove every pin of ``label``."""
        with self._transaction() as conn:
            keys = [key for (key,) in conn.execute("SELECT cid FROM pin WHERE label = ?", (label,))]
            conn.execute("DELETE FROM pin WHERE label = ?", (label,))
            self._recount(keys)

    def pins(self) -> list[tuple[str, bytes]]:
        """Return every pin as label and key."""
        return self._conn.execute("SELECT label, cid FROM pin ORDER BY label, cid").fetchall()

    def pinned_bytes(self) -> int:
        """Return how many bytes of the blocks held are pinned."""
        query = "SELECT coalesce(sum(size), 0) FROM block WHERE pins > 0 AND state < 2"
        [(total,)] = self._conn.execute(query)
        return int(total)

    # -- the inside

    def _transaction(self) -> AbstractContextManager[Connection]:
        return transaction(self._conn, self._path)

    def _write_down(self) -> None:
        uses: list[tuple[int, bytes]] = []
        with suppress(KeyError):
            while len(uses) < FLUSH_TOUCHES:
                key, use = self.touched.popitem()
                uses.append((use, key))
        self._conn.executemany("UPDATE block SET last_used = ? WHERE cid = ?", uses)
        settled, self._settled = self._settled, []
        gone, self._gone = self._gone, []
        self._conn.executemany(
            "UPDATE block SET state = 1 WHERE cid = ? AND state = 0", ((key,) for key in settled)
        )
        self._conn.executemany("DELETE FROM block WHERE cid = ? AND state = 2", ((key,) for key in gone))

    def _recount(self, keys: list[bytes]) -> None:
        self._conn.executemany(
            "UPDATE block SET pins = (SELECT count(*) FROM pin WHERE pin.cid = block.cid) WHERE cid = ?",
            ((key,) for key in keys),
        )
