"""The intake: takes pulses from nodes and carriers, makes them durable, and acks.

One writer under one lock; every method blocks and is called through ``asyncio.to_thread``. What is
stored is what came, byte for byte; an ack is signed only after the bytes are on the disk.
"""

from __future__ import annotations

import threading
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge

from ...protocol.batch import BATCH_LIMIT_BYTES, MAX_PULSES, Ack, PulsePost, TidAck, batch_hash, open_batch
from ...protocol.codec import decode, encode
from ...protocol.errors import RemoteError
from ...protocol.identity import Identity, Signed
from ...protocol.pulse import pulse_hash
from ...protocol.rules import Rules
from ...protocol.ticket import DAY_MS, TicketOffice
from .admission import (
    DUPLICATE,
    STORED,
    WITNESS,
    Admission,
    Arrival,
    Frame,
    batch_arrival,
    condemned,
    open_frame,
    unproven,
)
from .segments import SegmentLog

PATHS = ("relay", "mesh", "direct")
SEGMENTS = "seg"


class Counts(NamedTuple):
    """Pulses by what became of them: distinct ones stored, repeated copies, rejected copies by code."""

    accepted: int
    duplicate: int
    rejected: dict[str, int]
    by_path: dict[str, int]


class Metrics:
    """What the intake tells Prometheus."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.accepted = Counter(
            "farcast_origin_pulses_accepted", "Pulses stored, by the way they first came.", ["path"],
            registry=registry,
        )  # fmt: skip
        self.duplicates = Counter(
            "farcast_origin_pulses_duplicate", "Copies of pulses stored before.", registry=registry
        )
        self.rejected = Counter(
            "farcast_origin_pulses_rejected", "Pulses not stored or not alone under their number, by reason.",
            ["reason"], registry=registry,
        )  # fmt: skip
        self.entries = Gauge(
            "farcast_origin_intake_log_entries", "Entries in the intake log.", registry=registry
        )
        self.torn = Gauge(
            "farcast_origin_intake_torn_bytes", "Bytes of a torn frame cut at the last start.",
            registry=registry,
        )  # fmt: skip
        for path in PATHS:
            self.accepted.labels(path)


class Intake:
    """Stores pulses in ``folder/seg`` and answers with acks of ``identity``, the intake key."""

    def __init__(
        self,
        folder: Path,
        office: TicketOffice,
        ticket_keys: Callable[[], Sequence[bytes]],
        identity: Identity,
        is_relay: Callable[[bytes], bool],
        registry: CollectorRegistry,
        *,
        rules: Rules | None = None,
        watch: Callable[[Frame], None] = lambda _: None,
    ) -> None:
        """Open the log under ``folder`` and rebuild everything from it; ``watch`` hears of each frame in it.

        Raises:
            LocalError: ``damaged``.

        """
        self._admission = Admission(office, ticket_keys, rules or Rules())
        self._identity = identity
        self._is_relay = is_relay
        self._metrics = Metrics(registry)
        self._lock = threading.Lock()
        self._watch = watch
        self._condemned: set[bytes] = set()
        self._at_ms = 0
        self._duplicate = 0
        self._accepted: Tally[str] = Tally()
        self._rejected: Tally[str] = Tally()
        self._log = SegmentLog(folder / SEGMENTS, self._replay)
        self._admission.forget(self._at_ms)
        self._metrics.torn.set(self._log.torn_bytes)
        self._metrics.entries.set(self._log.tree.size)

    @property
    def torn_bytes(self) -> int:
        """Bytes of a torn last frame that were cut at start; they were never acked."""
        return self._log.torn_bytes

    def post(self, data: bytes, now_ms: int) -> bytes:
        """Store a plain post; the origin's own time is its receive time. Returns the signed ack.

        Raises:
            RemoteError: where it is no post.
            LocalError: where it cannot be made durable.

        """
        post = decode(PulsePost, data, limit_bytes=BATCH_LIMIT_BYTES)
        return self._store(data, b"", lambda at_ms, _: _post_arrival(post, at_ms), now_ms)

    def batch(self, data: bytes, now_ms: int) -> bytes:
        """Store a carrier's batch; only an enrolled relay's stamps count. Returns the signed ack.

        Raises:
            RemoteError: where it is no batch, or not signed by the carrier it names.
            LocalError: where it cannot be made durable.

        """
        if len(data) > BATCH_LIMIT_BYTES:
            raise RemoteError(f"a batch of {len(data)} bytes is too large", reason="too_large")
        batch = open_batch(data)
        return self._store(
            data, batch.carrier, lambda at_ms, relay: batch_arrival(batch, at_ms, relay=relay), now_ms
        )

    def condemn(self, pulse: bytes, now_ms: int) -> None:
        """Note durably that a stored pulse's content witness is false, once: it counts nothing from here on.

        Raises:
            LocalError: where that cannot be made durable.

        """
        name = pulse_hash(decode(Signed, pulse).body)
        with self._lock:
            if name in self._condemned:
                return
            at_ms = max(now_ms, self._at_ms)
            frame = Frame(1, at_ms, b"", False, encode(PulsePost(1, [], [pulse])), [], [WITNESS])
            self._log.append(encode(frame), at_ms)
            self._at_ms = at_ms
            self._condemned.add(name)
            self._metrics.entries.set(self._log.tree.size)
            self._count(frame.verdicts, frame.path)
            self._measure(frame.verdicts, frame.path)

    def acks_for(self, tids: Iterable[bytes], now_ms: int) -> list[bytes]:
        """Return signed acks of what is stored under these tickets now; unknown ones are left out."""
        with self._lock:
            known = [ack for tid in tids if (ack := self._admission.ack(tid)) is not None]
            return [
                self._ack(bytes(32), known[start : start + MAX_PULSES], now_ms)
                for start in range(0, len(known), MAX_PULSES)
            ]

    def recent_acks(self, tickets: int, now_ms: int) -> list[bytes]:
        """Return signed acks of the tickets heard of last, for who has no way to ask."""
        with self._lock:
            tids = self._admission.newest(tickets)
        return self.acks_for(tids, now_ms)

    def counts(self) -> Counts:
        """Return the counts since the log began; copies that needed no storing, since the start."""
        with self._lock:
            by_path = {path: self._accepted[path] for path in PATHS}
            return Counts(self._accepted.total(), self._duplicate, dict(self._rejected), by_path)

    def head(self) -> tuple[int, bytes]:
        """Return the size and the root of the intake log."""
        with self._lock:
            return self._log.tree.size, self._log.tree.root()

    def close(self) -> None:
        """Close the log's file."""
        with self._lock:
            self._log.close()

    def _store(self, data: bytes, carrier: bytes, read: Callable[[int, bool], Arrival], now_ms: int) -> bytes:
        with self._lock:
            at_ms = max(now_ms, self._at_ms)  # a clock set back never reorders the log
            if at_ms // DAY_MS != self._at_ms // DAY_MS:
                self._admission.forget(at_ms)
            relay = bool(carrier) and self._is_relay(carrier)
            judged = self._admission.judge(read(at_ms, relay), at_ms)
            if judged.news:
                frame = Frame(1, at_ms, carrier, relay, data, judged.tickets, judged.verdicts)
                self._log.append(encode(frame), at_ms)
                self._at_ms = at_ms
                self._admission.apply(frame)
                self._watch(frame)
                self._metrics.entries.set(self._log.tree.size)
            path = ("relay" if relay else "mesh") if carrier else "direct"
            self._count(judged.verdicts, path)
            self._measure(judged.verdicts, path)
            forged: dict[bytes, list[str]] = {tid: [] for tid in judged.tids}
            for tid, verdict in zip(judged.tids, judged.verdicts, strict=True):
                if unproven(verdict):
                    forged[tid].append(verdict)
            acks = [self._admission.ack(tid, codes) for tid, codes in forged.items()]
            return self._ack(batch_hash(data), [ack for ack in acks if ack is not None], at_ms)

    def _ack(self, name: bytes, tids: list[TidAck], now_ms: int) -> bytes:
        tree, end = self._log.tree, self._log.end
        at_ms = max(now_ms, self._at_ms)
        ack = Ack(1, name, tids, end.segment, end.offset, tree.size, tree.root(), at_ms)
        return self._identity.seal("ack", ack)

    def _replay(self, payload: bytes) -> None:
        frame = open_frame(payload)
        self._at_ms = frame.at_ms
        self._admission.apply(frame)
        self._condemned.update(name for _, name in condemned(frame))
        self._watch(frame)
        self._count(frame.verdicts, frame.path)

    def _count(self, verdicts: list[str], path: str) -> None:
        for verdict in verdicts:
            if verdict == STORED:
                self._accepted[path] += 1
            elif verdict == DUPLICATE:
                self._duplicate += 1
            else:
                self._rejected[verdict] += 1

    def _measure(self, verdicts: list[str], path: str) -> None:
        for verdict, count in Tally(verdicts).items():
            if verdict == STORED:
                self._metrics.accepted.labels(path).inc(count)
            elif verdict == DUPLICATE:
                self._metrics.duplicates.inc(count)
            else:
                self._metrics.rejected.labels(verdict).inc(count)


def _post_arrival(post: PulsePost, at_ms: int) -> Arrival:
    return Arrival(post.tickets, post.pulses, [at_ms] * len(post.pulses))
