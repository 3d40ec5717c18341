"""How content is cut into generations."""

from __future__ import annotations

import random

import pytest

from farcast.protocol.cid import RAW, Cid
from farcast.protocol.errors import LocalError, UsageError
from farcast.protocol.generation import Item, unpack_bundle
from farcast.satellite.programme import Part, Programme, Show

ORIGIN = b"o" * 8


class Shelf:
    """Blocks by CID, and how often one was read."""

    def __init__(self, sizes: list[int], seed: int = 1) -> None:
        rng = random.Random(seed)
        blocks = [rng.randbytes(size) for size in sizes]
        self.blocks = {Cid.of(RAW, block): block for block in blocks}
        self.cids = list(self.blocks)
        self.reads = 0

    def get(self, cid: Cid) -> bytes | None:
        """Return the block and count the reading."""
        self.reads += 1
        return self.blocks.get(cid)


def programme(shelf: Shelf) -> Programme:
    return Programme(shelf.get, ORIGIN, generation_bytes=4_000_000)


def test_a_title_becomes_bounded_generations_that_hold_every_block_once_and_in_order() -> None:
    shelf = Shelf([1_048_576] * 9 + [5])
    cut = programme(shelf)
    features, parts = cut.titles([Show("film", [*shelf.cids, shelf.cids[0]], 2.0)])
    assert [(one.label, one.weight) for one in features] == [("film", 2.0)]
    assert features[0].plans == tuple(part.plan for part in parts)
    assert all(part.plan.length <= 4_000_000 for part in parts)
    carried = [item for part in parts for item in unpack_bundle(cut.bundle(part))]
    assert [item.name for item in carried] == [str(cid) for cid in shelf.cids]
    assert [item.data for item in carried] == list(shelf.blocks.values())


def test_an_unchanged_title_is_not_read_again_and_keeps_its_numbers_beside_a_new_one() -> None:
    shelf = Shelf([300_000] * 6)
    cut = programme(shelf)
    _, before = cut.titles([Show("old", shelf.cids[:3])])
    reads = shelf.reads
    _, after = cut.titles([Show("new", shelf.cids[3:]), Show("old", shelf.cids[:3])])
    assert shelf.reads - reads == 3
    assert before == after[1:]


def test_head_items_keep_their_order_in_small_generations() -> None:
    items = [Item("trust", "1.root.json", b"r"), *[Item("block", str(i), bytes(900_000)) for i in range(5)]]
    cut = programme(Shelf([]))
    parts = cut.head(items)
    assert len(parts) == 3
    assert [item for part in parts for item in unpack_bundle(cut.bundle(part))] == items


def test_blocks_that_are_not_here_are_left_out_and_counted_and_taken_when_they_come() -> None:
    shelf = Shelf([1_000] * 3)
    missing = shelf.cids[1]
    data = shelf.blocks.pop(missing)
    cut = programme(shelf)
    assert [part.cids for part in cut.titles([Show("film", shelf.cids)])[1]] == [
        (shelf.cids[0], shelf.cids[2])
    ]
    assert cut.missing == 1
    shelf.blocks[missing] = data
    assert [part.cids for part in cut.titles([Show("film", shelf.cids)])[1]] == [tuple(shelf.cids)]
    assert cut.missing == 0


def test_a_generation_whose_blocks_have_gone_is_not_sent_and_planned_anew() -> None:
    shelf = Shelf([1_000] * 3)
    cut = programme(shelf)
    part: Part = cut.titles([Show("film", shelf.cids)])[1][0]
    del shelf.blocks[shelf.cids[2]]
    with pytest.raises(LocalError) as caught:
        cut.bundle(part)
    assert caught.value.reason == "changed"
    assert cut.titles([Show("film", shelf.cids)])[1][0].cids == tuple(shelf.cids[:2])


def test_a_generation_that_two_titles_share_is_sent_once() -> None:
    shelf = Shelf([500_000] * 4)
    features, parts = programme(shelf).titles([Show("one", shelf.cids), Show("twin", shelf.cids)])
    assert [len(one.plans) for one in features] == [1, 0]
    assert len(parts) == 1


@pytest.mark.parametrize("generation_bytes", [99_999, 30_000_000])
def test_a_generation_size_that_cannot_work_is_refused(generation_bytes: int) -> None:
    with pytest.raises(UsageError, match="generation_bytes"):
        Programme(Shelf([]).get, ORIGIN, generation_bytes=generation_bytes)
