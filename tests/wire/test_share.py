"""Sharing over real sockets on loopback: a title goes from one box to others, and on from those."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from farcast.mesh import sharer
from farcast.mesh.neighbours import Neighbour
from farcast.mesh.share import Layout
from farcast.mesh.sharelink import ShareLink
from farcast.mesh.sharer import Sharer
from farcast.mesh.swarm import UNIT_BYTES
from farcast.node.blocks.store import DiskStore
from farcast.node.http.dial import HttpDialer
from farcast.node.http.exchange import Hosts, Router
from farcast.node.http.listener import Listener
from farcast.node.http.tally import HttpMetrics
from farcast.node.ladder.fetch import Fetcher
from farcast.node.playback.layouts import Layouts
from farcast.node.playback.nearby import Nearby
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.codec import encode
from farcast.protocol.errors import FarcastError, RemoteError, UnreachableError
from farcast.protocol.identity import Identity
from farcast.protocol.ports import TierName
from farcast.protocol.presence import NO_WAY
from farcast.protocol.sharing import ALPN, PIECE_BYTES, Hello, Kind, OneBlock, Refusal
from farcast.tests.unit.node.reel import FaultyTier
from farcast.tests.wire.services import running, until

_RANDOM = Random(5)
BLOCKS = [_RANDOM.randbytes(size) for size in (700, 1 << 20, 300_000, 1 << 20, 1 << 20, 40_000, 1 << 20)]
CIDS = [Cid.of(RAW, block) for block in BLOCKS]
FILM = Layout("film", b"f" * 32, CIDS, [len(block) for block in BLOCKS])


class Box:
    """One box: its store, its listener, and what it shares."""

    def __init__(self, seed: int, home: Path) -> None:
        self.identity = Identity(bytes([seed]) * 32)
        self.registry = CollectorRegistry()
        home.mkdir()
        self.store = DiskStore(home, 1 << 30, CollectorRegistry())
        self.dialer = HttpDialer(allow_private=True)
        self.known: list[Neighbour] = []
        self.kept: list[Cid] = []
        self.port = 0
        self.sharer = Sharer(
            self.identity,
            self.dialer,
            lambda: self.known,
            self.store,
            find=self._find,
            clock_ms=lambda: time.time_ns() // 1_000_000,
            registry=self.registry,
            kept=lambda cid, _: self.kept.append(cid),
        )

    async def _find(self, digest: bytes) -> Layout | None:
        whole = all(self.store.has(cid) for cid in CIDS)
        return FILM if digest == FILM.digest and whole else None

    def fill(self) -> None:
        """Put the whole film into the store."""
        for cid, block in zip(CIDS, BLOCKS, strict=True):
            self.store.put(cid, block)

    @property
    def whole(self) -> bool:
        """Whether the film is here, byte for byte."""
        return all(self.store.get(cid) == block for cid, block in zip(CIDS, BLOCKS, strict=True))

    def count(self, name: str, **labels: str) -> float:
        """Read one of the mesh's metrics."""
        return self.registry.get_sample_value(f"farcast_mesh_{name}", labels) or 0.0

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Box]:
        """Listen and share."""
        listener = Listener(
            Router(Hosts()),
            lambda _: None,
            self.identity,
            HttpMetrics(CollectorRegistry()),
            host="127.0.0.1",
            port=0,
            streams={ALPN: self.sharer.accept},
        )
        async with listener, running(self.sharer.run()):
            self.port = listener.port
            yield self
        await self.dialer.close()
        self.store.close()


@asynccontextmanager
async def street(tmp_path: Path, count: int) -> AsyncGenerator[list[Box]]:
    """Run so many boxes that all know each other."""
    async with AsyncExitStack() as stack:
        boxes = [
            await stack.enter_async_context(Box(seed, tmp_path / str(seed)).running())
            for seed in range(1, count + 1)
        ]
        for box in boxes:
            acquaint(box, [other for other in boxes if other is not box])
        yield boxes


def acquaint(box: Box, others: Sequence[Box]) -> None:
    box.known = [
        Neighbour(one.identity.key, "127.0.0.1", one.port, hops=NO_WAY, expires_at=1e9) for one in others
    ]


async def nowhere(cid: Cid) -> bytes:
    raise UnreachableError(f"no uplink for {cid}")


