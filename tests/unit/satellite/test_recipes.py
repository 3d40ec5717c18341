"""Completed generations made again for a neighbour."""

from __future__ import annotations

import random

from farcast.protocol.cid import RAW, Cid
from farcast.protocol.generation import Item, describe, pack_bundle
from farcast.satellite import recipes as module
from farcast.satellite.fec import RaptorQ
from farcast.satellite.recipes import KEPT_S, Recipes


class Shelf:
    """A store that counts."""

    def __init__(self, count: int = 3) -> None:
        rng = random.Random(4)
        blocks = [rng.randbytes(20_000) for _ in range(count)]
        self.blocks = {Cid.of(RAW, block): block for block in blocks}
        self.items = [Item("ack", "0", b"ack"), *(Item("block", str(c), b) for c, b in self.blocks.items())]
        self.bundle = pack_bundle(self.items)
        self.number = describe(self.bundle, b"o" * 8, 1_280, 0).number
        self.reads = 0

    def get(self, cid: Cid) -> bytes | None:
        """Return the block."""
        self.reads += 1
        return self.blocks.get(cid)


def test_the_symbols_lacking_complete_whoever_asks() -> None:
    shelf, fec = Shelf(), RaptorQ()
    recipes = Recipes(shelf.get)
    recipes.remember(shelf.number, shelf.items)
    source = fec.encode(shelf.bundle, 1_280, -(-len(shelf.bundle) // 1_280))
    held = bytearray(len(source) // 8 + 1)
    for at in range(0, len(source), 2):
        held[at // 8] |= 1 << at % 8
    lent = recipes.symbols(shelf.number, 1_280, bytes(held), 800, 0.0)
    assert lent == source[1::2]
    assert recipes.symbols(shelf.number, 1_280, b"", 5, 1.0) == source[:5]
    assert shelf.reads == 3
    recipes.tidy(KEPT_S + 2.0)
    assert recipes.symbols(shelf.number, 640, b"", 1, KEPT_S + 3.0)[0][4:] == shelf.bundle[:640]
    assert shelf.reads == 6


def test_a_generation_whose_blocks_are_gone_or_that_is_unknown_gives_nothing() -> None:
    shelf = Shelf()
    recipes = Recipes(shelf.get)
    assert recipes.symbols(shelf.number, 1_280, b"", 5, 0.0) == []
    recipes.remember(shelf.number, shelf.items)
    shelf.blocks.popitem()
    assert recipes.symbols(shelf.number, 1_280, b"", 5, 0.0) == []
    recipes.remember(7, shelf.items[:2])
    assert recipes.symbols(7, 1_280, b"", 5, 0.0) == []


def test_what_is_remembered_is_bounded() -> None:
    shelf = Shelf()
    recipes = Recipes(shelf.get)
    for number in range(module.RECIPES_LIMIT):
        recipes.remember(number, [])
    recipes.remember(shelf.number, shelf.items)
    assert recipes.symbols(shelf.number, 1_280, b"", 1, 0.0)
    for number in range(5):
        recipes.remember(number + 1_000, [Item("trust", "big", bytes(3_000_000))])
    assert recipes.symbols(shelf.number, 1_280, b"", 1, 99.0)[0][:4] == bytes(4)
