"""The carriage: other carriers' batches, taken as they are because only their signer's stamps count."""

from __future__ import annotations

from collections.abc import Iterable
from sqlite3 import Connection

from ...protocol.batch import batch_hash
from ...protocol.errors import RefusedError

CARRIER_QUOTA_BYTES = 64 << 20
"""Of one carrier, some 150,000 pulses."""
BATCHES_QUOTA_BYTES = 512 << 20
RETRY_AFTER_S = 60.0


class Carriage:
    """The rows of carried batches; the spool calls it under its lock, writes in its transaction."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    def add(self, carrier: bytes, data: bytes, at_ms: int) -> bool:
        """Keep a verified batch that ``carrier`` signed; True where it is new.

        Raises:
            RefusedError: 429 ``spool_full`` where it or all carriers together are over their quota.

        """
        row = (batch_hash(data), carrier, data, at_ms)
        if not self._conn.execute("INSERT OR IGNORE INTO carried VALUES (?, ?, ?, ?)", row).rowcount:
            return False
        query = "SELECT coalesce(sum(length(data)), 0) FROM carried"
        [own] = self._conn.execute(f"{query} WHERE carrier = ?", (carrier,)).fetchone()
        [every] = self._conn.execute(query).fetchone()
        if own > CARRIER_QUOTA_BYTES or every > BATCHES_QUOTA_BYTES:
            message = "this box carries as many batches of others as it may"
            raise RefusedError(message, status=429, retry_after_s=RETRY_AFTER_S, reason="spool_full")
        return True

    def open(self, limit: int) -> list[bytes]:
        """Return carried batches that the origin has not acked, the oldest first."""
        query = "SELECT data FROM carried ORDER BY at_ms, hash LIMIT ?"
        return [data for (data,) in self._conn.execute(query, (limit,)).fetchall()]

    def close(self, names: Iterable[bytes]) -> None:
        """Let go of acked batches by their hashes."""
        self._conn.executemany("DELETE FROM carried WHERE hash = ?", ((name,) for name in names))

    def expire(self, before_ms: int) -> None:
        """Let go of batches taken before ``before_ms``: whoever signed them has them still."""
        self._conn.execute("DELETE FROM carried WHERE at_ms < ?", (before_ms,))
