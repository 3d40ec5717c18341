"""The carousel over real multicast sockets on loopback, one way only."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.blocks.store import DiskStore
from farcast.node.demo.troupe import free_port
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.errors import UnreachableError, UsageError
from farcast.protocol.generation import Item, origin_id, pack_packet
from farcast.protocol.identity import Identity
from farcast.protocol.ports import Source, TierName
from farcast.satellite import multicast
from farcast.satellite.antenna import Antenna
from farcast.satellite.fec import RaptorQ
from farcast.satellite.programme import Show
from farcast.satellite.tier import SatelliteTier
from farcast.satellite.uplink import Uplink
from farcast.tests.wire.services import running, until

GROUP = "239.255.74.35"
LOOPBACK = "127.0.0.1"
CATALOG = Identity(b"c" * 32)
ORIGIN = origin_id(b"k" * 32)
HEAD = [Item("trust", "1.root.json", b"root"), Item("checkpoint", "", b"note")]


def clock_ms() -> int:
    return time.time_ns() // 1_000_000


@contextmanager
def disk(folder: Path) -> Generator[DiskStore]:
    folder.mkdir(exist_ok=True)
    store = DiskStore(folder, 1 << 30, CollectorRegistry())
    try:
        yield store
    finally:
        store.close()


class Studio:
    """An origin's uplink with a film in its store."""

    def __init__(self, folder: Path, port: int, *, rate_bps: int = 40_000_000, loss: float = 0.2) -> None:
        rng = random.Random(7)
        self.blocks = [rng.randbytes(size) for size in (1 << 20, 1 << 20, 700_000, 900)]
        self.cids = [Cid.of(RAW, block) for block in self.blocks]
        self.folder = folder
        self.port = port
        self.registry = CollectorRegistry()
        self._rate_bps, self._loss = rate_bps, loss

    @asynccontextmanager
    async def on_air(self, head: list[Item] = HEAD) -> AsyncGenerator[Uplink]:
        """Run the uplink while the block runs."""
        with disk(self.folder) as store:
            for cid, block in zip(self.cids, self.blocks, strict=True):
                store.put(cid, block)
            uplink = Uplink(
                group=GROUP,
                port=self.port,
                interface=LOOPBACK,
                rate_bps=self._rate_bps,
                planned_loss=self._loss,
                identity=CATALOG,
                origin=ORIGIN,
                store=store,
                clock_ms=clock_ms,
                registry=self.registry,
            )
            await uplink.update(head, [Show("film", self.cids)])
            async with running(uplink.run()):
                yield uplink


class Dish:
    """A receiver with what it heard."""

    def __init__(
        self, store: DiskStore, port: int, keys: list[bytes], folder: Path, *, interface: str = LOOPBACK
    ) -> None:
        self.items: dict[tuple[str, str], bytes] = {}
        self.keys = keys
        self.registry = CollectorRegistry()
        self.antenna = Antenna(
            group=GROUP,
            port=port,
            interface=interface,
            origin=ORIGIN,
            catalog_keys=lambda: self.keys,
            store=store,
            on_item=self._take,
            on_block=lambda _cid, _size: None,
            clock_ms=clock_ms,
            registry=self.registry,
            folder=folder,
        )
        self.tier = SatelliteTier(self.antenna)

    def _take(self, kind: str, name: str, data: bytes) -> None:
        self.items[(kind, name)] = data

    def count(self, name: str, **labels: str) -> float:
        """Read one counter."""
        return self.registry.get_sample_value(f"farcast_satellite_{name}_total", labels) or 0.0


async def forward_with_loss(from_port: int, to_port: int, loss: float) -> None:
    """Carry packets one way and lose some; nothing ever flows back."""
    rng = random.Random(3)
    loop = asyncio.get_running_loop()
    with multicast.receiver(GROUP, from_port, LOOPBACK) as ear, multicast.sender(LOOPBACK, 1) as mouth:
        while True:
            data = await loop.sock_recv(ear, 2_048)
            if rng.random() >= loss:
                await loop.sock_sendto(mouth, data, (GROUP, to_port))


