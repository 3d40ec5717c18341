"""The seal book: the origin's verdicts on this box's own closed sessions, for the person who watched."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from sqlite3 import Connection
from typing import NamedTuple

from ...protocol.batch import SealRecord
from ...protocol.pulse import read_pulse
from ...protocol.ticket import DAY_MS

KEPT_MS = 14 * DAY_MS


class Sealed(NamedTuple):
    """One verdict: when its first pulse was made, what its pulses claim and what of that counts, in ms.

    ``codes`` says why not all, comma-separated; 0 in ``begun_ms`` where none of the pulses is here any more.
    """

    begun_ms: int
    claimed_ms: int
    counted_ms: int
    codes: str


class SealBook:
    """The seal rows of a spool's database; the spool calls it under its lock, writes in its transaction."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    def unjudged(self, made_before_ms: int, limit: int) -> list[bytes]:
        """Return own tickets with stored pulses made before then that no verdict covers, oldest first."""
        query = """SELECT tid FROM sent WHERE acked_ms > 0 AND code = '' AND judged_ms = 0 AND made_ms < ?
                   GROUP BY tid ORDER BY min(made_ms) LIMIT ?"""
        return [tid for (tid,) in self._conn.execute(query, (made_before_ms, limit)).fetchall()]

    def keep(self, record: SealRecord, envelope: bytes, now_ms: int) -> bool:
        """Keep a verified verdict on a ticket of ours; False where it is no news."""
        query = "SELECT seq, pulse, made_ms, acked_ms FROM sent WHERE tid = ? AND seq BETWEEN ? AND ?"
        rows = self._conn.execute(query, (record.tid, record.first, record.last)).fetchall()
        why: dict[int, list[str]] = {}
        for reject in record.codes:
            why.setdefault(reject.seq, []).append(reject.code)
        row = (
            sha256(envelope).digest(), record.tid, envelope, now_ms,
            min((made_ms for _, _, made_ms, _ in rows), default=0),
            sum(read_pulse(pulse)[0].delta_ms for _, pulse, _, _ in rows), record.counted_ms,
            _told({reject.code for reject in record.codes}),
        )  # fmt: skip
        news = self._conn.execute("INSERT OR IGNORE INTO seal VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row).rowcount
        for seq, _, _, acked_ms in rows:
            cuts = _told(why.get(seq, ()))
            if acked_ms:  # of one not acked yet it says nothing: the number may be another's in between
                news += self._conn.execute(
                    """UPDATE sent SET judged_ms = ?1, cuts = ?2
                       WHERE tid = ?3 AND seq = ?4 AND (judged_ms = 0 OR (cuts = '' AND ?2 <> ''))""",
                    (now_ms, cuts, record.tid, seq),
                ).rowcount
        return news > 0

    def since(self, from_ms: int) -> list[Sealed]:
        """Return the verdicts heard since then, the newest first."""
        query = """SELECT begun_ms, claimed_ms, counted_ms, codes FROM seal WHERE heard_ms >= ?
                   ORDER BY begun_ms DESC, hash"""
        return [Sealed(*row) for row in self._conn.execute(query, (from_ms,)).fetchall()]

    def trim(self, now_ms: int) -> None:
        """Forget what was heard two weeks ago."""
        self._conn.execute("DELETE FROM seal WHERE heard_ms < ?", (now_ms - KEPT_MS,))


def _told(codes: Iterable[str]) -> str:
    return ",".join(sorted(codes))
