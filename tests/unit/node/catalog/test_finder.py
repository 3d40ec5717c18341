from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from farcast.node.blocks.store import DiskStore
from farcast.node.catalog.finder import Finder
from farcast.protocol.catalog import Entry
from farcast.protocol.cid import Cid
from farcast.protocol.manifest import Manifest, Payee, Window, seal_manifest
from farcast.tests.unit.node.reel import ORIGIN, Reel

FILMS = {
    "big-buck-bunny": ("Big Buck Bunny", "A large rabbit deals with three rodents"),
    "night-train": ("Nächtlicher Zug", "Fünf Reisende und ein Geheimnis"),
    "coast-1": ("The coast, part 1", "Fishing boats; nobody speaks of the bunny"),
}


class Shelf:
    """A library of real manifests, some of which have not come yet."""

    def __init__(self, home: Path) -> None:
        self.reel = Reel()
        self.store = DiskStore(home, 100_000_000, CollectorRegistry())
        self.blocks = {title: self.publish(title, *about) for title, about in FILMS.items()}
        self.finder = Finder(self.reel.library(self.store))

    def publish(
        self,
        title: str,
        name: str,
        description: str,
        action: Literal["publish", "supersede"] = "publish",
    ) -> tuple[Cid, bytes]:
        """List a title under a new manifest, which is returned."""
        root = b"\x01\x55\x12\x20" + bytes(32)
        manifest = Manifest(
            1, title, 1, ORIGIN.key, name, description, "en", 1_000, root, 1, [], [], Window(0, 0), [],
            [Payee("x", 10_000)], "open", None, 0, b"",
        )  # fmt: skip
        cid, data = seal_manifest(manifest, ORIGIN)
        self.reel.catalog.append(Entry(1, action, title, cid.encode(), 0))
        return cid, data

    def arrive(self, title: str) -> None:
        """Let a title's manifest come."""
        cid, data = self.blocks[title]
        self.store.put(cid, data)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    made = Shelf(tmp_path)
    yield made
    made.finder.close()
    made.store.close()


def test_words_are_found_in_names_and_descriptions_best_first(shelf: Shelf) -> None:
    for title in FILMS:
        shelf.arrive(title)
    find = shelf.finder.find
    assert find("bunny") == ["big-buck-bunny", "coast-1"], "a name counts for more than a description"
    assert find("BUN big") == ["big-buck-bunny"], "every word, or the beginning of one"
    assert find("nachtlicher") == ["night-train"], "without its accents"
    assert find("fünf geheim") == ["night-train"]
    assert find("bunny night") == []
    assert find("") == find("  ?! ") == sorted(FILMS)
    assert find("", 2) == sorted(FILMS)[:2]


def test_a_title_is_found_by_its_id_until_its_manifest_comes(shelf: Shelf) -> None:
    assert shelf.finder.find("rabbit") == []
    assert shelf.finder.find("buck") == ["big-buck-bunny"]
    shelf.arrive("big-buck-bunny")
    assert shelf.finder.find("rabbit") == ["big-buck-bunny"]


def test_a_title_that_leaves_is_found_no_more_and_a_new_version_by_its_new_words(shelf: Shelf) -> None:
    for title in FILMS:
        shelf.arrive(title)
    assert shelf.finder.find("coast") == ["coast-1"]
    cid, _ = shelf.blocks["coast-1"]
    shelf.reel.catalog.append(Entry(1, "retire", "coast-1", cid.encode(), 0))
    shelf.blocks["night-train"] = shelf.publish("night-train", "Dawn", "", "supersede")
    shelf.arrive("night-train")
    assert shelf.finder.find("coast") == []
    assert shelf.finder.find("dawn") == ["night-train"]
    assert shelf.finder.find("geheimnis") == []


@settings(max_examples=25)  # each on a store of its own
@given(query=st.text(max_size=300))
def test_no_query_is_an_error(query: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    shelf = Shelf(tmp_path_factory.mktemp("shelf"))
    try:
        assert set(shelf.finder.find(query)) <= set(FILMS)
    finally:
        shelf.finder.close()
        shelf.store.close()
