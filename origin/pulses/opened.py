"""Opened pulses: the bytes of a whole post read at once, each strictly, none verified yet."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from itertools import repeat
from operator import itemgetter
from typing import NamedTuple

from ...protocol.codec import Message, decode_all, encode
from ...protocol.errors import RemoteError
from ...protocol.identity import Signed, domain
from ...protocol.pulse import Pulse, read_pulse

ENVELOPE_LIMIT_BYTES = 1_024
NOBODY = bytes(16)
"""Stands for the ticket of what is no pulse."""

_DOMAIN = domain("pulse")
_NAUGHT = Pulse(1, NOBODY, 0, 0, 0, 0, 0, b"", b"")


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


class Columns(NamedTuple):
    """What the pulses of a post say, and when they came."""

    seqs: Sequence[int]
    names: Sequence[bytes]
    prevs: Sequence[bytes]
    stamps_ms: Sequence[int]
    times_ms: Sequence[int]
    beacons: Sequence[int]


class Post(NamedTuple):
    """The pulses of one post in order, in place of one that is none its reason code.

    ``tids`` are their tickets; where there is no pulse, all that is said of it is naught.
    """

    items: Sequence[Opened | str]
    bodies: Sequence[bytes]
    tids: Sequence[bytes]
    columns: Columns


class Stretch(Message, frozen=True, gc=False):
    """What one ticket brings at once, as columns; ``dense`` where each follows and names the one before.

    Never on the wire, as ``Opened``.
    """

    items: Sequence[Opened]
    seqs: tuple[int, ...]
    names: tuple[bytes, ...]
    prevs: tuple[bytes, ...]
    stamps_ms: tuple[int, ...]
    times_ms: tuple[int, ...]
    beacons: tuple[int, ...]
    dense: bool


def stretch(columns: Columns, indexes: Sequence[int], items: Sequence[Opened]) -> Stretch:
    """Return what one ticket's ``items`` say, at least two, from their places in a post's columns."""
    pick = itemgetter(*indexes)
    seqs, names, prevs, stamps_ms, times_ms, beacons = map(pick, columns)
    dense = seqs == tuple(range(seqs[0], seqs[0] + len(seqs))) and prevs[1:] == names[:-1]
    return Stretch(items, seqs, names, prevs, stamps_ms, times_ms, beacons, dense)


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
    opened = list(map(Opened, pulses, names, signatures, stamps, repeat(carrier)))
    return _post(opened, bodies, pulses, names, stamps)


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
    pulses = [_NAUGHT if isinstance(item, str) else item.pulse for item in found]
    names = [b"" if isinstance(item, str) else item.name for item in found]
    return _post(found, bodies, pulses, names, stamps)


def _post(
    items: Sequence[Opened | str],
    bodies: Sequence[bytes],
    pulses: Sequence[Pulse],
    names: Sequence[bytes],
    stamps_ms: Sequence[int],
) -> Post:
    columns = Columns(
        [pulse.seq for pulse in pulses], names, [pulse.prev for pulse in pulses], stamps_ms,
        [pulse.at_ms for pulse in pulses], [pulse.beacon for pulse in pulses],
    )  # fmt: skip
    return Post(items, bodies, [pulse.tid for pulse in pulses], columns)
