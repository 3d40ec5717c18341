"""Boxes of an MP4 file (ISO/IEC 14496-12): walked, found and written; pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .errors import RemoteError

BOXES_LIMIT = 100_000
HEADER_BYTES = 8
_LEAST_BYTES, _LARGE, _TO_END = 8, 1, 0


class Box(NamedTuple):
    """One box: its four letters, where it starts, where its payload starts, where it ends."""

    kind: bytes
    start: int
    body: int
    end: int


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """Walk the boxes between two offsets; only those with 32-bit sizes, as all of ours have.

    Raises:
        RemoteError: ``malformed`` where a box does not fit.

    """
    end = len(data) if end is None else end
    for _ in range(BOXES_LIMIT):
        if start == end:
            return
        size = uint(data, start, 4)
        if size in (_LARGE, _TO_END) or size < _LEAST_BYTES or start + size > end:
            raise malformed(f"a box of {size} bytes at {start} that does not fit")
        yield Box(data[start + 4 : start + 8], start, start + HEADER_BYTES, start + size)
        start += size
    raise malformed("too many boxes")


def child(data: bytes, kind: bytes, parent: Box | None = None) -> Box:
    """Return the first box of a kind inside another, or at the top; raises ``RemoteError`` where none is."""
    inside = boxes(data, parent.body, parent.end) if parent else boxes(data)
    for box in inside:
        if box.kind == kind:
            return box
    raise malformed(f"no {kind.decode()} box")


def box(kind: bytes, *parts: bytes) -> bytes:
    """Return a box around ``parts``."""
    payload = b"".join(parts)
    return (HEADER_BYTES + len(payload)).to_bytes(4, "big") + kind + payload


def whole(data: bytes, found: Box) -> bytes:
    """Return a box with its header."""
    return data[found.start : found.end]


def uint(data: bytes, at: int, size: int) -> int:
    """Read a big-endian number; raises ``RemoteError`` where the data ends before it."""
    value = data[at : at + size]
    if len(value) != size:
        raise malformed(f"cut short at byte {at}")
    return int.from_bytes(value, "big")


def put(data: bytearray, at: int, value: int, size: int = 4) -> None:
    """Write a big-endian number over what is there; raises ``RemoteError`` where it does not fit."""
    if not 0 <= value < 1 << 8 * size or at + size > len(data):
        raise malformed(f"a number that does not fit at byte {at}")
    data[at : at + size] = value.to_bytes(size, "big")


def malformed(what: str) -> RemoteError:
    """Return the error of bytes that are no MP4 of ours."""
    return RemoteError(f"not a fragmented MP4 of ours: {what}", reason="malformed")
