"""UnixFS: files and folders as IPFS blocks, in profile ``unixfs-v1-2025`` (IPIP-0499).

Written: CIDv1, sha2-256, raw leaves, balanced trees, byte-exact with Kubo. Read: that, and what
Kubo and Helia made before it (CIDv0, dag-pb leaves, sharded directories), within hard limits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from . import hamt
from .cid import DAG_PB, RAW, Cid, read_varint, varint
from .dagpb import LINK_LIMIT, NAME_LIMIT_BYTES, Link, decode, encode, fields
from .errors import LocalError, RemoteError

__all__ = [
    "BLOCK_LIMIT_BYTES", "CHUNK_BYTES", "DIRECTORY_LIMIT_BYTES", "WIDTH", "Block", "Entry", "FileWriter",
    "Leaf", "Link", "Load", "MissingError", "Node", "content", "directory", "leaves", "listing", "parse",
    "resolve",
]  # fmt: skip

CHUNK_BYTES = 1 << 20
WIDTH = 1_024
BLOCK_LIMIT_BYTES = 2 << 20
DIRECTORY_LIMIT_BYTES = 262_144
"""Kubo shards a directory whose block would be larger."""
DEPTH_LIMIT = 32
TREE_LIMIT = 1 << 18
"""Most links that are followed or looked at in one file or one sharded folder: 256 GiB of film."""
FILE_LIMIT_BYTES = 1 << 53

_LEAST_WIDTH = 2
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

Block = tuple[Cid, bytes]
Load = Callable[[Cid], bytes | None]
"""Returns a verified block, None where it is not here."""


class MissingError(RemoteError):
    """A block on the way is not here: fetch ``cid`` and ask again."""

    def __init__(self, cid: Cid) -> None:
        """Name the block."""
        super().__init__(f"block {cid} is not here", reason="missing_block")
        self.cid = cid


class Entry(NamedTuple):
    """A finished file or folder: its CID, its cumulative DAG size, its file bytes (0 for folders)."""

    cid: Cid
    tsize: int
    size: int


class Leaf(NamedTuple):
    """A block that holds ``size`` bytes of a file from ``offset`` on; ``content`` takes them out."""

    cid: Cid
    offset: int
    size: int


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


class FileWriter:
    """Turns a stream into blocks; holds one chunk of data and the links of unfinished nodes.

    Every group of ``width`` links becomes a node, a last group of one too (the ``balanced`` layout,
    not ``balanced-packed``), until one node is left.
    """

    def __init__(self, chunk_bytes: int = CHUNK_BYTES, width: int = WIDTH) -> None:
        if not 0 < chunk_bytes <= BLOCK_LIMIT_BYTES or not _LEAST_WIDTH <= width <= LINK_LIMIT:
            msg = f"no file layout of {chunk_bytes} B chunks and {width} links"
            raise LocalError(msg, reason="bad_layout")
        self._chunk_bytes = chunk_bytes
        self._width = width
        self._rest = bytearray()
        self._levels: list[list[Entry]] = [[]]

    def push(self, data: bytes) -> list[Block]:
        """Take the next bytes of the file and return the blocks they complete."""
        blocks: list[Block] = []
        if len(data) == self._chunk_bytes and not self._rest:
            self._leaf(data, blocks)  # the common case needs no copy
            return blocks
        view = memoryview(data)
        if self._rest:
            missing = self._chunk_bytes - len(self._rest)
            self._rest += view[:missing]
            view = view[missing:]
            if len(self._rest) < self._chunk_bytes:
                return blocks
            self._leaf(bytes(self._rest), blocks)
        whole = len(view) - len(view) % self._chunk_bytes
        for start in range(0, whole, self._chunk_bytes):
            self._leaf(bytes(view[start : start + self._chunk_bytes]), blocks)
        self._rest = bytearray(view[whole:])
        return blocks

    def finish(self) -> tuple[list[Block], Entry]:
        """Return the last blocks and the file; the writer is spent."""
        blocks: list[Block] = []
        if self._rest or not any(self._levels):
            self._leaf(bytes(self._rest), blocks)
        level = 0
        while any(self._levels[level + 1 :]) or len(self._levels[level]) > 1:
            if self._levels[level]:
                self._node(level, blocks)
            level += 1
        return blocks, self._levels[level][0]

    def _leaf(self, data: bytes, blocks: list[Block]) -> None:
        cid = Cid.of(RAW, data)
        blocks.append((cid, data))
        self._add(0, Entry(cid, len(data), len(data)), blocks)

    def _node(self, level: int, blocks: list[Block]) -> None:
        entries = self._levels[level]
        size = sum(entry.size for entry in entries)
        head = b"\x08\x02\x18" + varint(size)
        sizes = b"".join(b"\x20" + varint(entry.size) for entry in entries)
        data = encode((Link("", entry.cid, entry.tsize) for entry in entries), head + sizes)
        cid = Cid.of(DAG_PB, data)
        blocks.append((cid, data))
        self._levels[level] = []
        tsize = len(data) + sum(entry.tsize for entry in entries)
        self._add(level + 1, Entry(cid, tsize, size), blocks)

    def _add(self, level: int, entry: Entry, blocks: list[Block]) -> None:
        if level == len(self._levels):
            self._levels.append([])
        self._levels[level].append(entry)
        if len(self._levels[level]) == self._width:
            self._node(level, blocks)


def directory(entries: Mapping[str, Entry]) -> tuple[Cid, bytes, Entry]:
    """Return a folder's CID, its block, and its entry for the folder above.

    Raises:
        LocalError: ``bad_name`` for a name no path can reach, ``directory_too_large`` where Kubo
            would shard the folder.

    """
    for name in entries:
        if not _is_name(name) or len(name.encode()) > NAME_LIMIT_BYTES:
            raise LocalError(f"{name!r} cannot name a file in a folder", reason="bad_name")
    ordered = sorted(entries.items(), key=lambda item: item[0].encode())
    data = encode((Link(name, entry.cid, entry.tsize) for name, entry in ordered), b"\x08\x01")
    if len(data) > DIRECTORY_LIMIT_BYTES:
        msg = f"a folder of {len(entries)} entries makes a block of {len(data)} bytes; split it into folders"
        raise LocalError(msg, reason="directory_too_large")
    cid = Cid.of(DAG_PB, data)
    return cid, data, Entry(cid, len(data) + sum(entry.tsize for entry in entries.values()), 0)


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


def content(leaf: Leaf, data: bytes) -> bytes:
    """Return the file bytes in a leaf's block; raises ``RemoteError`` where they are not as many."""
    node = parse(leaf.cid, data)
    if len(node.data) != leaf.size:
        msg = f"{leaf.cid} holds {len(node.data)} bytes of its file, not {leaf.size}"
        raise RemoteError(msg, reason="malformed")
    return node.data


