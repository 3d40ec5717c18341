"""Which blocks an IPFS path names, and in which order they stand in a CAR (trustless gateway specification).

A walk wants one block after the other (``wants``), takes its verified bytes (``give``) and never
waits. Blocks of identity CIDs are read where they stand and never wanted. Every walk is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Generic, Literal, NamedTuple, TypeVar

from . import dagcbor, dagjson, dagpb, hamt
from .cid import CBOR, DAG_CBOR, DAG_JSON, DAG_PB, JSON, RAW, Cid
from .dagcbor import Document
from .errors import RemoteError
from .unixfs import BLOCK_LIMIT_BYTES, DEPTH_LIMIT, Node, find, parse

T = TypeVar("T")

Scope = Literal["block", "entity", "all"]

VISIT_LIMIT = 400_000
"""Most blocks one walk looks at: 390 GiB of film."""
REPEAT_LIMIT = 1 << 16
"""Most blocks sent again where duplicates are asked for: two small nodes could name billions."""
PENDING_LIMIT = 1 << 18
"""Most links that wait for their turn."""

_DOCUMENTS: dict[int, Callable[[bytes], Document]] = {
    DAG_CBOR: dagcbor.decode,
    DAG_JSON: dagjson.decode,
}
_OPAQUE = frozenset({RAW, CBOR, JSON})
READABLE = _OPAQUE | {DAG_PB, *_DOCUMENTS}
"""Codecs in which links are found."""
_INDEX_DIGITS = 7

Steps = Generator[Cid, bytes, T]


class Span(NamedTuple):
    """A range of a file's bytes, both ends included; negative counts from the end, None is the end."""

    first: int
    last: int | None

    def within(self, size: int) -> tuple[int, int] | None:
        """Return the first and last byte that exist in a file of ``size`` bytes; None where none does."""
        first = self.first if self.first >= 0 else max(0, size + self.first)
        last = size - 1 if self.last is None else self.last if self.last >= 0 else size + self.last
        last = min(last, size - 1)
        return (first, last) if first <= last else None


class Place(NamedTuple):
    """Where a path ends: a block, what of it, and the block each segment led to, the root first.

    ``inside`` is the value in a dag-cbor or dag-json document where the path ends within one; the
    block has then been walked through. None where it ends at the block itself.
    """

    cid: Cid
    roots: tuple[Cid, ...]
    inside: Document = None


class Walk(Generic[T]):
    """One walk: ``wants`` is the block to give next, None once it has come to its end."""

    def __init__(self, steps: Steps[T]) -> None:
        self.wants: Cid | None = None
        self._steps = steps
        self._result: T | None = None
        self._go(lambda: next(steps))

    def give(self, data: bytes) -> None:
        """Take the bytes of the block it wants.

        Raises:
            RemoteError: ``malformed``, ``not_found``, ``unknown_codec`` or ``too_large``.

        """
        if len(data) > BLOCK_LIMIT_BYTES:
            raise RemoteError(f"a block of {len(data)} bytes", reason="malformed")
        self._go(lambda: self._steps.send(data))

    @property
    def result(self) -> T:
        """What a walk that has ended found."""
        assert self.wants is None
        return self._result  # type: ignore[return-value] # set by the end of the steps

    def _go(self, step: Callable[[], Cid]) -> None:
        try:
            self.wants = step()
        except StopIteration as end:
            self.wants, self._result = None, end.value


def resolution(root: Cid, path: Sequence[str]) -> Walk[Place]:
    """Return the walk along ``path``: it wants what lies on the way, not the block at its end."""
    return Walk(_follow(root, path))


class Selection(Walk[None]):
    """The walk over the blocks of a CAR, in its order (``dfs``): those of the path, then of the scope.

    ``fresh`` says whether the block wanted goes into the CAR; with ``dups`` every one does, else a
    block that stood there before is wanted again only to walk on. ``span`` limits a file to the
    blocks with these bytes; for anything else it means nothing.
    """

    def __init__(
        self, root: Cid, path: Sequence[str], scope: Scope, *, span: Span | None = None, dups: bool = False
    ) -> None:
        self.fresh = True
        self._scope: Scope = scope
        self._span = span
        self._dups = dups
        self._sent: set[Cid] = set()
        self._visits = self._repeats = 0
        super().__init__(self._select(root, path))

    def _go(self, step: Callable[[], Cid]) -> None:
        super()._go(step)
        if self.wants is None:
            return
        repeated = self.wants in self._sent
        self._sent.add(self.wants)
        self.fresh = self._dups or not repeated
        self._visits += 1
        self._repeats += repeated
        if self._visits > VISIT_LIMIT or self._repeats > REPEAT_LIMIT:
            raise RemoteError("a CAR of more blocks than any film", reason="too_large")

    def _select(self, root: Cid, path: Sequence[str]) -> Steps[None]:
        place = yield from _follow(root, path)
        if place.inside is not None:
            if self._scope == "all":
                yield from self._below(_links(place.inside))
        elif self._scope == "all":
            yield from self._below([place.cid])
        elif self._scope == "entity":
            yield from self._entity(place.cid)
        else:
            yield from _read(place.cid)

    def _below(self, cids: Sequence[Cid]) -> Steps[None]:
        """Want these blocks and all that they reach, depth first."""
        stack = [*reversed(cids)]
        while stack:
            cid = stack.pop()
            if self._dups or cid not in self._sent:
                stack += reversed(links_of(cid, (yield from _read(cid))))
            if len(stack) > PENDING_LIMIT:
                raise RemoteError("a DAG of too many links at once", reason="too_large")

    def _entity(self, cid: Cid) -> Steps[None]:
        """Want what makes a file or a folder whole; of anything else its block."""
        data = yield from _read(cid)
        node = _node(cid, data)
        if node is None:
            return
        if node.kind == "hamt":
            yield from self._shards(cid, data)
        elif node.kind == "file" and self._span is None:
            yield from self._parts(cid, data, 0, node.filesize)
        elif node.kind == "file" and self._span is not None:
            within = self._span.within(node.filesize)
            if within is not None:
                yield from self._parts(cid, data, *within)

    def _shards(self, root: Cid, data: bytes) -> Steps[None]:
        """Want the shards below a sharded folder's root."""
        stack = [*reversed(_shards_of(root, data))]
        while stack:
            cid = stack.pop()
            if self._dups or cid not in self._sent:
                stack += reversed(_shards_of(cid, (yield from _read(cid))))
            if len(stack) > PENDING_LIMIT:
                raise RemoteError("a folder of too many shards at once", reason="too_large")

    def _parts(self, root: Cid, data: bytes, first: int, last: int) -> Steps[None]:
        """Want the blocks below a file's root that hold its bytes from ``first`` to ``last``."""
        stack = [*reversed(_parts_of(root, data, 0))]
        while stack:
            cid, offset, size = stack.pop()
            if self._span is not None and (not size or offset > last or offset + size <= first):
                continue
            # a subtree that was sent may have been sent in part, so with a span it is walked again
            whole = self._span is None or cid.codec == RAW
            if whole and not self._dups and cid in self._sent:
                continue
            data = yield from _read(cid)
            if cid.codec != RAW:
                if parse(cid, data).filesize != size:
                    raise RemoteError(f"{cid} does not fit into the file {root}", reason="malformed")
                stack += reversed(_parts_of(cid, data, offset))
            if len(stack) > PENDING_LIMIT:
                raise RemoteError("a file of too many links at once", reason="too_large")


