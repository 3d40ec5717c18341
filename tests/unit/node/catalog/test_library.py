from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from farcast.node.blocks.store import DiskStore
from farcast.protocol.catalog import Entry
from farcast.protocol.cid import Cid
from farcast.protocol.errors import RefusedError
from farcast.protocol.identity import Identity
from farcast.protocol.manifest import open_manifest, seal_manifest
from farcast.tests.unit.node.reel import ORIGIN, Reel, film

STRANGER = Identity(b"\x09" * 32)


class Shelf:
    """A film in a store, and a library over it."""

    def __init__(self, home: Path) -> None:
        self.reel: Reel = film(segments=2)
        self.store = DiskStore(home, 100_000_000, CollectorRegistry())
        for cid, block in self.reel.blocks.items():
            self.store.put(cid, block)
        self.library = self.reel.library(self.store)

    async def fetch(self, cid: Cid) -> bytes:
        """Bring nothing: all there is is held."""
        raise AssertionError(cid)

    def list(self, title: str, cid: Cid) -> None:
        """List ``title`` with the manifest ``cid``."""
        self.reel.catalog.append(Entry(1, "publish", title, cid.encode(), 0))


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


async def test_a_title_listed_with_anothers_manifest_is_never_played(shelf: Shelf) -> None:
    plan = await shelf.library.plan("film", "master.m3u8", shelf.fetch)
    assert shelf.library.planned("film", "master.m3u8") is plan  # the manifest is known by now
    shelf.list("other", shelf.library.entry("film").cid)
    with pytest.raises(RefusedError, match="'other' with the manifest of 'film'") as caught:
        await shelf.library.plan("other", "master.m3u8", shelf.fetch)
    assert (caught.value.status, caught.value.reason) == (502, "bad_manifest")
    assert shelf.library.planned("other", "master.m3u8") is None
    with pytest.raises(RefusedError):
        shelf.library.manifest("other")


async def test_the_blocks_of_a_title_begin_with_the_manifest_listed_now(shelf: Shelf) -> None:
    """A new manifest may name the folder that the one before it named: only words changed."""
    first = await shelf.library.blocks("film", shelf.fetch)
    true = open_manifest(shelf.reel.blocks[shelf.library.entry("film").cid])
    renamed = msgspec.structs.replace(true, name="Film, with a better name", version=true.version + 1)
    cid, data = seal_manifest(renamed, ORIGIN)
    shelf.store.put(cid, data)
    shelf.reel.catalog.append(Entry(1, "supersede", "film", cid.encode(), 0))
    assert await shelf.library.blocks("film", shelf.fetch) == (cid, *first[1:])
    assert shelf.library.reached("film")[0] == cid


async def test_a_file_of_one_block_may_be_planned_before_that_is_here(tmp_path: Path) -> None:
    full, bare = Shelf(tmp_path / "full"), Shelf(tmp_path / "bare")
    for path in ("a0/seg-00001.m4s", "v0/seg-00001.m4s", "a0/init.mp4"):
        plan = await full.library.plan("film", path, full.fetch)
        for leaf in plan.leaves:
            bare.store.drop(leaf.cid)
        assert await bare.library.plan("film", path, bare.fetch, unseen=True) == plan
    for shelf in (full, bare):
        shelf.store.close()


async def test_a_manifest_of_a_stranger_is_the_origins_fault_not_the_players(shelf: Shelf) -> None:
    true = open_manifest(shelf.reel.blocks[shelf.library.entry("film").cid])
    forged = msgspec.structs.replace(true, title="forged", publisher=STRANGER.key)
    cid, block = seal_manifest(forged, STRANGER)
    shelf.store.put(cid, block)
    shelf.list("forged", cid)
    with pytest.raises(RefusedError, match=r"'forged' cannot be trusted: .* no publisher") as caught:
        await shelf.library.plan("forged", "master.m3u8", shelf.fetch)
    assert (caught.value.status, caught.value.reason) == (502, "unknown_publisher")


async def test_a_full_disk_stops_keeping_but_not_planning(tmp_path: Path) -> None:
    reel = film(segments=2)
    full = DiskStore(tmp_path, 100_000_000, CollectorRegistry(), free_bytes=lambda _: 0)
    library, asked = reel.library(full), list[Cid]()

    async def fetch(cid: Cid) -> bytes:
        asked.append(cid)
        return reel.blocks[cid]

    plan = await library.plan("film", "v0/index.m3u8", fetch)
    assert plan.size == len(reel.files["v0/index.m3u8"])
    assert len(asked) == len(set(asked)) < 10  # each node once, for there is nowhere to keep it
    full.close()
