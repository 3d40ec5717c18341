"""The line between the node and one box: a TCP proxy whose faults can be switched while it carries.

Nothing goes by UDP, so HTTP/3 never gets around a fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from farcast.tests.browser.messages import Messages, Piece

CHUNK_BYTES = 64 << 10
SLOW_BYTES_S = 10_000
SLICE_BYTES = 500
FLAP_S = 3.0
OPAQUE_BYTES = 8 << 10
"""What cannot be read (TLS) is cut, held or changed as if it were a body of so many bytes."""
_TLS = 0x16


class Fault(StrEnum):
    """What can be wrong with a box, as its line shows it."""

    NONE = "none"
    REFUSE = "refuse"
    """The listener is gone, and every connection with it."""
    HANG = "hang"
    """Connections are accepted, and nothing comes."""
    HANG_BODY = "hang-body"
    """The head comes, half of the body, and then nothing."""
    SLOW = "slow"
    """Everything comes at 10 kB/s."""
    TRUNCATE = "truncate"
    """Half of the body comes, and then the connection ends."""
    CORRUPT = "corrupt"
    """One byte of every body is another."""
    FLAP = "flap"
    """Refuses for three seconds, works for three, and again."""


FAULTS = tuple(fault for fault in Fault if fault is not Fault.NONE)
"""Every fault there is."""


class Place(NamedTuple):
    """Where somebody listens."""

    host: str
    port: int


async def hang_up(*writers: asyncio.StreamWriter) -> None:
    """End connections; whoever is told to stop while they flush drops them."""
    for writer in writers:
        writer.close()
    try:
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
    finally:
        for writer in writers:
            writer.transport.abort()


class _Link:
    """One connection through the line."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client, self.server = client, server
        self.heads: list[bool] = []  # of the requests under way, which were HEAD
        self.opaque = False
        self.opaque_bytes = 0

    def cut(self) -> None:
        """End it at both ends, by RST."""
        for writer in (self.client, self.server):
            sock = writer.get_extra_info("socket")
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            writer.transport.abort()


class Line:
    """Listens at one port and carries to ``target``; ``sent_bytes`` counts bodies that went to clients."""

    def __init__(self, port: int, target: Place) -> None:
        self.port = port
        self.target = target
        self.sent_bytes = 0
        self._fault = Fault.NONE
        self._changed = asyncio.Event()
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self._closed_door: socket.socket | None = None
        self._flapping: asyncio.Task[None] | None = None
        self._free_at = 0.0

    async def open(self) -> None:
        """Listen."""
        await self._listen()

    async def close(self) -> None:
        """Stop, whatever is under way."""
        await self.switch(Fault.REFUSE)
        if self._closed_door is not None:
            self._closed_door.close()

    async def switch(self, fault: Fault) -> None:
        """Be like this from now on; what hangs from before is cut."""
        if self._flapping is not None:
            self._flapping.cancel()
            await asyncio.gather(self._flapping, return_exceptions=True)
            self._flapping = None
        if fault is Fault.FLAP:
            await self._become(Fault.REFUSE)
            self._flapping = asyncio.get_running_loop().create_task(self._flap())
        else:
            await self._become(fault)

    async def _flap(self) -> None:
        while True:
            await asyncio.sleep(FLAP_S)
            await self._become(Fault.NONE if self._fault is Fault.REFUSE else Fault.REFUSE)

    async def _become(self, fault: Fault) -> None:
        was, self._fault = self._fault, fault
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if fault is Fault.REFUSE:
            self._shut()
        elif was is Fault.REFUSE:
            await self._listen()

    async def _listen(self) -> None:
        if self._closed_door is not None:
            self._closed_door.close()
            self._closed_door = None
        if self._server is None:
            self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    def _shut(self) -> None:
        """Refuse connections; the number stays ours, bound to a socket that does not listen."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for link in list(self._links):
            link.cut()
        self._closed_door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._closed_door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._closed_door.bind(("127.0.0.1", self.port))

    # -- one connection

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection(*self.target)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
            return
        link = _Link(writer, to_server)
        self._links.add(link)
        ways = [
            asyncio.ensure_future(self._up(link, reader)),
            asyncio.ensure_future(self._down(link, from_server)),
        ]
        try:
            with contextlib.suppress(asyncio.CancelledError):  # the bay closes; nobody waits for this
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._links.discard(link)
            await hang_up(writer, to_server)

    async def _up(self, link: _Link, reader: asyncio.StreamReader) -> None:
        """Carry requests until the client ends or a fault ends it."""
        requests, first = Messages(), True
        while data := await reader.read(CHUNK_BYTES):
            if first:
                link.opaque, first = data[0] == _TLS, False
            if self._fault is Fault.HANG:
                await self._held(link)
                return
            if not link.opaque:
                link.heads += [
                    piece.head.line.startswith("HEAD ") for piece in requests.feed(data) if piece.head
                ]
            link.server.write(data)
            await link.server.drain()

    async def _down(self, link: _Link, reader: asyncio.StreamReader) -> None:
        """Carry answers until the box ends or a fault ends it."""
        answers = Messages(lambda head: not head.words[1].startswith("1") and link.heads.pop(0))
        while data := await reader.read(CHUNK_BYTES):
            pieces = _opaque(link, data) if link.opaque else answers.feed(data)
            for piece in pieces:
                if not await self._pass(link, piece):
                    return

    async def _pass(self, link: _Link, piece: Piece) -> bool:
        """Give one piece to the client as the fault has it; False where the connection ends by it."""
        fault, data, half = self._fault, piece.data, piece.length // 2 - piece.at
        if fault is Fault.HANG:
            await self._held(link)
            return False
        if fault is Fault.SLOW:
            return await self._trickle(link, data)
        if piece.head is None and fault in (Fault.HANG_BODY, Fault.TRUNCATE) and half < len(data):
            await self._send(link, data[: max(half, 0)])
            if fault is Fault.HANG_BODY:
                await self._held(link)
            return False
        if piece.head is None and fault is Fault.CORRUPT and 0 <= half < len(data):
            data = data[:half] + bytes((data[half] ^ 1,)) + data[half + 1 :]
        if piece.head is None:
            self.sent_bytes += len(data)
        await self._send(link, data)
        return True

    async def _trickle(self, link: _Link, data: bytes) -> bool:
        """Give bytes at the slow rate, which all connections share; False once the line is other again."""
        loop, changed = asyncio.get_running_loop(), self._changed
        for at in range(0, len(data), SLICE_BYTES):
            part = data[at : at + SLICE_BYTES]
            self._free_at = max(self._free_at, loop.time()) + len(part) / SLOW_BYTES_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._free_at):
                    await changed.wait()
                link.cut()
                return False
            self.sent_bytes += len(part)
            await self._send(link, part)
        return True

    async def _send(self, link: _Link, data: bytes) -> None:
        link.client.write(data)
        await link.client.drain()

    async def _held(self, link: _Link) -> None:
        """Bring nothing more; once the line is other again, the connection is lost."""
        await self._changed.wait()
        link.cut()


def _opaque(link: _Link, data: bytes) -> Iterator[Piece]:
    yield Piece(data, None, link.opaque_bytes, OPAQUE_BYTES)
    link.opaque_bytes += len(data)
