"""One connection of the byte protocol: heads in, files out, until aiohttp takes over or it ends."""

from __future__ import annotations

import os
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from ...protocol.errors import LocalError
from .api import BODILESS, LINGER
from .exchange import Answer, FilePart
from .files import Descriptor
from .head import Head, parse_head
from .problem import phrase
from .ranges import negotiate

if TYPE_CHECKING:
    from .bytes import ByteServer

RECEIVE_BYTES = 16 << 10
PIPELINE_BYTES = 32 << 10
"""Requests read ahead while an answer is being sent; beyond this the socket is not read."""
SEND_BYTES = 1 << 20
BURST_BYTES = 4 << 20
"""A fast reader gets at most this much before other connections have their turn."""
SLOWEST_BYTES_S = 4 << 10
LINGER_S = 2.0
_TLS_RECORD = 0x16
_MORE: int = getattr(socket, "MSG_MORE", 0)


class Connection:
    """One connection of the byte protocol: reads heads, sends answers, one at a time."""

    __slots__ = (
        "_buffer",
        "_draining",
        "_ended",
        "_fd",
        "_in_head",
        "_keep",
        "_latest",
        "_parts",
        "_paused",
        "_pending",
        "_server",
        "_sock",
        "_writing",
        "busy",
        "deadline",
    )

    def __init__(self, server: ByteServer, sock: socket.socket) -> None:
        self._server = server
        self._sock = sock
        self._fd = sock.fileno()
        self._buffer = b""
        self._pending: memoryview | bytes = b""
        self._parts: deque[tuple[Descriptor, int, int]] = deque()
        self._keep = True
        self._latest = 0.0
        self._in_head = self._paused = self._ended = self._draining = self._writing = False
        self.busy = False
        self.deadline = server.loop.time() + server.limits.head_s
        server.loop.add_reader(self._fd, self._first)

    def _first(self) -> None:
        """Tell TLS from HTTP by the first byte, left where it is."""
        try:
            first = self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if first and first[0] == _TLS_RECORD and self._server.tls is not None:
            self._move(self._server.tls)
            return
        self._server.loop.add_reader(self._fd, self._readable)
        self._readable()

    def _readable(self) -> None:
        try:
            data = self._sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not data:
            # a client may close its sending half and still want the answer under way
            self._ended = True
            if self.busy:
                self._pause()
            else:
                self.close()
            return
        if self._draining:
            return
        self._buffer = self._buffer + data if self._buffer else data
        if not self.busy:
            self._serve()
        elif len(self._buffer) >= PIPELINE_BYTES:
            self._pause()

    def _writable(self) -> None:
        self._send()
        if not self.busy and not self._draining and self._fd >= 0:
            self._serve()

    def _serve(self) -> None:
        """Answer the requests in the buffer until one must wait."""
        server = self._server
        while self._buffer:
            try:
                head = parse_head(self._buffer)
                if head is None:
                    break
                if not self._answer(head):
                    self._move(None)
                    return
            except Exception as error:  # noqa: BLE001 - a look-up's bug must not leave a client waiting
                self._refuse(error)
                return
            if self.busy or self._draining or self._fd < 0:
                return
        if self._ended:
            self.close()
        elif not self._buffer:
            self._in_head = False
            self.deadline = server.loop.time() + server.limits.idle_s
        elif not self._in_head:  # the clock of an unfinished head starts once, with its first byte
            self._in_head = True
            self.deadline = server.loop.time() + server.limits.head_s

    def _answer(self, head: Head) -> bool:
        """Send the answer to ``head``, or as much as the socket takes; False where it is not ours."""
        server = self._server
        if head.length or head.method not in ("GET", "HEAD") or not server.router.allowed(head.host):
            return False
        answer = server.lookup(head)
        if answer is None:
            return False
        answer = negotiate(answer, head.method, head.headers)
        body, length, content = answer.body, answer.length, b""
        assert length is not None, "a look-up answers bytes or file parts"
        if head.method == "GET":
            if isinstance(body, bytes):
                content = body
            elif isinstance(body, AsyncIterator) or not self._open(body):
                return False
        self._buffer = self._buffer[head.size :]
        self._keep = head.keep_alive
        server.tally.answered(answer.status)
        self._begin(answer, length, content)
        return True

    def _open(self, parts: Sequence[FilePart]) -> bool:
        """Take the files of ``parts``; a file that is gone or short is left to the router's handler."""
        try:
            for part in parts:
                self._parts.append((self._server.files.take(part), part.offset, part.length))
        except (OSError, LocalError):
            self._release()
            return False
        return True

    def _begin(self, answer: Answer, length: int, content: bytes) -> None:
        server = self._server
        lines = [
            f"HTTP/1.1 {answer.status} {phrase(answer.status)}\r\nserver: farcast\r\ndate: {server.date}"
        ]
        lines += [f"{name}: {value}" for name, value in answer.headers.items() if name != "content-length"]
        if answer.status not in BODILESS:
            lines.append(f"content-length: {length}")
        lines.append("\r\n" if self._keep else "connection: close\r\n\r\n")
        self._pending = "\r\n".join(lines).encode() + content
        now = server.loop.time()
        self.deadline = now + server.limits.stall_s
        self._latest = self.deadline + length / SLOWEST_BYTES_S
        self.busy = True
        self._send()

    def _send(self) -> None:
        """Send until done, until the socket takes no more, or until others should have their turn."""
        parts, burst = self._parts, BURST_BYTES
        try:
            if self._pending:
                sent = self._sock.send(self._pending, _MORE if parts else 0)
                if sent < len(self._pending):
                    self._pending = memoryview(self._pending)[sent:]
                    self._wait()
                    return
                self._pending = b""
            while parts:
                descriptor, offset, left = parts[0]
                sent = os.sendfile(self._fd, descriptor.fd, offset, min(left, SEND_BYTES))
                if not sent:
                    self._server.files.close()  # the file was cut while it was open: look again
                    self._server.router.refused("truncated")
                    self.reset()
                    return
                self._server.tally.sent_bytes += sent
                if sent == left:
                    parts.popleft()
                    self._server.files.release(descriptor)
                else:
                    parts[0] = (descriptor, offset + sent, left - sent)
                burst -= sent
                if burst <= 0 and parts:
                    self._wait()
                    return
        except BlockingIOError:
            self._wait()
            return
        except OSError:
            self.close()
            return
        self._done()

    def _wait(self) -> None:
        server = self._server
        self.deadline = min(server.loop.time() + server.limits.stall_s, self._latest)
        if not self._writing:
            self._writing = True
            server.loop.add_writer(self._fd, self._writable)

    def _done(self) -> None:
        loop = self._server.loop
        self.busy = False
        if self._writing:
            self._writing = False
            loop.remove_writer(self._fd)
        if self._paused and not self._ended:
            self._paused = False
            loop.add_reader(self._fd, self._readable)
        if not self._keep:
            self._finish()

    def _finish(self) -> None:
        """Close our half and read on a little: closing on unread bytes would reset what we sent."""
        self._draining = True
        self._buffer = b""
        self.deadline = self._server.loop.time() + LINGER_S
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._ended = True
        if self._ended:
            self.close()

    def _refuse(self, error: Exception) -> None:
        self._keep = False
        answer = self._server.router.fail(error)
        self._server.tally.answered(answer.status)
        assert isinstance(answer.body, bytes)
        self._begin(answer, len(answer.body), answer.body)

    def _pause(self) -> None:
        self._paused = True
        self._server.loop.remove_reader(self._fd)

    def _move(self, tls: ssl.SSLContext | None) -> None:
        received = self._buffer
        self._detach()
        self._server.move(self._sock, received, tls)

    def expire(self) -> None:
        """End a connection that outlived its deadline."""
        if self.busy:
            self._server.router.refused("stalled")
            self.reset()
            return
        if self._in_head:
            self._server.router.refused("slow_head")
        self.close()

    def reset(self) -> None:
        """End with RST: what was sent must not pass for a complete answer."""
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
        self.close()

    def close(self) -> None:
        """End the connection and give back its files."""
        if self._fd >= 0:
            self._detach()
            self._sock.close()

    def _detach(self) -> None:
        loop = self._server.loop
        loop.remove_reader(self._fd)
        if self._writing:
            loop.remove_writer(self._fd)
        self._fd = -1
        self.busy = False
        self._release()
        self._server.forget(self)

    def _release(self) -> None:
        for descriptor, _, _ in self._parts:
            self._server.files.release(descriptor)
        self._parts.clear()
