"""One way: bytes sent until a receiver without a way back has a 20 MB title, against what the loss makes due.

The bound is 1 / (1 - p) with the p that really was lost until then. Ours is a whole uplink and a whole
antenna in namespaces, head, timetable and headers included, and loses a part of p in bursts of 200 ms;
udpcast, which must be told how much redundancy to send, has the same p without bursts. One round of
8 MB generations says what memory those take.

Run alone: ``python -m farcast.tests.bench.oneway [name,...]``; ``FARCAST_BENCH_ROUNDS`` sets the rounds.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry

from farcast.node.blocks.store import DiskStore
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.generation import Item, origin_id, parse_packet
from farcast.protocol.identity import Identity
from farcast.satellite.antenna import Antenna
from farcast.satellite.programme import Show
from farcast.satellite.uplink import Uplink
from farcast.tests.bench.figure import Peer, compared
from farcast.tests.lab.sky import ADDRESSES, CAROUSEL_PORT, OneWay, why_not

CASES: Mapping[str, int] = {"oneway_10": 10, "oneway_20": 20, "oneway_30": 30}
FIGURES = tuple(CASES)
GOALS = dict.fromkeys(CASES, 0.95)
ROUNDS = 3
SIZE_BYTES = 19_990_000
"""With the names of its blocks it fills one generation of 20 MB."""
BLOCK_BYTES = 1 << 20
RATE_BPS = 32_000_000
BURST_EVERY_S = 4.0
GENERATION_BYTES, SMALL_GENERATION_BYTES = 20_000_000, 8_000_000
LIMIT_S = 90.0
GROUP = "239.255.74.35"
CATALOG = Identity(b"c" * 32)
ORIGIN = origin_id(b"k" * 32)
UDPCAST: Mapping[int, str] = {10: "8x32/128", 20: "8x64/128", 30: "8x96/128"}
"""Stripes, redundancy, stripe size: each the least of those tried that got through."""


class Sent(NamedTuple):
    """What one of ours took: sizes sent, the bound for what was lost, both ends' largest memory in MiB."""

    sizes: float
    bound: float
    lost: float
    uplink_mib: float
    receiver_mib: float


def run(only: Sequence[str] | None = None) -> list[dict[str, object]]:
    """Measure the figures named in ``only``, or all (``ratio``: bound / ours)."""
    names = [name for name in CASES if not only or name in only]
    lacks = why_not()
    if lacks or not names:
        return [{"name": name, "unit": "sizes", "ratio": None, "skipped": lacks} for name in names]
    return [_measure(name) for name in names]


def _measure(name: str) -> dict[str, object]:
    percent = CASES[name]
    count = int(os.environ.get("FARCAST_BENCH_ROUNDS", ROUNDS))
    ours: list[Sent] = []
    peers: list[float] = []
    for seed in range(1, count + 1):
        ours.append(_ours(percent, seed, GENERATION_BYTES))
        if shutil.which("udp-sender") is not None and (sizes := _udpcast(percent, seed)) is not None:
            peers.append(sizes)
    if not peers:
        missing = "it did not get through" if shutil.which("udp-sender") else "apt-get install udpcast"
        sys.stderr.write(f"{name}: nothing to say of udpcast: {missing}\n")
    small = _ours(percent, 1, SMALL_GENERATION_BYTES)
    extra: dict[str, object] = {
        "udpcast_ratio": round(median(peers) / median(one.sizes for one in ours), 2) if peers else None,
        "udpcast_sizes": round(median(peers), 3) if peers else None,
        "lost": round(median(one.lost for one in ours), 3),
        "uplink_rss_mib": round(max(one.uplink_mib for one in ours)),
        "receiver_rss_mib": round(max(one.receiver_mib for one in ours)),
        "uplink_8mb_rss_mib": round(small.uplink_mib),
        "receiver_8mb_rss_mib": round(small.receiver_mib),
        "sizes_8mb": round(small.sizes, 3),
    }
    return compared(
        name,
        "sizes",
        [one.sizes for one in ours],
        [one.bound for one in ours],
        Peer("1/(1-p)"),
        greater_is_better=False,
        digits=3,
        extra=extra,
    )


