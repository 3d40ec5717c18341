"""The index of the block store: one SQLite row for every block, what pins it and how it came.

Not thread-safe: the store calls all but ``sync`` under its lock. Uses, moves between queues, settled
arrivals and finished departures wait in memory and are written down inside the next transaction
there is anyway, so reading a block never writes.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from enum import IntEnum
from pathlib import Path
from sqlite3 import Connection
from typing import NamedTuple

from ..database import Tables, open_database, transaction

FLUSH_PLACES = 1_024
"""Uses and moves written down at most in one transaction, so that none is long."""


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
    """A row to be: ``turn`` is its number in the order of its ``queue``; ``tier`` 0: made on this box."""

    key: bytes
    size_bytes: int
    turn: int
    tier: int
    queue: int


class Row(NamedTuple):
    """A block as it waits for eviction: in which queue, and how often used there."""

    key: bytes
    size_bytes: int
    queue: int
    frequency: int
    pins: int


TABLES = Tables("farcast.node.blocks.blocktables", "store", "0002_queues")


class BlockIndex:
    """The rows of one ``index.db``; a key is a binary CID."""

    def __init__(self, path: Path) -> None:
        """Open or create the index; raises ``LocalError`` where it is damaged."""
        self._path = path
        self._conn = open_database(path, TABLES, synchronous="NORMAL")
        self._places: dict[bytes, tuple[int, int, int]] = {}
        self._settled: list[bytes] = []
        self._gone: list[bytes] = []

    def close(self) -> None:
        """Close the database; what waits in memory must have been flushed."""
        self._conn.close()

    # -- what is there

    def rows(self) -> Iterator[Row]:
        """Yield every block, the first in its queue first."""
        query = "SELECT cid, size, queue, frequency, pins FROM block ORDER BY turn"
        return map(Row._make, self._conn.execute(query))

    def ghosts(self) -> list[tuple[bytes, int]]:
        """Return what was remembered of blocks that had left at the last clean end, the oldest first."""
        return self._conn.execute("SELECT cid, size FROM ghost ORDER BY turn").fetchall()

    def note(self, name: str) -> int:
        """Return a number kept under ``name``, 0 where there is none."""
        row = self._conn.execute("SELECT value FROM note WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def unsettled(self) -> list[tuple[bytes, State]]:
        """Return the rows that claim nothing: what a crash left open."""
        rows = self._conn.execute("SELECT cid, state FROM block WHERE state <> 1").fetchall()
        return [(key, State(state)) for key, state in rows]

    def newest_turn(self) -> int:
        """Return the highest turn."""
        [(newest,)] = self._conn.execute("SELECT coalesce(max(turn), 0) FROM block")
        return int(newest)

    def brought(self) -> dict[int, Brought]:
        """Return what each tier number brought; blocks made on this box belong to none."""
        rows = self._conn.execute("SELECT tier, blocks, bytes FROM brought")
        return {tier: Brought(blocks, size) for tier, blocks, size in rows}

    # -- how blocks come and go

    def arrive(self, rows: list[Arriving]) -> set[bytes]:
        """Announce blocks whose files come next; returns the keys of those that are pinned."""
        pinned: set[bytes] = set()
        with self._transaction() as conn:
            self._write_down()
            for key, size_bytes, turn, tier, queue in rows:
                [(pins,)] = conn.execute("SELECT count(*) FROM pin WHERE cid = ?", (key,))
                row = (key, size_bytes, turn, pins, tier, State.ARRIVING, queue, 0)
                conn.execute("INSERT OR REPLACE INTO block VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
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

    def wait(self, key: bytes, queue: int, frequency: int, turn: int = 0) -> None:
        """Note where a block waits for eviction; with a ``turn`` it went to the end of that queue."""
        self._places[key] = (queue, frequency, turn or self._places.get(key, (0, 0, 0))[2])

    def leave(self, keys: list[bytes]) -> None:
        """Announce that these blocks' files go next."""
        with self._transaction() as conn:
            self._write_down()
            conn.executemany("UPDATE block SET state = 2 WHERE cid = ?", ((key,) for key in keys))

    def depart(self, keys: Iterable[bytes]) -> None:
        """Note that the files of leaving blocks are gone."""
        self._gone += keys

    def flush(self) -> bool:
        """Write down what waits in memory; True where places are left for another call."""
        with self._transaction():
            self._write_down()
        return bool(self._places)

    def keep_ghosts(self, ghosts: Iterable[tuple[bytes, int]]) -> None:
        """Remember keys of blocks that left, with their sizes, the oldest first, instead of all before."""
        with self._transaction() as conn:
            conn.execute("DELETE FROM ghost")
            conn.executemany("INSERT INTO ghost (cid, size) VALUES (?, ?)", ghosts)

    def keep_note(self, name: str, value: int) -> None:
        """Keep a number under ``name``."""
        with self._transaction() as conn:
            conn.execute("INSERT OR REPLACE INTO note VALUES (?, ?)", (name, value))

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

    def unpin(self, label: str) -> list[bytes]:
        """Remove every pin of ``label``; returns the keys that nothing else pins."""
        with self._transaction() as conn:
            keys = [key for (key,) in conn.execute("SELECT cid FROM pin WHERE label = ?", (label,))]
            conn.execute("DELETE FROM pin WHERE label = ?", (label,))
            self._recount(keys)
            query = "SELECT 1 FROM pin WHERE cid = ?"
            return [key for key in keys if conn.execute(query, (key,)).fetchone() is None]

    def pins(self) -> list[tuple[str, bytes]]:
        """Return every pin as label and key."""
        return self._conn.execute("SELECT label, cid FROM pin ORDER BY label, cid").fetchall()

    # -- the inside

    def _transaction(self) -> AbstractContextManager[Connection]:
        return transaction(self._conn, self._path)

    def _write_down(self) -> None:
        for key in list(itertools.islice(self._places, FLUSH_PLACES)):
            queue, frequency, turn = self._places.pop(key)
            self._conn.execute(
                "UPDATE block SET queue = ?1, frequency = ?2, turn = CASE ?3 WHEN 0 THEN turn ELSE ?3 END "
                "WHERE cid = ?4",
                (queue, frequency, turn, key),
            )
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