def leaves(root: Cid, load: Load) -> list[Leaf]:
    """Return the blocks that hold a file's bytes, in order; only inner nodes are loaded.

    Raises:
        MissingError: an inner node (or a root of one block) is not here.
        RemoteError: ``malformed``, ``not_a_file``, or ``too_large`` past ``TREE_LIMIT``.

    """
    found: list[Leaf] = []
    seen = 0
    first = _load(root, load)
    if first.kind not in ("file", "raw"):
        raise RemoteError(f"{root} is a {first.kind}, not a file", reason="not_a_file")
    # (node or None while unloaded, CID, offset, size, depth); a stack, so that depth is ours to bound
    waiting: list[tuple[Node | None, Cid, int, int, int]] = [(first, root, 0, first.filesize, 0)]
    while waiting:
        known, cid, offset, size, depth = waiting.pop()
        if known is None and cid.codec == RAW:
            found.append(Leaf(cid, offset, size))
        else:
            node = known or _load(cid, load)
            if node.kind not in ("file", "raw") or node.filesize != size or depth > DEPTH_LIMIT:
                raise RemoteError(f"{cid} does not fit into the file {root}", reason="malformed")
            if node.data or not node.links:
                found.append(Leaf(cid, offset, len(node.data)))
            below: list[tuple[Node | None, Cid, int, int, int]] = []
            offset += len(node.data)
            for link, part in zip(node.links, node.blocksizes, strict=True):
                if part:
                    below.append((None, link.cid, offset, part, depth + 1))
                offset += part
            waiting += reversed(below)
            seen += 1 + len(node.links)
            if seen > TREE_LIMIT:
                raise RemoteError(f"{root} is a file of more than {TREE_LIMIT} links", reason="too_large")
    return found


