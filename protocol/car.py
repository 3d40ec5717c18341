"""CARv1: many blocks in one stream (IPLD CARv1 specification), verified as they are read."""

from __future__ import annotations

from collections.abc import Sequence

from .cid import Cid, read_varint, varint
from .errors import RemoteError
from .unixfs import BLOCK_LIMIT_BYTES, Block

HEADER_LIMIT_BYTES = 64 << 10
CID_LIMIT_BYTES = 160
TOTAL_LIMIT_BYTES = 1 << 40

_VARINT_BYTES = 9
_UINT, _BYTE_STRING, _TEXT, _ARRAY, _MAP, _TAG = 0, 2, 3, 4, 5, 6
_CID_TAG = 42
_VERSION = 1


def header(roots: Sequence[Cid]) -> bytes:
    """Return the header that names ``roots``, length in front."""
    items = b"".join(_head(_TAG, _CID_TAG) + _byte_string(b"\0" + root.encode()) for root in roots)
    body = b"".join(
        (_head(_MAP, 2), _text("roots"), _head(_ARRAY, len(roots)), items, _text("version"), b"\x01")
    )
    return varint(len(body)) + body


def section(cid: Cid, data: bytes) -> bytes:
    """Return one block as it stands in a CAR."""
    name = cid.encode()
    return b"".join((varint(len(name) + len(data)), name, data))


class Reader:
    """Reads a CAR piece by piece; holds one section at most.

    ``roots`` is None until the header has come.
    """

    def __init__(self, *, limit_bytes: int = TOTAL_LIMIT_BYTES) -> None:
        self.roots: tuple[Cid, ...] | None = None
        self._buffer = bytearray()
        self._left_bytes = limit_bytes

    def push(self, data: bytes) -> list[Block]:
        """Take the next bytes and return the blocks they complete, each checked against its CID.

        Raises:
            RemoteError: ``malformed``, ``hash_mismatch``, or ``too_large`` past the limit.

        """
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            raise RemoteError("a CAR over its size limit", reason="too_large")
        self._buffer += data
        blocks: list[Block] = []
        position = 0
        while (found := self._frame(position)) is not None:
            start, position = found
            if self.roots is None:
                self.roots = _read_header(bytes(self._buffer[start:position]))
            else:
                blocks.append(self._block(start, position))
        del self._buffer[:position]
        return blocks

    def finish(self) -> None:
        """Say that the stream has ended; raises ``RemoteError`` ``truncated`` where it may not."""
        if self.roots is None or self._buffer:
            raise RemoteError("a CAR that ends in the middle", reason="truncated")

    def _frame(self, position: int) -> tuple[int, int] | None:
        """Return where the frame at ``position`` starts and ends, None while it is incomplete."""
        ahead = bytes(self._buffer[position : position + _VARINT_BYTES])
        if len(ahead) < _VARINT_BYTES and all(byte & 0x80 for byte in ahead):
            return None
        size, width = read_varint(ahead, 0)
        limit = HEADER_LIMIT_BYTES if self.roots is None else BLOCK_LIMIT_BYTES + CID_LIMIT_BYTES
        if not 0 < size <= limit:
            raise RemoteError(f"a CAR section of {size} bytes", reason="malformed")
        end = position + width + size
        return (position + width, end) if end <= len(self._buffer) else None

    def _block(self, start: int, end: int) -> Block:
        cid, used = Cid.read(bytes(self._buffer[start : min(end, start + CID_LIMIT_BYTES)]))
        with memoryview(self._buffer) as view:
            data = bytes(view[start + used : end])
        if not cid.matches(data):
            raise RemoteError(f"a CAR whose block {cid} has another hash", reason="hash_mismatch")
        return cid, data


def _read_header(body: bytes) -> tuple[Cid, ...]:
    """Read the header: the dag-cbor map of ``roots`` and ``version``, and nothing else."""
    count, offset = _expect(body, 0, _MAP)
    roots: tuple[Cid, ...] | None = None
    version = 0
    for _ in range(min(count, 3)):
        size, offset = _expect(body, offset, _TEXT)
        key, offset = body[offset : offset + size], offset + size
        if key == b"version" and not version:
            version, offset = _expect(body, offset, _UINT)
        elif key == b"roots" and roots is None:
            roots, offset = _read_roots(body, offset)
        else:
            raise RemoteError("a CAR header with an unknown key", reason="malformed")
    if version != _VERSION or roots is None:
        raise RemoteError(f"a CAR of version {version}; only version 1 is read", reason="malformed")
    if offset != len(body):
        raise RemoteError("a CAR header with bytes behind it", reason="malformed")
    return roots


def _read_roots(body: bytes, offset: int) -> tuple[tuple[Cid, ...], int]:
    count, offset = _expect(body, offset, _ARRAY)
    if count > len(body):
        raise RemoteError("a CAR header cut short", reason="malformed")
    roots: list[Cid] = []
    for _ in range(count):
        tag, offset = _expect(body, offset, _TAG)
        size, offset = _expect(body, offset, _BYTE_STRING)
        value = body[offset : offset + size]
        if tag != _CID_TAG or value[:1] != b"\0" or len(value) != size:
            raise RemoteError("a CAR header whose root is no CID", reason="malformed")
        cid, end = Cid.read(value, 1)
        if end != len(value):
            raise RemoteError("a CAR header whose root has bytes behind it", reason="malformed")
        roots.append(cid)
        offset += size
    return tuple(roots), offset


def _expect(data: bytes, offset: int, major: int) -> tuple[int, int]:
    """Read a CBOR head of one major type (RFC 8949 section 3); returns its number."""
    first = data[offset] if offset < len(data) else 0xFF
    short = first & 0x1F
    offset += 1
    if first >> 5 == major and short < 24:  # noqa: PLR2004 - RFC 8949: numbers below 24 stand in the head
        return short, offset
    width = {24: 1, 25: 2, 26: 4, 27: 8}.get(short)
    if first >> 5 != major or width is None or offset + width > len(data):
        raise RemoteError("a CAR header that is no dag-cbor map of roots and version", reason="malformed")
    return int.from_bytes(data[offset : offset + width], "big"), offset + width


def _head(major: int, number: int) -> bytes:
    if number < 24:  # noqa: PLR2004 - as above
        return bytes((major << 5 | number,))
    width, code = (1, 24) if number < 2**8 else (2, 25) if number < 2**16 else (4, 26)
    return bytes((major << 5 | code,)) + number.to_bytes(width, "big")


def _byte_string(data: bytes) -> bytes:
    return _head(_BYTE_STRING, len(data)) + data


def _text(text: str) -> bytes:
    return _head(_TEXT, len(text)) + text.encode()
