from __future__ import annotations

from typing import Any

import pytest

from farcast.protocol.cid import RAW, Cid
from farcast.protocol.errors import RefusedError
from farcast.protocol.identity import Identity, peer_id
from farcast.relay.carried import Carried
from farcast.relay.larder import Larder

ANN, BEN = Identity(b"a" * 32).key, Identity(b"b" * 32).key
SIZE = 1_000


class Shelf:
    """A library and a store of titles with so many blocks each, as the larder asks for them."""

    def __init__(self, titles: dict[str, tuple[bytes, int]]) -> None:
        self.publishers = {title: publisher for title, (publisher, _) in titles.items()}
        self.blocks = {
            title: [Cid.of(RAW, f"{title} {number}".encode()) for number in range(count)]
            for title, (_, count) in titles.items()
        }
        self.held = {cid for cids in self.blocks.values() for cid in cids}
        self.pins: dict[str, list[Cid]] = {}

    def titles(self) -> list[str]:
        """Return the listed titles."""
        return sorted(self.publishers)

    def manifest(self, title: str) -> Any:  # noqa: ANN401 - what has a publisher
        """Return a title's manifest."""
        if title not in self.publishers:
            raise RefusedError("not here yet", status=503)
        return type("Manifest", (), {"publisher": self.publishers[title]})

    def reached(self, title: str) -> tuple[Cid, ...]:
        """Return a title's blocks."""
        return tuple(self.blocks[title])

    def size(self, cid: Cid) -> int | None:
        """Return the size of a held block."""
        return SIZE if cid in self.held else None

    def drop(self, cid: Cid) -> bool:
        """Let go of a block."""
        self.held.discard(cid)
        return True

    def pinned(self) -> dict[str, list[Cid]]:
        """Return the pinned blocks."""
        return self.pins

    def count(self, title: str) -> int:
        """Return how many blocks of a title are held."""
        return sum(cid in self.held for cid in self.blocks[title])


def larder(shelf: Any, *carried: str) -> Larder:  # noqa: ANN401 - stands for library and store
    return Larder(Carried(carried), shelf, shelf)


async def test_a_publisher_left_out_is_refused_and_what_is_held_of_him_goes() -> None:
    shelf = Shelf({"a": (ANN, 3), "b": (BEN, 3)})
    found = larder(shelf, peer_id(ANN))
    found.admit("a")
    with pytest.raises(RefusedError) as caught:
        found.admit("b")
    assert (caught.value.status, caught.value.reason) == (404, "not_carried")
    await found.look()
    assert (shelf.count("a"), shelf.count("b")) == (3, 0)


async def test_a_title_whose_manifest_is_not_here_is_let_in_for_it() -> None:
    larder(Shelf({}), peer_id(ANN)).admit("new")


async def test_over_a_budget_the_longest_unused_title_goes_and_pinned_blocks_stay() -> None:
    shelf = Shelf({"a": (ANN, 4), "b": (ANN, 4), "c": (BEN, 9)})
    shelf.pins = {"mine": [shelf.blocks["a"][0]]}
    found = larder(shelf, f"{peer_id(ANN)} = 9000 B", "*")
    await found.look()
    found.admit("b")
    assert shelf.count("a") == 4
    await found.came("b", 2 * SIZE)
    assert (shelf.count("a"), shelf.count("b"), shelf.count("c")) == (1, 4, 9)
    assert found.held_bytes(peer_id(ANN)) == 7 * SIZE
    shares = {share.publisher: share for share in found.shares()}
    assert shares[peer_id(ANN)].budget_bytes == 9_000
    assert (shares[peer_id(BEN)].held_bytes, shares[peer_id(BEN)].budget_bytes) == (9 * SIZE, None)


async def test_with_nobody_bounded_nothing_is_measured() -> None:
    shelf = Shelf({"a": (ANN, 4)})
    found = larder(shelf)
    await found.look()
    assert found.held_bytes(peer_id(ANN)) == 0
    found.change(Carried(["* = 2000 B"]))
    await found.look()
    assert shelf.count("a") == 0
