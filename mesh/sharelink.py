"""One connection over which two neighbours share a title: frames in, frames out.

Small words overtake the pieces of units that still wait to be sent; words of one turn go out together.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from ..protocol.codec import encode
from ..protocol.errors import RemoteError
from ..protocol.sharing import (
    PIECE_BYTES,
    PIECE_HEAD_BYTES,
    Kind,
)
from .inbox import Inbox
from .incoming import Incoming
from .partner import Unit
from .swarm import UNIT_BYTES

BUFFER_BYTES = 64 << 10
UNSENT_BYTES = 256 << 10
"""What the kernel may hold that is not on the wire yet (Linux, ``tcp(7)``, TCP_NOTSENT_LOWAT).

So a link goes on while its box waits for a processor.
"""
HANDSHAKE_S = 5.0
ALIVE_S = 1.0
SILENCE_S = 3.0
CONGESTION = b"cubic"
"""What tells each link how fast to send (Linux, ``tcp(7)``, TCP_CONGESTION).

Many links of one box share its own wire, and BBR takes what that queue loses for no sign: a fifth of all
segments went twice.
"""
_NOTSENT_LOWAT, _CONGESTION = 25, 13


class Ear(Protocol):
    """Who hears what comes over a link; all of it is called on the event loop."""

    def opened(self, link: ShareLink) -> None:
        """Hear that the connection is there."""
        ...

    def said(self, link: ShareLink, kind: int, body: memoryview) -> None:
        """Hear one frame that is no piece; raises ``RemoteError`` to end the connection."""
        ...

    def piece(self, link: ShareLink, block: int, offset: int, data: memoryview) -> None:
        """Hear one piece of a unit, valid during this call; raises ``RemoteError`` to end the connection."""
        ...

    def sent(self, link: ShareLink) -> None:
        """Hear that the link takes the next unit."""
        ...

    def closed(self, link: ShareLink, reason: str) -> None:
        """Hear that the connection has ended, and why in a word."""
        ...


class ShareLink(asyncio.BufferedProtocol):
    """Frames over one connection; ``peer`` is its other end's key once that is proven.

    ``gone`` is called once when the connection ends.
    """

    def __init__(self, ear: Ear, *, dialled: bool, gone: Callable[[], None] = lambda: None) -> None:
        """``dialled`` says whether this box dialled."""
        self.ear = ear
        self.dialled = dialled
        self.peer = b""
        self.host = ""
        self.incoming = Incoming()
        self._gone = gone
        self._transport: asyncio.Transport | None = None
        self._inbox = Inbox()
        self._words: list[bytes] = []
        self._outgoing: deque[tuple[int, int, memoryview]] = deque()
        self._paused = self._pushing = self._owing = False
        self._reason = "closed"
        self.heard_at = self.spoke_at = 0.0

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=BUFFER_BYTES, low=BUFFER_BYTES // 4)
        sock: socket.socket | None = transport.get_extra_info("socket")
        if sock is not None:
            for option, value in (
                (_NOTSENT_LOWAT, UNSENT_BYTES),
                (socket.TCP_NODELAY, 1),
                (_CONGESTION, CONGESTION),
            ):
                with suppress(OSError):  # a kernel without one of them goes on as it does
                    sock.setsockopt(socket.IPPROTO_TCP, option, value)
        name = transport.get_extra_info("peername")
        self.host = str(name[0]) if name else ""
        self.heard_at = self.spoke_at = asyncio.get_running_loop().time()
        self.ear.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        del exc
        self._transport = None
        self._outgoing.clear()
        self.incoming = Incoming()
        self._gone()
        self.ear.closed(self, self._reason)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes go."""
        del sizehint
        return self._inbox.room()

    def buffer_updated(self, nbytes: int) -> None:
        """Take bytes in; every frame that is whole is heard."""
        self.heard_at = asyncio.get_running_loop().time()
        try:
            for kind, body in self._inbox.frames(nbytes):
                if self.open:
                    self._hear(kind, body)
        except RemoteError as error:
            self.abort(error.reason)

    def pause_writing(self) -> None:
        """Send no more for now."""
        self._paused = True

    def resume_writing(self) -> None:
        """Go on sending."""
        self._paused = False
        self._push()

    # -- our side

    @property
    def open(self) -> bool:
        """Whether the connection is there."""
        return self._transport is not None and not self._transport.is_closing()

    def say(self, kind: Kind, message: object = None) -> None:
        """Send a word, with all others of this turn; it goes before the pieces that still wait here."""
        if self.open:
            body = b"" if message is None else encode(message)
            if not self._words:
                asyncio.get_running_loop().call_soon(self._speak)
            self._words.append((len(body) + 1).to_bytes(4, "big") + bytes((kind,)) + body)

    def send(self, unit: Unit, data: memoryview) -> None:
        """Send a unit."""
        start = unit.part * UNIT_BYTES
        for offset in range(0, max(len(data), 1), PIECE_BYTES):
            self._outgoing.append((unit.block, start + offset, data[offset : offset + PIECE_BYTES]))
        self._owing = True
        self._push()

    def abort(self, reason: str) -> None:
        """End the connection at once."""
        self._reason = reason
        if self._transport is not None:
            self._transport.abort()

    def close(self, reason: str) -> None:
        """End the connection after what was said."""
        self._speak()
        self._reason = reason
        self._outgoing.clear()
        if self._transport is not None:
            self._transport.close()

    def _hear(self, kind: int, body: memoryview) -> None:
        if kind != Kind.PIECE:
            self.ear.said(self, kind, body)
        elif len(body) < PIECE_HEAD_BYTES:
            self.abort("malformed")
        else:
            block, offset = int.from_bytes(body[:4], "big"), int.from_bytes(body[4:8], "big")
            self.ear.piece(self, block, offset, body[PIECE_HEAD_BYTES:])

    def _speak(self) -> None:
        words, self._words = self._words, []
        if words and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(words))
            self.spoke_at = asyncio.get_running_loop().time()

    def _push(self) -> None:
        if self._pushing:
            return
        self._pushing = True
        try:
            self._speak()
            while self._transport is not None and not self._transport.is_closing() and not self._paused:
                if self._outgoing:
                    block, offset, data = self._outgoing.popleft()
                    head = (len(data) + PIECE_HEAD_BYTES + 1).to_bytes(4, "big") + bytes((Kind.PIECE,))
                    head += block.to_bytes(4, "big") + offset.to_bytes(4, "big")
                    self._transport.write(b"".join((head, data)))
                elif self._owing:
                    self._owing = False
                    self.ear.sent(self)
                else:
                    break
        finally:
            self._pushing = False
