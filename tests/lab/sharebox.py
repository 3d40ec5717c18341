"""A box that shares, as a program for namespaces: ``sharebox.py SEED HOST HOME MIB [source|receiver]``.

It prints ``ready``, then obeys lines: ``know SEED HOST PORT`` makes a neighbour, ``go`` begins to bring the
title, and prints ``done SECONDS`` once it is whole and proven, with its figures as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from pathlib import Path
from random import Random

from prometheus_client import CollectorRegistry

from farcast.mesh.neighbours import Neighbour
from farcast.mesh.share import Layout
from farcast.mesh.sharer import Sharer
from farcast.node.blocks.store import DiskStore
from farcast.node.http.dial import HttpDialer
from farcast.node.http.exchange import Hosts, Router
from farcast.node.http.listener import Listener
from farcast.node.http.tally import HttpMetrics
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.identity import Identity
from farcast.protocol.sharing import ALPN

BLOCK_BYTES = 1 << 20
PORT = 7433


def film(mib: int) -> tuple[Layout, list[bytes]]:
    """Return the same film in every process."""
    blocks = [Random(index).randbytes(BLOCK_BYTES) for index in range(mib)]
    cids = [Cid.of(RAW, block) for block in blocks]
    return Layout("film", b"f" * 32, cids, [len(block) for block in blocks]), blocks


async def main(seed: int, host: str, home: Path, mib: int, role: str) -> None:
    """Be a box until the parent closes the line."""
    layout, blocks = film(mib)
    home.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - nothing else runs yet
    registry = CollectorRegistry()
    store = DiskStore(home, 8 << 30, CollectorRegistry())
    if role == "source":
        for cid, block in zip(layout.cids, blocks, strict=True):
            store.put(cid, block)
    del blocks
    known: list[Neighbour] = []
    identity = Identity(bytes([seed]) * 32)

    async def find(digest: bytes) -> Layout | None:
        return layout if role == "source" and digest == layout.digest else None

    dialer = HttpDialer(allow_private=True)
    sharer = Sharer(
        identity,
        dialer,
        lambda: known,
        store,
        find=find,
        clock_ms=lambda: time.time_ns() // 1_000_000,
        registry=registry,
    )
    metrics = HttpMetrics(CollectorRegistry())
    listener = Listener(
        Router(Hosts()),
        lambda _: None,
        identity,
        metrics,
        host=host,
        port=PORT,
        streams={ALPN: sharer.accept},
    )
    async with listener:
        running = asyncio.ensure_future(sharer.run())
        tell("ready")
        lines = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        bringing: asyncio.Future[None] | None = None
        while line := (await lines.readline()).decode().split():
            if line[0] == "know":
                key = Identity(bytes([int(line[1])]) * 32).key
                known.append(Neighbour(key, line[2], PORT, uplink=False, expires_at=float("inf")))
            elif line[0] == "go":
                bringing = asyncio.ensure_future(bring(sharer, layout, registry, store))
        running.cancel()
        if bringing is not None:
            bringing.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def bring(sharer: Sharer, layout: Layout, registry: CollectorRegistry, store: DiskStore) -> None:
    """Bring the title and say how that went."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    await sharer.bring(layout, None)
    seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF)
    share = sharer._shares[layout.digest].swarm
    tell(
        "done "
        + json.dumps(
            {
                "seconds": seconds,
                "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
                "whole": all(store.check(cid) for cid in layout.cids),
                "stolen": share.stolen,
                "yielded": share.yielded,
                "duplicates": share.duplicate_units,
                "received": registry.get_sample_value("farcast_mesh_shared_bytes_total", {"way": "received"}),
            }
        )
    )


def tell(line: str) -> None:
    """Say a line to the parent."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    profile = os.environ.get("SHAREBOX_PROFILE")
    words = sys.argv[1:]
    work = main(int(words[0]), words[1], Path(words[2]), int(words[3]), words[4])
    if profile:
        import cProfile

        with cProfile.Profile() as profiler:
            asyncio.run(work)
        profiler.dump_stats(f"{profile}.{words[0]}")
    else:
        asyncio.run(work)