def resolve(root: Cid, path: Sequence[str], load: Load) -> Cid:
    """Follow ``path`` from the folder ``root``; only the folders on the way are loaded.

    Raises:
        MissingError: a folder's block is not here.
        RemoteError: ``not_found``, or ``malformed``.

    """
    if len(path) > DEPTH_LIMIT:
        raise RemoteError(f"a path of {len(path)} names", reason="not_found")
    here = root
    for name in path:
        node = _load(here, load)
        child = _find(node, name, load) if _is_name(name) else None
        if child is None:
            raise RemoteError(f"{name!r} is not in the {node.kind} {here}", reason="not_found")
        here = child
    return here


def listing(root: Cid, load: Load) -> list[Link]:
    """Return a folder's entries, of all its shards where it is sharded, sorted by name.

    Raises:
        MissingError: a block of the folder is not here.
        RemoteError: ``not_a_folder``, ``malformed``, or ``too_large`` past ``TREE_LIMIT``.

    """
    first = _load(root, load)
    if first.kind == "directory":
        return sorted(first.links, key=lambda link: link.name.encode())
    if first.kind != "hamt":
        raise RemoteError(f"{root} is a {first.kind}, not a folder", reason="not_a_folder")
    found: list[Link] = []
    waiting = [(first, 0)]
    seen = 0
    while waiting:
        node, depth = waiting.pop()
        seen += 1 + len(node.links)
        if node.kind != "hamt" or depth > DEPTH_LIMIT:
            raise RemoteError(f"a shard of {root} is none", reason="malformed")
        if seen > TREE_LIMIT:
            raise RemoteError(f"{root} is a folder of more than {TREE_LIMIT} links", reason="too_large")
        skip = hamt.prefix_chars(node.fanout)
        found += [Link(link.name[skip:], *link[1:]) for link in node.links if len(link.name) > skip]
        waiting += [(_load(link.cid, load), depth + 1) for link in node.links if len(link.name) == skip]
    return sorted(found, key=lambda link: link.name.encode())


def _load(cid: Cid, load: Load) -> Node:
    data = cid.digest if cid.is_identity else load(cid)
    if data is None:
        raise MissingError(cid)
    return parse(cid, data)


def _find(node: Node, name: str, load: Load) -> Cid | None:
    if node.kind == "directory":
        return next((link.cid for link in node.links if link.name == name), None)
    if node.kind != "hamt":
        return None
    for prefix in hamt.prefixes(name, node.fanout):
        names = {link.name: link.cid for link in node.links}
        entry, shard = names.get(prefix + name), names.get(prefix)
        if entry is not None or shard is None:
            return entry
        node = _load(shard, load)
        if node.kind != "hamt":
            raise RemoteError(f"{shard} is no shard of a folder", reason="malformed")
    return None


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
    if kind == "directory" and not all(_is_name(link.name) for link in links):
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
    if not all(len(link.name) >= skip and _is_name(link.name[skip:] or "-") for link in links):
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


def _is_name(name: str) -> bool:
    return name not in ("", ".", "..") and not _UNNAMEABLE.search(name) and len(name) <= NAME_LIMIT_BYTES
