"""The dag-pb codec: a block of links and data, and the protobuf fields it is made of.

Written in the one canonical order of the IPLD dag-pb specification (Links before Data, as Kubo
writes); read in either order, because old data has both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .cid import Cid, read_varint, varint
from .errors import RemoteError

LINK_LIMIT = 8_192
"""Most links a node may have; a directory block of 262,144 B holds fewer than 5,900."""
NAME_LIMIT_BYTES = 1_024

VARINT, FIXED_64, BYTES, FIXED_32 = 0, 1, 2, 5
"""Protobuf wire types."""

_FIXED_SIZES = {FIXED_64: 8, FIXED_32: 4}
_HASH, _NAME, _TSIZE = 1, 2, 3
_DATA, _LINKS = 1, 2


class Link(NamedTuple):
    """One link: a name (empty in files), the block, and the cumulative size of what it leads to."""

    name: str
    cid: Cid
    tsize: int


def encode(links: Iterable[Link], data: bytes) -> bytes:
    """Encode a node; the links stay in the order given."""
    parts: list[bytes] = []
    for link in links:
        body = b"".join(
            (_field(0x0A, link.cid.encode()), _field(0x12, link.name.encode()), b"\x18", varint(link.tsize))
        )
        parts.append(_field(0x12, body))
    parts.append(_field(0x0A, data))
    return b"".join(parts)


def decode(block: bytes) -> tuple[tuple[Link, ...], bytes | None]:
    """Decode a node into its links and its data, None where it has none.

    Raises:
        RemoteError: ``malformed``, also for unknown fields and interleaved links and data.

    """
    links: list[Link] = []
    data: bytes | None = None
    links_ended = False
    for number, value in fields(block):
        if number == _DATA and isinstance(value, bytes) and data is None:
            data, links_ended = value, bool(links)
        elif number == _LINKS and isinstance(value, bytes) and not links_ended:
            if len(links) == LINK_LIMIT:
                raise RemoteError(f"a node with more than {LINK_LIMIT} links", reason="malformed")
            links.append(_link(value))
        else:
            raise RemoteError("a dag-pb node with a field out of place", reason="malformed")
    return tuple(links), data


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the (field number, value) pairs of a protobuf message; fixed-width ones as bytes.

    Raises:
        RemoteError: ``malformed``.

    """
    offset = 0
    while offset < len(message):
        key, offset = read_varint(message, offset)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, offset = read_varint(message, offset)
            yield number, value
            continue
        if kind == BYTES:
            size, offset = read_varint(message, offset)
        elif kind in _FIXED_SIZES:
            size = _FIXED_SIZES[kind]
        else:
            raise RemoteError(f"a protobuf field of unknown wire type {kind}", reason="malformed")
        end = offset + size
        if end > len(message):
            raise RemoteError("a protobuf message cut short", reason="malformed")
        yield number, message[offset:end]
        offset = end


def _link(message: bytes) -> Link:
    cid: Cid | None = None
    name: str | None = None
    tsize: int | None = None
    for number, value in fields(message):
        if number == _HASH and isinstance(value, bytes) and cid is None:
            cid, end = Cid.read(value)
            if end != len(value):
                raise RemoteError("a link with bytes after its CID", reason="malformed")
        elif number == _NAME and isinstance(value, bytes) and name is None:
            name = _text(value)
        elif number == _TSIZE and isinstance(value, int) and tsize is None:
            tsize = value
        else:
            raise RemoteError("a dag-pb link with a field out of place", reason="malformed")
    if cid is None:
        raise RemoteError("a dag-pb link without a CID", reason="malformed")
    return Link(name or "", cid, tsize or 0)


def _text(value: bytes) -> str:
    if len(value) > NAME_LIMIT_BYTES:
        raise RemoteError(f"a link name of {len(value)} bytes", reason="malformed")
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise RemoteError("a link name that is not UTF-8", reason="malformed") from error


def _field(key: int, value: bytes) -> bytes:
    return b"".join((bytes((key,)), varint(len(value)), value))
