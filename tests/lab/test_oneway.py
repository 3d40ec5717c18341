"""The carousel across two network namespaces: 20 % random loss one way, nothing at all the other way.

The file is also the program that runs in each namespace: ``test_oneway.py send|receive FOLDER``.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.blocks.store import DiskStore
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.generation import Item, origin_id
from farcast.protocol.identity import Identity
from farcast.satellite.antenna import Antenna
from farcast.satellite.programme import Show
from farcast.satellite.uplink import Uplink

CATALOG = Identity(b"c" * 32)
ORIGIN = origin_id(b"k" * 32)
GROUP, PORT = "239.255.74.35", 7435
SKY, GROUND = "10.99.7.1", "10.99.7.2"
BLOCKS, BLOCK_BYTES = 6, 1 << 20
LOSS_PERCENT = 20
RULES = f"""
table inet lab {{
  chain input {{
    type filter hook input priority 0; policy accept;
    udp dport {PORT} numgen random mod 100 < {LOSS_PERCENT} drop
  }}
  chain output {{ type filter hook output priority 0; policy drop; }}
}}
"""


class Wire(Protocol):
    """Two namespaces, see conftest."""

    def filter(self, end: int, rules: str) -> None:
        """Load nftables rules at one end."""
        ...

    def start(self, end: int, script: str, *words: str) -> subprocess.Popen[str]:
        """Run this file at one end."""
        ...


def film() -> dict[Cid, bytes]:
    """Return the same blocks in every process."""
    rng = random.Random(11)
    blocks = [rng.randbytes(BLOCK_BYTES) for _ in range(BLOCKS)]
    return {Cid.of(RAW, block): block for block in blocks}


def clock_ms() -> int:
    return time.time_ns() // 1_000_000


async def send(folder: Path) -> None:
    """Be the origin's uplink until killed."""
    store = DiskStore(folder, 1 << 30, CollectorRegistry())
    blocks = film()
    for cid, block in blocks.items():
        store.put(cid, block)
    uplink = Uplink(
        group=GROUP,
        port=PORT,
        interface=SKY,
        rate_bps=40_000_000,
        planned_loss=LOSS_PERCENT / 100,
        identity=CATALOG,
        origin=ORIGIN,
        store=store,
        clock_ms=clock_ms,
        registry=CollectorRegistry(),
    )
    await uplink.update([Item("checkpoint", "", b"note")], [Show("film", list(blocks))])
    await uplink.run()


async def receive(folder: Path) -> None:
    """Be the dish until film and note are here, then say what happened as JSON."""
    registry = CollectorRegistry()
    store = DiskStore(folder, 1 << 30, CollectorRegistry())
    heads: list[bytes] = []
    heard = asyncio.Event()

    def hear(_kind: str, _name: str, data: bytes) -> None:
        heads.append(data)
        heard.set()

    antenna = Antenna(
        group=GROUP,
        port=PORT,
        interface=GROUND,
        origin=ORIGIN,
        catalog_keys=lambda: [CATALOG.key],
        store=store,
        on_item=hear,
        on_block=lambda _cid, _size: None,
        clock_ms=clock_ms,
        registry=registry,
        folder=folder / "carousel",
    )
    listening = asyncio.ensure_future(antenna.run())
    blocks = film()
    for cid, block in blocks.items():
        assert await antenna.wait_for(cid) == block
    await heard.wait()  # who tunes in after the first note hears the next
    listening.cancel()
    samples = {sample.name: sample.value for metric in registry.collect() for sample in metric.samples}
    report = {"whole": [store.get(cid) == block for cid, block in blocks.items()], "heads": len(heads)}
    print(json.dumps(report | samples))  # noqa: T201 - the parent reads it
    store.close()


@pytest.mark.lab
def test_a_film_falls_from_the_sky_through_20_percent_loss_with_no_way_back(
    tmp_path: Path, wire: Wire
) -> None:
    wire.filter(1, RULES)
    for role in ("send", "receive"):
        (tmp_path / role).mkdir()
    dish = wire.start(1, __file__, "receive", str(tmp_path / "receive"))
    wire.start(0, __file__, "send", str(tmp_path / "send"))
    out, problems = dish.communicate(timeout=60)
    assert dish.returncode == 0, problems
    report = json.loads(out)
    assert report["whole"] == [True] * BLOCKS
    assert report["heads"] == 1
    missed = report["farcast_satellite_missed_packets_total"]
    received = report["farcast_satellite_received_bytes_total"] / 1_306
    assert 0.1 < missed / (missed + received) < 0.3


if __name__ == "__main__":
    asyncio.run({"send": send, "receive": receive}[sys.argv[1]](Path(sys.argv[2])))
