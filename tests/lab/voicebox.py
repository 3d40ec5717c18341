"""A box that only tells that it is there, as a program for namespaces: ``voicebox.py SEED [TRUSTED...]``.

It obeys lines: ``start`` begins to speak and listen, ``stop`` leaves with a word, ``rate HOST N`` sends so
many forged presences a second to a host. What it sees it prints as JSON, each line with the time on the
clock that all namespaces share: ``{"at": seconds, "known": [addresses], "rss_kib": ..., "rejected": {...}}``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
import sys
import time
from random import Random

from prometheus_client import CollectorRegistry

from farcast.mesh.discovery import Discovery
from farcast.node.links import Links
from farcast.protocol.identity import Identity
from farcast.protocol.presence import NO_WAY, Presence, seal_presence

NET = b"n" * 8
PRESENCE_PORT = 7434
LOOK_S = 0.002


def forged(number: int) -> bytes:
    """Return a presence of a key of its own that another key signed."""
    key = Random(number).randbytes(32)
    words = Presence(2, NET, key, 7_433, number, active=True, ask=True, hops=NO_WAY, leaving=False)
    return seal_presence(words, Identity(b"e" * 32))


class VoiceBox:
    """The box."""

    def __init__(self, seed: int, trusted: list[str]) -> None:
        self._seed, self._trusted = seed, trusted
        self._registry = CollectorRegistry()
        self._speaking: asyncio.Future[None] | None = None
        self._discovery: Discovery | None = None
        self._forging: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Obey until the line closes."""
        self._tell([])
        lines = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        watching = asyncio.ensure_future(self._watch())
        while words := (await lines.readline()).decode().split():
            if words[0] == "start":
                self._start()
            elif words[0] == "stop":
                await self._stop()
            else:
                self._forging = asyncio.ensure_future(self._forge(words[1], int(words[2])))
        for task in (watching, self._forging):
            if task is not None:
                task.cancel()
        await self._stop()

    def _start(self) -> None:
        links = Links(trusted=self._trusted)
        self._registry = CollectorRegistry()
        self._discovery = Discovery(
            identity=Identity(bytes([self._seed]) * 32),
            port=7_433,
            net=NET,
            addresses=links.addresses,
            on_link=links.on_link,
            is_active=lambda: True,
            has_uplink=lambda: False,
            clock_ms=lambda: time.time_ns() // 1_000_000,
            registry=self._registry,
            use_mdns=False,
        )
        self._speaking = asyncio.ensure_future(self._discovery.run())
        self._tell([])

    async def _stop(self) -> None:
        if self._speaking is not None:
            self._speaking.cancel()
            await asyncio.gather(self._speaking, return_exceptions=True)
        self._speaking = self._discovery = None
        self._tell([])

    async def _watch(self) -> None:
        last = list[str]()
        while True:
            now = [source.address for source in self._discovery.neighbours()] if self._discovery else []
            if sorted(now) != sorted(last):
                self._tell(now)
                last = now
            await asyncio.sleep(LOOK_S)

    async def _forge(self, host: str, rate: int) -> None:
        datagrams = [forged(number) for number in range(2_000)]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
            mouth.setblocking(False)
            mouth.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(host))
            sent, began = 0, time.monotonic()
            while True:
                while sent < (time.monotonic() - began) * rate:
                    with contextlib.suppress(BlockingIOError):
                        mouth.sendto(datagrams[sent % len(datagrams)], ("239.255.74.34", PRESENCE_PORT))
                    sent += 1
                await asyncio.sleep(0.005)

    def _tell(self, known: list[str]) -> None:
        rejected = {
            sample.labels["reason"]: sample.value
            for metric in self._registry.collect()
            for sample in metric.samples
            if sample.name == "farcast_mesh_rejected_presences_total"
        }
        rss_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        line = {"at": time.monotonic(), "known": known, "rss_kib": rss_kib, "rejected": rejected}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(VoiceBox(int(sys.argv[1]), sys.argv[2:]).run())
