"""The bytes of one answer on their way out: a head, then files, at the rate that is allowed."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...protocol.errors import LocalError
from .reply import Piece, Reply

if TYPE_CHECKING:
    from .bytes import ByteServer

SEND_BYTES = 1 << 20
BURST_BYTES = 4 << 20
"""A fast reader gets at most this much before other connections have their turn."""
REMEMBERED_PIECES = 16
"""An answer of so many files at most remembers which descriptors they were."""
_MORE: int = getattr(socket, "MSG_MORE", 0)

DONE, FULL, TURN, HELD, CUT = range(5)
"""How far ``send`` came: all is out; the socket is full; others' turn; held back by the rate for
``wait_s``; a file was shorter than it should be."""


class Outgoing:
    """Sends one answer at a time over one non-blocking socket."""

    __slots__ = (
        "_allowed",
        "_at",
        "_fd",
        "_flow",
        "_held",
        "_local",
        "_pending",
        "_pieces",
        "_sent",
        "_server",
        "_sock",
        "wait_s",
    )

    def __init__(self, server: ByteServer, sock: socket.socket, *, local: bool) -> None:
        """Send over ``sock``; ``local``: to the LAN, which no rate holds back."""
        self._server = server
        self._sock = sock
        self._fd = sock.fileno()
        self._local = local
        self._flow = server.governor.lan if local else server.governor.wan
        self._pending: memoryview | bytes = b""
        self._pieces: Sequence[Piece] = ()
        self._at = self._sent = 0
        self._held = False
        self._allowed = 0
        self.wait_s = 0.0

    def open(self, reply: Reply) -> bool:
        """Find the bytes of ``reply``; False where a file is gone or short."""
        for source, _, _ in reply.pieces:
            if not source.cached:
                break
        else:
            if reply.pieces:
                self._pieces = reply.pieces
                return True
        files = self._server.files
        pieces = list[Piece]()
        self._pieces, self._held = pieces, True
        try:
            for part in reply.parts:
                pieces.append((files.take(part), part.offset, part.length))
        except (OSError, LocalError):
            self.close()
            return False
        reply.pieces = pieces if len(pieces) <= REMEMBERED_PIECES else ()
        return True

    def begin(self, head: bytes) -> int:
        """Send ``head``, and then what was opened; returns how far that came.

        Raises:
            OSError: the client is gone.

        """
        self._pending = head
        self._at = self._sent = 0
        state = self.send()
        if state != DONE and not self._held:  # what leaves at one stretch, as most do, needs no hold
            self._held = True
            for source, _, _ in self._pieces:
                source.users += 1
        return state

    def send(self) -> int:
        """Send on; returns how far that came.

        Raises:
            OSError: the client is gone.

        """
        try:
            pending = self._pending
            if pending:
                sent = self._sock.send(pending, _MORE if self._pieces else 0)
                if sent < len(pending):
                    self._pending = memoryview(pending)[sent:]
                    return FULL
                self._pending = b""
            state = self._send_pieces() if self._pieces else DONE
        except BlockingIOError:
            return FULL
        if state == DONE:
            if self._held or self._allowed:
                self.close()
            else:
                self._pieces = ()
        return state

    def close(self) -> None:
        """Give back the files and what of the rate was not used."""
        pieces, self._pieces = self._pieces, ()
        if self._held:
            self._held = False
            for source, _, _ in pieces:
                self._server.files.release(source)
        if self._allowed:
            self._server.governor.give_back(self._allowed)
            self._allowed = 0

    def _send_pieces(self) -> int:
        server, fd, pieces = self._server, self._fd, self._pieces
        limited = server.governor.metered and not self._local
        at, done, total = self._at, self._sent, 0
        try:
            while at < len(pieces):
                source, offset, size = pieces[at]
                while done < size:
                    if total >= BURST_BYTES:
                        return TURN
                    want = min(size - done, SEND_BYTES)
                    if limited:
                        want = min(want, self._allowance())
                        if not want:
                            return HELD
                    sent = os.sendfile(fd, source.fd, offset + done, want)
                    if not sent:  # the file was cut while it was open
                        return CUT
                    if limited:
                        self._allowed -= sent
                    done += sent
                    total += sent
                at += 1
                done = 0
            return DONE
        finally:
            self._at, self._sent = at, done
            server.tally.sent_bytes += total
            self._flow.bytes += total

    def _allowance(self) -> int:
        """Return how much of the upload rate is ours now; none: come back after ``wait_s``."""
        if not self._allowed:
            governor = self._server.governor
            self._allowed = governor.quantum_bytes
            self.wait_s = governor.owe(self._allowed, self._server.loop.time())
            if self.wait_s > 0:
                return 0
        return self._allowed
