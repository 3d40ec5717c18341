"""Merkle trees of RFC 9162 section 2.1 over SHA-256: roots, inclusion and consistency proofs.

The catalog, the intake log and the settlement report share this one tree. Proofs are lists of
32-byte node hashes in the RFC's order, nearest the leaves first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

from .errors import LocalError

HASH_BYTES = 32
PROOF_LIMIT = 128
"""More hashes than a proof about any tree below 2^63 leaves can have."""
EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """Hash one entry (RFC 9162 section 2.1.1: prefix 0x00)."""
    return sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash an inner node (RFC 9162 section 2.1.1: prefix 0x01)."""
    return sha256(b"\1" + left + right).digest()


def root_of(entries: Iterable[bytes]) -> bytes:
    """Return the Merkle tree hash over the entries' data (not over their hashes)."""
    nodes = [sha256(b"\0" + entry).digest() for entry in entries]
    while len(nodes) > 1:
        odd = nodes[len(nodes) & ~1 :]
        nodes = [
            sha256(b"\1" + left + right).digest()
            for left, right in zip(nodes[::2], nodes[1::2], strict=False)
        ]
        nodes += odd
    return nodes[0] if nodes else EMPTY_ROOT


class Tree:
    """An append-only tree that keeps the hash of every complete subtree, so any proof is quick.

    ``_levels[k][i]`` is the hash over leaves ``i * 2^k`` up to ``(i + 1) * 2^k``.
    """

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        self._levels: list[list[bytes]] = [[]]
        for leaf in leaves:
            self.append(leaf)

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return len(self._levels[0])

    def append(self, leaf: bytes) -> int:
        """Add one leaf hash (``leaf_hash`` of the entry) and return its index."""
        index = self.size
        node, level = leaf, 0
        while True:
            if level == len(self._levels):
                self._levels.append([])
            nodes = self._levels[level]
            nodes.append(node)
            if len(nodes) % 2:
                return index
            node, level = node_hash(nodes[-2], node), level + 1

    def copy(self) -> Tree:
        """Return a tree that grows on its own from here."""
        other = Tree()
        other._levels = [list(nodes) for nodes in self._levels]
        return other

    def leaf(self, index: int) -> bytes:
        """Return the leaf hash at ``index``; raises ``LocalError`` where there is none."""
        self._check(0 <= index < self.size, f"leaf {index}")
        return self._levels[0][index]

    def root(self, size: int | None = None) -> bytes:
        """Return the root over the first ``size`` leaves, all of them by default.

        Raises:
            LocalError: ``out_of_range`` where the tree has fewer.

        """
        size = self._size(size)
        return self._range(0, size) if size else EMPTY_ROOT

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        """Prove that leaf ``index`` is in the tree of the first ``size`` leaves (section 2.1.3.1).

        Raises:
            LocalError: ``out_of_range``.

        """
        size = self._size(size)
        self._check(0 <= index < size, f"leaf {index} of {size}")
        proof: list[bytes] = []
        start, end = 0, size
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                proof.append(self._range(middle, end))
                end = middle
            else:
                proof.append(self._range(start, middle))
                start = middle
        proof.reverse()
        return proof

    def consistency_proof(self, old: int, new: int | None = None) -> list[bytes]:
        """Prove that the tree of ``new`` leaves only appends to that of ``old`` (section 2.1.4.1).

        The proof from nothing, and that between equal sizes, is empty.

        Raises:
            LocalError: ``out_of_range``.

        """
        new = self._size(new)
        self._check(0 <= old <= new, f"old size {old} of {new}")
        if old in (0, new):
            return []
        proof: list[bytes] = []
        start, end = 0, new
        while old != end:
            middle = start + _split(end - start)
            if old <= middle:
                proof.append(self._range(middle, end))
                end = middle
            else:
                proof.append(self._range(start, middle))
                start = middle
        if start:  # the old tree is no complete subtree of the new one: name its last part
            proof.append(self._range(start, end))
        proof.reverse()
        return proof

    def _range(self, start: int, end: int) -> bytes:
        """Hash leaves ``start`` to ``end`` as one subtree that starts where the RFC would split."""
        parts: list[bytes] = []
        while start < end:
            level = (end - start).bit_length() - 1
            parts.append(self._levels[level][start >> level])
            start += 1 << level
        node = parts.pop()
        while parts:
            node = node_hash(parts.pop(), node)
        return node

    def _size(self, size: int | None) -> int:
        if size is None:
            return self.size
        self._check(0 <= size <= self.size, f"size {size}")
        return size

    def _check(self, holds: bool, what: str) -> None:  # noqa: FBT001 - the question is the argument
        if not holds:
            msg = f"a tree of {self.size} leaves has no {what}"
            raise LocalError(msg, reason="out_of_range")


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Say whether ``proof`` shows leaf hash ``leaf`` at ``index`` under ``root`` (section 2.1.3.2)."""
    if not 0 <= index < size or not _sound(proof, leaf, root):
        return False
    place, last, node = index, size - 1, leaf
    for other in proof:
        if not last:
            return False
        if place % 2 or place == last:
            node = node_hash(other, node)
            place, last = _climb(place, last)
        else:
            node = node_hash(node, other)
        place, last = place >> 1, last >> 1
    return not last and node == root


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Say whether ``proof`` shows that the new tree only appends to the old (section 2.1.4.2).

    Every tree extends the empty one, whose root must be the hash of nothing.
    """
    if not 0 <= old <= new or not _sound(proof, old_root, new_root):
        return False
    if old == new:
        return not proof and old_root == new_root and (new > 0 or new_root == EMPTY_ROOT)
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    path = list(proof)
    if old & (old - 1) == 0:  # a power of two: the old root is itself the first node
        path.insert(0, old_root)
    if not path:
        return False
    place, last = _drop_ones(old - 1, new - 1)
    old_node = new_node = path[0]
    for other in path[1:]:
        if not last:
            return False
        if place % 2 or place == last:
            old_node, new_node = node_hash(other, old_node), node_hash(other, new_node)
            place, last = _climb(place, last)
        else:
            new_node = node_hash(new_node, other)
        place, last = place >> 1, last >> 1
    return not last and old_node == old_root and new_node == new_root


def _split(size: int) -> int:
    """Return the largest power of two below ``size``."""
    return 1 << (size - 1).bit_length() - 1


def _climb(place: int, last: int) -> tuple[int, int]:
    """Skip the levels at which the right edge has no sibling."""
    while place and not place % 2:
        place, last = place >> 1, last >> 1
    return place, last


def _drop_ones(place: int, last: int) -> tuple[int, int]:
    while place % 2:
        place, last = place >> 1, last >> 1
    return place, last


def _sound(proof: Sequence[bytes], *hashes: bytes) -> bool:
    return len(proof) <= PROOF_LIMIT and all(len(item) == HASH_BYTES for item in (*proof, *hashes))
