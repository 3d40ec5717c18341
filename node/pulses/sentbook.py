"""The sent book: this box's own pulses with what became of each, for the person whose viewing they tell."""

from __future__ import annotations

from collections.abc import Iterable
from sqlite3 import Connection
from typing import NamedTuple

from ...protocol.batch import TidAck, covers
from ...protocol.pulse import Pulse
from ...protocol.ticket import DAY_MS

ACKED_KEPT_MS = DAY_MS
JUDGED_KEPT_MS = 3 * DAY_MS
"""So long a stored pulse waits for the origin's verdict on its session."""
WAITING_KEPT_MS = 14 * DAY_MS
"""The wallet keeps the keys that open them no longer."""


class SentPulse(NamedTuple):
    """One own pulse as it was signed; a time is ms since 1970, 0 for not yet.

    ``way`` is who took it first: ``relay``, ``origin``, ``neighbour`` or ``stick``, empty for nobody so far
    as this box knows; ``code`` the origin's reason where it refused the pulse. ``judged_ms`` is when the
    verdict on its session came, ``cuts`` why not all of it counts, comma-separated.
    """

    tid: bytes
    seq: int
    pulse: bytes
    made_ms: int
    way: str
    left_ms: int
    acked_ms: int
    code: str
    judged_ms: int
    cuts: str


class SentBook:
    """The sent rows of a spool's database; the spool calls it under its lock, writes in its transaction."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    def add(self, pulse: Pulse, data: bytes) -> None:
        """Note a pulse of this box's own; a second body under its number is not noted."""
        row = (pulse.tid, pulse.seq, data, pulse.at_ms)
        self._conn.execute("INSERT OR IGNORE INTO sent VALUES (?, ?, ?, ?, '', 0, 0, '', 0, '')", row)

    def left(self, keys: Iterable[tuple[bytes, int]], way: str, at_ms: int) -> None:
        """Note who took pulses; only the first way counts."""
        self._conn.executemany(
            "UPDATE sent SET way = ?, left_ms = ? WHERE tid = ? AND seq = ? AND left_ms = 0",
            [(way, at_ms, tid, seq) for tid, seq in keys],
        )

    def acked(self, item: TidAck, at_ms: int) -> bool:
        """Note what the origin says of one ticket's pulses; True where the ticket is one of ours."""
        query = "SELECT seq FROM sent WHERE tid = ? AND acked_ms = 0"
        codes = {reject.seq: reject.code for reject in item.rejects}
        for (seq,) in self._conn.execute(query, (item.tid,)).fetchall():
            if covers(item, seq):
                self._conn.execute(
                    "UPDATE sent SET acked_ms = ?, code = ? WHERE tid = ? AND seq = ?",
                    (at_ms, codes.get(seq, ""), item.tid, seq),
                )
        return self._conn.execute("SELECT 1 FROM sent WHERE tid = ?", (item.tid,)).fetchone() is not None

    def since(self, from_ms: int, limit: int) -> list[SentPulse]:
        """Return the pulses made or judged since ``from_ms``, and all that still wait, the newest first."""
        query = """SELECT * FROM sent WHERE made_ms >= ?1 OR acked_ms = 0 OR judged_ms >= ?1
                   ORDER BY made_ms DESC, seq DESC LIMIT ?2"""
        return [SentPulse(*row) for row in self._conn.execute(query, (from_ms, limit))]

    def trim(self, now_ms: int) -> None:
        """Forget what was acked and told for a day, and what nobody can open any more."""
        self._conn.execute(
            """DELETE FROM sent WHERE made_ms < ?1 OR (acked_ms > 0 AND made_ms < ?2 AND judged_ms < ?2
               AND (judged_ms > 0 OR code <> '' OR made_ms < ?3))""",
            (now_ms - WAITING_KEPT_MS, now_ms - ACKED_KEPT_MS, now_ms - JUDGED_KEPT_MS),
        )
