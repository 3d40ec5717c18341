"""The spool: signed pulses on their way home, durable in SQLite until the origin has acked them.

Over 400 lines because every table of the one file is read and written under its one lock; the rows
themselves are the books' and shelves' beside it.

Every write is on the disk before the call returns (WAL, synchronous FULL). Signatures are the
caller's to check before anything comes here; sizes and the dedup key are checked again.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from sqlite3 import Connection, Row

from prometheus_client import CollectorRegistry

from ...protocol.batch import Ack, SealRecord, TidAck, covers
from ...protocol.digest import Held, Numbers, missing
from ...protocol.errors import RefusedError, RemoteError
from ...protocol.identity import open_unverified
from ...protocol.ports import Spool, SpooledPulse
from ...protocol.pulse import read_pulse
from ...protocol.ticket import DAY_MS, MAX_SEQ
from ..database import Tables, open_database, transaction
from .ackbook import AckBook
from .batchshelf import BatchShelf
from .carriage import Carriage
from .promises import PromiseBook
from .proofs import ProofBook
from .sealbook import SealBook, Sealed
from .sentbook import SentBook, SentPulse
from .spooltally import Metrics, Tally

KEEP_MS = 9 * DAY_MS
"""How long foreign pulses wait for an ack; the origin's late window is a day longer."""
FOREIGN_QUOTA_BYTES = 1 << 30
TID_PULSES = 2 * MAX_SEQ
"""Foreign pulses kept per ticket: every sequence number once, and as many second bodies."""
ENVELOPE_LIMIT_BYTES = 1_024
UNJUDGED_TIDS = 64
RETRY_AFTER_S = 60.0

_SPOOLED = "SELECT tid, seq, pulse, ticket, seen_ms, own FROM spooled "
_PENDING = """
SELECT tid, seq, pulse, ticket, seen_ms, own FROM spooled
WHERE (?1 IS NULL OR own = ?1) AND (?2 IS NULL OR NOT EXISTS (
    SELECT 1 FROM handed
    WHERE handed.tid = spooled.tid AND handed.seq = spooled.seq AND ?2 IN (peer, '*') AND at_ms >= ?3
))
ORDER BY seen_ms, tid, seq LIMIT ?4
"""
_UNBATCHED = _SPOOLED + "WHERE own = 0 AND batch IS NULL ORDER BY seen_ms, tid, seq LIMIT ?"
_NUMBERS = """
SELECT tid, seq, count(*) FROM pulse
WHERE (?1 IS NULL OR NOT EXISTS (
    SELECT 1 FROM handed WHERE handed.tid = pulse.tid AND handed.seq = pulse.seq AND at_ms >= ?1
))
AND (?2 IS NULL OR seen_ms <= ?2)
GROUP BY tid, seq ORDER BY tid, seq
"""
_BODIES = "SELECT seq, count(*), max(own) FROM pulse WHERE tid = ? GROUP BY seq"
_FOUND = _SPOOLED + "WHERE tid = ? AND seq = ? ORDER BY hash"
_COUNTS = """
SELECT (SELECT count(*) FROM ticket) AS tickets, (SELECT count(*) FROM batch WHERE open) AS open_batches,
(SELECT count(*) FROM ack) AS acked_tids, (SELECT count(*) FROM receipt) AS receipts,
(SELECT count(*) FROM proof) AS proofs, (SELECT count(*) FROM carried) AS carried
"""

