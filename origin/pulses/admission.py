"""Admission: which pulses of a post count as stored, as pure decisions over what is stored already.

A verdict per pulse: ``stored``, ``duplicate``, ``equivocation`` (another body under the same number,
kept as evidence), or the reason code of a rejection. A rejection is final, and tells its holder to
delete the pulse, only where the session key provably made it; a code for bytes that anybody could
have forged is named under sequence number 0, which no pulse has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta

from ...protocol.batch import BATCH_LIMIT_BYTES, MAX_PULSES, Batch, PulsePost, Reject, Stamp, TidAck
from ...protocol.beacon import HOUR_MS
from ...protocol.codec import Message, decode
from ...protocol.errors import RemoteError
from ...protocol.identity import Signed, verify
from ...protocol.pulse import Pulse, open_viewing, pulse_hash, read_pulse
from ...protocol.rules import Rules
from ...protocol.ticket import DAY_MS, Ticket, TicketOffice, open_ticket

STORED = "stored"
DUPLICATE = "duplicate"
EQUIVOCATION = "equivocation"
WITNESS = "witness"
"""Said later of a stored pulse, in a frame of the origin's own: its content witness is false."""
BODIES_KEPT = 4
"""Bodies kept as evidence for one sequence number; a fifth proves nothing more."""
DAYS_REMEMBERED = 62
"""Tickets older than this are forgotten: their month and its late window are long over."""
NOBODY = bytes(16)


class Frame(Message, frozen=True):
    """One entry of the intake log: a post or batch as received, and what was decided about it.

    ``at_ms`` is the origin's own receive time; ``carrier`` the key that signed the batch, empty for
    a post; ``relay`` whether that was an enrolled relay then, whose stamps count; ``tickets`` the
    indexes of the tickets that verified; ``verdicts`` one per pulse.
    """

    v: Literal[1]
    at_ms: Stamp
    carrier: Annotated[bytes, Meta(max_length=32)]
    relay: bool
    data: bytes
    tickets: list[int]
    verdicts: list[str]

    @property
    def path(self) -> str:
        """Which way it came: direct, relay or mesh."""
        if not self.carrier:
            return "direct"
        return "relay" if self.relay else "mesh"


class Arrival(NamedTuple):
    """What came in: tickets, pulses, and when each pulse was received, ms since 1970."""

    tickets: list[bytes]
    pulses: list[bytes]
    stamps: list[int]


class Copy(NamedTuple):
    """One copy of an authentic pulse as read back from a frame."""

    pulse: Pulse
    name: bytes
    stamp_ms: int
    verdict: str


class Judgement(NamedTuple):
    """The verdicts on an arrival; ``news`` says whether anything in it must be kept."""

    tickets: list[int]
    verdicts: list[str]
    tids: list[bytes]
    news: bool


@dataclass(slots=True)
class _Known:
    """What is stored under one ticket: per number the bodies by hash with their smallest stamp."""

    ticket: Ticket
    bodies: dict[int, dict[bytes, int]] = field(default_factory=dict[int, dict[bytes, int]])
    links: set[bytes] = field(default_factory=set[bytes])
    rejects: dict[int, str] = field(default_factory=dict[int, str])
    upto: int = 0

    def add(self, pulse: Pulse, name: bytes, stamp_ms: int) -> None:
        bodies = self.bodies.setdefault(pulse.seq, {})
        bodies[name] = min(stamp_ms, bodies.get(name, stamp_ms))
        self.links.add(pulse.prev)
        self.rejects.pop(pulse.seq, None)
        while self.upto + 1 in self.bodies:
            self.upto += 1


def open_frame(data: bytes) -> Frame:
    """Decode an entry of the intake log; raises ``RemoteError``."""
    return decode(Frame, data, limit_bytes=BATCH_LIMIT_BYTES + (1 << 20))


def arrival(frame: Frame) -> Arrival:
    """Take the post or batch inside a frame apart; its signature was checked before it was kept."""
    if frame.carrier:
        batch = decode(Batch, decode(Signed, frame.data).body)
        return batch_arrival(batch, frame.at_ms, relay=frame.relay)
    post = decode(PulsePost, frame.data)
    return Arrival(post.tickets, post.pulses, [frame.at_ms] * len(post.pulses))


def batch_arrival(batch: Batch, now_ms: int, *, relay: bool) -> Arrival:
    """Return a batch's parts; only an enrolled relay's stamps count, and none from the future."""
    stamps = [min(stamp, now_ms) if relay else now_ms for stamp in batch.received_ms]
    return Arrival(batch.tickets, batch.pulses, stamps)


