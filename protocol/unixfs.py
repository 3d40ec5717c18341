"""UnixFS: files and folders as IPFS blocks, in profile ``unixfs-v1-2025`` (IPIP-0499).

Written: CIDv1, sha2-256, raw leaves, balanced trees, folders sharded where their block would be too
large, byte-exact with Kubo. Read: that, and what Kubo and Helia made before it (CIDv0, dag-pb
leaves), within hard limits.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import NamedTuple

from . import hamt
from .cid import DAG_PB, RAW, Cid, varint
from .dagpb import LINK_LIMIT, NAME_LIMIT_BYTES, Link, encode
from .errors import LocalError, RemoteError
from .unixfsnode import BLOCK_LIMIT_BYTES, Node, is_name, parse

__all__ = [
    "BLOCK_LIMIT_BYTES", "CHUNK_BYTES", "DIRECTORY_LIMIT_BYTES", "WIDTH", "Block", "Entry", "FileWriter",
    "Leaf", "Link", "Load", "MissingError", "Node", "content", "directory", "find", "folder", "leaves",
    "listing", "locate", "parse", "resolve",
]  # fmt: skip

CHUNK_BYTES = 1 << 20
WIDTH = 1_024
DIRECTORY_LIMIT_BYTES = 262_144
"""Kubo shards a directory whose block would be larger."""
DEPTH_LIMIT = 32
TREE_LIMIT = 1 << 18
"""Most links that are followed or looked at in one file or one sharded folder: 256 GiB of film."""

_LEAST_WIDTH = 2
_DIRECTORY_DATA = b"\x08\x01"

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
        self._is_cut = False

    def push(self, data: bytes) -> list[Block]:
        """Take the next bytes of the file and return the blocks they complete.

        Raises:
            LocalError: ``uneven`` after a chunk that can only be the last.

        """
        if self._is_cut:
            raise LocalError("bytes after the last chunk of a file", reason="uneven")
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

    def chunk(self, cid: Cid, size_bytes: int) -> list[Block]:
        """Take the next chunk by its name, hashed where it lies; return the nodes it completes.

        Only the last chunk of a file may be smaller than the others.

        Raises:
            LocalError: ``uneven`` where chunks of that size do not follow what was taken.

        """
        if self._rest or self._is_cut or not 0 < size_bytes <= self._chunk_bytes:
            raise LocalError(f"no chunk of {size_bytes} bytes begins here", reason="uneven")
        self._is_cut = size_bytes < self._chunk_bytes
        blocks: list[Block] = []
        self._add(0, Entry(cid, size_bytes, size_bytes), blocks)
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


def folder(entries: Mapping[str, Entry]) -> tuple[list[Block], Entry]:
    """Return a folder's blocks, the root last, and its entry for the folder above.

    It is one block, or sharded where that would be over ``DIRECTORY_LIMIT_BYTES``, as Kubo does it.

    Raises:
        LocalError: ``bad_name`` for a name no path can reach.

    """
    links = _links(entries)
    data = encode(links, _DIRECTORY_DATA)
    if len(data) > DIRECTORY_LIMIT_BYTES:
        shards = hamt.write(links)
        cid, _, tsize = shards[-1]
        return [(shard, block) for shard, block, _ in shards], Entry(cid, tsize, 0)
    cid = Cid.of(DAG_PB, data)
    return [(cid, data)], Entry(cid, len(data) + sum(link.tsize for link in links), 0)


def directory(entries: Mapping[str, Entry]) -> tuple[Cid, bytes, Entry]:
    """Return the CID, the one block and the entry of a folder that needs no shards.

    Raises:
        LocalError: as ``folder``; ``directory_too_large`` where it would be sharded.

    """
    blocks, entry = folder(entries)
    if len(blocks) > 1:
        msg = (
            f"a folder of {len(entries)} entries does not fit into one block of {DIRECTORY_LIMIT_BYTES} bytes"
        )
        raise LocalError(msg, reason="directory_too_large")
    return *blocks[0], entry


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
    return locate(root, path, load).cid


def locate(root: Cid, path: Sequence[str], load: Load) -> Link:
    """Follow ``path`` as ``resolve`` does and return the link that leads there, of size 0 to ``root`` itself.

    Of a raw leaf its ``tsize`` is what the folder says that the block weighs; 0 where it says nothing.
    """
    if len(path) > DEPTH_LIMIT:
        raise RemoteError(f"a path of {len(path)} names", reason="not_found")
    here = Link("", root, 0)
    for name in path:
        steps, data = _seek(here.cid, _bytes(here.cid, load), name), None
        try:
            while True:
                data = _bytes(steps.send(data), load)  # type: ignore[arg-type] # None starts a generator
        except StopIteration as end:
            here = end.value
    return here


def find(cid: Cid, data: bytes, name: str) -> Generator[Cid, bytes, Cid]:
    """Look ``name`` up in the folder ``cid``; yields the shards it needs and returns what is there.

    Raises:
        RemoteError: ``not_found``, or ``malformed``.

    """
    return (yield from _seek(cid, data, name)).cid


def _seek(cid: Cid, data: bytes, name: str) -> Generator[Cid, bytes, Link]:
    node = first = parse(cid, data)
    found: Link | None = None
    if node.kind == "directory" and is_name(name):
        found = next((link for link in node.links if link.name == name), None)
    if node.kind == "hamt" and is_name(name):
        for prefix in hamt.prefixes(name, node.fanout):
            names = {link.name: link for link in node.links}
            found, shard = names.get(prefix + name), names.get(prefix)
            if found is not None or shard is None:
                break
            below = shard.cid
            node = parse(below, below.digest if below.is_identity else (yield below))
            if node.kind != "hamt":
                raise RemoteError(f"{below} is no shard of a folder", reason="malformed")
    if found is None:
        raise RemoteError(f"{name!r} is not in the {first.kind} {cid}", reason="not_found")
    return found


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


def _links(entries: Mapping[str, Entry]) -> list[Link]:
    """Return a folder's links in the order of their names' bytes; raises ``LocalError`` ``bad_name``."""
    for name in entries:
        if not is_name(name) or len(name.encode()) > NAME_LIMIT_BYTES:
            raise LocalError(f"{name!r} cannot name a file in a folder", reason="bad_name")
    ordered = sorted(entries.items(), key=lambda item: item[0].encode())
    return [Link(name, entry.cid, entry.tsize) for name, entry in ordered]


def _load(cid: Cid, load: Load) -> Node:
    return parse(cid, _bytes(cid, load))


def _bytes(cid: Cid, load: Load) -> bytes:
    data = cid.digest if cid.is_identity else load(cid)
    if data is None:
        raise MissingError(cid)
    return data
