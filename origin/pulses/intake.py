"""The intake: takes pulses from nodes and carriers, makes them durable, and acks.

Every method blocks and is called through ``asyncio.to_thread``. Deciding and writing are one at a
time, under a lock; posts that wait at the same time share one ``fdatasync``. What is stored is what
came, byte for byte; an ack is signed only after the bytes are on the disk.
"""

from __future__ import annotations

import threading
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from prometheus_client import CollectorRegistry

from ...protocol.batch import (
    BATCH_LIMIT_BYTES,
    MAX_PULSES,
    Ack,
    PulsePost,
    TidAck,
    batch_hash,
    open_parcel,
)
from ...protocol.codec import decode, encode
from ...protocol.identity import Identity, Signed
from ...protocol.pulse import pulse_hash
from ...protocol.rules import HOUR_MS, Rules
from ...protocol.ticket import DAY_MS, TicketOffice
from . import checkpoint
from .admission import Admission, Arrival, Judgement, Verify, code_of, unproven
from .frame import (
    DUPLICATE,
    PENDING,
    STORED,
    WITNESS,
    Frame,
    Seals,
    batch_arrival,
    condemned,
    open_frame,
    seals_of,
)
from .intaketally import PATHS, Metrics
from .segments import SegmentLog, newest

SEGMENTS = "seg"
OPEN_PULSES = 250_000
"""Pulses of open sessions kept in memory, about 1 kB each; over it the longest silent are sealed early."""
SEAL_EVERY_MS = 10_000
CHECKPOINT_ENTRIES = 10_000
"""Entries of the log between two checkpoints; a start reads at most so many, and those of one round."""


class Counts(NamedTuple):
    """Pulses by what became of them: distinct ones stored, repeated copies, rejected copies by code."""

    accepted: int
    duplicate: int
    rejected: dict[str, int]
    by_path: dict[str, int]


