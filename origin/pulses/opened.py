"""Opened pulses: the bytes of a whole post read at once, each strictly, none verified yet."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from itertools import repeat
from typing import NamedTuple

import msgspec

from ...protocol.codec import encode
from ...protocol.errors import RemoteError
from ...protocol.identity import Signed, domain
from ...protocol.pulse import Pulse, read_pulse

ENVELOPE_LIMIT_BYTES = 1_024

_SIGNED = msgspec.msgpack.Decoder(Signed)
_PULSE = msgspec.msgpack.Decoder(Pulse)
_DOMAIN = domain("pulse")


class Opened(NamedTuple):
    """One copy of a pulse in canonical form: its parts, its body's hash, when it came and by whom."""

    pulse: Pulse
    name: bytes
    body: bytes
    sig: bytes
    stamp_ms: int
    carrier: bytes


def open_pulses(items: Sequence[bytes], stamps: Sequence[int], carrier: bytes) -> list[Opened | str]:
    """Read signed pulses; in place of one that is none stands the reason code.

    What is right is read in a few passes at the speed of the decoder; only where anything is not,
    each is read by itself.
    """
    if not items or max(map(len, items)) > ENVELOPE_LIMIT_BYTES:
        return [_open(data, stamp, carrier) for data, stamp in zip(items, stamps, strict=True)]
    try:
        signed = list(map(_SIGNED.decode, items))
        bodies = [one.body for one in signed]
        pulses = list(map(_PULSE.decode, bodies))
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        return [_open(data, stamp, carrier) for data, stamp in zip(items, stamps, strict=True)]
    if list(map(encode, signed)) != items or list(map(encode, pulses)) != bodies:
        return [_open(data, stamp, carrier) for data, stamp in zip(items, stamps, strict=True)]
    names = [sha256(_DOMAIN + body).digest() for body in bodies]
    signatures = [one.sig for one in signed]
    return list(map(Opened._make, zip(pulses, names, bodies, signatures, stamps, repeat(carrier))))


def _open(data: bytes, stamp_ms: int, carrier: bytes) -> Opened | str:
    try:
        pulse, signed = read_pulse(data)
    except RemoteError as error:
        return error.reason
    return Opened(pulse, sha256(_DOMAIN + signed.body).digest(), signed.body, signed.sig, stamp_ms, carrier)
