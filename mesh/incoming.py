"""The unit that is on its way over one connection: units come one after another, each piece by piece.

What is on the wire already comes to its end though nobody wants it any more: it is told from wrong bytes by
its order alone. Pure.
"""

from __future__ import annotations

from ..protocol.errors import RemoteError
from .partner import Unit


class Incoming:
    """What came of one unit and was not handed on yet."""

    def __init__(self) -> None:
        self._unit: Unit | None = None
        self._bytes: bytearray | None = None
        self._filled = 0

    def take(self, unit: Unit, offset: int, size_bytes: int, data: memoryview, *, keep: bool) -> bool:
        """Take a piece that lies at ``offset`` in a unit of ``size_bytes``; True where that is whole now.

        ``keep`` says at its first piece whether its bytes may be of use; others are counted only.

        Raises:
            RemoteError: ``malformed``, where the piece does not go on where the last one ended.

        """
        end = offset + len(data)
        if self._unit is None and not offset:
            self._unit, self._filled = unit, 0
            self._bytes = bytearray(size_bytes) if keep else None
        if unit != self._unit or offset != self._filled or end > size_bytes or (size_bytes and not data):
            message = "a piece out of its order"
            raise RemoteError(message, reason="malformed")
        if self._bytes is not None:
            self._bytes[offset:end] = data
        self._filled = end
        if end < size_bytes:
            return False
        self._unit = None
        return True

    def whole(self) -> memoryview | None:
        """Return the bytes of the unit that became whole, once; None where they were not kept."""
        data, self._bytes = self._bytes, None
        return None if data is None else memoryview(data)
