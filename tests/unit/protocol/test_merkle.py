"""Merkle trees against the definitions of RFC 9162, written out plainly here."""

from __future__ import annotations

import time
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.errors import LocalError
from farcast.protocol.merkle import (
    EMPTY_ROOT,
    Tree,
    leaf_hash,
    node_hash,
    proofs_over,
    root_of,
    root_over,
    verify_consistency,
    verify_inclusion,
)

sizes = st.integers(1, 300)


def entries(count: int) -> list[bytes]:
    return [number.to_bytes(4, "big") for number in range(count)]


def tree_of(count: int) -> Tree:
    return Tree(leaf_hash(entry) for entry in entries(count))


def definition(data: list[bytes]) -> bytes:
    """Hash a tree by the recursion of section 2.1.1."""
    if not data:
        return sha256(b"").digest()
    if len(data) == 1:
        return sha256(b"\0" + data[0]).digest()
    split = 1
    while split * 2 < len(data):
        split *= 2
    return sha256(b"\1" + definition(data[:split]) + definition(data[split:])).digest()


def test_the_roots_of_the_certificate_transparency_vectors() -> None:
    # The eight-leaf tree that Certificate Transparency implementations share as their test.
    spans = ((0, 0), (0, 1), (16, 17), (32, 34), (48, 50), (64, 68), (80, 88), (96, 112))
    leaves = [bytes(range(*span)) for span in spans]
    assert root_of([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert root_of(leaves[:1]).hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert root_of(leaves).hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@given(st.integers(0, 130))
def test_the_root_is_that_of_the_definition(count: int) -> None:
    assert root_of(entries(count)) == definition(entries(count))
    assert tree_of(130).root(count) == definition(entries(count))


@given(sizes, st.data())
def test_every_inclusion_proof_verifies_and_no_changed_one_does(count: int, draw: st.DataObject) -> None:
    index = draw.draw(st.integers(0, count - 1))
    tree = tree_of(300)
    root, leaf = tree.root(count), tree.leaf(index)
    proof = tree.inclusion_proof(index, count)
    assert verify_inclusion(leaf, index, count, proof, root)
    assert not verify_inclusion(leaf_hash(b"forged"), index, count, proof, root)
    assert not verify_inclusion(leaf, index, count, proof, leaf_hash(b"forged"))
    assert not verify_inclusion(leaf, index, count, [*proof, root], root)
    other = draw.draw(st.integers(0, count))
    assert other == index or not verify_inclusion(leaf, other, count, proof, root)
    for place in range(len(proof)):
        assert not verify_inclusion(leaf, index, count, proof[:place] + proof[place + 1 :], root)
        changed = flip(proof, place, draw.draw(st.integers(0, 255)))
        assert not verify_inclusion(leaf, index, count, changed, root)


@given(sizes, st.data())
def test_every_consistency_proof_verifies_and_no_changed_one_does(new: int, draw: st.DataObject) -> None:
    old = draw.draw(st.integers(0, new))
    tree = tree_of(300)
    before, after = tree.root(old), tree.root(new)
    proof = tree.consistency_proof(old, new)
    assert verify_consistency(old, new, before, after, proof)
    forged = leaf_hash(b"forged")
    assert not verify_consistency(old, new, forged, after, proof)
    assert old == 0 or not verify_consistency(old, new, before, forged, proof)
    assert not verify_consistency(old, new, before, after, [*proof, after])
    assert not verify_consistency(new + 1, new, before, after, proof)
    for place in range(len(proof)):
        assert not verify_consistency(old, new, before, after, proof[:place] + proof[place + 1 :])
        changed = flip(proof, place, draw.draw(st.integers(0, 255)))
        assert not verify_consistency(old, new, before, after, changed)


def flip(proof: list[bytes], place: int, bit: int) -> list[bytes]:
    changed = bytearray(proof[place])
    changed[bit // 8] ^= 1 << bit % 8
    return [*proof[:place], bytes(changed), *proof[place + 1 :]]


def test_a_log_that_rewrote_an_entry_cannot_prove_that_it_only_grew() -> None:
    honest = tree_of(40)
    forked = Tree(leaf_hash(entry if number != 7 else b"other") for number, entry in enumerate(entries(60)))
    proof = forked.consistency_proof(40, 60)
    assert not verify_consistency(40, 60, honest.root(), forked.root(), proof)
    assert verify_consistency(40, 60, forked.root(40), forked.root(), proof)


def test_proof_hashes_of_a_wrong_length_are_refused() -> None:
    tree = tree_of(2)
    left, right = tree.leaf(0), tree.leaf(1)
    assert verify_inclusion(left, 0, 2, [right], tree.root())
    assert not verify_inclusion(left, 0, 2, [right + b"\0"], node_hash(left, right + b"\0"))
    assert not verify_consistency(1, 2, left, tree.root(), [b""])


def test_a_copy_grows_on_its_own() -> None:
    tree = tree_of(5)
    other = tree.copy()
    assert other.append(leaf_hash(b"six")) == 5
    assert (tree.size, other.size) == (5, 6)
    assert other.root(5) == tree.root()
    assert Tree().root() == EMPTY_ROOT


def test_what_lies_beyond_the_tree_cannot_be_proved() -> None:
    tree = tree_of(5)
    for call in (
        lambda: tree.root(6),
        lambda: tree.leaf(5),
        lambda: tree.inclusion_proof(5),
        lambda: tree.inclusion_proof(-1),
        lambda: tree.consistency_proof(6),
        lambda: tree.consistency_proof(3, 2),
    ):
        with pytest.raises(LocalError) as caught:
            call()
        assert caught.value.reason == "out_of_range"


def test_a_tree_of_twenty_thousand_leaves_answers_without_hashing_them_again() -> None:
    tree = tree_of(20_000)
    started = time.process_time()
    for index in range(0, 20_000, 20):
        proof = tree.inclusion_proof(index)
        assert len(proof) <= 15
    assert time.process_time() - started < 1  # 20 million hashes would take ten seconds and more


@given(sizes, st.data())
def test_roots_and_proofs_need_no_tree(size: int, data: st.DataObject) -> None:
    tree = tree_of(size)
    hashes = [leaf_hash(entry) for entry in entries(size)]
    assert root_over(hashes) == tree.root()
    places = data.draw(st.lists(st.integers(0, size - 1), max_size=4))
    assert proofs_over(hashes, places) == [tree.inclusion_proof(place) for place in places]


def test_the_root_over_nothing_is_that_of_nothing() -> None:
    assert root_over([]) == EMPTY_ROOT
