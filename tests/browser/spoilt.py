"""A CDN that can go bad in every way, as a process of its own: ``spoilt.py PORT ORIGIN_URL``.

It reads how to behave from its input, a word a line, and answers with how many answers it has spoiled.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from urllib.request import urlopen

SLOW_BYTES, SLOW_S = 1_000, 0.1
TIMEOUT_S = 5


class SpoiltCdn:
    """Caches all it fetches; ``way`` says how it answers from now on."""

    def __init__(self, port: int, origin: str) -> None:
        self._port = port
        self._origin = origin
        self._cache: dict[str, tuple[str, bytes]] = {}
        self._clients: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.way = "good"
        self.spoiled = 0

    async def turn(self, way: str) -> None:
        """Behave in another way; ``refuse`` closes the port and every connection."""
        self.way = way
        if way == "refuse" and self._server is not None:
            self._server.close()
            self._server = None
            for client in self._clients:
                client.transport.abort()
        elif way != "refuse" and self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if not await self._answer(head.split(b" ")[1].decode(), writer):
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._clients.discard(writer)
            writer.transport.abort()

    async def _answer(self, path: str, writer: asyncio.StreamWriter) -> bool:
        status, body = await self._fetch(path)
        way = self.way if status == "200 OK" else "good"
        if way != "good":
            self.spoiled += 1
        if way == "hang":
            await asyncio.sleep(3600)
        if way == "flip":
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        fields = f"content-length: {len(body)}\r\naccess-control-allow-origin: *\r\ncache-control: no-store"
        writer.write(f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n".encode())
        if way == "slow":
            for at in range(0, len(body), SLOW_BYTES):
                writer.write(body[at : at + SLOW_BYTES])
                await writer.drain()
                await asyncio.sleep(SLOW_S)
        else:
            writer.write(body[: len(body) // 2] if way in ("halfway", "cut") else body)
            await writer.drain()
        if way == "halfway":
            await asyncio.sleep(3600)
        return way != "cut"

    async def _fetch(self, path: str) -> tuple[str, bytes]:
        if path not in self._cache:
            self._cache[path] = await asyncio.to_thread(self._ask, path)
        return self._cache[path]

    def _ask(self, path: str) -> tuple[str, bytes]:
        with suppress(OSError), urlopen(self._origin + path, timeout=TIMEOUT_S) as answer:  # noqa: S310 - ours
            return "200 OK", answer.read()
        return "404 Not Found", b""


async def main() -> None:
    """Serve until the input ends."""
    cdn = SpoiltCdn(int(sys.argv[1]), sys.argv[2])
    await cdn.turn("good")
    while way := (await asyncio.to_thread(sys.stdin.readline)).strip():
        await cdn.turn(way)
        sys.stdout.write(f"{cdn.spoiled}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
