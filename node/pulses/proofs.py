"""The proof book: the origin's acks of this box's own pulses, for who checks a month's report with them."""

from __future__ import annotations

from hashlib import sha256
from sqlite3 import Connection

from ...protocol.batch import TidAck
from ...protocol.ticket import DAY_MS

KEPT_MS = 396 * DAY_MS
"""Thirteen months, as long as the origin keeps the pulses themselves."""


class ProofBook:
    """The proof rows of a spool's database; the spool calls it under its lock, writes in its transaction."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    def keep(self, item: TidAck, envelope: bytes, at_ms: int) -> None:
        """Keep a signed ack of a ticket of ours where it says more than the one before.

        Of two that say as much the first stays: it speaks of the shorter log, so of the earlier report.
        """
        stored, refused = item.upto + len(item.extra), len(item.rejects)
        row = self._conn.execute("SELECT stored, refused FROM proof WHERE tid = ?", (item.tid,)).fetchone()
        if row is not None and (stored, refused) <= tuple(row):
            return
        name = sha256(envelope).digest()
        self._conn.execute("INSERT OR IGNORE INTO proof_envelope VALUES (?, ?)", (name, envelope))
        self._conn.execute(
            "INSERT OR REPLACE INTO proof VALUES (?, ?, ?, ?, ?)", (item.tid, stored, refused, at_ms, name)
        )
        self._sweep()

    def all(self) -> list[bytes]:
        """Return the envelopes kept, each once, oldest first."""
        query = (
            "SELECT data FROM proof_envelope JOIN proof ON envelope = hash "
            "GROUP BY hash ORDER BY min(at_ms), hash"
        )
        return [data for (data,) in self._conn.execute(query).fetchall()]

    def trim(self, now_ms: int) -> None:
        """Forget what is older than thirteen months."""
        if self._conn.execute("DELETE FROM proof WHERE at_ms < ?", (now_ms - KEPT_MS,)).rowcount:
            self._sweep()

    def _sweep(self) -> None:
        self._conn.execute("DELETE FROM proof_envelope WHERE hash NOT IN (SELECT envelope FROM proof)")
