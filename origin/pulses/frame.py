"""Frames: the entries of the intake log, what came in or what was found out later about it.

A frame with pulses holds a post or batch as received and a verdict per pulse. A frame without any
holds ``Seals``: signatures that were checked after the pulses were stored, and sessions that closed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta

from ...protocol.batch import BATCH_LIMIT_BYTES, Batch, PulsePost, SealRecord, Stamp, read_parcel
from ...protocol.codec import Message, decode
from ...protocol.identity import Signed
from ...protocol.pulse import Hash, Pulse, pulse_hash, read_pulse
from ...protocol.ticket import DAY_MS, Ticket, Tid

STORED = "stored"
DUPLICATE = "duplicate"
EQUIVOCATION = "equivocation"
PENDING = "pending"
"""Stored and acked; its signature is checked when its session is sealed."""
UNPROVEN = "unproven"
"""Stored, not acked: its signature is wrong, so it counts only if a signed later pulse links to it."""

WITNESS = "witness"
"""Said later of a stored pulse, in a frame of the origin's own: its content witness is false."""


class Frame(Message, frozen=True):
    """One entry of the intake log: a post or batch as received, and what was decided about it.

    ``at_ms`` is the origin's own receive time; ``carrier`` the key that signed the batch, empty for
    a post; ``relay`` whether that was an enrolled relay then, whose stamps count; ``tickets`` the
    indexes of the tickets that verified; ``verdicts`` one per pulse. Where both lists are empty,
    ``data`` is a ``Seals``.
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


class Bodies(Message, frozen=True):
    """Pulses of one ticket, by the hashes of their bodies."""

    tid: Tid
    names: list[Hash]


class Seals(Message, frozen=True):
    """What closing sessions brought to light, one entry of the log for many of them.

    ``proven``: pending bodies whose own signature is right; all they link to is as good. ``failed``:
    pending bodies whose signature is wrong and that nothing signed links to. ``records``: the verdict
    on each closed session.
    """

    v: Literal[1]
    proven: list[Bodies]
    failed: list[Bodies]
    records: list[SealRecord]


class Arrival(NamedTuple):
    """What came in: tickets, pulses, and when each pulse was received, ms since 1970."""

    tickets: list[bytes]
    pulses: list[bytes]
    stamps: Sequence[int]


class Copy(NamedTuple):
    """One copy of an authentic pulse as read back from a frame."""

    pulse: Pulse
    name: bytes
    stamp_ms: int
    verdict: str


def open_frame(data: bytes) -> Frame:
    """Decode an entry of the intake log; raises ``RemoteError``."""
    return decode(Frame, data, limit_bytes=BATCH_LIMIT_BYTES + (1 << 20))


def seals_of(frame: Frame) -> Seals | None:
    """Return what a frame without pulses holds; None for the others."""
    return None if frame.verdicts or frame.tickets else decode(Seals, frame.data)


def arrival(frame: Frame) -> Arrival:
    """Take the post or batch inside a frame apart; its signature was checked before it was kept."""
    if not frame.verdicts:
        return Arrival([], [], [])
    if frame.carrier:
        batch, pulses = read_parcel(frame.data)
        return batch_arrival(batch, pulses, frame.at_ms, relay=frame.relay)
    post = decode(PulsePost, frame.data)
    return Arrival(post.tickets, post.pulses, [frame.at_ms] * len(post.pulses))


def batch_arrival(batch: Batch, pulses: list[bytes], now_ms: int, *, relay: bool) -> Arrival:
    """Return a batch's parts; only an enrolled relay's stamps count, and none from the future."""
    stamps = batch.received_ms
    if not relay:
        stamps = [now_ms] * len(pulses)
    elif max(stamps, default=0) > now_ms:
        stamps = [min(stamp, now_ms) for stamp in stamps]
    return Arrival(batch.tickets, pulses, stamps)


def copies(frame: Frame) -> Iterator[Copy]:
    """Yield the copies of pulses that were authentic when they came, whatever their number of arrivals.

    Those whose signature was checked later are ``chain.Sieve``'s to tell.
    """
    for copy, _ in every_copy(frame):
        if copy.verdict in (STORED, DUPLICATE, EQUIVOCATION):
            yield copy


def every_copy(frame: Frame) -> Iterator[tuple[Copy, bytes]]:
    """Yield each copy of a stored pulse in a frame, proven or not, with its signed envelope."""
    parts = arrival(frame)
    for data, stamp, verdict in zip(parts.pulses, parts.stamps, frame.verdicts, strict=True):
        if verdict in _KEPT:
            pulse, signed = read_pulse(data)
            yield Copy(pulse, pulse_hash(signed.body), stamp, verdict), data


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


_KEPT = frozenset({STORED, DUPLICATE, EQUIVOCATION, PENDING, UNPROVEN})
