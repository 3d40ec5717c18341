"""The bytes of one answer on their way out: a head, then files and memory, at the rate that is allowed."""

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
HOT_FROM_BYTES, HOT_TO_BYTES = 128 << 10, 2 << 20
"""Answers of this size are sent from memory where their blocks are in it."""
_MORE: int = getattr(socket, "MSG_MORE", 0)

DONE, FULL, TURN, HELD, CUT = range(5)
"""How far ``send`` came: all is out; the socket is full; others' turn; held back by the rate for
``wait_s``; a file was shorter than it should be."""

Piece = tuple[Descriptor | bytes, int, int]
"""Where bytes come from (a file or memory), the offset, and how many are left."""


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
        server = self._server
        # measured: of small answers the copy costs more than sendfile, of large ones it empties the caches
        hot = server.hot if HOT_FROM_BYTES <= reply.length <= HOT_TO_BYTES else None
        parts = self._parts = deque[Piece]()
        try:
            for part in reply.parts:
                path, offset, length = part
                data = None if hot is None else hot.find(path)
                if data is None or offset + length > len(data):
                    parts.append((server.files.take(part), offset, length))
                else:
                    parts.append((data, offset, length))
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
            if isinstance(source, Descriptor):
                self._server.files.release(source)
        self._parts = None
        if self._allowed:
            self._server.governor.give_back(self._allowed)
            self._allowed = 0

    def _send_head(self) -> bool:
        """Send the head; where the first piece is in memory, with it. False where the socket is full."""
        parts, pending = self._parts, self._pending
        limited = self._server.governor.metered and not self._local
        if parts and not limited and not isinstance(parts[0][0], Descriptor):
            sent = self._send_both(parts)
        else:
            sent = self._sock.send(pending, _MORE if parts else 0)
        if sent < len(pending):
            self._pending = memoryview(pending)[sent:]
            return False
        self._pending = b""
        return True

    def _send_both(self, parts: deque[Piece]) -> int:
        """Send the head and the first piece, which is in memory, in one call; returns what of both."""
        source, offset, left = parts[0]
        assert not isinstance(source, Descriptor)
        whole = not offset and left == len(source)
        body = source if whole else memoryview(source)[offset : offset + left]
        sent = self._sock.sendmsg((self._pending, body), (), _MORE if len(parts) > 1 else 0)
        if sent > len(self._pending):
            self._sent(parts, sent - len(self._pending))
        return sent

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
            if isinstance(source, Descriptor):
                sent = os.sendfile(self._fd, source.fd, offset, size)
                if not sent:  # the file was cut while it was open
                    return CUT
            else:
                piece = memoryview(source)[offset : offset + size]
                sent = self._sock.send(piece, _MORE if len(parts) > 1 else 0)
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
            if isinstance(source, Descriptor):
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
