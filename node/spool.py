"""The spool: signed pulses on their way home, durable in SQLite until the origin has acked them.

Every write is on the disk before the call returns (WAL, synchronous FULL). Signatures are the
caller's to check before anything comes here; sizes and the dedup key are checked again.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from sqlite3 import Connection, Row
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge

from ..protocol.batch import Ack, TidAck, batch_hash, covers
from ..protocol.codec import decode, encode
from ..protocol.errors import LocalError, RefusedError, RemoteError
from ..protocol.identity import open_unverified
from ..protocol.ports import Spool, SpooledPulse
from ..protocol.pulse import read_pulse
from ..protocol.ticket import DAY_MS, MAX_SEQ
from .database import open_database, transaction
from .spooltables import MIGRATIONS

KEEP_MS = 9 * DAY_MS
"""How long foreign pulses wait for an ack; the origin's late window is a day longer."""
FOREIGN_QUOTA_BYTES = 1 << 30
TID_PULSES = 2 * MAX_SEQ
"""Foreign pulses kept per ticket: every sequence number once, and as many second bodies."""
ACKED_TIDS = 20_000
BEACONS = 11 * 24
RECEIPTS = 20_000
ENVELOPE_LIMIT_BYTES = 1_024
RETRY_AFTER_S = 60.0

_FIELDS = (
    "SELECT pulse.tid, seq, pulse, ticket.data AS ticket, seen_ms, own FROM pulse JOIN ticket ON pulse.ticket = ticket.hash "
)


class Waiting(NamedTuple):
    """What waits for an ack: how many pulses, since when (ms, 0 for none), how much viewing (ms)."""

    count: int
    oldest_ms: int
    viewed_ms: int