def copies(frame: Frame) -> Iterator[Copy]:
    """Yield the copies of stored pulses in a frame, whatever their number of arrivals."""
    parts = arrival(frame)
    for data, stamp, verdict in zip(parts.pulses, parts.stamps, frame.verdicts, strict=True):
        if verdict in (STORED, DUPLICATE, EQUIVOCATION):
            pulse, signed = read_pulse(data)
            yield Copy(pulse, pulse_hash(signed.body), stamp, verdict)


def condemned(frame: Frame) -> Iterator[tuple[bytes, bytes]]:
    """Yield ticket id and body hash of the stored pulses of whose false witness a frame tells."""
    if WITNESS in frame.verdicts:
        for data, verdict in zip(arrival(frame).pulses, frame.verdicts, strict=True):
            if verdict == WITNESS:
                pulse, signed = read_pulse(data)
                yield pulse.tid, pulse_hash(signed.body)


def tickets(frame: Frame) -> Iterator[Ticket]:
    """Yield the verified tickets in a frame."""
    parts = arrival(frame)
    for index in frame.tickets:
        yield decode(Ticket, decode(Signed, parts.tickets[index]).body)


def month_of(day: int) -> str:
    """Return the month ``YYYY-MM`` of a UTC day since 1970."""
    return datetime.fromtimestamp(day * DAY_MS // 1_000, UTC).strftime("%Y-%m")


def month_bounds_ms(month: str) -> tuple[int, int]:
    """Return a month's first millisecond and the first after it."""
    year, number = int(month[:4]), int(month[5:])
    start = datetime(year, number, 1, tzinfo=UTC)
    end = datetime(year + number // 12, number % 12 + 1, 1, tzinfo=UTC)
    return int(start.timestamp()) * 1_000, int(end.timestamp()) * 1_000


class Admission:
    """The state of every ticket that is still of interest; ``judge`` decides, ``apply`` remembers."""

    def __init__(
        self, office: TicketOffice, ticket_keys: Callable[[], Sequence[bytes]], rules: Rules
    ) -> None:
        self._office = office
        self._ticket_keys = ticket_keys
        self._rules = rules
        self._known: dict[bytes, _Known] = {}

    def judge(self, parts: Arrival, now_ms: int) -> Judgement:
        """Decide on every pulse of an arrival; changes nothing."""
        learned = self._learn(parts.tickets)
        round_ = _Round(self, {tid: known for tid, (_, known) in learned.items()}, now_ms)
        verdicts = [""] * len(parts.pulses)
        tids: list[bytes] = []
        unsigned: list[tuple[int, Pulse, bytes, _Known]] = []
        for index, data in enumerate(parts.pulses):
            try:
                pulse, signed = read_pulse(data)
            except RemoteError as error:
                verdicts[index] = error.reason
                tids.append(NOBODY)
                continue
            tids.append(pulse.tid)
            known = self._known.get(pulse.tid) or round_.learned.get(pulse.tid)
            name = pulse_hash(signed.body)
            if known is None:
                verdicts[index] = "no_ticket"
            elif round_.repeated(known, pulse, name, parts.stamps[index]):
                verdicts[index] = DUPLICATE
            elif not verify("pulse", known.ticket.session, signed.body, signed.sig):
                unsigned.append((index, pulse, name, known))
            else:
                verdicts[index] = round_.take(known, pulse, name)
        # a body that a validly signed later pulse names is as good as signed: newest first
        for index, pulse, name, known in sorted(unsigned, key=lambda item: -item[1].seq):
            vouched = name in known.links or name in round_.links
            verdicts[index] = round_.take(known, pulse, name) if vouched else "bad_signature"
        used = sorted(learned[tid][0] for tid in round_.used if tid in learned)
        return Judgement(used, verdicts, tids, round_.news)

    def apply(self, frame: Frame) -> None:
        """Remember what a kept frame decided."""
        for ticket in tickets(frame):
            self._known.setdefault(ticket.tid, _Known(ticket))
        parts = arrival(frame)
        for data, stamp, verdict in zip(parts.pulses, parts.stamps, frame.verdicts, strict=True):
            if verdict in _UNPROVEN or verdict == WITNESS:
                continue
            pulse, signed = read_pulse(data)
            known = self._known[pulse.tid]
            if verdict in (STORED, DUPLICATE, EQUIVOCATION):
                known.add(pulse, pulse_hash(signed.body), stamp)
            elif pulse.seq not in known.bodies:
                known.rejects[pulse.seq] = verdict

    def ack(self, tid: bytes, unproven: Sequence[str] = ()) -> TidAck | None:
        """Return what is stored under a ticket; None for one never heard of, with nothing to say."""
        known = self._known.get(tid)
        rejects = [Reject(0, code) for code in sorted(set(unproven))]
        if known is None:
            return TidAck(tid, 0, [], rejects) if rejects else None
        extra = sorted(seq for seq in known.bodies if seq > known.upto)
        final = [Reject(seq, code) for seq, code in sorted(known.rejects.items())]
        return TidAck(tid, known.upto, extra, rejects + final)

    def newest(self, limit: int) -> list[bytes]:
        """Return the tickets heard of last, at most ``limit``."""
        return list(islice(reversed(self._known), limit))

    def forget(self, now_ms: int) -> None:
        """Drop tickets so old that their pulses would be late anyway."""
        oldest = now_ms // DAY_MS - DAYS_REMEMBERED
        for tid in [tid for tid, known in self._known.items() if known.ticket.day < oldest]:
            del self._known[tid]

    def refusal(self, known_ticket: Ticket, pulse: Pulse, now_ms: int) -> str:
        """Return why an authentic pulse is never stored, empty where it is.

        The origin's own clock judges here, so that no relay's stamp can make a viewer delete one.
        """
        _, month_end_ms = month_bounds_ms(month_of(known_ticket.day))
        if pulse.at_ms > now_ms + self._rules.live_window_ms:
            return "future"
        if not known_ticket.valid_at(pulse.at_ms):
            return "wrong_day"
        if now_ms > month_end_ms + self._rules.late_window_ms:
            return "late"
        if pulse.beacon * HOUR_MS > min(now_ms, pulse.at_ms + self._rules.live_window_ms):
            return "before_beacon"
        try:
            open_viewing(pulse, self._office.key(pulse.tid))
        except RemoteError as error:
            return error.reason if error.reason == "bad_box" else "bad_viewing"
        return ""

    def _learn(self, items: list[bytes]) -> dict[bytes, tuple[int, _Known]]:
        learned: dict[bytes, tuple[int, _Known]] = {}
        keys = list(self._ticket_keys())
        for index, item in enumerate(items):
            try:
                if decode(Ticket, decode(Signed, item, limit_bytes=1_024).body).tid in self._known:
                    continue
                ticket, _ = open_ticket(item, keys)
                self._office.holder(ticket)
            except RemoteError:
                continue
            learned.setdefault(ticket.tid, (index, _Known(ticket)))
        return learned


_UNPROVEN = frozenset({"malformed", "not_canonical", "too_large", "no_ticket", "bad_signature"})


def unproven(verdict: str) -> bool:
    """Say whether anybody could have caused this verdict, so that it must not delete a pulse."""
    return verdict in _UNPROVEN


class _Round:
    """One arrival being judged: what it adds so far lies over what is stored."""

    def __init__(self, admission: Admission, learned: dict[bytes, _Known], now_ms: int) -> None:
        self.learned = learned
        self.links: set[bytes] = set()
        self.used: set[bytes] = set()
        self.news = False
        self._admission = admission
        self._now_ms = now_ms
        self._fresh: dict[tuple[bytes, int], set[bytes]] = {}

    def repeated(self, known: _Known, pulse: Pulse, name: bytes, stamp_ms: int) -> bool:
        """Say whether this very body is here already; an earlier stamp is news all the same."""
        stamp = known.bodies.get(pulse.seq, {}).get(name)
        if stamp is not None:
            self.news |= stamp_ms < stamp
            return True
        return name in self._fresh.get((pulse.tid, pulse.seq), ())

    def take(self, known: _Known, pulse: Pulse, name: bytes) -> str:
        """Return the verdict on an authentic body that is not here yet."""
        self.used.add(pulse.tid)
        self.links.add(pulse.prev)
        code = self._admission.refusal(known.ticket, pulse, self._now_ms)
        fresh = self._fresh.setdefault((pulse.tid, pulse.seq), set())
        bodies = len(known.bodies.get(pulse.seq, ())) + len(fresh)
        if code:
            self.news |= known.rejects.get(pulse.seq) != code and not bodies
            return code
        if bodies < BODIES_KEPT:
            fresh.add(name)
            self.news = True
        elif bodies:
            return "too_many_bodies"
        return EQUIVOCATION if bodies else STORED


__all__ = [
    "DUPLICATE", "EQUIVOCATION", "MAX_PULSES", "NOBODY", "STORED", "WITNESS", "Admission", "Arrival", "Copy",
    "Frame", "Judgement", "arrival", "batch_arrival", "condemned", "copies", "month_bounds_ms", "month_of",
    "open_frame", "tickets", "unproven",
]  # fmt: skip
