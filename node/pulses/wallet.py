"""The wallet: this box's tickets, session and content keys, and how far each session has signed.

A pulse is written here, on the disk, before it goes anywhere; so after a crash the next one goes on
from the newest that ever existed, and no number is ever signed twice with different bodies. The file
holds private session keys and the keys of protected titles: mode 600.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ...protocol.contentkey import Lease
from ...protocol.errors import RemoteError
from ...protocol.identity import Identity
from ...protocol.pulse import PulseSigner, read_pulse
from ...protocol.ticket import DAY_MS, TicketGrant, open_ticket
from ..database import Tables, open_database, transaction

DAYS_AHEAD = 14
DAYS_KEPT = 14
"""Past days whose ticket keys stay, so that a person can read what this box has sent."""

CONTENT_KEYS_KEPT = 4_096

Issue = Callable[[list[tuple[int, bytes]]], Awaitable[list[TicketGrant]]]
"""Asks the origin for tickets: (UTC day since 1970, session public key) each."""

TABLES = Tables("farcast.node.pulses.wallettables", "wallet", "0003_ended")


class Credential(NamedTuple):
    """A ticket that holds now, and the session key that shows it is ours."""

    ticket: bytes
    session: Identity


class Unspooled(NamedTuple):
    """A pulse that a crash may have kept from the spool."""

    tid: bytes
    seq: int
    pulse: bytes
    ticket: bytes


@dataclass(frozen=True, slots=True)
class Holding:
    """What the wallet holds: the UTC days with a ticket, and those still asked for."""

    days: tuple[int, ...]
    missing: tuple[int, ...]


class Wallet:
    """Tickets by day; every method blocks on the disk and is thread-safe."""

    def __init__(
        self, path: Path, *, days_ahead: int = DAYS_AHEAD, entropy: Callable[[int], bytes] = os.urandom
    ) -> None:
        """Open or create the wallet in the file ``path``; raises ``LocalError`` where it is damaged."""
        self._path = path
        self._days_ahead = days_ahead
        self._entropy = entropy
        self._lock = threading.Lock()
        self._signers: dict[int, PulseSigner] = {}
        self._conn = open_database(path, TABLES, synchronous="FULL")
        self._ended = self._conn.execute("SELECT 1 FROM ended").fetchone() is not None

    @property
    def ended(self) -> bool:
        """Whether the origin revoked the account, so that there are no tickets until it gives some again."""
        return self._ended

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._conn.close()

    # -- tickets

    def wanted(self, today: int) -> list[tuple[int, bytes]]:
        """Return the days without a ticket from ``today`` on, each with its session's public key.

        A session key is made once for each day and kept until that day is over.
        """
        with self._lock, transaction(self._conn, self._path) as conn:
            for day in range(today, today + self._days_ahead + 1):
                conn.execute("INSERT OR IGNORE INTO day(day, seed) VALUES (?, ?)", (day, self._entropy(32)))
            rows = conn.execute(
                "SELECT day, seed FROM day WHERE day >= ? AND day <= ? AND ticket IS NULL ORDER BY day",
                (today, today + self._days_ahead),
            ).fetchall()
        return [(day, Identity(seed).key) for day, seed in rows]

    def accept(self, grants: Sequence[TicketGrant], keys: list[bytes]) -> int:
        """Keep tickets that one of the origin's ticket ``keys`` signed for our own session keys.

        Raises:
            RemoteError: ``bad_signature``, ``not_ours`` or a codec reason; those before it are kept.

        """
        kept = 0
        for grant in grants:
            ticket, _ = open_ticket(grant.ticket, keys)
            with self._lock, transaction(self._conn, self._path) as conn:
                row = conn.execute("SELECT seed FROM day WHERE day = ?", (ticket.day,)).fetchone()
                if row is None or not row[0] or Identity(row[0]).key != ticket.session:
                    message = f"the origin sent a ticket for day {ticket.day} that names no key of this box"
                    raise RemoteError(message, reason="not_ours")
                kept += conn.execute(
                    "UPDATE day SET tid = ?, ticket = ?, key = ? WHERE day = ? AND ticket IS NULL",
                    (ticket.tid, grant.ticket, grant.key, ticket.day),
                ).rowcount
                conn.execute("DELETE FROM ended")
            self._ended = False
        return kept

    def end(self, day: int) -> None:
        """Throw away the tickets of ``day`` and later: the account was revoked, and they count no more.

        What was signed stays readable.
        """
        with self._lock:
            with transaction(self._conn, self._path) as conn:
                conn.execute("DELETE FROM day WHERE day >= ? AND seq = 0", (day,))
                conn.execute("UPDATE day SET seed = x'' WHERE day >= ?", (day,))
                conn.execute("INSERT OR IGNORE INTO ended VALUES (?)", (day,))
            self._ended = True
            for late in [late for late in self._signers if late >= day]:
                del self._signers[late]

    def end_from(self, tid: bytes) -> bool:
        """Do what ``end`` does from the day of a ticket on; False where that is no ticket in use here."""
        with self._lock:
            row = self._conn.execute("SELECT day FROM day WHERE tid = ? AND seed <> x''", (tid,)).fetchone()
        if row is not None:
            self.end(row[0])
        return row is not None

    def holding(self, today: int) -> Holding:
        """Return which days from ``today`` on have a ticket and which still lack one."""
        with self._lock:
            rows = self._conn.execute(
                "SELECT day FROM day WHERE day >= ? AND ticket IS NOT NULL AND seed <> x'' ORDER BY day",
                (today,),
            ).fetchall()
        days = tuple(day for (day,) in rows)
        span = range(today, today + self._days_ahead + 1)
        return Holding(days, tuple(day for day in span if day not in days))

    def ticket_keys(self) -> dict[bytes, bytes]:
        """Return the symmetric key of every ticket held, by ticket id: it opens this box's own pulses."""
        with self._lock:
            return dict(self._conn.execute("SELECT tid, key FROM day WHERE ticket IS NOT NULL").fetchall())

    def prune(self, today: int) -> None:
        """Forget the session keys of days that are over, and whole days after two weeks."""
        with self._lock, transaction(self._conn, self._path) as conn:
            conn.execute("UPDATE day SET seed = x'' WHERE day < ? AND spooled = 1", (today - 1,))
            conn.execute("DELETE FROM day WHERE day < ? AND spooled = 1", (today - DAYS_KEPT,))
            for day in [day for day in self._signers if day < today - 1]:
                del self._signers[day]

    # -- content keys

    def credential(self, at_ms: int) -> Credential | None:
        """Return a ticket that holds at ``at_ms``; None without one."""
        signer = self.signer(at_ms)
        if signer is None:
            return None
        with self._lock:
            row = self._conn.execute("SELECT seed FROM day WHERE day = ?", (signer.body.day,)).fetchone()
        return Credential(signer.ticket, Identity(row[0])) if row is not None and row[0] else None

    def keep_key(self, lease: Lease) -> None:
        """Keep a content key, or a newer grant of it."""
        with self._lock, transaction(self._conn, self._path) as conn:
            conn.execute("INSERT OR REPLACE INTO content_key VALUES (?, ?, ?, ?)", lease)

    def drop_key(self, key_id: bytes) -> None:
        """Forget a content key that the origin took back."""
        with self._lock, transaction(self._conn, self._path) as conn:
            conn.execute("DELETE FROM content_key WHERE id = ?", (key_id,))

    def content_keys(self, now_ms: int) -> list[Lease]:
        """Return the content keys kept, after forgetting those that are over."""
        with self._lock, transaction(self._conn, self._path) as conn:
            conn.execute("DELETE FROM content_key WHERE until_ms <= ?", (now_ms,))
            rows = conn.execute(
                "SELECT id, key, granted_ms, until_ms FROM content_key ORDER BY granted_ms DESC LIMIT ?",
                (CONTENT_KEYS_KEPT,),
            ).fetchall()
        return [Lease(*row) for row in rows]

    # -- signing

    def signer(self, at_ms: int) -> PulseSigner | None:
        """Return the signer whose ticket holds at ``at_ms``, where the last pulse left off; None without one.

        The day's own ticket comes first; around midnight a neighbouring day's may still hold.
        """
        today = at_ms // DAY_MS
        with self._lock:
            for day in (today, today - 1, today + 1):
                signer = self._signers.get(day) or self._load(day)
                if signer is not None and signer.body.valid_at(at_ms):
                    self._signers[day] = signer
                    return signer
        return None

    def record(self, signer: PulseSigner, pulse: bytes) -> None:
        """Make a fresh pulse durable, before anybody sees it.

        Raises:
            LocalError: the disk is full or the file damaged; the pulse must then be thrown away.

        """
        day = signer.body.day
        try:
            with self._lock, transaction(self._conn, self._path) as conn:
                conn.execute(
                    "UPDATE day SET seq = ?, cum_ms = ?, prev = ?, pulse = ?, spooled = 0 WHERE day = ?",
                    (signer.seq, signer.cum_ms, signer.prev, pulse, day),
                )
        except Exception:
            self._signers.pop(day, None)  # its number was never used: the next signer starts from the disk
            raise

    def spooled(self, tid: bytes, seq: int) -> None:
        """Note that the spool has the pulse; lost in a power cut this only costs a second try."""
        with self._lock, transaction(self._conn, self._path) as conn:
            conn.execute("UPDATE day SET spooled = 1 WHERE tid = ? AND seq = ?", (tid, seq))

    def unspooled(self) -> list[Unspooled]:
        """Return the pulses that were signed but not noted as spooled."""
        with self._lock:
            rows = self._conn.execute(
                "SELECT tid, seq, pulse, ticket FROM day WHERE spooled = 0 AND pulse IS NOT NULL"
            ).fetchall()
        return [Unspooled(*row) for row in rows]

    def _load(self, day: int) -> PulseSigner | None:
        row = self._conn.execute(
            "SELECT seed, ticket, key, seq, cum_ms, prev, pulse FROM day WHERE day = ?", (day,)
        ).fetchone()
        if row is None or not row[0] or row[1] is None:
            return None
        seed, ticket, key, seq, cum_ms, prev, pulse = row
        if pulse is not None and read_pulse(pulse)[0].seq != seq:
            raise RemoteError(
                f"{self._path} is damaged: its newest pulse is not number {seq}", reason="damaged"
            )
        return PulseSigner(ticket, key, Identity(seed), seq=seq, cum_ms=cum_ms, prev=prev)
