"""The batch shelf: a carrier's numbered batches, kept as sent until the origin acks them."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from sqlite3 import Connection

from ...protocol.batch import batch_hash
from ...protocol.errors import LocalError
from ...protocol.ports import SpooledPulse


class BatchShelf:
    """The batch rows of a spool's database; the spool calls it under its lock, writes in its transaction.

    The last batch's number and hash stay after it is closed, because the next one names them.
    """

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    def last(self) -> tuple[int, bytes]:
        """Return the number and hash of the last batch; 0 and 32 zero bytes before the first."""
        row = self._conn.execute("SELECT number, hash FROM batch ORDER BY number DESC LIMIT 1").fetchone()
        return (row[0], row[1]) if row else (0, bytes(32))

    def open(self, limit: int = -1) -> list[tuple[int, bytes]]:
        """Return the batches not acked yet, in order; all of them, or the oldest ``limit``."""
        query = "SELECT number, data FROM batch WHERE open ORDER BY number LIMIT ?"
        return [(number, data) for number, data in self._conn.execute(query, (limit,)).fetchall()]

    def add(self, number: int, data: bytes, pulses: list[SpooledPulse]) -> None:
        """Put up the next batch and mark its pulses; the last one again is no news.

        Raises:
            LocalError: ``batch_number`` where it is neither the last nor the next one.

        """
        name = batch_hash(data)
        last = self.last()
        if (number, name) == last:
            return
        if number != last[0] + 1:
            message = f"batch {number} cannot follow batch {last[0]} in this box's spool"
            raise LocalError(message, reason="batch_number")
        at_ms = max((item.seen_ms for item in pulses), default=0)
        self._conn.execute("INSERT INTO batch VALUES (?, ?, ?, ?, 1)", (number, name, data, at_ms))
        self._conn.executemany(
            "UPDATE pulse SET batch = ? WHERE tid = ? AND seq = ? AND hash = ?",
            ((number, item.tid, item.seq, sha256(item.pulse).digest()) for item in pulses),
        )

    def close(self, names: Iterable[bytes]) -> None:
        """Take acked batches down by hash; pulses of theirs still held wait for another batch."""
        for name in names:
            row = self._conn.execute("SELECT number FROM batch WHERE hash = ? AND open", (name,)).fetchone()
            if row is not None:
                self._conn.execute("UPDATE batch SET open = 0, data = x'' WHERE number = ?", (row[0],))
                self._conn.execute("UPDATE pulse SET batch = NULL WHERE batch = ?", (row[0],))
        self._conn.execute("DELETE FROM batch WHERE NOT open AND number < (SELECT max(number) FROM batch)")

    def spent(self, before_ms: int) -> list[bytes]:
        """Return open batches from before ``before_ms`` of whose pulses none is held any more."""
        query = (
            "SELECT hash FROM batch WHERE open AND at_ms < ? "
            "AND NOT EXISTS (SELECT 1 FROM pulse WHERE batch = number)"
        )
        return [name for (name,) in self._conn.execute(query, (before_ms,)).fetchall()]
