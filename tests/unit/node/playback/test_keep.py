from __future__ import annotations

import asyncio
from pathlib import Path

from prometheus_client import CollectorRegistry

from farcast.node.blocks.store import DiskStore
from farcast.node.catalog.library import Fetch
from farcast.node.ladder.fetch import Fetcher
from farcast.node.playback.keep import LABEL, Keeper, Kept
from farcast.protocol.cid import Cid
from farcast.protocol.ports import TierName
from farcast.tests.unit.node.reel import FaultyTier, film


async def _keep(home: Path, *, free_bytes: int = 1 << 40) -> tuple[Kept, int]:
    """Keep a film; returns how that ended, and how many different blocks were asked for."""
    registry, reel = CollectorRegistry(), film()
    store = DiskStore(home, 100_000_000, registry, free_bytes=lambda _: free_bytes)
    cdn = FaultyTier(TierName.CDN, reel.blocks, delay_s=0)
    fetcher = Fetcher(store, [cdn], registry)
    keeper = Keeper(store, reel.library(store), fetcher)
    try:
        async with asyncio.timeout(20):
            found = await keeper.keep("film")
            while found.held_blocks < found.blocks and not found.error:
                await asyncio.sleep(0.01)
                found = await keeper.progress("film")
        return found, len(set(cdn.asked))
    finally:
        await keeper.close()
        await fetcher.close()
        store.close()


async def test_a_kept_title_is_held_whole(tmp_path: Path) -> None:
    found, asked = await _keep(tmp_path)
    assert (found.held_blocks, found.error) == (found.blocks, "")
    assert asked >= found.blocks


async def test_a_full_disk_ends_the_keeping_with_a_sentence_and_nothing_more_is_fetched(
    tmp_path: Path,
) -> None:
    found, asked = await _keep(tmp_path, free_bytes=1_000)
    assert found.held_blocks < found.blocks
    assert "free some disk" in found.error
    assert asked < found.blocks / 2, "what would not stay"


async def test_a_title_dropped_while_keeping_goes_on_is_not_pinned_again(tmp_path: Path) -> None:
    """Its folders may take long to come: the network is why the keeping stopped."""
    registry, reel = CollectorRegistry(), film()
    store = DiskStore(tmp_path, 100_000_000, registry)
    tier = FaultyTier(TierName.CDN, reel.blocks, delay_s=0)
    fetcher = Fetcher(store, [tier], registry)
    library = reel.library(store)
    keeper, looks, comes = Keeper(store, library, fetcher), asyncio.Event(), asyncio.Event()
    blocks = library.blocks

    async def slow(title: str, fetch: Fetch) -> tuple[Cid, ...]:
        looks.set()
        await comes.wait()
        return await blocks(title, fetch)

    try:
        store.pin(f"{LABEL}film", await blocks("film", fetcher.block))
        library.blocks = slow  # type: ignore[method-assign] # as where no tier is up
        resuming = asyncio.ensure_future(keeper.resume())
        await looks.wait()
        dropping = asyncio.ensure_future(keeper.drop("film"))
        while store.pinned():  # noqa: ASYNC110 - what another thread writes
            await asyncio.sleep(0.01)
        comes.set()
        await asyncio.gather(resuming, dropping)
        assert store.pinned() == {}
    finally:
        await keeper.close()
        await fetcher.close()
        store.close()