async def test_a_title_goes_to_all_neighbours_at_about_one_copy_from_its_holder(tmp_path: Path) -> None:
    async with street(tmp_path, 4) as (source, *others):
        source.fill()
        async with asyncio.timeout(30):
            await asyncio.gather(*(box.sharer.bring(FILM, None) for box in others))
        assert all(box.whole for box in others)
        assert [len(box.kept) for box in others] == [len(CIDS)] * 3
        assert all(set(box.kept) == set(CIDS) for box in others)
        assert source.count("shared_bytes_total", way="sent") < 2 * sum(FILM.sizes)
        assert sum(box.count("shared_bytes_total", way="sent") for box in others) > 0


async def test_what_no_neighbour_has_comes_by_the_uplink_once(tmp_path: Path) -> None:
    fetched: list[Cid] = []

    async def fetch(cid: Cid) -> bytes:
        fetched.append(cid)
        await until(lambda: all(box.count("share_links") == 2 for box in boxes))
        data = BLOCKS[CIDS.index(cid)]
        for box in boxes:
            if asyncio.current_task() in box.sharer._shares[FILM.digest]._tasks:
                await asyncio.to_thread(box.store.put, cid, data)
        return data

    async with street(tmp_path, 3) as boxes, asyncio.timeout(30):
        await asyncio.gather(*(box.sharer.bring(FILM, fetch) for box in boxes))
        assert all(box.whole for box in boxes)
        assert len(fetched) < 3 * len(CIDS)


async def test_a_neighbour_that_dies_is_done_without(tmp_path: Path) -> None:
    async with street(tmp_path, 3) as (source, first, second):
        source.fill()
        second.fill()
        bringing = asyncio.ensure_future(first.sharer.bring(FILM, None))
        async with asyncio.timeout(30):
            await until(lambda: first.count("share_links") == 2)
            await second.sharer.close()
            await bringing
        assert first.whole


async def test_nobody_there_and_no_uplink_is_a_sentence(tmp_path: Path) -> None:
    async with street(tmp_path, 1) as [alone]:
        with pytest.raises(FarcastError, match="no uplink"):
            await alone.sharer.bring(FILM, nowhere)


async def test_a_stranger_and_one_who_has_nothing_are_refused_and_counted(tmp_path: Path) -> None:
    async with street(tmp_path, 3) as (asker, empty, stranger):
        acquaint(stranger, [])
        bringing = asyncio.ensure_future(asker.sharer.bring(FILM, None))
        async with asyncio.timeout(20):
            await until(lambda: stranger.count("share_refusals_total", reason="stranger") == 1)
            await until(lambda: empty.count("share_refusals_total", reason="not_held") == 1)
            await until(lambda: asker.count("share_refusals_total", reason="not_held") == 1)
        bringing.cancel()
        await asyncio.gather(bringing, return_exceptions=True)


async def test_one_dialled_by_the_wrong_key_or_that_speaks_only_http_is_left(tmp_path: Path) -> None:
    async with street(tmp_path, 2) as (asker, other):
        [known] = asker.known
        asker.known = [known._replace(key=b"x" * 32)]
        bringing = asyncio.ensure_future(asker.sharer.bring(FILM, None))
        async with asyncio.timeout(20):
            await until(lambda: asker.count("share_refusals_total", reason="wrong_key") == 1)
            with pytest.raises(FarcastError, match="does not speak"):
                await asker.dialer.open_stream(
                    known.source, "other/1", lambda: ShareLink(asker.sharer, dialled=True)
                )
        bringing.cancel()
        await asyncio.gather(bringing, return_exceptions=True)
        assert other.count("share_links") == 0


async def test_who_says_hello_twice_in_one_breath_is_heard_once(tmp_path: Path) -> None:
    async with street(tmp_path, 1) as [box]:
        link = box.sharer.accept(lambda: None)
        box.sharer.opened(link)
        hello = memoryview(encode(Hello(1, "no proof", FILM.digest, b"", [])))
        box.sharer.said(link, Kind.HELLO, hello)
        with pytest.raises(RemoteError, match="out of its turn"):
            box.sharer.said(link, Kind.HELLO, hello)
        assert await asyncio.gather(*box.sharer._tasks) == [None]
        assert box.count("share_refusals_total", reason="bad_signature") == 1
        box.sharer.closed(link, "closed")


