"""Opened pulses: the bytes of a whole post read at once, each strictly, none verified yet."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from itertools import repeat

from ...protocol.codec import Message, decode_all
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
    body: bytes
    sig: bytes
    stamp_ms: int
    carrier: bytes

    def same_bytes(self, other: Opened) -> bool:
        """Say whether two copies are the same bytes."""
        return (self.name, self.body, self.sig) == (other.name, other.body, other.sig)


def open_pulses(items: Sequence[bytes], stamps: Sequence[int], carrier: bytes) -> list[Opened | str]:
    """Read signed pulses; in place of one that is none stands the reason code.

    What is right is read in a few passes at the speed of the decoder; only where anything is not,
    each is read by itself.
    """
    signed = decode_all(Signed, items, limit_bytes=ENVELOPE_LIMIT_BYTES)
    bodies = [one.body for one in signed or ()]
    pulses = signed and decode_all(Pulse, bodies)
    if not signed or not pulses:
        return [_open(data, stamp, carrier) for data, stamp in zip(items, stamps, strict=True)]
    names = [sha256(_DOMAIN + body).digest() for body in bodies]
    signatures = [one.sig for one in signed]
    return list(map(Opened, pulses, names, bodies, signatures, stamps, repeat(carrier)))


def _open(data: bytes, stamp_ms: int, carrier: bytes) -> Opened | str:
    try:
        pulse, signed = read_pulse(data)
    except RemoteError as error:
        return error.reason
    return Opened(pulse, sha256(_DOMAIN + signed.body).digest(), signed.body, signed.sig, stamp_ms, carrier)
