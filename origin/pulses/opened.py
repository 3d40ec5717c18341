"""Opened pulses: the bytes of a whole post read at once, each strictly, none verified yet."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

import msgspec

from ...protocol.codec import decode, encode
from ...protocol.errors import RemoteError
from ...protocol.identity import Signed, domain
from ...protocol.pulse import Pulse, read_pulse

ENVELOPE_LIMIT_BYTES = 1_024

_SIGNED = msgspec.msgpack.Decoder(Signed)
_PULSE = msgspec.msgpack.Decoder(Pulse)
_DOMAIN = domain("pulse")


class Opened(NamedTuple):
    """A pulse that is in canonical form: its parts, its body's hash, and its envelope as it came."""

    pulse: Pulse
    name: bytes
    body: bytes
    sig: bytes
    data: bytes


def open_pulses(items: Sequence[bytes]) -> list[Opened | str]:
    """Read signed pulses; in place of one that is none stands the reason code.

    What is right is read in a few passes at the speed of the decoder; only where anything is not,
    each is read by itself.
    """
    try:
        if not items or max(map(len, items)) > ENVELOPE_LIMIT_BYTES:
            raise ValueError  # noqa: TRY301 - one way out of the fast lane
        signed = list(map(_SIGNED.decode, items))
        bodies = [one.body for one in signed]
        pulses = list(map(_PULSE.decode, bodies))
        strict = list(map(encode, signed)) == items and list(map(encode, pulses)) == bodies
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        strict = False
    if not strict:
        return [_open(data) for data in items]
    return [
        Opened(pulse, sha256(_DOMAIN + one.body).digest(), one.body, one.sig, data)
        for pulse, one, data in zip(pulses, signed, items, strict=True)
    ]


def _open(data: bytes) -> Opened | str:
    try:
        pulse, signed = read_pulse(data)
    except RemoteError as error:
        return error.reason
    return Opened(pulse, sha256(_DOMAIN + signed.body).digest(), signed.body, signed.sig, data)


def reopen(data: bytes) -> Opened:
    """Read a pulse that was read before."""
    signed = decode(Signed, data)
    pulse = decode(Pulse, signed.body)
    return Opened(pulse, sha256(_DOMAIN + signed.body).digest(), signed.body, signed.sig, data)
