"""Two dishes under one sky that each lose too much, and a LAN between them.

The carousel sends one cycle and falls silent; one dish is killed then. What it had heard is on its disk,
what it lacks its neighbour has, and the other way round. Real uplink, antennas, listeners and dialers.

The file is also the program that runs in each namespace.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.blocks.store import DiskStore
from farcast.node.http.dial import HttpDialer
from farcast.node.http.exchange import Hosts, Router
from farcast.node.http.listener import Listener
from farcast.node.http.tally import HttpMetrics
from farcast.node.lender import Lender
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.generation import Item, origin_id
from farcast.protocol.identity import Identity
from farcast.protocol.ports import Source, TierName
from farcast.satellite.antenna import Antenna
from farcast.satellite.borrower import PAUSE_S, Borrower
from farcast.satellite.programme import Show
from farcast.satellite.uplink import Uplink
from farcast.tests.lab.sky import ADDRESSES, CAROUSEL_PORT, OneWay, why_not
from farcast.tests.wire.services import until

GROUP = "239.255.74.35"
CATALOG = Identity(b"c" * 32)
ORIGIN = origin_id(b"k" * 32)
LAN = "10.98.9"
PORT = 7433
DISHES = {1: Identity(b"1" * 32), 2: Identity(b"2" * 32)}
LOSS, PLANNED = 0.4, 0.2


def film() -> dict[Cid, bytes]:
    """Return the same blocks in every process."""
    rng = random.Random(12)
    blocks = [rng.randbytes(1 << 20) for _ in range(3)]
    return {Cid.of(RAW, block): block for block in blocks}


def clock_ms() -> int:
    return time.time_ns() // 1_000_000


def say(**facts: object) -> None:
    """Tell the parent."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


async def send(folder: Path) -> None:
    """Send the film once and fall silent."""
    store = DiskStore(folder, 1 << 30, CollectorRegistry())
    for cid, block in film().items():
        store.put(cid, block)
    uplink = Uplink(
        group=GROUP,
        port=CAROUSEL_PORT,
        interface=ADDRESSES[0],
        rate_bps=8_000_000,
        planned_loss=PLANNED,
        identity=CATALOG,
        origin=ORIGIN,
        store=store,
        clock_ms=clock_ms,
        registry=CollectorRegistry(),
    )
    await uplink.update([Item("checkpoint", "", b"note")], [Show("film", list(film()))])
    running = asyncio.ensure_future(uplink.run())
    await until(lambda: all(row.cycles for row in uplink.status().generations), 60)
    uplink.pause()
    say(over=True)
    await running


async def receive(folder: Path, end: int) -> None:
    """Be a dish and a neighbour until the film is here, and a neighbour after that."""
    registry = CollectorRegistry()
    store = DiskStore(folder, 1 << 30, CollectorRegistry())
    antenna = Antenna(
        group=GROUP,
        port=CAROUSEL_PORT,
        interface=ADDRESSES[end],
        origin=ORIGIN,
        catalog_keys=lambda: [CATALOG.key],
        store=store,
        on_item=lambda _kind, _name, _data: None,
        on_block=lambda _cid, _size: None,
        clock_ms=clock_ms,
        registry=registry,
        folder=folder / "carousel",
    )
    router = Router(Hosts())
    Lender(antenna).add_to(router)
    other = 3 - end
    neighbour = Source(TierName.MESH, "neighbour", f"{LAN}.{other}:{PORT}", DISHES[other].key)
    metrics = HttpMetrics(CollectorRegistry())
    listener = Listener(router, lambda _head: None, DISHES[end], metrics, host=f"{LAN}.{end}", port=PORT)
    async with listener, HttpDialer(allow_private=True) as dialer, asyncio.TaskGroup() as tasks:
        tasks.create_task(antenna.run())
        await asyncio.sleep(0.3)
        say(began=True)
        await asyncio.to_thread(sys.stdin.readline)
        say(kept=antenna.sky().stored_bytes, blocks=store.held_blocks)
        tasks.create_task(borrow(Borrower(antenna, dialer, lambda: [neighbour], registry)))
        whole = [await antenna.wait_for(cid) == block for cid, block in film().items()]
        samples = {one.name: one.value for metric in registry.collect() for one in metric.samples}
        say(whole=whole, borrowed=samples["farcast_satellite_borrowed_symbols_total"])


async def borrow(borrower: Borrower) -> None:
    """Run errands as a box does."""
    while True:
        await borrower.errand()
        await asyncio.sleep(PAUSE_S)


def heard(program: subprocess.Popen[str]) -> dict[str, object]:
    """Wait for what a program says next."""
    assert program.stdout is not None
    return dict[str, object](json.loads(program.stdout.readline()))


@pytest.mark.lab
def test_two_dishes_that_lost_too_much_complete_each_other_and_one_of_them_was_killed(tmp_path: Path) -> None:
    if lacks := why_not():
        pytest.skip(lacks)
    link = OneWay(2, LOSS, seed=7, burst_every_s=0.0, folder=tmp_path)
    try:
        sky = link.__enter__()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr!r}")
    try:
        sky.join((1, 2), LAN)

        def dish(end: int) -> subprocess.Popen[str]:
            words = (sys.executable, __file__, "receive", str(tmp_path / f"dish{end}"), str(end))
            return sky.start(end, *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

        for name in ("dish1", "dish2", "studio"):
            (tmp_path / name).mkdir()
        dishes = {end: dish(end) for end in (1, 2)}
        assert [heard(one) for one in dishes.values()] == [{"began": True}] * 2
        studio = sky.start(
            0, sys.executable, __file__, "send", str(tmp_path / "studio"), stdout=subprocess.PIPE
        )
        assert heard(studio) == {"over": True}
        time.sleep(0.5)  # the last packets are still on their way
        dishes[1].kill()
        dishes[1].wait(10)
        dishes[1] = dish(1)
        assert heard(dishes[1]) == {"began": True}
        for one in dishes.values():
            assert one.stdin is not None
            one.stdin.write("borrow\n")
            one.stdin.flush()
        for one in dishes.values():
            before = heard(one)
            assert before["blocks"] == 0  # nobody has the film yet
            assert isinstance(before["kept"], int)
            assert before["kept"] > 0.6 * sum(map(len, film().values()))
        for one in dishes.values():
            found = heard(one)
            assert found["whole"] == [True] * len(film())
            assert isinstance(found["borrowed"], float)
        studio.kill()
    finally:
        link.__exit__(None, None, None)


if __name__ == "__main__":
    if sys.argv[1] == "send":
        asyncio.run(send(Path(sys.argv[2])))
    else:
        asyncio.run(receive(Path(sys.argv[2]), int(sys.argv[3])))