TABLES = Tables("farcast.node.pulses.spooltables", "spool", "0005_seals")


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits for an ack: how many pulses, since when (ms, 0 for none), how much viewing (ms)."""

    count: int
    oldest_ms: int
    viewed_ms: int


class DiskSpool(Spool):
    """The pulses, batches, acks and receipts in one home's database file.

    With ``foreign_expires`` others' pulses go after nine days without an ack; a relay, which is paid to
    bring them home, sets it to False and keeps them.
    """

    def __init__(
        self, path: Path, registry: CollectorRegistry, *, foreign_quota_bytes: int = FOREIGN_QUOTA_BYTES
    ) -> None:
        """Open or create the spool in the file ``path``; raises ``LocalError`` where it is damaged."""
        self.foreign_quota_bytes = foreign_quota_bytes
        self.foreign_expires = True
        self._path = path
        self._lock = threading.Lock()
        self._metrics = Metrics(registry)
        self._conn = open_database(self._path, TABLES, synchronous="FULL")
        self._conn.row_factory = Row
        self._acks = AckBook(self._conn)
        self._batches = BatchShelf(self._conn)
        self._sent = SentBook(self._conn)
        self._seals = SealBook(self._conn)
        self._promises = PromiseBook(self._conn)
        self._proofs = ProofBook(self._conn)
        self._carriage = Carriage(self._conn)
        self._tally = self._count()
        self._metrics.show(self._tally)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._conn.close()

    # -- pulses come

    def add(self, pulses: Iterable[SpooledPulse]) -> int:
        """Store pulses durably, all or none; returns how many were new.

        Known pulses and those an ack already covers are skipped; a second body under a known
        (tid, seq) is kept beside the first as evidence.

        Raises:
            RemoteError: ``malformed``, ``too_large``, ``wrong_key`` where tid or seq are not the pulse's.
            RefusedError: 429 ``spool_full`` where foreign pulses are over a quota.
            StoreFullError: the disk is full.

        """
        new = 0
        acked: dict[bytes, TidAck | None] = {}
        with self._transaction() as conn:
            before = self._tally.foreign
            for item in pulses:
                if item.tid not in acked:
                    acked[item.tid] = self._acks.known(item.tid)
                ack = acked[item.tid]
                if ack is None or not covers(ack, item.seq):
                    new += self._insert(conn, item)
            if self._tally.foreign > before:
                self._check_quotas(acked)
        self._metrics.show(self._tally)
        return new

    def _insert(self, conn: Connection, item: SpooledPulse) -> int:
        if max(len(item.pulse), len(item.ticket)) > ENVELOPE_LIMIT_BYTES:
            message = f"a pulse or ticket over the limit of {ENVELOPE_LIMIT_BYTES} bytes"
            raise RemoteError(message, reason="too_large")
        pulse, _ = read_pulse(item.pulse)
        if (pulse.tid, pulse.seq) != (item.tid, item.seq):
            raise RemoteError("a pulse filed under another ticket or number than its own", reason="wrong_key")
        ticket = sha256(item.ticket).digest()
        conn.execute("INSERT OR IGNORE INTO ticket VALUES (?, ?, ?)", (ticket, item.tid, item.ticket))
        row = (
            item.tid, item.seq, sha256(item.pulse).digest(), item.pulse, ticket,
            item.seen_ms, pulse.at_ms, pulse.delta_ms, int(item.own),
        )  # fmt: skip
        new = conn.execute(
            "INSERT OR IGNORE INTO pulse VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)", row
        ).rowcount
        if item.own:
            self._sent.add(pulse, item.pulse)
        if new:
            self._move(1, item.pulse, own=item.own)
        elif item.own:  # it came back to us before we filed it ourselves
            known = "UPDATE pulse SET own = 1 WHERE tid = ? AND seq = ? AND hash = ? AND own = 0"
            if conn.execute(known, row[:3]).rowcount:
                self._move(-1, item.pulse, own=False)
                self._move(1, item.pulse, own=True)
        return new

    def _check_quotas(self, tids: Iterable[bytes]) -> None:
        query = "SELECT count(*) FROM pulse WHERE own = 0 AND tid = ?"
        crowded = any(self._number(query, tid) > TID_PULSES for tid in tids)
        if crowded or self._tally.foreign_bytes > self.foreign_quota_bytes:
            message = (
                "this box holds as many of that ticket's pulses as it may"
                if crowded
                else f"this box holds {self.foreign_quota_bytes} bytes of pulses for others and takes no more"
            )
            raise RefusedError(message, status=429, retry_after_s=RETRY_AFTER_S, reason="spool_full")

    # -- pulses wait

    def pending(
        self,
        limit: int,
        *,
        not_handed_to: str | None = None,
        handed_before_ms: int = 0,
        own: bool | None = None,
    ) -> list[SpooledPulse]:
        """Return the oldest pulses that no ack covers yet.

        With ``not_handed_to`` only those not yet handed to that peer (``ANYBODY``: to no one), or before
        ``handed_before_ms`` and still not acked; with ``own`` only this box's, or only others'.
        """
        whose = None if own is None else int(own)
        return self._pulses(_PENDING, whose, not_handed_to, handed_before_ms, limit)

    def unbatched(self, limit: int) -> list[SpooledPulse]:
        """Return the oldest foreign pulses that are in no open batch."""
        return self._pulses(_UNBATCHED, limit)

    def find(self, wanted: Iterable[tuple[bytes, int]]) -> list[SpooledPulse]:
        """Return every body held under these (tid, seq), for a neighbour that lacks them."""
        return [item for tid, seq in wanted for item in self._pulses(_FOUND, tid, seq)]

    def numbers(
        self, promised_before_ms: int | None = None, seen_before_ms: int | None = None
    ) -> dict[bytes, Numbers]:
        """Return the sequence numbers held per tid, ascending, and those with several bodies.

        With ``promised_before_ms`` without those that anybody promised to carry since then; with
        ``seen_before_ms`` without those that came here later.
        """
        held: dict[bytes, Numbers] = {}
        for tid, seq, bodies in self._all(_NUMBERS, promised_before_ms, seen_before_ms):
            numbers = held.setdefault(tid, Numbers([], []))
            numbers.all.append(seq)
            if bodies > 1:
                numbers.twins.append(seq)
        return held

    def missing(self, offered: Iterable[Held]) -> list[Held]:
        """Return what of these this box would take: neither held nor acked, and within the ticket's quota."""
        found: list[Held] = []
        with self._lock:
            for item in offered:
                rows = self._conn.execute(_BODIES, (item.tid,)).fetchall()
                here = {int(seq): int(bodies) for seq, bodies, _ in rows}
                room = TID_PULSES - sum(bodies for _, bodies, own in rows if not own)
                if (ack := self._acks.known(item.tid)) is not None:
                    here |= {seq: TID_PULSES for seq in item.numbers() if covers(ack, seq)}
                if (wanted := missing(item, here, max(room, 0))) is not None:
                    found.append(wanted)
        return found

    def waiting(self, *, own: bool | None = None) -> Waiting:
        """Sum up what waits for an ack; with ``own`` only this box's, or only others'."""
        [row] = self._all(
            "SELECT count(*), coalesce(min(seen_ms), 0), coalesce(sum(delta_ms), 0) FROM pulse "
            "WHERE ?1 IS NULL OR own = ?1",
            None if own is None else int(own),
        )
        return Waiting(*row)

    def mark_handed(self, peer: str, keys: Iterable[tuple[bytes, int]], at_ms: int) -> None:
        """Note that ``peer`` promised to carry these (tid, seq), so that it is not asked again at once."""
        with self._transaction() as conn:
            conn.executemany(
                "INSERT OR REPLACE INTO handed(peer, at_ms, tid, seq) "
                "SELECT DISTINCT ?, ?, tid, seq FROM pulse WHERE tid = ? AND seq = ?",
                ((peer, at_ms, tid, seq) for tid, seq in keys),
            )

    def carriers(self) -> dict[bytes, list[str]]:
        """Return by ticket the peers that promised to carry what waits, the latest promise first."""
        query = "SELECT tid, peer FROM handed GROUP BY tid, peer ORDER BY max(at_ms) DESC, peer"
        found: dict[bytes, list[str]] = {}
        for row in self._all(query):
            found.setdefault(row["tid"], []).append(row["peer"])
        return found

    def mark_left(self, keys: Iterable[tuple[bytes, int]], way: str, at_ms: int) -> None:
        """Note which way own pulses of these (tid, seq) left, for ``sent``."""
        with self._transaction():
            self._sent.left(keys, way, at_ms)

    def sent(self, from_ms: int, limit: int) -> list[SentPulse]:
        """Return this box's own pulses made since ``from_ms``, and all that wait, newest first."""
        with self._lock:
            return self._sent.since(from_ms, limit)

    def unjudged(self, made_before_ms: int) -> list[bytes]:
        """Return own tickets with stored pulses made before then that no verdict covers, oldest first."""
        with self._lock:
            return self._seals.unjudged(made_before_ms, UNJUDGED_TIDS)

    def keep_seals(self, records: Iterable[tuple[SealRecord, bytes]], now_ms: int) -> int:
        """Keep verified verdicts on own sessions with their envelopes; returns how many are news."""
        with self._transaction():
            return sum(self._seals.keep(record, envelope, now_ms) for record, envelope in records)

    def sealed(self, from_ms: int) -> list[Sealed]:
        """Return the verdicts heard since then, the newest session first."""
        with self._lock:
            return self._seals.since(from_ms)

    # -- pulses go

    def settle(self, ack: bytes) -> int:
        """Apply one verified signed ack: keep it, drop what it covers; returns pulses dropped.

        The newest ack per tid is kept, and the batch it answers is closed.
        """
        body, _ = open_unverified(Ack, ack)
        dropped = 0
        with self._transaction() as conn:
            self._acks.keep(body.tids, ack, body.at_ms)
            for item in body.tids:
                if self._sent.acked(item, body.at_ms):
                    self._proofs.keep(item, ack, body.at_ms)
                rows = conn.execute("SELECT DISTINCT seq FROM pulse WHERE tid = ?", (item.tid,)).fetchall()
                for row in rows:
                    if covers(item, row["seq"]):
                        dropped += self._drop(conn, item.tid, row["seq"])
                if rows:
                    self._drop_tickets(conn, item.tid)
            self._batches.close([body.batch])
            self._carriage.close([body.batch])
            self._acks.trim()
            if dropped:
                self._promises.trim()
        self._metrics.settled.inc(dropped)
        self._metrics.show(self._tally)
        return dropped

    def acks(self, tids: Iterable[bytes]) -> list[bytes]:
        """Return the newest signed ack envelopes that cover any of ``tids``, each once, newest first."""
        with self._lock:
            found = {entry for tid in tids if (entry := self._acks.envelope(tid))}
        return [data for _, data in sorted(found, reverse=True)]

    def acks_of(self, held: Iterable[Held]) -> list[bytes]:
        """Return the signed acks that cover any of these pulses, each once, newest first."""
        with self._lock:
            found = {
                entry
                for item in held
                if (ack := self._acks.known(item.tid)) is not None
                and any(covers(ack, seq) for seq in item.numbers())
                and (entry := self._acks.envelope(item.tid))
            }
        return [data for _, data in sorted(found, reverse=True)]

    def expire(self, now_ms: int) -> int:
        """Let go what is older than nine days, own pulses excepted; returns foreign pulses dropped.

        A pulse is as old as the younger of its own time and its arrival, so that a box whose clock
        was wrong at arrival does not lose it.
        """
        before_ms = now_ms - KEEP_MS
        dropped = 0
        with self._transaction() as conn:
            query = "SELECT DISTINCT tid, seq FROM pulse WHERE own = 0 AND max(seen_ms, made_ms) < ?"
            rows = conn.execute(query, (before_ms,)).fetchall() if self.foreign_expires else []
            for row in rows:
                dropped += self._drop(conn, row["tid"], row["seq"])
            for tid in {row["tid"] for row in rows}:
                self._drop_tickets(conn, tid)
            self._acks.trim(before_ms)
            self._sent.trim(now_ms)
            self._seals.trim(now_ms)
            self._proofs.trim(now_ms)
            self._carriage.expire(before_ms)
            self._batches.close(self._batches.spent(before_ms))
        self._metrics.expired.inc(dropped)
        self._metrics.show(self._tally)
        return dropped

    # -- batches

    def next_batch(self) -> tuple[int, bytes]:
        """Return the number of the next batch and the hash of the one before (32 zero bytes first)."""
        with self._lock:
            number, name = self._batches.last()
        return number + 1, name

    def add_batch(self, number: int, data: bytes, pulses: Iterable[SpooledPulse]) -> None:
        """Keep a signed batch of ``pulses`` until it is acked; the same one again is no news.

        Raises:
            LocalError: ``batch_number`` where it is neither the last nor the next one.

        """
        with self._transaction():
            self._batches.add(number, data, list(pulses))

    def open_batches(self, limit: int = -1) -> list[tuple[int, bytes]]:
        """Return the batches not acked yet, in order; all of them, or the oldest ``limit``."""
        with self._lock:
            return self._batches.open(limit)

    def close_batch(self, name: bytes) -> None:
        """Forget an acked batch by its hash; pulses of it that no ack covered wait for another one."""
        with self._transaction():
            self._batches.close([name])

    def carry(self, carrier: bytes, data: bytes, at_ms: int) -> bool:
        """Keep another carrier's verified batch, as it is, until the origin acks it; True where new.

        Raises:
            RefusedError: 429 ``spool_full`` where that is over a quota.

        """
        with self._transaction():
            return self._carriage.add(carrier, data, at_ms)

    def carried(self, limit: int) -> list[bytes]:
        """Return other carriers' batches that wait for the origin, the oldest first."""
        with self._lock:
            return self._carriage.open(limit)

    # -- what others said

    def add_receipt(self, data: bytes, keys: Iterable[tuple[bytes, int]], at_ms: int) -> None:
        """Keep a carrier's verified receipt for own pulses of these (tid, seq) until an ack covers them."""
        with self._transaction():
            self._promises.add(data, keys, at_ms)

    def receipts(self) -> list[bytes]:
        """Return the receipts of carriers that have not brought everything home, oldest first."""
        with self._lock:
            return self._promises.receipts()

    def proofs(self) -> list[bytes]:
        """Return the signed acks of this box's own tickets, of thirteen months, oldest first."""
        with self._lock:
            return self._proofs.all()

    def counts(self) -> dict[str, int]:
        """Return how many of each thing the spool holds, for status pages."""
        [row] = self._all(_COUNTS)
        return {"own": self._tally.own, "foreign": self._tally.foreign, **dict(row)}

    # -- the inside; all of it wants the lock

    @contextmanager
    def _transaction(self) -> Generator[Connection]:
        with self._lock:
            before = self._tally
            try:
                with transaction(self._conn, self._path) as conn:
                    yield conn
            except BaseException:
                self._tally = before
                raise

    def _all(self, query: str, *values: object) -> list[Row]:
        with self._lock:
            return self._conn.execute(query, values).fetchall()

    def _pulses(self, query: str, *values: object) -> list[SpooledPulse]:
        return [
            SpooledPulse(tid, seq, pulse, ticket, seen_ms, bool(own))
            for tid, seq, pulse, ticket, seen_ms, own in self._all(query, *values)
        ]

    def _number(self, query: str, *values: object) -> int:
        return int(self._conn.execute(query, values).fetchone()[0])

    def _drop(self, conn: Connection, tid: bytes, seq: int) -> int:
        rows = conn.execute("SELECT pulse, own FROM pulse WHERE tid = ? AND seq = ?", (tid, seq)).fetchall()
        for row in rows:
            self._move(-1, row["pulse"], own=bool(row["own"]))
        conn.execute("DELETE FROM pulse WHERE tid = ? AND seq = ?", (tid, seq))
        conn.execute("DELETE FROM handed WHERE tid = ? AND seq = ?", (tid, seq))
        self._promises.kept(tid, seq)
        return len(rows)

    def _drop_tickets(self, conn: Connection, tid: bytes) -> None:
        conn.execute(
            "DELETE FROM ticket WHERE tid = ?1 AND hash NOT IN (SELECT ticket FROM pulse WHERE tid = ?1)",
            (tid,),
        )

    def _move(self, sign: int, pulse: bytes, *, own: bool) -> None:
        self._tally = self._tally.moved(sign, pulse, own=own)

    def _count(self) -> Tally:
        query = "SELECT count(*), coalesce(sum(length(pulse)), 0) FROM pulse WHERE own = ?"
        own, _ = self._conn.execute(query, (1,)).fetchone()
        foreign, size_bytes = self._conn.execute(query, (0,)).fetchone()
        return Tally(own, foreign, size_bytes)