def links_of(cid: Cid, data: bytes) -> list[Cid]:
    """Return the links of a block, in the order in which they stand there.

    Raises:
        RemoteError: ``malformed``, or ``unknown_codec`` where nobody here can read it.

    """
    if cid.codec in _OPAQUE:
        return []
    if cid.codec == DAG_PB:
        return [link.cid for link in dagpb.decode(data)[0]]
    return _links(_document(cid, data))


def size_of(cid: Cid, data: bytes) -> int | None:
    """Return how many bytes the file has whose root this block is; None where it is no file."""
    if cid.codec == RAW:
        return len(data)
    node = _node(cid, data)
    return node.filesize if node is not None and node.kind == "file" else None


def _follow(root: Cid, path: Sequence[str]) -> Steps[Place]:
    if len(path) > DEPTH_LIMIT:
        raise RemoteError(f"a path of {len(path)} names", reason="not_found")
    here, inside, roots = root, None, [root]
    for name in path:
        if inside is None:
            data = yield from _read(here)
            if here.codec == DAG_PB:
                here = yield from find(here, data, name)
                roots.append(here)
                continue
            inside = _document(here, data)
        inside = _member(here, inside, name)
        if isinstance(inside, Cid):
            here, inside = inside, None
            roots.append(here)
    return Place(here, tuple(roots), inside)


def _read(cid: Cid) -> Steps[bytes]:
    return cid.digest if cid.is_identity else (yield cid)


def _node(cid: Cid, data: bytes) -> Node | None:
    """Read a dag-pb block as UnixFS; None where it is no UnixFS of ours, and so has no entity below it."""
    if cid.codec != DAG_PB:
        return None
    try:
        return parse(cid, data)
    except RemoteError:
        return None


def _document(cid: Cid, data: bytes) -> Document:
    if cid.codec in _OPAQUE:
        raise RemoteError(f"{cid} has nothing below it", reason="not_found")
    decode = _DOCUMENTS.get(cid.codec)
    if decode is None:
        raise RemoteError(f"{cid} is in a codec that is not read here", reason="unknown_codec")
    return decode(data)


def _member(cid: Cid, value: Document, name: str) -> Document:
    """Return what ``name`` is in a document: a map's entry, or a list's by number."""
    found: Document = None
    if isinstance(value, dict):
        found = value.get(name)
    elif isinstance(value, list) and name.isascii() and name.isdigit() and len(name) < _INDEX_DIGITS:
        found = value[int(name)] if int(name) < len(value) else None
    if found is None:
        raise RemoteError(f"{name!r} is not in {cid}", reason="not_found")
    return found


def _links(document: Document) -> list[Cid]:
    found: list[Cid] = []
    stack = [document]
    while stack:
        value = stack.pop()
        if isinstance(value, Cid):
            found.append(value)
        elif isinstance(value, dict):
            stack += reversed(value.values())
        elif isinstance(value, list):
            stack += reversed(value)
    return found


def _shards_of(cid: Cid, data: bytes) -> list[Cid]:
    node = parse(cid, data)
    if node.kind != "hamt":
        raise RemoteError(f"{cid} is no shard of a folder", reason="malformed")
    skip = hamt.prefix_chars(node.fanout)
    return [link.cid for link in node.links if len(link.name) == skip]


def _parts_of(cid: Cid, data: bytes, offset: int) -> list[tuple[Cid, int, int]]:
    """Return a file node's children: CID, offset and size in bytes each."""
    node = parse(cid, data)
    if node.kind != "file":
        raise RemoteError(f"{cid} is no part of a file", reason="malformed")
    offset += len(node.data)
    found: list[tuple[Cid, int, int]] = []
    for link, size in zip(node.links, node.blocksizes, strict=True):
        found.append((link.cid, offset, size))
        offset += size
    return found
