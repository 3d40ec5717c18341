"""The inbox of a sharing connection: bytes in, whole frames out, without a copy between.

Bytes are received straight into one buffer, as many frames at once as have come; what has begun of the next
one is moved to its front. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..protocol.errors import RemoteError
from ..protocol.sharing import FRAME_LIMIT_BYTES, HEAD_BYTES

FIRST_BYTES = 4 << 10
"""Room for a handshake: a stranger costs no more memory."""
ROOM_BYTES = 256 << 10
"""From the first longer frame on; any frame fits."""


class Inbox:
    """What came and was not heard yet."""

    def __init__(self) -> None:
        self._buffer = bytearray(FIRST_BYTES)
        self._filled = 0

    def room(self) -> memoryview:
        """Return where the next bytes go."""
        return memoryview(self._buffer)[self._filled :]

    def frames(self, came_bytes: int) -> Iterator[tuple[int, memoryview]]:
        """Yield kind and body of every frame that is whole now; a body is valid until the next one.

        Raises:
            RemoteError: ``too_large``.

        """
        self._filled += came_bytes
        view, start = memoryview(self._buffer), 0
        while self._filled - start >= HEAD_BYTES:
            end = start + 4 + int.from_bytes(view[start : start + 4], "big")
            if not HEAD_BYTES <= end - start <= HEAD_BYTES + FRAME_LIMIT_BYTES:
                raise RemoteError("a frame longer than any may be", reason="too_large")
            if end > self._filled:
                if end - start > len(view):
                    self._buffer = bytearray(ROOM_BYTES)
                break
            yield view[start + 4], view[start + HEAD_BYTES : end]
            start = end
        self._filled -= start
        memoryview(self._buffer)[: self._filled] = view[start : start + self._filled]