async def test_a_film_and_its_head_arrive_through_20_percent_loss_and_no_return_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio, port = Studio(tmp_path / "origin", free_port()), free_port()
    threads: list[int] = []

    def decode(self: RaptorQ, length: int, symbol_bytes: int, symbols: Iterable[bytes]) -> bytes | None:
        threads.append(threading.get_ident())
        return whole(self, length, symbol_bytes, symbols)

    whole = RaptorQ.decode
    monkeypatch.setattr(RaptorQ, "decode", decode)
    with disk(tmp_path / "node") as store:
        dish = Dish(store, port, [CATALOG.key], tmp_path / "sky")
        async with (
            running(dish.antenna.run(), forward_with_loss(studio.port, port, 0.2)),
            studio.on_air(),
        ):
            await until(lambda: all(store.has(cid) for cid in studio.cids) and len(dish.items) == 2)
        assert [store.get(cid) for cid in studio.cids] == studio.blocks
        assert dish.items == {("trust", "1.root.json"): b"root", ("checkpoint", ""): b"note"}
        received = dish.count("received_bytes")
        sent = studio.registry.get_sample_value("farcast_satellite_sent_bytes_total")
        assert sent is not None
        assert received < 0.9 * sent
        assert dish.count("missed_packets") > 100
        assert len(threads) > 1
        assert len(set(threads)) == 1, "each thread that decodes keeps memory of its own"


async def test_the_tier_waits_for_a_block_and_gives_it_the_moment_it_falls(tmp_path: Path) -> None:
    studio = Studio(tmp_path / "origin", free_port())
    with disk(tmp_path / "node") as store:
        dish = Dish(store, studio.port, [CATALOG.key], tmp_path / "sky")
        assert dish.tier.sources() == ()
        source = Source(TierName.SATELLITE, "carousel", "")
        async with running(dish.antenna.run()):
            waiting = asyncio.ensure_future(dish.tier.fetch(source, studio.cids[2]))
            impatient = SatelliteTier(dish.antenna, wait_limit_s=0.1)
            with pytest.raises(UnreachableError):
                await impatient.fetch(source, studio.cids[2])
            async with studio.on_air():
                assert await asyncio.wait_for(waiting, 20) == studio.blocks[2]
                assert [found.tier for found in dish.tier.sources()] == [TierName.SATELLITE]
            assert await dish.tier.fetch(source, studio.cids[2]) == studio.blocks[2]


async def test_a_block_dropped_from_the_store_comes_again_when_it_is_waited_for(tmp_path: Path) -> None:
    studio = Studio(tmp_path / "origin", free_port())
    with disk(tmp_path / "node") as store:
        dish = Dish(store, studio.port, [CATALOG.key], tmp_path / "sky")
        async with running(dish.antenna.run()), studio.on_air():
            await until(lambda: all(store.has(cid) for cid in studio.cids))
            (path, _) = store.path(studio.cids[0]) or ("", 0)
            await asyncio.to_thread(Path(path).unlink)
            assert store.get(studio.cids[0]) is None
            source = Source(TierName.SATELLITE, "carousel", "")
            got = await asyncio.wait_for(dish.tier.fetch(source, studio.cids[0]), 20)
            assert got == studio.blocks[0]


async def test_before_the_keys_are_known_the_head_comes_and_no_block_is_stored(tmp_path: Path) -> None:
    studio = Studio(tmp_path / "origin", free_port())
    with disk(tmp_path / "node") as store:
        dish = Dish(store, studio.port, [], tmp_path / "sky")
        async with running(dish.antenna.run()), studio.on_air():
            await until(
                lambda: len(dish.items) == 2 and dish.count("rejected_packets", reason="not_vouched") > 0
            )
            assert not any(store.has(cid) for cid in studio.cids)
            dish.keys = [CATALOG.key]
            await until(lambda: all(store.has(cid) for cid in studio.cids))


async def meddle(from_port: int, to_port: int) -> None:
    """Follow every packet of the carousel with a false one from another address, and with noise."""
    loop = asyncio.get_running_loop()
    with multicast.receiver(GROUP, from_port, LOOPBACK) as ear, multicast.sender(LOOPBACK, 1) as mouth:
        while True:
            data = await loop.sock_recv(ear, 2_048)
            false = data if data[18] & 0x80 else data[:-1] + bytes([data[-1] ^ 1])
            foreign = pack_packet(b"foreign!", 1, 1, data[22:])
            for evil in (false, foreign, b"x", data[:24], data[:900]):
                await loop.sock_sendto(mouth, evil, (GROUP, to_port))