class _Kept(NamedTuple):
    """What was decided on a post and written, and is acked once it is durable."""

    tids: list[TidAck]
    segment: str
    offset: int
    log_size: int
    log_root: bytes
    at_ms: int


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
        verify: Verify = "eager",
        open_pulses: int = OPEN_PULSES,
        watch: Callable[[Frame], None] = lambda _: None,
        revoked: Mapping[bytes, int] | None = None,
    ) -> None:
        """Open the log under ``folder`` and rebuild everything; ``watch`` hears of its newest frames.

        ``revoked`` tells when accounts ended, in ms since 1970, at any time.

        Raises:
            LocalError: ``damaged``.

        """
        secret = sha256(identity.sign_raw(b"farcast/spot-check/v1")).digest()
        self._admission = Admission(
            office, ticket_keys, rules or Rules(), verify=verify, secret=secret, revoked=revoked
        )
        self._identity = identity
        self._is_relay = is_relay
        self._open_limit = open_pulses
        self._metrics = Metrics(registry)
        self._lock = threading.Lock()
        self._watch = watch
        self._condemned: set[bytes] = set()
        self._at_ms = 0
        self._duplicate = 0
        self._accepted: Tally[str] = Tally()
        self._rejected: Tally[str] = Tally()
        self._folder = folder
        found = checkpoint.load(folder, folder / SEGMENTS)
        if found is None:
            self._log = SegmentLog(folder / SEGMENTS, self._replay)
        else:
            self._restore(found[1])
            for payload in newest(folder / SEGMENTS, found[0].end):
                self._watch(open_frame(payload))
            self._log = SegmentLog(folder / SEGMENTS, self._replay, found[0])
        self._saved_size = self._log.tree.size if found else 0
        self._seal_due = self._at_ms // SEAL_EVERY_MS
        self._admission.forget(self._at_ms)
        self._metrics.torn.set(self._log.torn_bytes)
        self._show()

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
        batch, pulses = open_parcel(data)
        return self._store(
            data, batch.carrier, lambda at_ms, relay: batch_arrival(batch, pulses, at_ms, relay=relay), now_ms
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
            self._write(frame, lambda: None)
            self._condemned.add(name)
            self._count(frame.verdicts, frame.path)
            self._metrics.measure(frame.verdicts, frame.path)
        self._log.sync()

    def seal(self, now_ms: int, *, every: bool = False) -> int:
        """Close the sessions that are over, or all of them; returns how many records that made.

        Raises:
            LocalError: where it cannot be made durable.

        """
        with self._lock:
            records = self._seal(max(now_ms, self._at_ms), -1 if every else self._open_limit)
            if self._log.tree.size - self._saved_size >= CHECKPOINT_ENTRIES:
                self._checkpoint()
        self._log.sync()
        return records

    def prove(self, now_ms: int) -> None:
        """Check the signatures of whatever waits, durably; a settlement then need not.

        Raises:
            LocalError: where it cannot be made durable.

        """
        with self._lock:
            self._admission.prove()
            self._note(self._admission.take_found(), max(now_ms, self._at_ms))
        self._log.sync()

    def acks_for(self, tids: Iterable[bytes], now_ms: int) -> list[bytes]:
        """Return signed acks of what is stored under these tickets now; unknown ones are left out."""
        with self._lock:
            known = [ack for tid in tids if (ack := self._admission.ack(tid)) is not None]
            kept = [
                self._kept(known[start : start + MAX_PULSES], now_ms)
                for start in range(0, len(known), MAX_PULSES)
            ]
        self._log.sync()
        return [self._ack(bytes(32), one) for one in kept]

    def seals_for(self, tids: Iterable[bytes]) -> list[bytes]:
        """Return the signed seal records of these tickets' closed sessions, oldest first."""
        with self._lock:
            records = [record for tid in tids for record in self._admission.records(tid)]
        self._log.sync()
        return [self._identity.seal("seal", record) for record in records]

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
            self._checkpoint()
            self._log.close()

    def _store(self, data: bytes, carrier: bytes, read: Callable[[int, bool], Arrival], now_ms: int) -> bytes:
        name = batch_hash(data)
        with self._lock:
            at_ms = max(now_ms, self._at_ms)  # a clock set back never reorders the log
            if at_ms // DAY_MS != self._at_ms // DAY_MS:
                self._admission.forget(at_ms)
            if at_ms // HOUR_MS != self._at_ms // HOUR_MS:  # so that an hour's file is proven in itself
                self._admission.prove()
                self._note(self._admission.take_found(), self._at_ms)
            due = at_ms // SEAL_EVERY_MS
            if due != self._seal_due:  # by the clock's own steps, so that a restart seals no other way
                self._seal_due = due
                self._seal(max(due * SEAL_EVERY_MS, self._at_ms), self._open_limit)
            relay = bool(carrier) and self._is_relay(carrier)
            judged = self._admission.admit(read(at_ms, relay), at_ms, carrier, relay=relay, name=name)
            self._note(self._admission.take_found(), at_ms, self._admission.undo)
            if judged.news:
                frame = Frame(1, at_ms, carrier, relay, data, judged.tickets, judged.verdicts)
                self._write(frame, self._admission.undo)
                self._watch(frame)
            path = ("relay" if relay else "mesh") if carrier else "direct"
            self._count(judged.verdicts, path)
            self._metrics.measure(judged.verdicts, path)
            if self._admission.register.open_pulses > self._open_limit:
                self._seal(at_ms, self._open_limit * 3 // 4)
            kept = self._kept(self._tids(judged), at_ms)
        self._log.sync()
        return self._ack(name, kept)

    def _tids(self, judged: Judgement) -> list[TidAck]:
        forged: dict[bytes, list[str]] = {}
        if any(map(unproven, set(judged.verdicts))):
            for tid, verdict in zip(judged.tids, judged.verdicts, strict=True):
                if unproven(verdict):
                    forged.setdefault(tid, []).append(code_of(verdict))
        acks = [self._admission.ack(tid, forged.get(tid, ())) for tid in dict.fromkeys(judged.tids)]
        return [ack for ack in acks if ack is not None]

    def _seal(self, at_ms: int, below: int) -> int:
        found = self._admission.seal(at_ms, below=below)
        self._note(found, at_ms)
        self._show()
        return len(found.records) if found else 0

    def _note(self, found: Seals | None, at_ms: int, undo: Callable[[], None] = lambda: None) -> None:
        """Write what sealing found into the log; it is true whether it gets there or not."""
        if found is None:
            return
        self._metrics.sealed(found)
        self._failed(found)
        self._write(Frame(1, at_ms, b"", False, encode(found), [], []), undo)

    def _write(self, frame: Frame, undo: Callable[[], None]) -> None:
        try:
            self._log.write(encode(frame), frame.at_ms)
        except BaseException:
            undo()
            raise
        self._at_ms = frame.at_ms
        self._metrics.entries.set(self._log.tree.size)

    def _kept(self, tids: list[TidAck], now_ms: int) -> _Kept:
        tree, end = self._log.tree, self._log.end
        return _Kept(tids, end.segment, end.offset, tree.size, tree.root(), max(now_ms, self._at_ms))

    def _ack(self, name: bytes, kept: _Kept) -> bytes:
        return self._identity.seal("ack", Ack(1, name, *kept))

    def _show(self) -> None:
        self._metrics.entries.set(self._log.tree.size)
        register = self._admission.register
        lag_ms = max(0, self._at_ms - min(register.open.values(), default=self._at_ms))
        self._metrics.show(len(register.open), register.open_pulses, lag_ms, register.charged)

    def _checkpoint(self) -> None:
        """Save the state where the log has grown; the log is what it is derived from."""
        if self._log.tree.size == self._saved_size:
            return
        self._log.sync()
        register = self._admission.register
        state = checkpoint.State(
            self._at_ms, register.known, register.open, dict(register.charged), dict(self._accepted),
            dict(self._rejected), self._duplicate, list(self._condemned),
        )  # fmt: skip
        checkpoint.save(self._folder, self._folder / SEGMENTS, self._log.resume(), state)
        self._saved_size = self._log.tree.size

    def _restore(self, state: checkpoint.State) -> None:
        self._at_ms = state.at_ms
        self._admission.register.restore(state.known, state.open, state.charged)
        self._accepted.update(state.accepted)
        self._rejected.update(state.rejected)
        self._duplicate = state.duplicate
        self._condemned.update(state.condemned)

    def _replay(self, payload: bytes) -> None:
        frame = open_frame(payload)
        self._at_ms = frame.at_ms
        self._admission.apply(frame)
        self._condemned.update(name for _, name in condemned(frame))
        self._watch(frame)
        self._count(frame.verdicts, frame.path)
        if (seals := seals_of(frame)) is not None:
            self._failed(seals)

    def _failed(self, seals: Seals) -> None:
        """Count pulses that waited, by a relay's word, and were found to be forged."""
        failed = sum(len(bodies.names) for bodies in seals.failed)
        if failed:
            self._accepted["relay"] -= failed
            self._rejected["bad_signature"] += failed

    def _count(self, verdicts: list[str], path: str) -> None:
        for verdict, count in Tally(verdicts).items():
            if verdict in (STORED, PENDING):
                self._accepted[path] += count
            elif verdict == DUPLICATE:
                self._duplicate += count
            else:
                self._rejected[code_of(verdict)] += count


def _post_arrival(post: PulsePost, at_ms: int) -> Arrival:
    return Arrival(post.tickets, post.pulses, [at_ms] * len(post.pulses))