@pytest.mark.parametrize("size_bytes", [PIECE_BYTES, 0])
async def test_no_unit_is_begun_before_the_last_one_is_whole(tmp_path: Path, size_bytes: int) -> None:
    async with street(tmp_path, 1) as [box]:
        share, link = box.sharer._share(FILM), box.sharer.accept(lambda: None)
        pieces = [memoryview(bytes(size_bytes))] * 2
        with pytest.raises(RemoteError) as caught:
            list(map(partial(share.piece, link, 1, 0), pieces))
        assert caught.value.reason == "malformed"


def _overheard(box: Box, monkeypatch: pytest.MonkeyPatch) -> tuple[ShareLink, list[Kind]]:
    """Return a link to a neighbour that is not there, and what is said to it, by kind."""
    link, said = box.sharer.accept(lambda: None), list[Kind]()

    def say(kind: Kind, message: object = None) -> None:
        del message
        said.append(kind)

    monkeypatch.setattr(link, "say", say)
    link.peer = b"g" * 32
    return link, said


async def test_what_is_on_the_wire_when_its_block_is_withdrawn_and_asked_for_again_cuts_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of the old unit comes, then the new one, and the block is right."""
    async with street(tmp_path, 1) as [box]:
        share = box.sharer._share(FILM)
        link, said = _overheard(box, monkeypatch)
        assert share.join(link, [2])

        def want(*, everything: bool) -> list[Kind]:
            said.clear()
            share.swarm.want(share._now(), everything=everything)
            share.pump()
            return said

        def come(start: int, end: int) -> None:
            for offset in range(start, end, PIECE_BYTES):
                data = BLOCKS[2][offset : min(end, offset + PIECE_BYTES)]
                share.piece(link, 2, offset, memoryview(data))

        assert want(everything=True) == [Kind.ASK]
        come(0, 2 * PIECE_BYTES)
        assert want(everything=False) == [Kind.WITHDRAWAL]
        assert want(everything=True) == [Kind.ASK]
        come(2 * PIECE_BYTES, UNIT_BYTES)  # the rest of what was on the wire
        come(0, UNIT_BYTES)
        come(UNIT_BYTES, len(BLOCKS[2]))
        await asyncio.gather(*share._tasks)
        assert share.swarm.has(2)
        assert box.store.check(CIDS[2])
        assert link.peer in share.links


class _Known:
    """Knows what the film is made of."""

    def made(self, title: str) -> Layout:
        """Return it."""
        del title
        return FILM


def _pushed(fetcher: Fetcher, cid: Cid, size_bytes: int) -> None:
    fetcher.pushed(cid, size_bytes, TierName.MESH)


async def test_three_who_watch_at_once_cost_their_uplink_about_one_copy(tmp_path: Path) -> None:
    blocks = dict(zip(CIDS, BLOCKS, strict=True))
    tiers = [FaultyTier(TierName.CDN, blocks, delay_s=0.1) for _ in range(3)]

    async def watch(box: Box, fetcher: Fetcher) -> None:
        for place, cid in enumerate(CIDS):
            fetcher.prefetch(CIDS[place + 1 : place + 3], title="film")
            assert await fetcher.block(cid, title="film", buffer_s=6.0) == BLOCKS[place]
        assert box.whole

    async with street(tmp_path, 3) as boxes, asyncio.timeout(30):
        fetchers = [
            Fetcher(box.store, [tier], CollectorRegistry()) for box, tier in zip(boxes, tiers, strict=True)
        ]
        for box, fetcher in zip(boxes, fetchers, strict=True):
            layouts = cast("Layouts", _Known())
            fetcher.nearby = Nearby(layouts, box.sharer, lambda cid, _: nowhere(cid))
            box.sharer._kept = partial(_pushed, fetcher)
        await asyncio.gather(*(watch(box, fetcher) for box, fetcher in zip(boxes, fetchers, strict=True)))
        asked = [cid for tier in tiers for cid in tier.asked]
        assert len(asked) <= len(CIDS) + 2  # a busy machine misses turns; tests/sim has none missed
        for fetcher in fetchers:
            await fetcher.close()


async def test_a_block_that_one_alone_has_begun_on_comes_from_it_to_who_joins_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever watches alone says at the first hello what it is bringing already."""
    monkeypatch.setattr(sharer, "MEET_S", 5.0)  # a busy machine takes longer to meet
    blocks = dict(zip(CIDS, BLOCKS, strict=True))
    tiers = [FaultyTier(TierName.CDN, blocks, delay_s=1.0) for _ in range(2)]
    async with street(tmp_path, 2) as boxes, asyncio.timeout(30):
        fetchers = [
            Fetcher(box.store, [tier], CollectorRegistry()) for box, tier in zip(boxes, tiers, strict=True)
        ]
        for box, fetcher in zip(boxes, fetchers, strict=True):
            fetcher.nearby = Nearby(cast("Layouts", _Known()), box.sharer, lambda cid, _: nowhere(cid))
            box.sharer._kept = partial(_pushed, fetcher)
        first = asyncio.ensure_future(fetchers[0].block(CIDS[1], title="film", buffer_s=6.0))
        await until(lambda: bool(tiers[0].asked))
        assert boxes[0].count("share_links") == 0
        assert await fetchers[1].block(CIDS[1], title="film", buffer_s=6.0) == await first == BLOCKS[1]
        assert (tiers[0].asked, tiers[1].asked) == ([CIDS[1]], [])
        for fetcher in fetchers:
            await fetcher.close()


