"""A box that only talks: one block, an echo, a signed route; its metrics tell the carrier."""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path

from prometheus_client import CollectorRegistry

from farcast.node.http.exchange import Answer, Exchange, FilePart, Hosts, Router
from farcast.node.http.nonces import NonceBook
from farcast.node.http.signed import signed
from farcast.node.http.tally import HttpMetrics
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.errors import RefusedError
from farcast.protocol.identity import Identity
from farcast.protocol.ports import Source, TierName

BOX = Identity(b"d" * 32)
DEVICE = Identity(b"e" * 32)
SIZE = 1 << 20


class TalkingBox:
    """A listener that serves one block, an echo and a signed route; its metrics tell the carrier."""

    def __init__(self, folder: Path) -> None:
        """Write the block."""
        self.block = os.urandom(SIZE)
        (folder / "block").write_bytes(self.block)
        self.cid = Cid.of(RAW, self.block)
        self.part = FilePart(str(folder / "block"), 0, SIZE)
        self.started = asyncio.Event()
        self.ended = asyncio.Event()
        self.metrics = HttpMetrics(CollectorRegistry())
        self.router = Router(Hosts())
        self.router.route("GET", "/ipfs/{cid}", self._block)
        self.router.route("POST", "/echo", self._echo)
        self.router.route("GET", "/wait", self._wait)
        self.router.route("GET", "/redirect", self._redirect)
        book = NonceBook(secrets.token_bytes(32), BOX.key)
        self.router.route("POST", "/signed", signed(book, self._signed, limit_bytes=100_000))
        self.port = 0
        self.busy = self.hangs = False
        self.last_fields = list[str]()

    @property
    def source(self) -> Source:
        """The box as a relay."""
        return Source(TierName.RELAY, "box", f"127.0.0.1:{self.port}", BOX.key)

    @property
    def cdn(self) -> Source:
        """The box as a CDN address."""
        return Source(TierName.CDN, "cdn", f"http://127.0.0.1:{self.port}")

    def answers(self, carrier: str) -> int:
        """Count the answers of one carrier."""
        return sum(self.metrics.carrier(carrier).classes)

    async def _block(self, exchange: Exchange) -> Answer:
        self.last_fields = sorted(exchange.headers)
        if self.hangs:
            await self._wait(exchange)
        if self.busy or exchange.match["cid"] == "busy":
            raise RefusedError("busy", status=429, retry_after_s=3)
        if exchange.match["cid"] == "huge":
            return Answer(200, {}, [self.part] * 3)
        return Answer(200, {"x-fields": " ".join(self.last_fields)}, [self.part])

    async def _echo(self, exchange: Exchange) -> Answer:
        return Answer(200, {}, await exchange.read(4 << 20))

    async def _redirect(self, _: Exchange) -> Answer:
        return Answer(302, {"location": "/ipfs/x"})

    async def _wait(self, _: Exchange) -> Answer:
        self.started.set()
        try:
            await asyncio.sleep(30)
        finally:
            self.ended.set()
        return Answer()

    async def _signed(self, exchange: Exchange, key: bytes) -> Answer:
        return Answer(200, {"x-key": key.hex()}, await exchange.read(100_000))


class UdpRelay(asyncio.DatagramProtocol):
    """Carries the datagrams of one client to the box and back: a path on which TCP is closed."""

    def __init__(self, box: tuple[str, int]) -> None:
        self._box = box
        self._client: tuple[str, int] = ("", 0)

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        """Keep the transport."""
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Pass a datagram on."""
        if addr == self._box:
            self._transport.sendto(data, self._client)
        else:
            self._client = addr
            self._transport.sendto(data, self._box)
