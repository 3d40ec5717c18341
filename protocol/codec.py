"""Canonical msgpack: the one encoding of every message, strict on the way in.

A message is a frozen ``msgspec.Struct`` in array layout. Decoding refuses unknown fields and
anything that does not re-encode to the same bytes, so one message has exactly one encoding and a
signature over bytes is a signature over meaning (docs/protocol.md, "Encoding").
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any, TypeVar

import msgspec

from .errors import RemoteError

MESSAGE_LIMIT_BYTES = 4 << 20
"""Largest encoded message anybody accepts; a batch of 4,096 pulses stays below 2 MiB."""

T = TypeVar("T")


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of every wire message: immutable, array layout, unknown fields refused."""


_ENCODER = msgspec.msgpack.Encoder()


_BUILDING = Lock()
"""msgspec looks at a type once and shares what it is learning: two threads that build decoders of one
type for the first time at once can crash the process."""
_DECODERS: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


def _decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:  # noqa: ANN401 - a decoder for any type
    """Return the decoder of a message type, built once: there are only as many as types."""
    found = _DECODERS.get(kind)
    if found is None:
        with _BUILDING:
            found = _DECODERS[kind] = msgspec.msgpack.Decoder(kind)
    return found


def encode(message: object) -> bytes:
    """Encode ``message`` as canonical msgpack.

    msgspec always writes the shortest form of an integer, string or array header, which is what
    makes the encoding canonical (msgpack specification, "Serialization: shortest format").
    """
    return _ENCODER.encode(message)


def decode(kind: type[T], data: bytes, *, limit_bytes: int = MESSAGE_LIMIT_BYTES) -> T:
    """Decode ``data`` as one ``kind`` and check that it is the canonical encoding.

    Raises:
        RemoteError: ``too_large`` past ``limit_bytes``, ``malformed`` for bytes that are no
            ``kind``, ``not_canonical`` where encoding the value again gives other bytes.

    """
    if len(data) > limit_bytes:
        msg = f"a {kind.__name__} of {len(data)} bytes is over the limit of {limit_bytes}"
        raise RemoteError(msg, reason="too_large")
    try:
        value: T = _decoder(kind).decode(data)
        again = _ENCODER.encode(value)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        msg = f"not a {kind.__name__}: {error}"
        raise RemoteError(msg, reason="malformed") from error
    if again != data:
        msg = f"a {kind.__name__} that is not in canonical form"
        raise RemoteError(msg, reason="not_canonical")
    return value


def decode_all(
    kind: type[T], items: Sequence[bytes], *, limit_bytes: int = MESSAGE_LIMIT_BYTES
) -> list[T] | None:
    """Decode each of ``items`` as ``decode`` would; None where any is refused, and ``decode`` says why.

    Each is decoded by itself, so it is one message from its first byte to its last. That all of them are
    canonical is one comparison: rows of whole messages are the same bytes only message by message.
    """
    if max(map(len, items), default=0) > limit_bytes:
        return None
    try:
        values: list[T] = list(map(_decoder(kind).decode, items))
        again = _ENCODER.encode(values)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        return None
    return values if again == _array_head(len(values)) + b"".join(items) else None


def _array_head(count: int) -> bytes:
    """Return how an array of ``count`` elements begins (msgpack specification, "array format family")."""
    if count <= 0xF:  # noqa: PLR2004 - a fixarray
        return bytes([0x90 | count])
    if count <= 0xFFFF:  # noqa: PLR2004 - an array 16
        return b"\xdc" + count.to_bytes(2, "big")
    return b"\xdd" + count.to_bytes(4, "big")
