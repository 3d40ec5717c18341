"""A box that only tells that it is there, as a program for namespaces: ``voicebox.py SEED [TRUSTED...]``.

It obeys lines: ``start`` begins to speak and listen, ``stop`` leaves with a word, ``rate HOST N`` forges so
many presences a second by its own address, ``spoof HOST N SEED`` by another's, under the key of that box, or
under ever other keys where SEED is 0. What it sees it prints as JSON, each line with the time on the
clock that all namespaces share: ``{"at": seconds, "known": [addresses], "rss_kib": ..., "rejected": {...}}``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
import struct
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
AHEAD_MS = 3_600_000
"""What is forged is newer than anything the true box will say here."""


def forged(number: int, key: bytes = b"") -> bytes:
    """Return a presence of ``key``, or of one of its own, that another key signed."""
    key = key or Random(number).randbytes(32)
    words = Presence(2, NET, key, 7_433, number, active=True, ask=True, hops=NO_WAY, leaving=False)
    return seal_presence(words, Identity(b"e" * 32))


def packet(source: str, data: bytes) -> bytes:
    """Return an IP packet (RFC 791) to the group that says it comes from ``source``."""
    group = "239.255.74.34"
    udp = struct.pack("!HHHH", PRESENCE_PORT, PRESENCE_PORT, 8 + len(data), 0) + data
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x45, 0, 20 + len(udp), 0, 0, 1, socket.IPPROTO_UDP, 0,
        socket.inet_aton(source), socket.inet_aton(group),
    )  # fmt: skip
    return head + udp


class VoiceBox:
    """The box."""

    def __init__(self, seed: int, trusted: list[str]) -> None:
        self._seed, self._trusted = seed, trusted
        self._own = next(iter(Links().addresses()), "")
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
            elif words[0] == "spoof":
                key = Identity(bytes([int(words[3])]) * 32).key if int(words[3]) else b""
                self._forging = asyncio.ensure_future(self._forge(words[1], int(words[2]), key, spoofs=True))
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

    async def _forge(self, host: str, rate: int, key: bytes = b"", *, spoofs: bool = False) -> None:
        began_ms = time.time_ns() // 1_000_000 + AHEAD_MS
        datagrams = [forged(began_ms + number, key) for number in range(2_000)]
        if spoofs:
            datagrams = [packet(host, data) for data in datagrams]
        kind = (socket.SOCK_RAW, socket.IPPROTO_RAW) if spoofs else (socket.SOCK_DGRAM, 0)
        with socket.socket(socket.AF_INET, *kind) as mouth:
            mouth.setblocking(False)
            own = self._own or host
            mouth.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(own))
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
