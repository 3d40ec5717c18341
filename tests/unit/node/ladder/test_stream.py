"""Files of titles as they arrive: exact bytes, bounded fetching, and never a clean end by mistake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from farcast.node.blocks.store import DiskStore
from farcast.node.ladder.stream import AHEAD, Streams, pieces
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.errors import UnreachableError
from farcast.protocol.unixfs import Leaf

DATA = [bytes([number]) * 300_000 for number in range(8)]
LEAVES = [Leaf(Cid.of(RAW, data), 300_000 * at, len(data)) for at, data in enumerate(DATA)]
WHOLE = b"".join(DATA)
BLOCKS = {leaf.cid: data for leaf, data in zip(LEAVES, DATA, strict=True)}


class Rig:
    """Streams over a real store, and a source that may hold blocks back, lose them or not have them kept."""

    def __init__(self, home: Path) -> None:
        self.store = DiskStore(home, 100_000_000, CollectorRegistry())
        self.streams = Streams(self.store)
        self.asked: list[Cid] = []
        self.gates: dict[Cid, asyncio.Event] = {}
        self.lost: set[Cid] = set()
        self.keeps = True
        self.under_way = self.most = 0

    async def fetch(self, cid: Cid) -> bytes:
        """Bring a block as the relay's fill does."""
        self.asked.append(cid)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(0.002)
            if cid in self.gates:
                await self.gates[cid].wait()
            if cid in self.lost:
                raise UnreachableError("gone")
        finally:
            self.under_way -= 1
        if self.keeps:
            self.store.put(cid, BLOCKS[cid])
        return BLOCKS[cid]

    async def open(self, first: int = 0, length: int = len(WHOLE)) -> AsyncGenerator[bytes, None]:
        """Ask for a part of the file."""
        return await self.streams.open(pieces(LEAVES, first, length), self.fetch)


@asynccontextmanager
async def rig(home: Path) -> AsyncGenerator[Rig]:
    made = Rig(home)
    try:
        yield made
    finally:
        made.store.close()


async def read(body: AsyncGenerator[bytes, None], got: bytearray | None = None) -> bytes:
    got = bytearray() if got is None else got
    async for data in body:
        got += data
    return bytes(got)


async def test_the_first_block_goes_out_while_the_second_is_held_back(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        gate = r.gates[LEAVES[1].cid] = asyncio.Event()
        async with aclosing(await r.open()) as body:
            assert r.asked == [LEAVES[0].cid], "the first is fetched alone"
            got = b""
            while len(got) < len(DATA[0]):
                got += await anext(body)
            assert got == DATA[0]
            gate.set()
            assert got + await read(body) == WHOLE
        assert r.asked == [leaf.cid for leaf in LEAVES]
        assert r.most <= AHEAD


async def test_a_reader_who_leaves_stops_the_fetching(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        for leaf in LEAVES[1:]:
            r.gates[leaf.cid] = asyncio.Event()
        body = await r.open()
        await anext(body)
        await asyncio.sleep(0.01)
        assert r.under_way == AHEAD
        await body.aclose()
        assert r.under_way == 0
        assert len(r.asked) == 1 + AHEAD


async def test_a_block_that_does_not_come_ends_the_stream_by_its_error(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.lost.add(LEAVES[4].cid)
        got = bytearray()
        body = await r.open()
        with pytest.raises(UnreachableError):
            await read(body, got)
        assert got == b"".join(DATA[:4])
        r.lost.add(LEAVES[7].cid)  # too far ahead to have been fetched
        with pytest.raises(UnreachableError):
            await r.open(7 * 300_000, 10)


async def test_what_the_disk_does_not_take_is_sent_from_memory_one_block_at_a_time(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.keeps = False
        assert await read(await r.open()) == WHOLE
        assert not r.store.held_blocks


async def test_a_block_evicted_before_its_turn_is_fetched_again(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        body = await r.open()
        got = await anext(body)
        for _ in range(1_000):
            if r.store.has(LEAVES[2].cid):
                break
            await asyncio.sleep(0.001)
        r.store.drop(LEAVES[2].cid)
        assert got + await read(body) == WHOLE
        assert r.asked.count(LEAVES[2].cid) == 2


async def test_only_the_blocks_of_a_range_are_fetched(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        assert await read(await r.open(500_000, 200_000)) == WHOLE[500_000:700_000]
        assert r.asked == [LEAVES[1].cid, LEAVES[2].cid]


@given(st.lists(st.integers(1, 50), max_size=8), st.integers(0, 200), st.integers(0, 200))
def test_pieces_are_exactly_the_range(sizes: list[int], first: int, length: int) -> None:
    whole = bytes(range(200)) * 2
    leaves, offset = list[Leaf](), 0
    for size in sizes:
        leaves.append(Leaf(Cid.of(RAW, bytes([size])), offset, size))
        offset += size
    found = pieces(leaves, first, length)
    got = b"".join(whole[one.leaf.offset + one.skip :][: one.length] for one in found)
    assert got == whole[:offset][first : first + length]
    assert all(one.length > 0 for one in found)
