"""The tap between a player and the gateway: what was asked for, when it came, and which bytes they were."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from farcast.tests.browser.line import CHUNK_BYTES, Place, hang_up
from farcast.tests.browser.messages import Head, Messages

MEDIA = (".m4s", ".mp4")
_HOST = re.compile(rb"\r\nhost:[^\r]*", re.IGNORECASE)
LEAD_BYTES = 1
"""What the gateway knows of a segment without having it is no service."""
_DONE = frozenset({"200", "206"})


class Hash(Protocol):
    """A hash under way."""

    def update(self, data: bytes, /) -> None:
        """Take more."""
        ...

    def digest(self) -> bytes:
        """Return what it is so far."""
        ...


@dataclass(slots=True, eq=False)
class Asked:
    """One request of a player; times in monotonic seconds, None for what did not happen."""

    method: str
    path: str
    at_s: float
    status: str = ""
    first_at_s: float | None = None
    done_at_s: float | None = None
    gone_at_s: float | None = None
    offset: int = 0
    size_bytes: int = 0
    digest: Hash = field(default_factory=hashlib.sha256)

    @property
    def is_media(self) -> bool:
        """Whether it is a part of the film itself."""
        return self.method == "GET" and self.path.endswith(MEDIA)

    def waited_s(self, now: float) -> float:
        """Return how long the player waited for its first byte, until ``now`` where none came."""
        ends = (self.first_at_s, self.done_at_s, self.gone_at_s, now)
        return next(end for end in ends if end is not None) - self.at_s

    def name(self, title: str) -> str:
        """Return which file of the title it is, empty for anything else."""
        return self.path.partition(f"/watch/{title}/")[2]

    def is_published(self, file: Path) -> bool:
        """Say whether the bytes that came are those of the published file, by hash."""
        if not file.is_file():
            return False
        data = file.read_bytes()[self.offset : self.offset + self.size_bytes]
        return len(data) == self.size_bytes and hashlib.sha256(data).digest() == self.digest.digest()


class Tap:
    """Carries players' requests to ``target`` and keeps a record of each in ``asked``."""

    def __init__(self) -> None:
        self.port = 0
        self.target = Place("127.0.0.1", 0)
        self.asked: list[Asked] = []
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen at any free port."""
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    def point(self, target: Place) -> None:
        """Carry to another gateway from now on, with an empty record."""
        self.target, self.asked = target, []

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_gateway, to_gateway = await asyncio.open_connection(*self.target)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
            return
        open_: deque[Asked] = deque()
        ways = [
            asyncio.ensure_future(self._up(open_, reader, to_gateway)),
            asyncio.ensure_future(self._down(open_, from_gateway, writer)),
        ]
        try:
            with contextlib.suppress(asyncio.CancelledError):  # the bay closes; nobody waits for this
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for asked in open_:
                asked.gone_at_s = time.monotonic()
            await hang_up(writer, to_gateway)

    async def _up(
        self, open_: deque[Asked], reader: asyncio.StreamReader, gateway: asyncio.StreamWriter
    ) -> None:
        requests = Messages()
        while data := await reader.read(CHUNK_BYTES):
            for piece in requests.feed(data):
                if piece.head:
                    method, target, _ = piece.head.words
                    asked = Asked(method, unquote(urlsplit(target).path), time.monotonic())
                    open_.append(asked)
                    self.asked.append(asked)
                gateway.write(_renamed(piece.data, self.target) if piece.head else piece.data)
            await gateway.drain()

    async def _down(
        self, open_: deque[Asked], reader: asyncio.StreamReader, player: asyncio.StreamWriter
    ) -> None:
        answers = Messages(lambda head: not _is_interim(head) and open_[0].method == "HEAD")
        while data := await reader.read(CHUNK_BYTES):
            player.write(data)
            for piece in answers.feed(data):
                if piece.head and _is_interim(piece.head):
                    continue
                asked = open_[0]
                if piece.head:
                    asked.status = piece.head.words[1]
                    asked.offset = _offset(piece.head) if asked.status == "206" else 0
                elif asked.status in _DONE:
                    asked.size_bytes += len(piece.data)
                    if asked.size_bytes > LEAD_BYTES:
                        asked.first_at_s = asked.first_at_s or time.monotonic()
                    asked.digest.update(piece.data)
                if piece.is_last:
                    asked.done_at_s = time.monotonic()
                    open_.popleft()
            await player.drain()


def _renamed(head: bytes, target: Place) -> bytes:
    """Name the gateway itself as the host asked: it answers to no other name."""
    return _HOST.sub(f"\r\nHost: {target.host}:{target.port}".encode(), head, count=1)


def _is_interim(head: Head) -> bool:
    return head.words[1].startswith("1")


def _offset(head: Head) -> int:
    """Return where in its file an answer's body begins (RFC 9110 section 14.4)."""
    return int(head.fields["content-range"].removeprefix("bytes ").partition("-")[0])
