"""p99 of serving hot blocks while a filler forces constant eviction, against the same server in calm.

One process serves raw blocks the way a relay does (store, public routes, byte server), on one core;
wrk asks on the other for a hot set in turn. In every second round that process also takes in
``FILL_BYTES_S`` of new blocks, a gigabit's worth, into a store that is full: each one is verified,
written, announced, synced in its turn, and pushes an old one out. ``ratio`` is calm p99 / evicting
p99, from interleaved rounds. A hot block that were evicted would be an error of wrk, and fail.
Run alone: ``python -m farcast.tests.bench.evict``; ``FARCAST_BENCH_ROUNDS`` sets the rounds.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from prometheus_client import CollectorRegistry

from farcast.node.blocks.store import DiskStore
from farcast.node.catalog.library import Library
from farcast.node.demo.troupe import free_port
from farcast.node.http.exchange import Hosts, Router
from farcast.node.http.listener import Listener
from farcast.node.http.tally import HttpMetrics
from farcast.node.routes import PublicRoutes
from farcast.protocol.catalog import Catalog
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.identity import Identity
from farcast.protocol.ports import TierName
from farcast.tests.bench.figure import Peer, compared
from farcast.tests.bench.served import pinned

FIGURES = ("evict_p99",)
ROUNDS = 15
ROUND_S = 1
CONNECTIONS = 8
MIB = 1 << 20
HOT_BLOCKS, HOT_BYTES = 48, 256 << 10
QUOTA_BYTES = 192 * MIB
FILL_BYTES_S = 100 * MIB
TURN = 1_024  # blocks that are new in turn, five times what the store holds
START_S = 30.0
PAIR = 2

SCRIPT = """
local paths, at = {}, 0
for line in io.lines("@PATHS@") do paths[#paths + 1] = line end
request = function()
  at = at % #paths + 1
  return wrk.format("GET", paths[at])
end
"""


def run(only: Sequence[str] | None = None) -> list[dict[str, object]]:
    """Measure ``evict_p99`` unless ``only`` names other figures."""
    if only and "evict_p99" not in only:
        return []
    if shutil.which("wrk") is None:
        return [{"name": "evict_p99", "unit": "ms", "ratio": None, "skipped": "wrk not found on PATH"}]
    with tempfile.TemporaryDirectory(prefix="farcast-bench-") as folder:
        return [_measure(Path(folder))]


def _measure(root: Path) -> dict[str, object]:
    rounds = int(os.environ.get("FARCAST_BENCH_ROUNDS", ROUNDS))
    port = free_port()
    command = pinned(0, [sys.executable, __file__, "--serve", str(root), str(port)])
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None
    assert server.stdout is not None
    calm: list[float] = []
    evicting: list[float] = []
    evicted = 0
    try:
        _say(server.stdin, server.stdout, "ready?")
        (root / "hot.lua").write_text(SCRIPT.replace("@PATHS@", str(root / "paths")))
        _wrk(root, port)  # fill the caches
        for number in range(rounds):
            for way in ("calm", "fill") if number % PAIR else ("fill", "calm"):
                before = _say(server.stdin, server.stdout, way)
                p99_ms = _wrk(root, port)
                after = _say(server.stdin, server.stdout, "calm")
                (evicting if way == "fill" else calm).append(p99_ms)
                evicted += after - before if way == "fill" else 0
    finally:
        server.stdin.close()
        server.wait(30)
    return compared(
        "evict_p99",
        "ms",
        evicting,
        calm,
        Peer("calm", "the same server"),
        greater_is_better=False,
        digits=3,
        extra={"evicted_per_s": round(evicted / rounds / ROUND_S, 1)},
    )


def _say(requests: IO[str], answers: IO[str], word: str) -> int:
    requests.write(f"{word}\n")
    requests.flush()
    return int(answers.readline())


def _wrk(root: Path, port: int) -> float:
    """Ask for the hot set for a round; returns the p99 in milliseconds."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{ROUND_S}", "--latency", "-s", str(root / "hot.lua")]
    command = pinned(1, [*command, f"http://127.0.0.1:{port}"])
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=ROUND_S + 30)
    found = re.search(r"99%\s+([0-9.]+)(us|ms|s)", done.stdout)
    if found is None or re.search(r"Non-2xx|Socket errors: (?!connect 0, read 0, write 0,)", done.stdout):
        message = f"wrk met errors: {done.stdout}"
        raise RuntimeError(message)
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]]


class _NoTitles:
    """Heads of an empty catalog."""

    def __init__(self) -> None:
        self.catalog = Catalog()

    def checkpoint(self) -> bytes | None:
        return None

    def directory(self) -> bytes | None:
        return None

    def beacons(self) -> list[bytes]:
        return []


class _Filler:
    """Brings new blocks into a full store at a steady rate, as a relay's fills do."""

    def __init__(self, store: DiskStore) -> None:
        self._store = store
        self._data = bytearray(os.urandom(MIB))
        # names are known before a block comes; by its second turn each has left long ago
        self._names = itertools.cycle([(number, Cid.of(RAW, self._block(number))) for number in range(TURN)])
        self.filling = asyncio.Event()

    def put(self) -> None:
        """Put one new block; its hash is checked on the way in."""
        number, cid = next(self._names)
        self._store.put(cid, self._block(number), tier=TierName.RELAY)

    def _block(self, number: int) -> bytes:
        self._data[:8] = number.to_bytes(8, "big")
        return bytes(self._data)

    async def run(self) -> None:
        """Fill while told to."""
        due_s = 0.0
        while True:
            await self.filling.wait()
            await asyncio.to_thread(self.put)
            due_s = max(due_s + MIB / FILL_BYTES_S, time.monotonic() - 1.0)
            await asyncio.sleep(max(due_s - time.monotonic(), 0))


async def _serve(root: Path, port: int) -> None:
    """Serve a full store and do as the lines of standard input say, answering each with the evictions."""
    registry = CollectorRegistry()
    store = DiskStore(root / "home", QUOTA_BYTES, registry)
    hot = [os.urandom(HOT_BYTES) for _ in range(HOT_BLOCKS)]
    cids = [Cid.of(RAW, data) for data in hot]
    for cid, data in zip(cids, hot, strict=True):
        store.put(cid, data)
        for _ in range(PAIR):
            store.path(cid)
    filler = _Filler(store)
    while not store.losses:
        filler.put()
    (root / "paths").write_text("".join(f"/ipfs/{cid}?format=raw\n" for cid in cids))

    async def held(wanted: Cid, title: str | None = None) -> bytes:
        del title
        return store.get(wanted) or b""

    heads = _NoTitles()
    library = Library(heads, store, lambda: None)
    routes = PublicRoutes(store, library, heads, held, dict, lambda _: [], cors=True)
    router = Router(Hosts())
    routes.add_to(router)
    metrics = HttpMetrics(CollectorRegistry())
    listener = Listener(router, routes.lookup, Identity(bytes(32)), metrics, host="127.0.0.1", port=port)
    async with listener, asyncio.TaskGroup() as tasks:
        filling = tasks.create_task(filler.run())
        while line := await asyncio.to_thread(sys.stdin.readline):
            if line == "fill\n":
                filler.filling.set()
            else:
                filler.filling.clear()
            sys.stdout.write(f"{store.losses}\n")
            sys.stdout.flush()
        filling.cancel()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(_serve(Path(sys.argv[2]), int(sys.argv[3])))
    else:
        sys.stdout.write(json.dumps(run(sys.argv[1:] or None), indent=1) + "\n")
