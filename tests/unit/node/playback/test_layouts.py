from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.blocks.store import DiskStore
from farcast.node.playback.layouts import Layouts
from farcast.protocol.cid import Cid
from farcast.protocol.errors import RefusedError
from farcast.tests.unit.node.reel import film


async def test_a_layout_names_every_block_with_its_size_before_its_leaves_are_here(tmp_path: Path) -> None:
    reel = film(segments=3)
    store = DiskStore(tmp_path, 100_000_000, CollectorRegistry())
    fetched: list[Cid] = []

    async def fetch(cid: Cid) -> bytes:
        fetched.append(cid)
        store.put(cid, reel.blocks[cid])
        return reel.blocks[cid]

    layouts = Layouts(store, reel.library(store))
    assert layouts.made("film") is None
    layout = await layouts.of("film", fetch)
    assert set(layout.cids) == set(reel.blocks)
    assert [reel.blocks[cid] for cid in layout.cids if len(reel.blocks[cid]) == 0] == []
    assert layout.sizes == [len(reel.blocks[cid]) for cid in layout.cids]
    assert len(fetched) < len(layout.cids)
    assert layouts.made("film") == layout == await layouts.of("film", fetch)
    assert await layouts.held(layout.digest) is None
    for cid, block in reel.blocks.items():
        store.put(cid, block)
    assert await layouts.held(layout.digest) == layout
    assert await layouts.held(b"x" * 32) is None
    with pytest.raises(RefusedError):
        await layouts.of("another", fetch)
    store.close()


async def test_what_is_not_here_is_not_fetched_for_a_neighbour(tmp_path: Path) -> None:
    reel = film(segments=2)
    store = DiskStore(tmp_path, 100_000_000, CollectorRegistry())
    library = reel.library(store)
    assert await Layouts(store, library).held(library.entry("film").cid.digest) is None
    store.close()