async def test_whoever_fails_to_bring_a_block_claims_it_no_more(tmp_path: Path) -> None:
    async with street(tmp_path, 1) as [box]:
        share = box.sharer._share(FILM)
        for _ in range(2):
            assert not await share.seek(CIDS[1], 1.0)
            assert share.swarm.claims == [1]
            share.found(CIDS[1], here=False)
            assert (share.swarm.claims, share.swarm.wake_at) == ([], None)


async def test_whoever_is_gone_when_a_block_becomes_this_boxs_leaves_no_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A neighbour does not bring it, so this box would, had the player not gone elsewhere meanwhile."""
    async with street(tmp_path, 1) as [box]:
        share = box.sharer._share(FILM)
        link, said = _overheard(box, monkeypatch)
        assert share.join(link, [])
        block = sorted([link.peer, box.identity.key]).index(link.peer)  # its turn, so it is asked first
        seeking = asyncio.ensure_future(share.seek(CIDS[block], 5.0))
        await until(lambda: Kind.ASK in said)
        share.heard(link, OneBlock(block), Kind.LACK)
        assert share.swarm.claims == [block]
        seeking.cancel()
        await asyncio.gather(seeking, return_exceptions=True)
        assert (share.swarm.claims, share.swarm.wake_at) == ([], None)


async def test_of_two_dials_that_cross_the_one_that_is_refused_waits_for_the_other(tmp_path: Path) -> None:
    async with street(tmp_path, 1) as [box]:
        share, refused = box.sharer._share(FILM), memoryview(encode(Refusal("twice")))
        mine, theirs = box.sharer.accept(lambda: None), box.sharer.accept(lambda: None)
        mine.peer = theirs.peer = b"g" * 32
        box.sharer._told[mine] = (share, set(), set())
        box.sharer.said(mine, Kind.REFUSAL, refused)
        box.sharer.closed(mine, "refused")
        assert box.sharer._meets(FILM.digest)
        assert box.sharer._join(share, theirs, b"", [])
        assert not box.sharer._meets(FILM.digest)
        box.sharer._told[mine] = (share, set(), set())
        box.sharer.said(mine, Kind.REFUSAL, refused)  # after the other has come
        assert not box.sharer._meets(FILM.digest)


async def test_a_dial_that_crossed_and_never_comes_is_waited_for_no_longer_than_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharer, "CROSSED_S", 0.2)
    async with street(tmp_path, 1) as [box], asyncio.timeout(10):
        share, mine = box.sharer._share(FILM), box.sharer.accept(lambda: None)
        mine.peer = b"g" * 32
        box.sharer._told[mine] = (share, set(), set())
        box.sharer.said(mine, Kind.REFUSAL, memoryview(encode(Refusal("twice"))))
        await box.sharer._meet(FILM.digest, 60.0)