class Metrics:
    """What the spool tells Prometheus."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.pulses = Gauge(
            "farcast_node_spool_pulses", "Pulses waiting for an ack.", ["whose"], registry=registry
        )
        self.bytes = Gauge("farcast_node_spool_foreign_bytes", "Bytes of foreign pulses.", registry=registry)
        self.settled = Counter(
            "farcast_node_spool_settled_pulses", "Pulses an ack let go.", registry=registry
        )
        self.expired = Counter(
            "farcast_node_spool_expired_pulses", "Foreign pulses too old to wait on.", registry=registry
        )


class DiskSpool(Spool):
    """The pulses, batches, acks, receipts and beacons in one home's ``spool.db``."""

    def __init__(
        self, home: Path, registry: CollectorRegistry, *, foreign_quota_bytes: int = FOREIGN_QUOTA_BYTES
    ) -> None:
        """Open the spool; raises ``LocalError`` where its database is damaged."""
        self.foreign_quota_bytes = foreign_quota_bytes
        self._path = home / "spool.db"
        self._lock = threading.Lock()
        self._metrics = Metrics(registry)
        self._conn = open_database(self._path, MIGRATIONS, synchronous="FULL")
        self._conn.row_factory = Row
        self._gauge()

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
            for item in pulses:
                if item.tid not in acked:
                    acked[item.tid] = self._acked(item.tid)
                ack = acked[item.tid]
                if ack is None or not covers(ack, item.seq):
                    new += self._insert(conn, item)
            if new:
                self._check_quotas(acked)
        self._gauge()
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
        done = conn.execute("INSERT OR IGNORE INTO pulse VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)", row)
        if done.rowcount == 0 and item.own:
            conn.execute("UPDATE pulse SET own = 1 WHERE tid = ? AND seq = ? AND hash = ?", row[:3])
        return done.rowcount

    def _check_quotas(self, tids: Iterable[bytes]) -> None:
        query = "SELECT count(*) FROM pulse WHERE own = 0 AND tid = ?"
        crowded = any(self._one(query, tid) > TID_PULSES for tid in tids)
        if crowded or self._foreign_bytes() > self.foreign_quota_bytes:
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

        With ``not_handed_to`` only those not yet handed to that peer, or handed before
        ``handed_before_ms`` and still not acked; with ``own`` only this box's, or only others'.
        """
        query = _FIELDS + (
            "WHERE (?1 IS NULL OR own = ?1) AND (?2 IS NULL OR NOT EXISTS (SELECT 1 FROM handed WHERE "
            "handed.tid = pulse.tid AND handed.seq = pulse.seq AND peer = ?2 AND at_ms >= ?3)) "
            "ORDER BY seen_ms, pulse.tid, seq LIMIT ?4"
        )
        return self._pulses(query, None if own is None else int(own), not_handed_to, handed_before_ms, limit)

    def unbatched(self, limit: int) -> list[SpooledPulse]:
        """Return the oldest foreign pulses that are in no open batch."""
        query = _FIELDS + "WHERE own = 0 AND batch IS NULL ORDER BY seen_ms, pulse.tid, seq LIMIT ?"
        return self._pulses(query, limit)

    def find(self, wanted: Iterable[tuple[bytes, int]]) -> list[SpooledPulse]:
        """Return every body held under these (tid, seq), for a neighbour that lacks them."""
        query = _FIELDS + "WHERE pulse.tid = ? AND seq = ? ORDER BY pulse.hash"
        return [item for tid, seq in wanted for item in self._pulses(query, tid, seq)]

    def digests(self) -> dict[bytes, list[int]]:
        """Return the sequence numbers held per tid, ascending."""
        held: dict[bytes, list[int]] = {}
        for row in self._all("SELECT DISTINCT tid, seq FROM pulse ORDER BY tid, seq"):
            held.setdefault(row["tid"], []).append(row["seq"])
        return held

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
                "INSERT OR REPLACE INTO handed SELECT DISTINCT tid, seq, ?, ? FROM pulse WHERE tid = ? AND seq = ?",
                ((peer, at_ms, tid, seq) for tid, seq in keys),
            )

    # -- pulses go

    def settle(self, ack: bytes) -> int:
        """Apply one verified signed ack: keep it, drop what it covers; returns pulses dropped.

        The newest ack per tid is kept, and the batch it answers is closed.
        """
        body, _ = open_unverified(Ack, ack)
        dropped = 0
        with self._transaction() as conn:
            for tid_ack in body.tids:
                self._keep_ack(conn, tid_ack, ack, body.at_ms)
                for row in self._run("SELECT DISTINCT seq FROM pulse WHERE tid = ?", tid_ack.tid):
                    if covers(tid_ack, row["seq"]):
                        dropped += self._drop(conn, tid_ack.tid, row["seq"])
                self._drop_ticket(conn, tid_ack.tid)
            self._close_batch(conn, body.batch)
            self._trim_acks(conn)
        self._metrics.settled.inc(dropped)
        self._gauge()
        return dropped

    def acks(self, tids: Iterable[bytes]) -> list[bytes]:
        """Return the newest signed ack envelopes that cover any of ``tids``, each once, newest first."""
        query = "SELECT data, ack.at_ms FROM ack JOIN envelope ON envelope = hash WHERE tid = ?"
        found = {row["data"]: row["at_ms"] for tid in tids for row in self._all(query, tid)}
        return sorted(found, key=lambda data: -found[data])

    def expire(self, now_ms: int) -> int:
        """Let go what is older than nine days, own pulses excepted; returns foreign pulses dropped.

        A pulse is as old as the younger of its own time and its arrival, so that a box whose clock
        was wrong at arrival does not lose it.
        """
        before_ms = now_ms - KEEP_MS
        old = "own = 0 AND max(seen_ms, made_ms) < ?"
        with self._transaction() as conn:
            rows = self._run(f"SELECT DISTINCT tid FROM pulse WHERE {old}", before_ms)  # noqa: S608
            dropped = conn.execute(f"DELETE FROM pulse WHERE {old}", (before_ms,)).rowcount  # noqa: S608
            for row in rows:
                self._drop_ticket(conn, row["tid"])
            conn.execute("DELETE FROM handed WHERE NOT EXISTS (SELECT 1 FROM pulse WHERE pulse.tid = handed.tid)")
            conn.execute("DELETE FROM ack WHERE at_ms < ?", (before_ms,))
            conn.execute("DELETE FROM receipt WHERE at_ms < ?", (before_ms,))
            self._trim_acks(conn)
            spent = "SELECT hash FROM batch WHERE open AND NOT EXISTS (SELECT 1 FROM pulse WHERE batch = number)"
            for row in self._run(spent + " AND at_ms < ?", before_ms):
                self._close_batch(conn, row["hash"])
        self._metrics.expired.inc(dropped)
        self._gauge()
        return dropped

    # -- batches

    def next_batch(self) -> tuple[int, bytes]:
        """Return the number of the next batch and the hash of the one before (32 zero bytes first)."""
        rows = self._all("SELECT number, hash FROM batch ORDER BY number DESC LIMIT 1")
        return (rows[0]["number"] + 1, rows[0]["hash"]) if rows else (1, bytes(32))

    def add_batch(self, number: int, data: bytes, pulses: Iterable[SpooledPulse]) -> None:
        """Keep a signed batch of ``pulses`` until it is acked; the same one again is no news.

        Raises:
            LocalError: ``batch_number`` where the number is not the next one.

        """
        name = batch_hash(data)
        with self._transaction() as conn:
            if self._run("SELECT 1 FROM batch WHERE number = ? AND hash = ?", number, name):
                return
            expected = self._one("SELECT coalesce(max(number), 0) + 1 FROM batch")
            if number != expected:
                message = f"batch {number} does not follow batch {expected - 1} in {self._path}"
                raise LocalError(message, reason="batch_number")
            items = list(pulses)
            at_ms = max((item.seen_ms for item in items), default=0)
            conn.execute("INSERT INTO batch VALUES (?, ?, ?, ?, 1)", (number, name, data, at_ms))
            conn.executemany(
                "UPDATE pulse SET batch = ? WHERE tid = ? AND seq = ? AND hash = ?",
                ((number, item.tid, item.seq, sha256(item.pulse).digest()) for item in items),
            )

    def open_batches(self) -> list[tuple[int, bytes]]:
        """Return the batches not acked yet, in order."""
        rows = self._all("SELECT number, data FROM batch WHERE open ORDER BY number")
        return [(row["number"], row["data"]) for row in rows]

    def close_batch(self, name: bytes) -> None:
        """Forget an acked batch by its hash; pulses of it that no ack covered wait for another one."""
        with self._transaction() as conn:
            self._close_batch(conn, name)

    # -- beacons and receipts

    def add_beacon(self, number: int, data: bytes) -> bool:
        """Keep a verified signed beacon, the newest eleven days of them; True where it was new."""
        with self._transaction() as conn:
            new = conn.execute("INSERT OR IGNORE INTO beacon VALUES (?, ?)", (number, data)).rowcount
            conn.execute("DELETE FROM beacon WHERE number <= (SELECT max(number) FROM beacon) - ?", (BEACONS,))
        return new > 0

    def beacons(self) -> list[tuple[int, bytes]]:
        """Return the beacons by number, newest first."""
        rows = self._all("SELECT number, data FROM beacon ORDER BY number DESC")
        return [(row["number"], row["data"]) for row in rows]

    def add_receipt(self, data: bytes, at_ms: int) -> None:
        """Keep a carrier's verified receipt as evidence of its promise."""
        with self._transaction() as conn:
            conn.execute("INSERT OR IGNORE INTO receipt VALUES (?, ?, ?)", (sha256(data).digest(), data, at_ms))
            conn.execute(
                "DELETE FROM receipt WHERE hash IN (SELECT hash FROM receipt ORDER BY at_ms DESC LIMIT -1 OFFSET ?)",
                (RECEIPTS,),
            )

    def receipts(self) -> list[bytes]:
        """Return the receipts kept, oldest first."""
        return [row["data"] for row in self._all("SELECT data FROM receipt ORDER BY at_ms, hash")]

    def counts(self) -> dict[str, int]:
        """Return how many of each thing the spool holds, for status pages."""
        return {
            "own": self._count("SELECT count(*) FROM pulse WHERE own = 1"),
            "foreign": self._count("SELECT count(*) FROM pulse WHERE own = 0"),
            "tickets": self._count("SELECT count(*) FROM ticket"),
            "open_batches": self._count("SELECT count(*) FROM batch WHERE open"),
            "acked_tids": self._count("SELECT count(*) FROM ack"),
            "receipts": self._count("SELECT count(*) FROM receipt"),
            "beacons": self._count("SELECT count(*) FROM beacon"),
        }
