# pyright: reportPrivateUsage=false
"""A small box behind the HTTP/3 server on loopback, and our own client for it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aioquic.quic.connection import QuicConnection
from prometheus_client import CollectorRegistry

from farcast.node.http.exchange import Answer, Exchange, FilePart, Hosts, Router
from farcast.node.http.files import FileCache
from farcast.node.http.meter import Meter
from farcast.node.http.quic.channel import Channel
from farcast.node.http.quic.datagram import Endpoint
from farcast.node.http.quic.gate import GateLimits
from farcast.node.http.quic.link import Link
from farcast.node.http.quic.qh3_engine import Qh3Session
from farcast.node.http.quic.server import QuicServer
from farcast.node.http.quic.session import Address, Event, Opened, Reset
from farcast.node.http.tally import HttpMetrics
from farcast.node.http.tls import make_certificate
from farcast.protocol.errors import RefusedError
from farcast.protocol.identity import Identity

BOX = Identity(b"q" * 32)
CERTIFICATE = make_certificate(BOX, 1_800_000_000.0)
SIZE = 3_000_001


class Box:
    """A router with a file, a slow handler, an echo and a failing iterator."""

    def __init__(self, folder: Path) -> None:
        """Write the file."""
        self.whole = os.urandom(SIZE)
        path = folder / "file"
        path.write_bytes(self.whole)
        self.parts = [FilePart(str(path), 0, 1_000_000), FilePart(str(path), 1_000_000, SIZE - 1_000_000)]
        self.cancelled = 0
        self.started = asyncio.Event()
        self.reasons: list[str] = []
        self.router = Router(Hosts(), refused=self.reasons.append)
        self.router.route("GET", "/file", self._file)
        self.router.route("GET", "/wait", self._wait)
        self.router.route("POST", "/echo", self._echo)
        self.router.route("GET", "/fail", self._fail)
        self.router.route("GET", "/endless", self._endless)
        self.router.route("GET", "/ipfs/any", self._file)
        self.metrics = HttpMetrics(CollectorRegistry())
        self.address = ("127.0.0.1", 0)
        self.server: QuicServer

    async def _file(self, _: Exchange) -> Answer:
        return Answer(200, {"etag": '"f"'}, self.parts)

    async def _wait(self, _: Exchange) -> Answer:
        self.started.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return Answer()

    async def _echo(self, exchange: Exchange) -> Answer:
        return Answer(
            200, {"x-secure": str(exchange.secure), "x-peer": exchange.peer}, await exchange.read(SIZE)
        )

    async def _fail(self, _: Exchange) -> Answer:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"a" * 1000
            raise RefusedError("the source failed", reason="upstream")

        return Answer(200, {}, chunks())

    async def _endless(self, _: Exchange) -> Answer:
        async def chunks() -> AsyncIterator[bytes]:
            while True:
                yield bytes(100_000)

        return Answer(200, {}, chunks())


@asynccontextmanager
async def running(
    box: Box, limits: GateLimits | None = None, meter: Meter | None = None
) -> AsyncGenerator[QuicServer, None]:
    """Serve ``box`` by HTTP/3 on a port of its own."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(("127.0.0.1", 0))
    box.address = sock.getsockname()
    server = QuicServer(
        box.router,
        CERTIFICATE,
        files=FileCache(),
        tally=box.metrics.carrier("quic"),
        limits=limits,
        meter=meter,
    )
    server.listen(sock)
    try:
        yield server
    finally:
        await server.close(0.2)


@asynccontextmanager
async def dialled(box: Box, key: bytes = BOX.key) -> AsyncGenerator[Channel, None]:
    """Connect our own client to ``box``."""
    channel = await Channel.open(socket.AF_INET, box.address, key)
    try:
        yield channel
    finally:
        channel.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for ``condition``, 5 s at most."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the state has no event
            await asyncio.sleep(0.02)


async def get(
    channel: Channel,
    path: str,
    *,
    method: str = "GET",
    body: bytes = b"",
    headers: dict[str, str] | None = None,
) -> tuple[int, dict[str, str], bytes]:
    """Ask once: status, headers and body."""
    async with asyncio.timeout(20):
        return await channel.request(
            method, "127.0.0.1", path, body=body, headers=headers or {}, limit_bytes=SIZE
        )


def unname(quic: QuicConnection) -> None:
    """Take its connection id from a client before its first packet, so that it is as browsers are.

    The library itself knows no such client.
    """
    quic.configuration.connection_id_length = 0
    quic._host_cids[0].cid = quic.host_cid = quic._local_initial_source_connection_id = b""
    quic._host_cids *= 8  # it never issues more than these


class Rude:
    """A client that opens requests and resets them, below the politeness of a channel."""

    def __init__(self, box: Box) -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.connect(box.address)
        self._sock = sock
        self.opened = asyncio.Event()
        self.resets = 0
        self._endpoint = Endpoint(sock, self._received)
        self.session = Qh3Session.client(box.address, asyncio.get_running_loop().time())
        self.link = Link(self.session, self._endpoint, self._event)
        self.link.connected = True
        self.link.flush()

    async def ask(self, path: str, method: str = "GET") -> int:
        """Send a request head and let the body's end wait; returns the stream."""
        fields = [(b":method", method.encode()), (b":scheme", b"https"), (b":authority", b"127.0.0.1")]
        return await self.link.open([*fields, (b":path", path.encode())], end=False)

    def leave(self, stream: int) -> None:
        """Reset both halves of a stream."""
        self.session.reset(stream, 0x10C)
        self.session.stop(stream, 0x10C)
        self.link.soon()

    def fall_silent(self) -> None:
        """Read nothing any more, and answer nothing."""
        asyncio.get_running_loop().remove_reader(self._sock)

    def close(self) -> None:
        """Go, with a word."""
        self.link.close(0x100)
        self._endpoint.close()

    def _received(self, datagrams: list[bytes], address: Address, local: bytes) -> None:
        self.link.receive(datagrams, address, local)

    def _event(self, event: Event) -> None:
        if isinstance(event, Opened):
            self.opened.set()
        elif isinstance(event, Reset):
            self.resets += 1
