"""A box that shares a film, as a program for namespaces: ``sharebox.py SEED HOST HOME MIB ROLE``.

Roles: a ``source`` holds the film, a ``receiver`` brings all of it, an ``uplink`` answers for single blocks
and shares nothing, a ``viewer`` plays from the uplink at the last address it was told. The box prints
``ready``, then obeys lines: ``know SEED HOST`` makes a neighbour, ``go`` begins; at the end it prints
``done`` and its figures as JSON. ``SHAREBOX_PLAIN`` leaves the encryption out, to see what it costs;
``SHAREBOX_PROFILE`` names a file for what its event loop did meanwhile, in processor time.
"""

# pyright: reportPrivateUsage=false
from __future__ import annotations

import asyncio
import cProfile
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import cast

from prometheus_client import CollectorRegistry

from farcast.mesh.neighbours import Neighbour
from farcast.mesh.share import Layout
from farcast.mesh.sharer import Sharer
from farcast.node.blocks.store import DiskStore
from farcast.node.http.dial import HttpDialer
from farcast.node.http.exchange import Answer, Exchange, Hosts, Router
from farcast.node.http.listener import Listener
from farcast.node.http.tally import HttpMetrics
from farcast.node.ladder.fetch import Fetcher
from farcast.node.ladder.tiers import WebTier
from farcast.node.playback.layouts import Layouts
from farcast.node.playback.nearby import Nearby
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.errors import RefusedError
from farcast.protocol.identity import Identity
from farcast.protocol.ports import Source, TierName
from farcast.protocol.presence import NO_WAY
from farcast.protocol.sharing import ALPN

BLOCK_BYTES = 1 << 20
PORT, PLAIN_PORT = 7433, 7436
PLAY_S = 0.15
"""Between the blocks that a viewer plays: 7 MB/s."""
AHEAD = 3
PLAIN = bool(os.environ.get("SHAREBOX_PLAIN"))
PROFILE = os.environ.get("SHAREBOX_PROFILE", "")


def film(mib: int) -> tuple[Layout, list[bytes]]:
    """Return the same film in every process."""
    blocks = [Random(index).randbytes(BLOCK_BYTES) for index in range(mib)]
    cids = [Cid.of(RAW, block) for block in blocks]
    return Layout("film", b"f" * 32, cids, [len(block) for block in blocks]), blocks