def _ours(percent: int, seed: int, generation_bytes: int) -> Sent:
    """Send until the antenna has every block; count what was sent until the packet that made it whole."""
    with tempfile.TemporaryDirectory(prefix="farcast-bench-") as name:
        folder = Path(name)
        for end in ("dish", "studio"):
            (folder / end).mkdir()
        link = OneWay(1, percent / 100, seed=seed, burst_every_s=BURST_EVERY_S, folder=folder)
        with link as sky:
            words = (sys.executable, __file__)
            dish = sky.start(1, *words, "--receive", str(folder / "dish"), stdout=subprocess.PIPE)
            assert dish.stdout is not None
            assert dish.stdout.readline() == "ready\n"
            studio = sky.start(
                0, *words, "--send", str(folder / "studio"), str(percent), str(generation_bytes),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
            heard = json.loads(dish.communicate(timeout=LIMIT_S)[0])
            sent = json.loads(studio.communicate("stop\n", timeout=LIMIT_S)[0])
            passed = sky.passed()
    at = int(heard["seq"]) - 1
    if heard["overflow"]:
        message = f"the receiver's own queue lost {heard['overflow']:.0f} packets; this machine is too busy"
        raise RuntimeError(message)
    lost: float = passed.lost_packets[at] / (at + 1)
    return Sent(passed.sent_bytes[at] / SIZE_BYTES, 1 / (1 - lost), lost, sent["rss_mib"], heard["rss_mib"])


def _udpcast(percent: int, seed: int) -> float | None:
    """Return what udpcast's open loop sent, in sizes; None where the receiver did not get the whole."""
    with tempfile.TemporaryDirectory(prefix="farcast-bench-") as name:
        folder = Path(name)
        (folder / "in").write_bytes(b"".join(film().values()))
        with OneWay(1, percent / 100, seed=seed, burst_every_s=0.0, folder=folder) as sky:
            quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            meeting = ("--interface", "sky0", "--mcast-rdv-address", "224.0.0.1", "--nokbd")
            ear = sky.start(1, "udp-receiver", "--file", str(folder / "out"), *meeting, "--nosync", **quiet)
            time.sleep(1.0)
            mouth = sky.start(
                0, "udp-sender", "--file", str(folder / "in"), *meeting, "--async", "--fec", UDPCAST[percent],
                "--max-bitrate", f"{RATE_BPS // 1_000_000}m", "--mcast-data-address", "239.255.9.9",
                "--blocksize", "1280", "--rexmit-hello-interval", "200", "--autostart", "5", **quiet,
            )  # fmt: skip
            try:
                mouth.wait(LIMIT_S)
                ear.wait(5.0)
            except subprocess.TimeoutExpired:
                return None
            passed = sky.passed()
        whole = (folder / "out").exists() and (folder / "out").read_bytes() == (folder / "in").read_bytes()
        return passed.total_bytes / SIZE_BYTES if whole else None


# -- the programs at the ends


def film() -> dict[Cid, bytes]:
    """Return the same title in every process."""
    rng = random.Random(11)
    sizes = [min(BLOCK_BYTES, SIZE_BYTES - at) for at in range(0, SIZE_BYTES, BLOCK_BYTES)]
    blocks = [rng.randbytes(size) for size in sizes]
    return {Cid.of(RAW, block): block for block in blocks}


async def _send(folder: Path, percent: int, generation_bytes: int) -> None:
    """Be the origin's uplink until told to stop."""
    store = DiskStore(folder, 1 << 30, CollectorRegistry())
    cids: list[Cid] = []
    for cid, block in film().items():
        store.put(cid, block)
        cids.append(cid)
    uplink = Uplink(
        group=GROUP,
        port=CAROUSEL_PORT,
        interface=ADDRESSES[0],
        rate_bps=RATE_BPS,
        planned_loss=percent / 100,
        identity=CATALOG,
        origin=ORIGIN,
        store=store,
        clock_ms=_clock_ms,
        registry=CollectorRegistry(),
        generation_bytes=generation_bytes,
    )
    await uplink.update([Item("checkpoint", "", b"note")], [Show("film", cids)])
    running = asyncio.ensure_future(uplink.run())
    await asyncio.to_thread(sys.stdin.readline)
    running.cancel()
    sys.stdout.write(json.dumps({"rss_mib": _most_mib()}))


async def _receive(folder: Path) -> None:
    """Be the dish until every block is here; say which packet was the last that was needed."""
    registry = CollectorRegistry()
    store = DiskStore(folder, 1 << 30, CollectorRegistry())
    wanted = list(film())
    antenna = Antenna(
        group=GROUP,
        port=CAROUSEL_PORT,
        interface=ADDRESSES[1],
        origin=ORIGIN,
        catalog_keys=lambda: [CATALOG.key],
        store=store,
        on_item=lambda _kind, _name, _data: None,
        on_block=lambda _cid, _size: None,
        clock_ms=_clock_ms,
        registry=registry,
        folder=folder / "carousel",
    )
    last = 0
    core = antenna._receiver  # pyright: ignore[reportPrivateUsage] - the packet, not the batch it came in
    take = core.receive

    def receive(data: bytes, sender: str, now: float, now_ms: int) -> Any:  # noqa: ANN401 - as it is
        nonlocal last
        completed = take(data, sender, now, now_ms)
        if completed is not None and any(item.kind == "block" for item in completed.items):
            last = parse_packet(data).seq
        return completed

    core.receive = receive  # type: ignore[method-assign]
    listening = asyncio.ensure_future(antenna.run())
    await asyncio.sleep(0.2)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for cid in wanted:
        await antenna.wait_for(cid)
    overflow = registry.get_sample_value("farcast_satellite_rejected_packets_total", {"reason": "overflow"})
    sys.stdout.write(json.dumps({"seq": last, "overflow": overflow or 0, "rss_mib": _most_mib()}))
    listening.cancel()


def _clock_ms() -> int:
    return time.time_ns() // 1_000_000


def _most_mib() -> float:
    """Return the largest resident memory this process ever had."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1_024
    return 0.0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--send"]:
        asyncio.run(_send(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
    elif sys.argv[1:2] == ["--receive"]:
        asyncio.run(_receive(Path(sys.argv[2])))
    else:
        wished = sys.argv[1].split(",") if len(sys.argv) > 1 else None
        sys.stdout.write(json.dumps(run(wished), indent=2) + "\n")
