"""One UnixFS block, read: what kind of node it is, its links and its sizes (UnixFS specification)."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from . import hamt
from .cid import DAG_PB, RAW, Cid, read_varint
from .dagpb import NAME_LIMIT_BYTES, Link, decode, fields
from .errors import RemoteError

BLOCK_LIMIT_BYTES = 2 << 20
FILE_LIMIT_BYTES = 1 << 53

_UNNAMEABLE = re.compile("[/\0\ud800-\udfff]")
_RAW_DATA, _DIRECTORY, _FILE, _SYMLINK, _HAMT = 0, 1, 2, 4, 5
_TYPE, _BYTES, _FILESIZE, _BLOCKSIZES, _HASH_TYPE, _FANOUT = 1, 2, 3, 4, 5, 6
_KINDS: dict[int, Literal["file", "directory", "hamt", "symlink"]] = {
    _RAW_DATA: "file",
    _DIRECTORY: "directory",
    _FILE: "file",
    _SYMLINK: "symlink",
    _HAMT: "hamt",
}


class Node(NamedTuple):
    """One parsed block.

    ``data`` is file bytes, a link target or a shard's bit field; ``filesize`` counts the file bytes
    here and below; ``fanout`` is a shard's.
    """

    kind: Literal["file", "directory", "hamt", "symlink", "raw"]
    data: bytes
    links: tuple[Link, ...] = ()
    blocksizes: tuple[int, ...] = ()
    filesize: int = 0
    fanout: int = 0


def parse(cid: Cid, data: bytes) -> Node:
    """Read one block, whose hash the caller has verified.

    Raises:
        RemoteError: ``malformed`` for anything that is neither raw nor sound UnixFS.

    """
    if len(data) > BLOCK_LIMIT_BYTES:
        raise RemoteError(f"a block of {len(data)} bytes", reason="malformed")
    if cid.codec == RAW:
        return Node("raw", data, filesize=len(data))
    if cid.codec != DAG_PB:
        raise RemoteError(f"{cid} is neither a file nor a folder", reason="malformed")
    links, message = decode(data)
    if message is None:
        raise RemoteError(f"{cid} is dag-pb without UnixFS", reason="malformed")
    return _node(links, message)


def _node(links: tuple[Link, ...], message: bytes) -> Node:
    numbers: dict[int, int] = {}
    data = b""
    blocksizes: list[int] = []
    for field, value in fields(message):
        if field == _BYTES and isinstance(value, bytes):
            data = value
        elif field == _BLOCKSIZES:
            blocksizes += _unpack(value)
        elif field in (_TYPE, _FILESIZE, _HASH_TYPE, _FANOUT) and isinstance(value, int):
            numbers[field] = value
        elif field <= _FANOUT:
            raise RemoteError("a UnixFS field of the wrong type", reason="malformed")
    kind = _KINDS.get(numbers.get(_TYPE, -1))
    if kind is None:
        raise RemoteError("UnixFS data of unknown type", reason="malformed")
    filesize = len(data) + sum(blocksizes) if kind == "file" else 0
    if kind == "file" and (
        len(blocksizes) != len(links)
        or numbers.get(_FILESIZE, filesize) != filesize
        or filesize > FILE_LIMIT_BYTES
    ):
        raise RemoteError("a file node whose sizes do not add up", reason="malformed")
    if kind == "directory" and not all(is_name(link.name) for link in links):
        raise RemoteError("a folder with a name no path can reach", reason="malformed")
    fanout = numbers.get(_FANOUT, 0)
    if kind == "hamt":
        _check_shard(links, numbers.get(_HASH_TYPE, 0), fanout)
    return Node(kind, data, links, tuple(blocksizes), filesize, fanout)


def _check_shard(links: tuple[Link, ...], hash_type: int, fanout: int) -> None:
    hamt.prefixes("", fanout)  # refuses a fanout out of range
    skip = hamt.prefix_chars(fanout)
    if hash_type != hamt.MURMUR3_X64_64 or len(links) > fanout:
        raise RemoteError("a shard with another hash or too many links", reason="malformed")
    if not all(len(link.name) >= skip and is_name(link.name[skip:] or "-") for link in links):
        raise RemoteError("a shard with a link that has no position", reason="malformed")


def _unpack(value: int | bytes) -> list[int]:
    """Read a repeated number, which protobuf writers may pack into one field."""
    if isinstance(value, int):
        return [value]
    numbers: list[int] = []
    offset = 0
    while offset < len(value):
        number, offset = read_varint(value, offset)
        numbers.append(number)
    return numbers


def is_name(name: str) -> bool:
    """Say whether a path can reach ``name``."""
    return name not in ("", ".", "..") and not _UNNAMEABLE.search(name) and len(name) <= NAME_LIMIT_BYTES
