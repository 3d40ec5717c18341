"""The bytes of one answer on their way out: a head, then files, at the rate that is allowed."""

from __future__ import annotations

import os
import socket
from collections import deque
from typing import TYPE_CHECKING

from ...protocol.errors import LocalError
from .files import Descriptor
from .reply import Reply

if TYPE_CHECKING:
    from .bytes import ByteServer

SEND_BYTES = 1 << 20
BURST_BYTES = 4 << 20
"""A fast reader gets at most this much before other connections have their turn."""
_MORE: int = getattr(socket, "MSG_MORE", 0)

DONE, FULL, TURN, HELD, CUT = range(5)
"""How far ``send`` came: all is out; the socket is full; others' turn; held back by the rate for
``wait_s``; a file was shorter than it should be."""

Piece = tuple[Descriptor, int, int]
"""The file bytes come from, the offset, and how many are left."""


class Outgoing:
    """Sends one answer at a time over one non-blocking socket."""

    __slots__ = ("_allowed", "_fd", "_flow", "_local", "_parts", "_pending", "_server", "_sock", "wait_s")

    def __init__(self, server: ByteServer, sock: socket.socket, *, local: bool) -> None:
        """Send over ``sock``; ``local``: to the LAN, which no rate holds back."""
        self._server = server
        self._sock = sock
        self._fd = sock.fileno()
        self._local = local
        self._flow = server.governor.lan if local else server.governor.wan
        self._pending: memoryview | bytes = b""
        self._parts: deque[Piece] | None = None
        self._allowed = 0
        self.wait_s = 0.0

    def open(self, reply: Reply) -> bool:
        """Find the bytes of ``reply``; False where a file is gone or short."""
        files = self._server.files
        parts = self._parts = deque[Piece]()
        try:
            for part in reply.parts:
                parts.append((files.take(part), part.offset, part.length))
        except (OSError, LocalError):
            self.close()
            return False
        return True

    def begin(self, head: bytes) -> None:
        """Send ``head`` first, and then what was opened."""
        self._pending = head

    def send(self) -> int:
        """Send on; returns how far that came.

        Raises:
            OSError: the client is gone.

        """
        try:
            if self._pending and not self._send_head():
                return FULL
            state = self._send_parts(self._parts) if self._parts else DONE
        except BlockingIOError:
            return FULL
        if state == DONE:
            self.close()
        return state

    def close(self) -> None:
        """Give back the files and what of the rate was not used."""
        for source, _, _ in self._parts or ():
            self._server.files.release(source)
        self._parts = None
        if self._allowed:
            self._server.governor.give_back(self._allowed)
            self._allowed = 0

    def _send_head(self) -> bool:
        """Send the head; False where the socket is full."""
        pending = self._pending
        sent = self._sock.send(pending, _MORE if self._parts else 0)
        if sent < len(pending):
            self._pending = memoryview(pending)[sent:]
            return False
        self._pending = b""
        return True

    def _send_parts(self, parts: deque[Piece]) -> int:
        burst = BURST_BYTES
        limited = self._server.governor.metered and not self._local
        while parts:
            if burst <= 0:
                return TURN
            source, offset, left = parts[0]
            size = min(left, SEND_BYTES)
            if limited:
                size = min(size, self._allowance())
                if not size:
                    return HELD
            sent = os.sendfile(self._fd, source.fd, offset, size)
            if not sent:  # the file was cut while it was open
                return CUT
            if limited:
                self._allowed -= sent
            self._sent(parts, sent)
            burst -= sent
        return DONE

    def _sent(self, parts: deque[Piece], sent: int) -> None:
        source, offset, left = parts[0]
        server = self._server
        server.tally.sent_bytes += sent
        self._flow.bytes += sent
        if sent == left:
            parts.popleft()
            server.files.release(source)
        else:
            parts[0] = (source, offset + sent, left - sent)

    def _allowance(self) -> int:
        """Return how much of the upload rate is ours now; none: come back after ``wait_s``."""
        if not self._allowed:
            governor = self._server.governor
            self._allowed = governor.quantum_bytes
            self.wait_s = governor.owe(self._allowed, self._server.loop.time())
            if self.wait_s > 0:
                return 0
        return self._allowed
