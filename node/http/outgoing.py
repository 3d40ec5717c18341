"""The bytes of one answer on their way out: a head, then files, at the rate that is allowed."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from os import sendfile
from pathlib import Path
from typing import TYPE_CHECKING

from ...protocol.errors import LocalError
from .reply import Piece, Reply

if TYPE_CHECKING:
    from .bytes import ByteServer

SEND_BYTES = 1 << 20
BURST_BYTES = 4 << 20
"""A fast reader gets at most this much before other connections have their turn."""
WIDE_BYTES = BURST_BYTES + (256 << 10)
"""The send buffer of a connection that takes nearly a whole burst at once: the largest that the kernel gives
by itself (``tcp_wmem``) is a burst to the byte, and one with its head would need another turn for 3 kB."""
READY_PIECES = BURST_BYTES // SEND_BYTES
"""An answer of so many files at most may leave at one stretch."""
REMEMBERED_PIECES = 16
"""An answer of so many files at most remembers which descriptors they were."""
MORE: int = getattr(socket, "MSG_MORE", 0)

DONE, FULL, TURN, HELD, CUT, MISSING = range(6)
"""How far an answer came: all is out; the socket is full; others' turn; held back by the rate for
``wait_s``; a file was shorter than it should be; nothing is out, for a file is not there as it should be."""


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
        "_wide",
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
        self._held = self._wide = False
        self._allowed = 0
        self.wait_s = 0.0

    def begin(self, reply: Reply, date: str, begun: int = 0, sent: int = 0) -> int:
        """Send ``reply``, as of ``date``; returns how far that came.

        Of its head ``begun`` bytes have left, and ``sent`` of its files, which are open then.

        Raises:
            OSError: the client is gone.

        """
        if reply.parts and not self._open(reply):
            return MISSING
        if sent:
            self._skip(sent)
        return self._hold(self._send(reply.head(date)[begun:], self._pieces))

    def _skip(self, sent: int) -> None:
        """Go on behind so many bytes of the files, which left at one stretch."""
        self._widen(sent)
        while sent >= (size := self._pieces[self._at][2]):
            self._at += 1
            sent -= size
        self._sent = sent

    def _hold(self, state: int) -> int:
        """Keep the files of an answer that goes on; one that has left at one stretch needs no hold."""
        if state != DONE and not self._held:
            self._held = True
            for source, _, _ in self._pieces:
                source.users += 1
        return state

    def send(self) -> int:
        """Send on; returns how far that came.

        Raises:
            OSError: the client is gone.

        """
        return self._send(self._pending, self._pieces)

    def _send(self, head: memoryview | bytes, pieces: Sequence[Piece]) -> int:
        if head:
            try:
                sent = self._sock.send(head, MORE if pieces else 0)
            except BlockingIOError:
                sent = 0
            if sent < len(head):
                self._pending = memoryview(head)[sent:]
                return FULL
            self._pending = b""
        if pieces:
            state = self._send_pieces(pieces)
            if state != DONE:
                return state
            if self._held or self._allowed:
                self.close()
            else:
                self._pieces = ()
        return DONE

    def close(self) -> None:
        """Give back the files and what of the rate was not used."""
        pieces, self._pieces = self._pieces, ()
        self._at = self._sent = 0
        if self._held:
            self._held = False
            for source, _, _ in pieces:
                self._server.files.release(source)
        if self._allowed:
            self._server.governor.give_back(self._allowed)
            self._allowed = 0

    def _open(self, reply: Reply) -> bool:
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
        at_once = len(pieces) <= READY_PIECES and all(0 < size <= SEND_BYTES for _, _, size in pieces)
        reply.ready = tuple(pieces) if at_once else ()
        reply.one = pieces[0] if at_once and len(pieces) == 1 else None
        return True

    def _send_pieces(self, pieces: Sequence[Piece]) -> int:
        server, fd = self._server, self._fd
        limited = server.governor.metered and not self._local
        at, done, total = self._at, self._sent, 0
        try:
            for source, offset, size in pieces[at:] if at else pieces:
                while done < size:
                    if total >= BURST_BYTES:
                        return TURN
                    want = min(size - done, SEND_BYTES)
                    if limited:
                        want = min(want, self._allowance())
                        if not want:
                            return HELD
                    sent = sendfile(fd, source.fd, offset + done, want)
                    if not sent:  # the file was cut while it was open
                        return CUT
                    if limited:
                        self._allowed -= sent
                    done += sent
                    total += sent
                at += 1
                done = 0
            at = 0
        except BlockingIOError:
            self._widen(total)
            return FULL
        finally:
            self._at, self._sent = at, done
            server.tally.sent_bytes += total
            self._flow.bytes += total
        return DONE

    def _widen(self, total: int) -> None:
        """Let a burst with its head fit, once, where the kernel's own buffer has grown as far as it goes.

        ``total`` bytes it took at one stretch before it was full.
        """
        if self._wide or total <= BURST_BYTES - SEND_BYTES:
            return
        self._wide = True
        if not _ends_at_a_burst():
            return
        with suppress(OSError):
            room = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            if BURST_BYTES - SEND_BYTES <= room < WIDE_BYTES:
                # the kernel doubles what it is told (socket(7)), as it counts its own upkeep too
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, WIDE_BYTES // 2)

    def _allowance(self) -> int:
        """Return how much of the upload rate is ours now; none: come back after ``wait_s``."""
        if not self._allowed:
            governor = self._server.governor
            self._allowed = governor.quantum_bytes
            self.wait_s = governor.owe(self._allowed, self._server.loop.time())
            if self.wait_s > 0:
                return 0
        return self._allowed


@cache
def _ends_at_a_burst() -> bool:
    """Say whether send buffers grow to less than ``WIDE_BYTES`` here, and a program may ask for as much.

    One that was asked for grows no further, so where the kernel goes beyond it is left alone (tcp(7)).
    """
    try:
        most, asked = (
            int(Path(f"/proc/sys/net/{name}").read_text().split()[-1])
            for name in ("ipv4/tcp_wmem", "core/wmem_max")
        )
    except (OSError, ValueError, IndexError):
        return False
    return most < WIDE_BYTES <= 2 * asked
