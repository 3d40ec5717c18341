"""What a relay fetches, for whom, and what it refuses at once."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.blocks.store import DiskStore
from farcast.protocol.catalog import Entry
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.errors import RefusedError, UnreachableError
from farcast.protocol.manifest import open_manifest
from farcast.relay.fill import Fill
from farcast.tests.unit.node.reel import Reel, film

STRANGER = Cid.of(RAW, b"no title of ours")


class Rig:
    """A fill over a real store and a film that a list stands in for the network of."""

    def __init__(self, home: Path) -> None:
        self.now = 0.0
        self.reel: Reel = film(segments=3)
        self.registry = CollectorRegistry()
        self.store = DiskStore(home, 100_000_000, self.registry)
        self.asked: list[tuple[Cid, str, bool]] = []
        self.lacks: set[Cid] = set()
        self.reason = "missing"
        library = self.reel.library(self.store)
        self.fill = Fill(library, self.store, self._bring, self.registry, lambda: self.now)

    async def _bring(self, cid: Cid, title: str, *, alone: bool) -> bytes:
        self.asked.append((cid, title, alone))
        if cid in self.lacks:
            raise UnreachableError("not to be had", reason=self.reason)
        self.store.put(cid, self.reel.blocks[cid])
        return self.reel.blocks[cid]

    def absent(self, reason: str) -> float:
        """Return how many answers came from memory."""
        return self.registry.get_sample_value("farcast_relay_absent_answers_total", {"reason": reason}) or 0.0


@asynccontextmanager
async def rig(home: Path) -> AsyncGenerator[Rig]:
    made = Rig(home)
    try:
        yield made
    finally:
        made.store.close()


async def refused(work: Callable[[], Awaitable[object]]) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        await work()
    return caught.value


async def test_a_hinted_leaf_is_fetched_once_its_title_reaches_it(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        leaf = r.reel.cids("v0/seg-00001.m4s")[0]
        error = await refused(lambda: r.fill.block(leaf, None))
        assert (error.status, error.reason) == (404, "not_reachable")
        assert not r.asked
        assert await r.fill.block(leaf, "film") == r.reel.blocks[leaf]
        assert {title for _, title, _ in r.asked} == {"film"}
        other = r.reel.cids("v0/seg-00002.m4s")[1]
        assert await r.fill.block(other, None) == r.reel.blocks[other], "known from now on"


async def test_alone_means_alone_for_the_folders_on_the_way_too(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await r.fill.block(r.reel.cids("a0/seg-00000.m4s")[0], "film", alone=True)
        assert len(r.asked) > 3
        assert {alone for _, _, alone in r.asked} == {True}


async def test_a_stranger_is_refused_from_memory_until_the_catalog_grows(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        for _ in range(3):
            await refused(lambda: r.fill.block(STRANGER, "film"))
        asked = len(r.asked)
        assert r.absent("not_reachable") == 2
        r.reel.catalog.append(Entry(1, "publish", "other", STRANGER.encode(), 0))
        r.reel.blocks[STRANGER] = b"no title of ours"
        assert await r.fill.block(STRANGER, None), "it is a manifest now"
        assert len(r.asked) == asked + 1


async def test_what_the_origin_lacks_is_not_asked_for_again_soon(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        leaf = r.reel.cids("v0/seg-00000.m4s")[0]
        await r.fill.skeleton("film")
        r.lacks.add(leaf)
        asked = len(r.asked)
        for _ in range(4):
            error = await refused(lambda: r.fill.block(leaf, None))
            assert (error.status, error.reason) == (404, "missing")
        assert (len(r.asked) - asked, r.absent("missing")) == (1, 3)
        r.lacks.clear()
        r.now = 31.0
        assert await r.fill.block(leaf, None) == r.reel.blocks[leaf]


async def test_silence_is_never_remembered(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        leaf = r.reel.cids("v0/seg-00000.m4s")[0]
        await r.fill.skeleton("film")
        r.lacks.add(leaf)
        for reason in ("timeout", "unreachable"):
            r.reason = reason
            with pytest.raises(UnreachableError):
                await r.fill.block(leaf, None)
        r.lacks.clear()
        assert await r.fill.block(leaf, None) == r.reel.blocks[leaf]


async def test_a_title_taken_off_the_list_is_filled_no_more(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        entry = r.reel.catalog.titles()["film"]
        await r.fill.skeleton("film")
        r.reel.catalog.append(Entry(1, "retire", "film", entry.manifest, 0))
        for title in (None, "film"):
            error = await refused(lambda t=title: r.fill.block(r.reel.cids("v0/seg-00000.m4s")[0], t))  # type: ignore[misc]
            assert error.status == 404


async def test_who_asks_for_a_root_may_ask_for_what_lies_below_it(tmp_path: Path) -> None:
    leaf, other = (film(segments=3).cids(f"v0/seg-0000{number}.m4s")[0] for number in (0, 1))
    async with rig(tmp_path) as r:
        await r.fill.learn_roots()
        root = open_manifest(r.reel.blocks[r.reel.catalog.titles()["film"].cid]).root_cid
        await refused(lambda: r.fill.block(leaf, None))
        assert await r.fill.block(root, None) == r.reel.blocks[root]
        assert await r.fill.block(leaf, None) == r.reel.blocks[leaf], "as an IPFS client does, with no hint"
    async with rig(tmp_path) as again:
        assert again.store.has(root), "so that it is answered without the fill"
        await again.fill.learn_roots()
        assert await again.fill.block(other, None) == again.reel.blocks[other]