async def test_noise_foreign_and_poisoned_packets_are_counted_and_the_film_arrives(tmp_path: Path) -> None:
    studio, port = Studio(tmp_path / "origin", free_port(), rate_bps=20_000_000), free_port()
    with disk(tmp_path / "node") as store:
        dish = Dish(store, port, [CATALOG.key], tmp_path / "sky")
        async with (
            running(
                dish.antenna.run(),
                forward_with_loss(studio.port, port, 0.2),
                meddle(studio.port, port),
            ),
            studio.on_air(),
        ):
            await until(lambda: all(store.has(cid) for cid in studio.cids), 40)
        assert [store.get(cid) for cid in studio.cids] == studio.blocks
        for reason in ("foreign_origin", "short", "bad_length", "poisoned", "quarantined"):
            assert dish.count("rejected_packets", reason=reason) > 0, reason


async def test_the_programme_changes_while_on_air_and_pausing_silences_it(tmp_path: Path) -> None:
    studio = Studio(tmp_path / "origin", free_port())
    with disk(tmp_path / "node") as store:
        dish = Dish(store, studio.port, [CATALOG.key], tmp_path / "sky")
        async with running(dish.antenna.run()), studio.on_air() as uplink:
            await until(lambda: len(dish.items) == 2)
            await uplink.update([*HEAD, Item("beacon", "7", b"tick")], [Show("film", studio.cids)])
            await until(lambda: ("beacon", "7") in dish.items)
            uplink.pause()
            await asyncio.sleep(0.3)
            before = dish.count("received_bytes")
            await asyncio.sleep(0.3)
            assert dish.count("received_bytes") == before
            assert uplink.status().paused
            uplink.resume()
            await until(lambda: dish.count("received_bytes") > before)


async def test_an_interface_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with disk(tmp_path / "node") as store:
        dish = Dish(store, free_port(), [], tmp_path / "sky", interface="nowhere0")
        with pytest.raises(UsageError, match="nowhere0"):
            await dish.antenna.run()


async def test_the_rate_on_a_real_socket_is_exact_within_two_percent(tmp_path: Path) -> None:
    studio, rate_bps = Studio(tmp_path / "origin", free_port(), rate_bps=6_000_000), 6_000_000
    loop = asyncio.get_running_loop()
    shares: list[float] = []
    with multicast.receiver(GROUP, studio.port, LOOPBACK) as ear:
        async with studio.on_air():
            await loop.sock_recv(ear, 2_048)
            for _ in range(3):  # a busy machine may be late at an end of one span, not of three
                began, size = time.monotonic(), 0
                while (passed := time.monotonic() - began) < 3.0:
                    size += len(await loop.sock_recv(ear, 2_048))
                shares.append(size * 8 / passed / rate_bps)
                if abs(shares[-1] - 1) <= 0.02:
                    break
    assert min(abs(share - 1) for share in shares) <= 0.02, shares


async def test_what_was_heard_before_a_restart_counts_after_it(tmp_path: Path) -> None:
    studio = Studio(tmp_path / "origin", free_port(), rate_bps=16_000_000)
    with disk(tmp_path / "node") as store:
        first = Dish(store, studio.port, [CATALOG.key], tmp_path / "sky")
        second = Dish(store, studio.port, [CATALOG.key], tmp_path / "sky")
        async with studio.on_air() as uplink:
            async with running(first.antenna.run()):
                await until(lambda: first.antenna.sky().stored_bytes > 1_500_000)
                uplink.pause()
                await asyncio.sleep(0.2)
                kept = first.antenna.sky().stored_bytes
            async with running(second.antenna.run()):
                await until(lambda: second.antenna.sky().stored_bytes == kept)
                uplink.resume()
                await until(lambda: all(store.has(cid) for cid in studio.cids))
                await until(lambda: second.antenna.sky().stored_bytes < 200_000)
        assert second.count("received_bytes") < 0.75 * sum(map(len, studio.blocks))


async def test_a_dish_knows_what_comes_next(tmp_path: Path) -> None:
    studio = Studio(tmp_path / "origin", free_port())
    with disk(tmp_path / "node") as store:
        dish = Dish(store, studio.port, [CATALOG.key], tmp_path / "sky")
        async with running(dish.antenna.run()), studio.on_air():
            await until(lambda: bool(dish.antenna.sky().coming))
            sky = dish.antenna.sky()
            assert sky.heard
            assert sky.rate_bps == 40_000_000
            assert [(one.title, one.begins_in_s) for one in sky.coming] == [("film", 0)]
            assert all(kind != "timetable" for kind, _ in dish.items)
