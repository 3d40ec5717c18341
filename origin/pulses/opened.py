"""Opened pulses: the bytes of a whole post read at once, each strictly, none verified yet."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from itertools import repeat
from typing import NamedTuple

from ...protocol.codec import Message, decode_all, encode
from ...protocol.errors import RemoteError
from ...protocol.identity import Signed, domain
from ...protocol.pulse import Pulse, read_pulse

ENVELOPE_LIMIT_BYTES = 1_024

_DOMAIN = domain("pulse")


class Opened(Message, frozen=True, gc=False):
    """One copy of a pulse in canonical form: its parts, its body's hash, when it came and by whom.

    Never on the wire: a message because that is small, quick to make and of no concern to the collector.
    """

    pulse: Pulse
    name: bytes
    sig: bytes
    stamp_ms: int
    carrier: bytes

    @property
    def body(self) -> bytes:
        """The signed body; as it is canonical it need not be kept beside what it says."""
        return encode(self.pulse)


class Stretch(NamedTuple):
    """What one ticket brings at once, as columns; ``dense`` where each follows and names the one before."""

    items: Sequence[Opened]
    seqs: list[int]
    names: list[bytes]
    prevs: list[bytes]
    dense: bool


def stretch(items: Sequence[Opened]) -> Stretch:
    """Return copies of one ticket's pulses, at least one, as columns."""
    pulses = [item.pulse for item in items]
    seqs, names = [pulse.seq for pulse in pulses], [item.name for item in items]
    prevs = [pulse.prev for pulse in pulses]
    dense = seqs == list(range(seqs[0], seqs[0] + len(seqs))) and prevs[1:] == names[:-1]
    return Stretch(items, seqs, names, prevs, dense)


class Post(NamedTuple):
    """The pulses of one post in order, in place of one that is none its reason code; and their bodies."""

    items: Sequence[Opened | str]
    bodies: Sequence[bytes]


def open_pulses(items: Sequence[bytes], stamps: Sequence[int], carrier: bytes) -> Post:
    """Read signed pulses.

    What is right is read in a few passes at the speed of the decoder; only where anything is not,
    each is read by itself.
    """
    signed = decode_all(Signed, items, limit_bytes=ENVELOPE_LIMIT_BYTES)
    bodies = [one.body for one in signed or ()]
    pulses = decode_all(Pulse, bodies) if signed else None
    if not signed or not pulses:
        return _one_by_one(items, stamps, carrier)
    names = [sha256(_DOMAIN + body).digest() for body in bodies]
    signatures = [one.sig for one in signed]
    return Post(list(map(Opened, pulses, names, signatures, stamps, repeat(carrier))), bodies)


def _one_by_one(items: Sequence[bytes], stamps: Sequence[int], carrier: bytes) -> Post:
    found: list[Opened | str] = []
    bodies: list[bytes] = []
    for data, stamp_ms in zip(items, stamps, strict=True):
        try:
            pulse, signed = read_pulse(data)
        except RemoteError as error:
            found.append(error.reason)
            bodies.append(b"")
        else:
            name = sha256(_DOMAIN + signed.body).digest()
            found.append(Opened(pulse, name, signed.sig, stamp_ms, carrier))
            bodies.append(signed.body)
    return Post(found, bodies)
