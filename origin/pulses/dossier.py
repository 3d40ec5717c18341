"""The dossier: what the origin has stored under one ticket, and which of it is not proven yet."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import NamedTuple

from msgspec.structs import replace

from ...protocol.batch import Reject, SealRecord, TidAck
from ...protocol.identity import verify
from ...protocol.pulse import Pulse
from ...protocol.ticket import DAY_GRACE_MS, DAY_MS, Ticket
from .frame import month_bounds_ms, month_of
from .opened import Opened, Stretch


class Proof(NamedTuple):
    """What checking one ticket's signatures brought: hashes of bodies, and who brought the wrong ones."""

    proven: list[bytes]
    failed: list[bytes]
    charged: list[bytes]


@lru_cache(maxsize=256)
def month_end_ms(day: int) -> int:
    """Return the end of the month that a UTC day since 1970 lies in."""
    return month_bounds_ms(month_of(day))[1]


@dataclass(slots=True, eq=False)
class Dossier:
    """Per number the first authentic (or pending) body's hash and smallest stamp, and what is besides.

    ``links`` holds the hashes that authentic bodies name and that are not simply the number before;
    with the number of who names it. ``open`` is what no seal record covers yet, ``waiting`` the numbers
    of those whose signature was not checked, ``tail`` the last that a record covers; ``looked`` is the
    number last looked into for the session's end; ``account`` is whose ticket it is, once somebody asked.
    """

    ticket: Ticket
    names: dict[int, bytes] = field(default_factory=dict[int, bytes])
    stamps: dict[int, int] = field(default_factory=dict[int, int])
    others: dict[int, dict[bytes, int]] = field(default_factory=dict[int, dict[bytes, int]])
    links: dict[bytes, int] = field(default_factory=dict[bytes, int])
    open: dict[bytes, Opened] = field(default_factory=dict[bytes, Opened])
    waiting: set[int] = field(default_factory=set[int])
    runs: dict[int, int] = field(default_factory=dict[int, int])
    """Stretches of waiting numbers, each linked to the one before: by their last number the first."""
    unproven: dict[bytes, Opened] = field(default_factory=dict[bytes, Opened])
    rejects: dict[int, str] = field(default_factory=dict[int, str])
    records: list[SealRecord] = field(default_factory=list[SealRecord])
    tail: Opened | None = None
    looked: int = 0
    upto: int = 0
    session: bytes = b""
    from_ms: int = 0
    until_ms: int = 0
    late_ms: int = 0
    account: bytes = b""

    def __post_init__(self) -> None:
        """Keep at hand what every pulse is held against."""
        self.session = self.ticket.session
        self.from_ms = self.ticket.day * DAY_MS - DAY_GRACE_MS
        self.until_ms = (self.ticket.day + 1) * DAY_MS + DAY_GRACE_MS
        self.late_ms = month_end_ms(self.ticket.day)

    def copy(self) -> Dossier:
        """Return a dossier that changes on its own from here."""
        other = Dossier(self.ticket)
        other.restore(self)
        return other

    def restore(self, earlier: Dossier) -> None:
        """Become what ``earlier`` is."""
        for item in fields(self):
            setattr(self, item.name, copy(getattr(earlier, item.name)))
        self.others = {seq: dict(names) for seq, names in earlier.others.items()}

    # -- what is here

    def has(self, seq: int, name: bytes) -> bool:
        """Say whether this body is here as authentic or pending."""
        return self.names.get(seq) == name or name in self.others.get(seq, ())

    def holds(self, item: Opened) -> bool:
        """Say whether this very copy is here, or any copy of what is proven."""
        seq, name = item.pulse.seq, item.name
        if seq in self.waiting:
            return self.names[seq] == name and self._waiting(seq).sig == item.sig
        return self.has(seq, name)

    def bodies(self, seq: int) -> int:
        """Return how many bodies stand under a number."""
        return (seq in self.names) + len(self.others.get(seq, ()))

    def linked(self, seq: int, name: bytes) -> bool:
        """Say whether an authentic later body names this one."""
        return self.links.get(name, 0) > seq

    def stamp(self, seq: int, name: bytes) -> int:
        """Return the smallest stamp of a body that is here."""
        return self.stamps[seq] if self.names[seq] == name else self.others[seq][name]

    def lower(self, seq: int, name: bytes, stamp_ms: int) -> bool:
        """Take an earlier stamp of a body that is here; False where it is not earlier."""
        if stamp_ms >= self.stamp(seq, name):
            return False
        if self.names[seq] == name:
            self.stamps[seq] = stamp_ms
        else:
            self.others[seq][name] = stamp_ms
        return True

    def ack(self, unproven: list[Reject]) -> TidAck:
        """Return what is stored: pending bodies too, unproven ones not."""
        names, upto = self.names, self.upto
        extra = [] if len(names) == upto else sorted(seq for seq in names if seq > upto)
        if self.rejects:
            unproven = unproven + [Reject(seq, code) for seq, code in sorted(self.rejects.items())]
        return TidAck(self.ticket.tid, upto, extra, unproven)

    def is_free(self, brought: Stretch) -> bool:
        """Say whether nothing stands under any of these numbers, and each is there once."""
        seqs = brought.seqs
        if brought.dense and seqs[0] == self.upto + 1 > len(self.names):
            return True  # they follow all there are
        return self.names.keys().isdisjoint(seqs) and len(set(seqs)) == len(seqs)

    def goes_on(self, brought: Stretch) -> bool:
        """Say whether each of these names the one before it, which is here or among them."""
        seqs, prevs = brought.seqs, brought.prevs
        if brought.dense:
            return self._follows(seqs[0], prevs[0])
        among = dict(zip(seqs, brought.names, strict=True))
        return all(
            among.get(seq - 1) == prev or self._follows(seq, prev)
            for seq, prev in zip(seqs, prevs, strict=True)
        )

    # -- what comes

    def put(self, item: Opened) -> None:
        """Put the first body under its number."""
        seq, name = item.pulse.seq, item.name
        self.names[seq] = name
        self.stamps[seq] = item.stamp_ms
        self.open[name] = item
        if self.rejects:
            self.rejects.pop(seq, None)
        if seq == self.upto + 1:
            self._reach()

    def put_all(self, brought: Stretch) -> None:
        """Put the first bodies under their numbers; none of them was rejected before."""
        seqs = brought.seqs
        unbroken = len(self.names) == self.upto
        firsts, stamps, opened = self.names, self.stamps, self.open
        for seq, name, stamp_ms, item in zip(
            seqs, brought.names, brought.stamps_ms, brought.items, strict=True
        ):
            firsts[seq] = name
            stamps[seq] = stamp_ms
            opened[name] = item
        if unbroken and len(self.names) == max(seqs):
            self.upto = len(self.names)
        elif self.upto + 1 in self.names:
            self._reach()

    def wait_all(self, brought: Stretch) -> None:
        """Note that what was put is not proven yet."""
        seqs, prevs = brought.seqs, brought.prevs
        self.waiting.update(seqs)
        if brought.dense and len(seqs) > 1:
            self._run(seqs[0], prevs[0])
            self.runs[seqs[-1]] = self.runs.pop(seqs[0], seqs[0])
        else:
            for seq, prev in zip(seqs, prevs, strict=True):
                self._run(seq, prev)

    def wait(self, pulse: Pulse) -> None:
        """Note that a pulse that was put is not proven yet."""
        self.waiting.add(pulse.seq)
        self._run(pulse.seq, pulse.prev)

    def _run(self, seq: int, prev: bytes) -> None:
        """Let the run before a waiting number go on to it, where it names that."""
        if seq - 1 in self.waiting and self.names[seq - 1] == prev:
            self.runs[seq] = self.runs.pop(seq - 1, seq - 1)

    def take_back(self, seq: int, name: bytes) -> None:
        """Undo ``put`` of a body that nothing links to."""
        self.open.pop(name, None)
        self.unproven.pop(name, None)
        if self.names.get(seq) == name:
            del self.names[seq], self.stamps[seq]
            self.waiting.discard(seq)
            self.runs.clear()  # they only spare a walk
            self.upto = min(self.upto, seq - 1)

    def keep(self, item: Opened) -> None:
        """Keep an authentic body, the first of its number or one more, and follow its links."""
        seq, prev = item.pulse.seq, item.pulse.prev
        held = self.unproven.pop(item.name, item)
        if held.stamp_ms < item.stamp_ms:
            item = replace(item, stamp_ms=held.stamp_ms)
        if seq in self.names:
            self.others.setdefault(seq, {})[item.name] = item.stamp_ms
            self.open[item.name] = item
            self.links[prev] = max(seq, self.links.get(prev, 0))  # not the one that stands for its number
        else:
            self.put(item)
        self.follow(item.pulse)

    def hold(self, item: Opened) -> None:
        """Keep a copy of a body that nothing shows to be authentic, out of the way."""
        held = self.unproven.get(item.name, item)
        self.unproven[item.name] = replace(held, stamp_ms=min(held.stamp_ms, item.stamp_ms))

    def follow(self, pulse: Pulse) -> None:
        """Prove by link what an authentic body names, and what that names in turn."""
        names, waiting = self.names, self.waiting
        while True:
            seq, prev = pulse.seq, pulse.prev
            if seq == 1:
                return
            if names.get(seq - 1) == prev:
                if seq - 1 not in waiting:
                    return
                pulse = self._settle(seq - 1)
                continue
            self.links[prev] = max(seq, self.links.get(prev, 0))
            held = self.unproven.get(prev)
            if held is not None and held.pulse.seq < seq:
                self.keep(held)
                return
            found = next((at for at in waiting if at < seq and names[at] == prev), None)
            if found is None:
                return
            pulse = self._settle(found)

    def prove(self) -> Proof:
        """Settle what waits, newest first: linked, or signed, or else unproven from now on."""
        proof = Proof([], [], [])
        for seq in sorted(self.waiting, reverse=True):
            if not self.waiting:
                break
            if seq not in self.waiting:
                continue  # proven by link
            item = self._waiting(seq)
            if self.linked(seq, item.name):
                self.proven(seq)
            elif verify("pulse", self.session, item.body, item.sig):
                proof.proven.append(item.name)
                self.proven(seq)
            else:
                proof.failed.append(item.name)
                proof.charged.append(item.carrier)
                self.fail(seq)
        return proof

    def proven(self, seq: int) -> None:
        """Note that a waiting body is authentic."""
        self.follow(self._settle(seq))

    def fail(self, seq: int) -> None:
        """Move a waiting body whose signature is wrong out of the way."""
        name, stamp_ms, held = self.names[seq], self.stamps[seq], self._waiting(seq)
        self.take_back(seq, name)
        self.unproven[name] = replace(held, stamp_ms=stamp_ms)
        others = self.others.pop(seq, {})
        if others:
            first = next(iter(others))
            self.names[seq], self.stamps[seq] = first, others.pop(first)
            if others:
                self.others[seq] = others
            self._reach()

    # -- what is closed

    def counts(self, seq: int, name: bytes) -> bool:
        """Say whether an authentic body counts: alone under its number, or the only one that is linked."""
        if seq not in self.others:
            return True
        after = self.names.get(seq + 1)
        regular = self.open[after].pulse.prev if after in self.open else b""
        names = [self.names[seq], *self.others[seq]]
        return [one for one in names if one == regular or self.linked(seq, one)] == [name]

    def stamps_of(self, seq: int, name: bytes, stamp_ms: int) -> int:
        """Return the smallest stamp of a body, that which it came with where none is noted."""
        return self.stamp(seq, name) if self.has(seq, name) else stamp_ms

    def close(self, records: Iterable[SealRecord]) -> None:
        """Let go of the bodies that seal records cover."""
        covered: set[int] = set()
        for record in records:
            self.records.append(record)
            covered.update(range(record.first, record.last + 1))
        done = [held for held in self.open.values() if held.pulse.seq in covered]
        if len(done) == len(self.open):
            self.open.clear()
        for held in done:
            self.open.pop(held.name, None)
            if self.tail is None or self.tail.pulse.seq < held.pulse.seq:
                self.tail = held
        if not self.open:
            self.waiting.clear()

    def _follows(self, seq: int, prev: bytes) -> bool:
        """Say whether ``prev`` is the body under the number before, which the first one does not need."""
        return seq == 1 or self.names.get(seq - 1) == prev

    def _reach(self) -> None:
        """Count on to the last number before a gap."""
        names, seq = self.names, self.upto
        while seq + 1 in names:
            seq += 1
        self.upto = seq

    def _settle(self, seq: int) -> Pulse:
        """Take a proven number out of what waits, and the run that ends there; returns the run's first."""
        first = self.runs.pop(seq, seq)
        held = self.open.get(self.names[first]) or self._waiting(seq)
        self.waiting.difference_update(range(first, seq + 1))
        return held.pulse

    def _waiting(self, seq: int) -> Opened:
        return self.open[self.names[seq]]
