"""Takedown: what leaves, what stays, and what a restart remembers."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from farcast.node.blocks.store import DiskStore
from farcast.node.catalog.takedown import Takedown
from farcast.protocol.catalog import Catalog, Entry
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.identity import Identity
from farcast.protocol.manifest import Manifest, Payee, Window, seal_manifest
from farcast.protocol.unixfs import Entry as Link
from farcast.protocol.unixfs import FileWriter, directory

PUBLISHER = Identity(b"\x05" * 32)


class Shelf:
    """A store, a catalog, and titles made of named blocks that titles may share."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.catalog = Catalog()
        self.registry = CollectorRegistry()
        self.store = DiskStore(home, 100_000_000, self.registry)
        self.heard: list[Collection[Cid]] = []
        self.takedown = self.open()

    def open(self, *, spares_manifests: bool = False) -> Takedown:
        """Return a takedown as a fresh start would make it."""
        made = Takedown(
            self.home / "takedown", self, self.store, CollectorRegistry(), spares_manifests=spares_manifests
        )
        made.dropped.append(self.heard.append)
        made.load()
        return made

    def publish(self, title: str, *names: str) -> set[Cid]:
        """Publish a title with one file of each name, and return its blocks, the manifest among them."""
        files: dict[str, Link] = {}
        cids: set[Cid] = set()
        for name in names:
            writer = FileWriter()
            blocks = writer.push(name.encode() * 100)
            rest, files[name] = writer.finish()
            for cid, data in (*blocks, *rest):
                self.store.put(cid, data)
                cids.add(cid)
        root, data, _ = directory(files)
        self.store.put(root, data)
        manifest = Manifest(
            1, title, 1, PUBLISHER.key, title, "", "en", 1, root.encode(), 1, [], [], Window(0, 0), [],
            [Payee("ada", 10_000)], "open", None, 0, b"",
        )  # fmt: skip
        cid, block = seal_manifest(manifest, PUBLISHER)
        self.store.put(cid, block)
        self.catalog.append(Entry(1, "publish", title, cid.encode(), 0))
        return {*cids, root, cid}

    def deny(self, title: str) -> int:
        """Deny what is listed under a title, and enforce it."""
        entry = self.catalog.titles()[title]
        self.catalog.append(Entry(1, "deny", title, entry.manifest, 0))
        return self.takedown.enforce()

    def held(self, cids: Collection[Cid]) -> set[Cid]:
        """Return which blocks the store has."""
        return {cid for cid in cids if self.store.has(cid)}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def leaf(name: str) -> Cid:
    return Cid.of(RAW, name.encode() * 100)


def test_a_denied_title_leaves_index_disk_and_pins_behind(shelf: Shelf) -> None:
    gone = shelf.publish("bad", "a", "b")
    stays = shelf.publish("good", "c")
    shelf.store.pin("title:bad", gone)
    assert shelf.deny("bad") == len(gone)
    assert not shelf.held(gone)
    assert shelf.held(stays) == stays
    files = {path.name for path in (shelf.home / "blocks").rglob("b*") if path.is_file()}
    assert files == {str(cid) for cid in stays}
    assert all(cid in shelf.takedown for cid in gone)
    assert not any(cid in shelf.takedown for cid in stays)
    assert set().union(*shelf.heard) == gone
    assert shelf.takedown.enforce() == 0


def test_blocks_that_a_listed_title_reaches_stay(shelf: Shelf) -> None:
    gone = shelf.publish("bad", "a", "shared")
    stays = shelf.publish("good", "c", "shared")
    shelf.deny("bad")
    assert shelf.held(stays) == stays
    assert shelf.held(gone) == {leaf("shared")}
    assert leaf("shared") not in shelf.takedown
    assert leaf("a") in shelf.takedown


def test_a_title_published_later_may_need_what_was_gone(shelf: Shelf) -> None:
    shelf.publish("bad", "a", "shared")
    shelf.deny("bad")
    assert leaf("shared") in shelf.takedown
    before = shelf.takedown.version
    stays = shelf.publish("cut", "shared")
    shelf.takedown.enforce()
    assert leaf("shared") not in shelf.takedown
    assert shelf.takedown.version > before
    assert shelf.takedown.sweep() == 0
    assert shelf.held(stays) == stays
    entry = shelf.catalog.titles()["cut"]
    shelf.catalog.append(Entry(1, "retire", "cut", entry.manifest, 0))
    shelf.takedown.enforce()
    assert leaf("shared") in shelf.takedown
    assert shelf.takedown.sweep() == 1


def test_a_restart_knows_what_is_gone_and_drops_what_came_back(shelf: Shelf) -> None:
    gone = shelf.publish("bad", "a", "b")
    shelf.deny("bad")
    shelf.store.put(leaf("a"), b"a" * 100)
    again = shelf.open()
    assert all(cid in again for cid in gone)
    assert not shelf.store.has(leaf("a"))
    shelf.store.put(leaf("b"), b"b" * 100)
    assert again.sweep() == 1
    assert again.enforce() == 0


def test_an_origin_keeps_the_manifest_and_refuses_it(shelf: Shelf) -> None:
    shelf.takedown = shelf.open(spares_manifests=True)
    gone = shelf.publish("bad", "a")
    manifest = shelf.catalog.titles()["bad"].cid
    shelf.deny("bad")
    assert shelf.held(gone) == {manifest}
    assert manifest in shelf.takedown
    shelf.takedown.sweep()
    assert shelf.store.has(manifest)


def test_what_is_alone_to_a_title_is_told_for_a_purge(shelf: Shelf) -> None:
    blocks = shelf.publish("old", "a", "shared")
    shelf.publish("good", "shared")
    entry = shelf.catalog.titles()["old"]
    shelf.catalog.append(Entry(1, "retire", "old", entry.manifest, 0))
    assert shelf.takedown.alone([entry.cid]) == blocks - {leaf("shared"), entry.cid}


def test_a_manifest_never_seen_here_is_refused_all_the_same(shelf: Shelf) -> None:
    stranger = Cid.of(RAW, b"never came")
    shelf.catalog.append(Entry(1, "publish", "far", stranger.encode(), 0))
    assert shelf.deny("far") == 0
    assert stranger in shelf.takedown


TITLES = st.dictionaries(
    st.sampled_from("pqrst"), st.sets(st.sampled_from("abcdefg"), min_size=1), min_size=1
)


@settings(max_examples=25, deadline=None)
@given(TITLES, st.data())
def test_exactly_what_no_listed_title_needs_is_gone(
    tmp_path_factory: pytest.TempPathFactory, titles: dict[str, set[str]], data: st.DataObject
) -> None:
    shelf = Shelf(tmp_path_factory.mktemp("shelf"))
    try:
        for title, names in titles.items():
            shelf.publish(title, *sorted(names))
        denied = data.draw(st.lists(st.sampled_from(sorted(titles)), unique=True))
        for title in denied:
            shelf.deny(title)
        live = set[str]().union(*(names for title, names in titles.items() if title not in denied))
        bad = set[str]().union(*(titles[title] for title in denied)) - live
        assert {name for name in "abcdefg" if leaf(name) in shelf.takedown} == bad
        assert {name for name in "abcdefg" if shelf.store.has(leaf(name))} == live
        again = shelf.open()
        assert {name for name in "abcdefg" if leaf(name) in again} >= bad
    finally:
        shelf.store.close()