class Known:
    """The one layout there is."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def made(self, title: str) -> Layout:
        """Return it."""
        del title
        return self._layout


class PlainDialer:
    """Opens streams without TLS, so without any proof: for measuring what TLS costs."""

    async def open_stream(
        self, source: Source, alpn: str, protocol: Callable[[], object], *, timeout_s: float = 5.0
    ) -> None:
        """Connect."""
        del alpn
        made = cast("Callable[[], asyncio.BaseProtocol]", protocol)
        host = source.address.rpartition(":")[0]
        async with asyncio.timeout(timeout_s):
            await asyncio.get_running_loop().create_connection(made, host, PLAIN_PORT)


class ShareBox:
    """The box."""

    def __init__(self, seed: int, host: str, home: Path, mib: int, role: str) -> None:
        self.role, self.host, self.seed = role, host, seed
        self.layout, blocks = film(mib)
        self.registry = CollectorRegistry()
        self.identity = Identity(bytes([seed]) * 32)
        self.store = DiskStore(home, 8 << 30, CollectorRegistry())
        if role in ("source", "uplink"):
            for cid, block in zip(self.layout.cids, blocks, strict=True):
                self.store.put(cid, block)
        self.known: list[Neighbour] = []
        self._uplink: list[Source] = []
        self.dialer = HttpDialer(allow_private=True)
        self.sharer = Sharer(
            self.identity,
            PlainDialer() if PLAIN else self.dialer,
            lambda: self.known,
            self.store,
            find=self._find,
            clock_ms=lambda: time.time_ns() // 1_000_000,
            registry=self.registry,
            kept=self._kept,
        )
        tier = WebTier(TierName.RELAY, self.dialer, lambda: self._uplink)
        self.fetcher = Fetcher(self.store, [tier], CollectorRegistry())
        layouts = cast("Layouts", Known(self.layout))
        self.fetcher.nearby = Nearby(layouts, self.sharer, lambda cid, _: self.fetcher.block(cid))
        self.router = Router(Hosts())
        if role == "uplink":
            self.router.route("GET", "/ipfs/{cid}", self._answer)

    async def run(self) -> None:
        """Be a box until the parent closes the line."""
        metrics = HttpMetrics(CollectorRegistry())
        streams = {} if self.role == "uplink" else {ALPN: self.sharer.accept}
        listener = Listener(
            self.router, lambda _: None, self.identity, metrics, host=self.host, port=PORT, streams=streams
        )
        loop = asyncio.get_running_loop()
        async with listener:
            if PLAIN:
                await loop.create_server(lambda: self.sharer.accept(lambda: None), self.host, PLAIN_PORT)
            running = [asyncio.ensure_future(self.sharer.run())]
            tell("ready")
            lines = asyncio.StreamReader()
            await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
            while words := (await lines.readline()).decode().split():
                if words[0] == "know":
                    key = Identity(bytes([int(words[1])]) * 32).key
                    self.known.append(Neighbour(key, words[2], PORT, hops=NO_WAY, expires_at=float("inf")))
                else:
                    running.append(asyncio.ensure_future(self._go()))
            for one in running:
                one.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _go(self) -> None:
        """Bring or play the film, and say how that went."""
        started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
        profiler = cProfile.Profile(time.thread_time) if PROFILE else None
        if profiler is not None:
            profiler.enable()
        if self.role == "viewer":
            await self._play()
        else:
            await self.sharer.bring(self.layout, None)
        if profiler is not None:
            profiler.disable()
            profiler.dump_stats(f"{PROFILE}.{self.seed}")
        seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF)
        share = self.sharer._shares[self.layout.digest].swarm
        figures = {
            "seconds": seconds,
            "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "whole": all(self.store.check(cid) for cid in self.layout.cids),
            "stolen": share.stolen,
            "yielded": share.yielded,
            "duplicates": share.duplicate_units,
            "by_uplink": self.fetcher.supply.bytes[TierName.RELAY],
        }
        tell(f"done {json.dumps(figures)}")

    async def _play(self) -> None:
        uplink = self.known.pop()  # a way out, no neighbour
        self._uplink = [uplink.source._replace(tier=TierName.RELAY)]
        for place, cid in enumerate(self.layout.cids):
            self.fetcher.prefetch(self.layout.cids[place + 1 : place + 1 + AHEAD], title="film")
            await self.fetcher.block(cid, title="film", buffer_s=6.0, size_bytes=BLOCK_BYTES)
            await asyncio.sleep(PLAY_S)

    def _kept(self, cid: Cid, size_bytes: int) -> None:
        self.fetcher.pushed(cid, size_bytes, TierName.MESH)

    async def _find(self, digest: bytes) -> Layout | None:
        return self.layout if self.role == "source" and digest == self.layout.digest else None

    async def _answer(self, exchange: Exchange) -> Answer:
        data = await asyncio.to_thread(self.store.get, Cid.parse(exchange.match["cid"]))
        if data is None:
            raise RefusedError("not here", status=404, reason="not_held")
        return Answer(200, {"content-type": "application/vnd.ipld.raw"}, data)


def tell(line: str) -> None:
    """Say a line to the parent."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def main() -> None:
    """Be the box that the command line says."""
    seed, host, home, mib, role = sys.argv[1:]
    await ShareBox(int(seed), host, Path(home), int(mib), role).run()


if __name__ == "__main__":
    asyncio.run(main())
