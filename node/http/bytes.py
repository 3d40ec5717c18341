"""The byte protocol: HTTP/1.1 that sends files with ``os.sendfile`` and hands all else to aiohttp.

A connection begins here. While its requests are answered by the synchronous ``lookup`` (blocks and
segments on disk) no byte of a body passes through Python. The first request that is not, moves the
connection elsewhere for the rest of its life; one that begins with a TLS record (0x16) moves there
at once. Linux only (epoll); the event loop must be a selector one: uvloop refuses readers on sockets
it knows.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate
from time import time
from typing import NamedTuple, Protocol

from .address import plain, zoned
from .connection import Connection
from .exchange import Answer, Router
from .files import FileCache
from .governor import OFF_LINK, Governor, Refusal
from .head import Head
from .meter import refused
from .ranges import negotiate
from .readiness import Readiness
from .reply import Replies, Reply
from .tally import Tally

Lookup = Callable[[Head], Answer | None]
"""Answers from memory what is ready now, in microseconds and without blocking; None for all else."""

_CONGESTION: int = getattr(socket, "TCP_CONGESTION", 0)


class Limits(NamedTuple):
    """Bounds of one byte server; times in seconds."""

    connections: int = 4_096
    head_s: float = 10.0
    idle_s: float = 60.0
    stall_s: float = 30.0


DEFAULTS = Limits()
_FULL = Refusal(503, "too_many_connections", "this box has all the connections it may have", 1)


class Elsewhere(Protocol):
    """Takes over connections of the byte protocol for the rest of their lives."""

    @property
    def connections(self) -> int:
        """How many connections taken over are open now."""
        ...

    def take(
        self, sock: socket.socket, peer: str, received: bytes, *, secure: bool, gone: Callable[[], None]
    ) -> None:
        """Serve ``sock``, from which ``received`` was read already; call ``gone`` once when it ends.

        ``secure``: it begins with a TLS record, and nothing was read.
        """
        ...

    async def close(self) -> None:
        """End what is still on its way over."""
        ...


class ByteServer:
    """Accepts TCP connections and answers from ``lookup``, from the router by way of aiohttp, or not."""

    def __init__(
        self,
        router: Router,
        lookup: Lookup,
        elsewhere: Elsewhere,
        *,
        files: FileCache,
        tally: Tally,
        tls: bool = False,
        limits: Limits = DEFAULTS,
        epoch: Callable[[], object] = object,
        governor: Governor | None = None,
    ) -> None:
        """Serve ``lookup`` first and hand over the rest; with ``tls``, TLS connections too.

        ``epoch`` differs once an answer of ``lookup`` may be untrue.
        """
        self.router = router
        self.files = files
        self.tally = tally
        self.tls = tls
        self.limits = limits
        self.governor = governor or Governor()
        self.loop = asyncio.get_running_loop()
        self.replies = Replies(epoch)
        self.idle_until = 0.0
        """The deadline of a connection that has nothing to do from this turn on."""
        self.readiness = Readiness(self.loop, self._begin)
        self.date = formatdate(time(), usegmt=True)
        self.lookup = lookup
        self._elsewhere = elsewhere
        tally.connections = lambda: self.open_connections
        self._connections: set[Connection] = set()
        self._sockets: list[socket.socket] = []
        self._sweep: asyncio.TimerHandle | None = None

    @property
    def open_connections(self) -> int:
        """How many TCP connections are open, aiohttp's included."""
        return len(self._connections) + self._elsewhere.connections

    def listen(self, sock: socket.socket) -> None:
        """Accept connections on ``sock``, a bound and listening non-blocking socket; owns it from now on."""
        self._sockets.append(sock)
        self.loop.add_reader(sock, self._accept, sock)

    async def close(self, drain_s: float = 5.0) -> None:
        """Stop accepting, end idle connections, and give answers under way ``drain_s`` to finish."""
        for sock in self._sockets:
            self.loop.remove_reader(sock)
            sock.close()
        self._sockets.clear()
        end = self.loop.time() + drain_s
        while self._connections and self.loop.time() < end:
            for connection in [each for each in self._connections if not each.busy]:
                connection.close()
            await asyncio.sleep(0.01 if self._connections else 0)
        for connection in list(self._connections):
            connection.reset()
        await self._elsewhere.close()
        if self._sweep is not None:
            self._sweep.cancel()
        self.readiness.close()
        self.replies.clear()

    def reply(self, head: Head) -> Reply | None:
        """Answer ``head`` from what is ready; None where that is the router's."""
        if head.length or head.method not in ("GET", "HEAD") or not self.router.allowed(head.host):
            return None
        answer = self.lookup(head)
        if answer is None:
            return None
        answer = negotiate(answer, head.method, head.headers)
        return Reply(answer, size=head.size, keep=head.keep_alive, bodiless=head.method == "HEAD")

    def ask(self, head: Head, connection: Connection) -> bool:
        """Ask another process for the reply; False where there is none to ask."""
        del head, connection
        return False

    def governed(self, peer: str, reply: Reply) -> Reply:
        """Return ``reply``, or the refusal that the operator's contract gives ``peer`` instead."""
        refusal = self.governor.request(peer, self.readiness.now, transfer=True)
        if refusal is None:
            return reply
        answer = self.router.fail(refused(refusal), peer)
        return Reply(answer, size=reply.size, keep=reply.keep, bodiless=reply.bodiless)

    def problem(self, error: Exception, peer: str) -> Reply:
        """Count ``error`` and return its answer, after which the connection ends."""
        return Reply(self.router.fail(error, peer), size=0, keep=False, bodiless=False)

    def gone(self, peer: str) -> None:
        """Count the end of a connection."""
        self.governor.disconnect(peer)

    def forget(self, connection: Connection) -> None:
        """Drop a connection that has ended or moved."""
        self._connections.discard(connection)

    def move(self, sock: socket.socket, peer: str, received: bytes, *, secure: bool) -> None:
        """Hand a connection and the bytes read from it to whoever answers the rest."""
        self._elsewhere.take(sock, peer, received, secure=secure, gone=lambda: self.gone(peer))

    def _begin(self, now: float) -> None:
        self.idle_until = now + self.limits.idle_s
        self.replies.begin(now)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(64):  # the rest of the backlog has its turn after the connections we have
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    raise
                self.router.refused("no_descriptors")
                self.loop.remove_reader(listener)
                self.loop.call_later(1.0, self._resume, listener)
                return
            if not self.governor.serves(zoned(address)):
                self.router.refused(OFF_LINK)
                sock.close()  # with what it may have sent unread, which resets the connection
                continue
            sock.setblocking(False)
            self.adopt(sock, plain(str(address[0])))
            if self._sweep is None:
                self._tick()

    def adopt(self, sock: socket.socket, peer: str, received: bytes = b"") -> None:
        """Serve a connected non-blocking socket, from which ``received`` was read already."""
        if self.open_connections >= self.limits.connections:
            refusal: Refusal | None = _FULL
        else:
            refusal = self.governor.connect(peer)
        if refusal is not None:
            self._turn_away(sock, peer, refusal)
            return
        tune(sock, peer)
        self.readiness.begin()  # its deadlines begin now, however long nobody had a turn
        self._connections.add(Connection(self, sock, peer, received))
        if self._sweep is None:
            self._tick()

    def _turn_away(self, sock: socket.socket, peer: str, refusal: Refusal) -> None:
        reply = self.problem(refused(refusal), peer)
        self.tally.classes[reply.status_class] += 1
        with suppress(OSError):
            sock.send(reply.head(self.date))
        sock.close()

    def _resume(self, listener: socket.socket) -> None:
        if listener in self._sockets:
            self.loop.add_reader(listener, self._accept, listener)

    def _tick(self) -> None:
        # one look at every connection a second is cheaper than a timer for every request
        self.readiness.begin()
        now = self.readiness.now
        self.date = formatdate(time(), usegmt=True)
        for connection in [each for each in self._connections if each.deadline < now]:
            connection.expire()
        if self._connections:
            self.files.prune()
            self._sweep = self.loop.call_later(1.0, self._tick)
        else:
            self.files.close()
            self.replies.clear()
            self._sweep = None


def tune(sock: socket.socket, peer: str) -> None:
    """Send small answers at once, and let BBR decide the rate off this machine.

    On a path with 1 % loss BBR moves 84 of 100 Mbit/s where cubic moves 4; over loopback its pacing
    only costs. A kernel without BBR keeps its own choice.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if _CONGESTION and not peer.startswith(("127.", "::1", "::ffff:127.")):
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, _CONGESTION, b"bbr")
