"""The promise book: carriers' receipts for this box's own pulses, until the origin has them.

A receipt names pulses by their root alone, so the pulses it stands for are noted beside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from sqlite3 import Connection

RECEIPTS = 20_000


class PromiseBook:
    """The receipt rows of a spool's database; the spool calls it under its lock and in its transaction."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    def add(self, receipt: bytes, keys: Iterable[tuple[bytes, int]], at_ms: int) -> None:
        """Keep a verified receipt for those of these (tid, seq) that still wait; the newest 20,000 stay."""
        name = sha256(receipt).digest()
        self._conn.execute("INSERT OR IGNORE INTO receipt VALUES (?, ?, ?)", (name, receipt, at_ms))
        self._conn.executemany(
            "INSERT OR IGNORE INTO promised SELECT DISTINCT tid, seq, ? FROM pulse WHERE tid = ? AND seq = ?",
            ((name, tid, seq) for tid, seq in keys),
        )
        self._conn.execute(
            "DELETE FROM receipt WHERE hash IN "
            "(SELECT hash FROM receipt ORDER BY at_ms DESC, hash LIMIT -1 OFFSET ?)",
            (RECEIPTS,),
        )
        self.trim()

    def kept(self, tid: bytes, seq: int) -> None:
        """Hear that the origin has a pulse, or will never have it: nobody owes it any more."""
        self._conn.execute("DELETE FROM promised WHERE tid = ? AND seq = ?", (tid, seq))

    def trim(self) -> None:
        """Forget receipts whose every pulse has come home, and notes without a receipt."""
        self._conn.execute("DELETE FROM receipt WHERE hash NOT IN (SELECT receipt FROM promised)")
        self._conn.execute("DELETE FROM promised WHERE receipt NOT IN (SELECT hash FROM receipt)")

    def receipts(self) -> list[bytes]:
        """Return the receipts kept, oldest first."""
        rows = self._conn.execute("SELECT data FROM receipt ORDER BY at_ms, hash").fetchall()
        return [data for (data,) in rows]
