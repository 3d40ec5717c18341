"""CARv1: many blocks in one stream (IPLD CARv1 specification), verified as they are read."""

from __future__ import annotations

from collections.abc import Sequence

from . import dagcbor
from .cid import Cid, read_varint, varint
from .errors import RemoteError
from .unixfs import BLOCK_LIMIT_BYTES, Block

HEADER_LIMIT_BYTES = 64 << 10
CID_LIMIT_BYTES = 160
TOTAL_LIMIT_BYTES = 1 << 40

_VARINT_BYTES = 9
_VERSION = 1


def header(roots: Sequence[Cid]) -> bytes:
    """Return the header that names ``roots``, length in front."""
    body = dagcbor.encode({"roots": [*roots], "version": _VERSION})
    return varint(len(body)) + body


def section(cid: Cid, data: bytes) -> bytes:
    """Return one block as it stands in a CAR."""
    name = cid.encode_as_read()
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
    document = dagcbor.decode(body)
    version = document.get("version") if isinstance(document, dict) else None
    if not isinstance(document, dict) or type(version) is not int or version != _VERSION:
        raise RemoteError("no CAR of version 1, the only one that is read", reason="malformed")
    roots = document.get("roots")
    if document.keys() != {"roots", "version"} or not isinstance(roots, list):
        raise RemoteError("a CAR header that is no map of roots and version", reason="malformed")
    found = tuple(root for root in roots if isinstance(root, Cid))
    if len(found) != len(roots):
        raise RemoteError("a CAR header whose root is no CID", reason="malformed")
    return found
