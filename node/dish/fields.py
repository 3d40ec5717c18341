"""Protobuf's wire format, as far as reading needs it: the fields of one message by their numbers.

Pure. After the encoding section of the Protocol Buffers documentation. Of a field that comes twice the
last one holds; groups, which no schema of today has, are refused.
"""

from __future__ import annotations

import math
import struct

from ...protocol.errors import RemoteError

FIELDS_LIMIT = 4_096
"""Of one message, known or not."""
_VARINT_BYTES = 10
_NUMBER_LIMIT = 1 << 29
_MOST = (1 << 64) - 1
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5


class Fields:
    """The fields of one encoded message; raises ``RemoteError`` ``malformed`` for what is none.

    What is asked for as another kind than the wire has is absent, as an unknown field would be.
    """

    def __init__(self, data: bytes) -> None:
        self._found: dict[tuple[int, int], list[int | bytes]] = {}
        at = count = 0
        while at < len(data):
            tag, at = _varint(data, at)
            number, kind = tag >> 3, tag & 7
            count += 1
            if not 0 < number < _NUMBER_LIMIT or count > FIELDS_LIMIT:
                raise _malformed("a field that cannot be")
            value: int | bytes
            if kind == _VARINT:
                value, at = _varint(data, at)
            else:
                size = {_EIGHT: 8, _FOUR: 4}.get(kind, -1)
                if kind == _BYTES:
                    size, at = _varint(data, at)
                if not 0 <= size <= len(data) - at:
                    raise _malformed("a field that is no field or longer than its message")
                value, at = data[at : at + size], at + size
            self._found.setdefault((number, kind), []).append(value)

    def integer(self, number: int) -> int | None:
        """Return a field of any integer or enum kind, as unsigned 64 bits."""
        value = self._last(number, _VARINT)
        return value if isinstance(value, int) else None

    def real(self, number: int) -> float | None:
        """Return a field of kind float; one that is no finite number is absent."""
        value = self._last(number, _FOUR)
        if not isinstance(value, bytes):
            return None
        found: float = struct.unpack("<f", value)[0]
        return found if math.isfinite(found) else None

    def every(self, number: int) -> list[bytes]:
        """Return all values of a field of bytes, text or messages, in order."""
        return [value for value in self._found.get((number, _BYTES), []) if isinstance(value, bytes)]

    def text(self, number: int) -> str:
        """Return a field of text; empty where it is absent."""
        try:
            return (self.every(number) or [b""])[-1].decode()
        except UnicodeDecodeError:
            raise _malformed("text that is no UTF-8") from None

    def inner(self, number: int) -> Fields | None:
        """Return a message within this one."""
        values = self.every(number)
        return Fields(values[-1]) if values else None

    def _last(self, number: int, kind: int) -> int | bytes | None:
        values = self._found.get((number, kind))
        return values[-1] if values else None


def field(number: int, value: bytes) -> bytes:
    """Encode a field of bytes, text or a message."""
    return _encoded(number << 3 | _BYTES) + _encoded(len(value)) + value


def _encoded(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place, byte in enumerate(data[at : at + _VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:  # noqa: PLR2004 - the last byte has no mark
            return value & _MOST, at + place + 1
    raise _malformed("a number without an end")


def _malformed(what: str) -> RemoteError:
    return RemoteError(f"the dish sent {what}", reason="malformed")
