"""The ack book: the newest word of the origin on every ticket this box has heard of."""

from __future__ import annotations

from hashlib import sha256
from sqlite3 import Connection

from ...protocol.batch import TidAck
from ...protocol.codec import decode, encode

ACKED_TIDS = 20_000
"""Tickets remembered at most, the longest silent leave first: acks of a whole network may pass by."""


class AckBook:
    """The ack rows of a spool's database; the spool calls it under its lock, writes in its transaction."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    def known(self, tid: bytes) -> TidAck | None:
        """Return what the newest ack says of one ticket."""
        row = self._conn.execute("SELECT body FROM ack WHERE tid = ?", (tid,)).fetchone()
        return decode(TidAck, row[0]) if row else None

    def envelope(self, tid: bytes) -> tuple[int, bytes] | None:
        """Return the newest signed ack that speaks of a ticket and its time in ms."""
        query = "SELECT at_ms, data FROM ack JOIN envelope ON envelope = hash WHERE tid = ?"
        row = self._conn.execute(query, (tid,)).fetchone()
        return (row[0], row[1]) if row else None

    def keep(self, items: list[TidAck], envelope: bytes, at_ms: int) -> None:
        """Keep what a verified ack says where it is newer, or as new and says more."""
        name = sha256(envelope).digest()
        self._conn.execute("INSERT OR IGNORE INTO envelope VALUES (?, ?)", (name, envelope))
        for item in items:
            row = self._conn.execute("SELECT at_ms, body FROM ack WHERE tid = ?", (item.tid,)).fetchone()
            if row is None or (at_ms, _reach(item)) > (row[0], _reach(decode(TidAck, row[1]))):
                self._conn.execute(
                    "INSERT OR REPLACE INTO ack VALUES (?, ?, ?, ?)", (item.tid, at_ms, name, encode(item))
                )

    def trim(self, before_ms: int = 0) -> None:
        """Forget acks older than ``before_ms``, tickets over the limit, and envelopes nobody needs."""
        self._conn.execute("DELETE FROM ack WHERE at_ms < ?", (before_ms,))
        self._conn.execute(
            "DELETE FROM ack WHERE tid IN (SELECT tid FROM ack ORDER BY at_ms DESC LIMIT -1 OFFSET ?)",
            (ACKED_TIDS,),
        )
        self._conn.execute("DELETE FROM envelope WHERE NOT EXISTS (SELECT 1 FROM ack WHERE envelope = hash)")


def _reach(item: TidAck) -> int:
    return item.upto + len(item.extra) + len(item.rejects)
