"""One connection of the byte protocol: heads in, files out, until aiohttp takes over or it ends.

Readiness is edge-triggered: ``_unread`` says that the socket may hold bytes not yet read, and an
answer is sent until the kernel takes no more. While an answer is under way nothing is read, so what
a client sends ahead waits in the kernel's buffer, whose size bounds it. Over 400 lines because every
step of a connection changes the same few fields.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from os import sendfile
from typing import TYPE_CHECKING

from .head import Head, parse_head
from .outgoing import CUT, DONE, HELD, MISSING, MORE, TURN, Outgoing
from .reply import LINGER, Reply
from .turnloop import ENDING, GONE, INPUT, READ, WRITE

if TYPE_CHECKING:
    from .bytes import ByteServer

RECEIVE_BYTES = 8 << 10
BURST_REQUESTS = 32
"""Requests sent ahead, without waiting for answers, of which one connection may use up so many at a time."""
SLOWEST_BYTES_S = 4 << 10
LINGER_S = 2.0
_TLS_RECORD = 0x16


class Connection:
    """One connection of the byte protocol: reads heads, sends answers, one at a time."""

    __slots__ = (
        "_asked",
        "_buffer",
        "_draining",
        "_ended",
        "_ending",
        "_fd",
        "_flow",
        "_in_head",
        "_keep",
        "_kept",
        "_latest",
        "_out",
        "_server",
        "_sock",
        "_timer",
        "_unread",
        "busy",
        "deadline",
        "peer",
    )

    def __init__(self, server: ByteServer, sock: socket.socket, peer: str, received: bytes = b"") -> None:
        """Serve ``sock``, from which ``received`` was read already."""
        self._server = server
        self._sock = sock
        self._fd = sock.fileno()
        self._buffer = received
        local = server.governor.local(peer)
        self._flow = server.governor.lan if local else server.governor.wan
        self._kept = server.replies.kept
        self._out = Outgoing(server, sock, local=local)
        self._asked: Head | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._keep = self._unread = True
        self._latest = 0.0
        self._in_head = self._ended = self._ending = self._draining = False
        self.peer = peer
        self.busy = False
        self.deadline = server.readiness.now + server.limits.head_s
        plain = received or not server.tls
        server.readiness.watch(self._fd, self._turn if plain else self._first)

    def _first(self, events: int) -> None:
        """Tell TLS from HTTP by the first byte, left where it is."""
        if not events & READ:
            return
        try:
            first = self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if first and first[0] == _TLS_RECORD and self._server.tls:
            self._move(secure=True)
            return
        self._server.readiness.change(self._fd, self._turn)
        self._turn(events)

    def _turn(self, events: int) -> None:
        if events & READ == INPUT and not (self.busy or self._buffer or self._draining):
            if self._repeat():
                return
        elif events & READ:
            self._unread = True
            if events & ENDING:
                self._ending = True
        if not self.busy:
            self._serve()
        elif events & GONE:  # who waits for the rate or another process would hear of it much later
            self.close()
        elif self._asked is None and self._timer is None and (events & WRITE or not events):
            self._send()
            if not self.busy:
                self._serve()

    def _repeat(self) -> bool:
        """Read, and answer by one open file what was answered a moment ago: most turns, in few steps.

        False: what was read is left to ``_serve``.
        """
        try:
            data = self._sock.recv(RECEIVE_BYTES)
        except OSError:
            self._unread = True  # ``_serve`` reads again: as little, or the end
            return False
        reply = self._kept.get(data)
        if reply is None or (one := reply.one) is None or not one[0].cached or self._flow.guarded:
            return self._repeat_files(data, reply)
        server = self._server
        head = reply.made if reply.date is server.date else reply.head(server.date)
        source, offset, size = one
        begun = sent = 0
        self._unread = False
        try:
            begun = self._sock.send(head, MORE)
            if begun == len(head):
                sent = sendfile(self._fd, source.fd, offset, size)
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return True
        tally = server.tally
        tally.sent_bytes += sent
        self._flow.bytes += sent
        self.deadline = server.idle_until
        if sent == size:
            tally.classes[reply.status_class] += 1
        else:
            self._buffer = data
            self._begin(reply, begun, sent)
        return True

    def _repeat_files(self, data: bytes, reply: Reply | None) -> bool:
        """As ``_repeat``, of several open files."""
        ready = () if reply is None or self._flow.guarded else reply.ready
        if reply is None or not ready or not all(source.cached for source, _, _ in ready):
            self._received(data)
            return False
        server, begun, total = self._server, 0, 0
        head = reply.head(server.date)
        self._unread = False
        try:
            begun = self._sock.send(head, MORE)
            for source, offset, size in ready if begun == len(head) else ():
                sent = sendfile(self._fd, source.fd, offset, size)
                total += sent
                if sent < size:
                    break
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return True
        finally:
            server.tally.sent_bytes += total
            self._flow.bytes += total
        self.deadline = server.idle_until
        if total == reply.length:
            server.tally.classes[reply.status_class] += 1
        else:
            self._buffer = data
            self._begin(reply, begun, total)
        return True

    def _receive(self) -> bool:
        """Read once; False where there is nothing to serve from it."""
        try:
            data = self._sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            self._unread = False
            return False
        except OSError:
            self.close()
            return False
        return self._received(data)

    def _received(self, data: bytes) -> bool:
        # a short read has emptied the socket; only its end may still be there
        self._unread = len(data) == RECEIVE_BYTES or (self._ending and bool(data))
        if not data:
            self._ended = True
            return False
        self._buffer = self._buffer + data if self._buffer else data
        return True

    def _serve(self) -> None:
        """Answer what is in the buffer and the socket until one must wait."""
        if self._fd < 0:  # it ended with the answer before
            return
        requests = BURST_REQUESTS
        while not self._draining:
            if not self._buffer and not (self._unread and self._receive()):
                break
            if self._request():
                if self.busy or self._fd < 0:
                    return
                requests -= 1
                if not requests or not (self._buffer or self._unread or self._draining):
                    break
            elif self._fd < 0 or not self._unread or not self._receive():
                break
        else:
            self._drain()
            return
        if self._fd >= 0:
            self._rest(again=not requests)

    def _rest(self, *, again: bool) -> None:
        """Wait for the next bytes, or for the ``again`` that others have their turn before."""
        server = self._server
        now = server.readiness.now
        if again:
            if not self._draining:
                self.deadline = now + server.limits.idle_s
            server.readiness.again(self._fd)
        elif self._ended:
            self.close()
        elif not self._buffer:
            self._in_head = False
            self.deadline = now + server.limits.idle_s
        elif not self._in_head:  # the clock of an unfinished head starts once, with its first byte
            self._in_head = True
            self.deadline = now + server.limits.head_s

    def _request(self) -> bool:
        """Begin the answer to the request at the start of the buffer; False: unfinished, or not ours."""
        server = self._server
        try:
            reply = server.replies.find(self._buffer)
            return self._look_up() if reply is None else self._reply(reply)
        except Exception as error:  # noqa: BLE001 - a look-up's bug must not leave a client waiting
            self._out.close()
            return self._begin(server.problem(error, self.peer))  # and what follows it is not read

    def _look_up(self) -> bool:
        """As ``_request``, for what was not answered a moment ago."""
        head = parse_head(self._buffer)
        if head is None:
            return False
        reply = self._server.reply(head)
        if reply is None:
            return self._elsewhere(head)
        self._remember(head, reply)
        return self._reply(reply)

    def _reply(self, reply: Reply) -> bool:
        if self._flow.guarded:
            reply = self._server.governed(self.peer, reply)
        return self._begin(reply)

    def _remember(self, head: Head, reply: Reply) -> None:
        if reply.keep:
            self._server.replies.keep(self._buffer[: head.size], reply)

    def _elsewhere(self, head: Head) -> bool:
        """Wait for another process's reply, or move to where the rest is answered."""
        server = self._server
        if server.ask(head, self):
            self.busy = True
            self._asked = head
            self.deadline = self._latest = server.readiness.now + server.limits.stall_s
            return True
        self._move(secure=False)
        return False

    def head_bytes(self, head: Head) -> bytes:
        """Return the bytes of ``head``, which is being answered."""
        return self._buffer[: head.size]

    def answered(self, reply: Reply | None) -> None:
        """Go on with what the other process said; None: it wants the connection."""
        head, self._asked = self._asked, None
        if head is None or self._fd < 0:
            return
        self.busy = False
        if reply is None:
            self._move(secure=False)
            return
        self._remember(head, reply)
        if self._reply(reply) and not self.busy:
            self._serve()

    def _begin(self, reply: Reply, begun: int = 0, sent: int = 0) -> bool:
        """Send a reply as ``Outgoing`` does; False where a file is not there any more, and others answer."""
        try:
            state = self._out.begin(reply, self._server.date, begun, sent)
        except OSError:
            self.close()
            return True
        return self._begun(reply, state)

    def _begun(self, reply: Reply, state: int) -> bool:
        """Go on behind the request that ``reply`` answers, as far as ``state`` says; as ``_begin``."""
        server = self._server
        if state == MISSING:
            server.replies.clear()
            self._move(secure=False)
            return False
        server.tally.classes[reply.status_class] += 1
        self._buffer = self._buffer[reply.size :]
        self._in_head = False
        self._keep = reply.keep
        if state != DONE:
            self.busy = True
            self._latest = server.readiness.now + server.limits.stall_s + reply.length / SLOWEST_BYTES_S
            self._wait(state)
        elif not reply.keep:
            self._finish()
        return True

    def _send(self) -> None:
        """Send on, until done, until the socket takes no more, or until others should have their turn."""
        try:
            state = self._out.send()
        except OSError:
            self.close()
            return
        if state == DONE:
            self.busy = False
            if not self._keep:
                self._finish()
        else:
            self._wait(state)

    def _wait(self, state: int) -> None:
        """Go on when the socket, the rate or the others allow it."""
        server = self._server
        now = server.readiness.now
        self.deadline = min(now + server.limits.stall_s, self._latest)
        if state == TURN:
            server.readiness.again(self._fd)
        elif state == HELD:
            wait_s = self._out.wait_s
            if wait_s > 2 * server.limits.stall_s:  # the month's volume is spent
                server.router.turn_away("upload_rate", self.peer)
                self.reset()
                return
            self._latest += wait_s
            self.deadline = now + wait_s + server.limits.stall_s
            self._timer = server.loop.call_later(wait_s, self._resume)
        elif state == CUT:
            server.files.close()  # look at the files again
            server.router.turn_away("truncated", self.peer)
            self.reset()

    def _resume(self) -> None:
        self._timer = None
        self._server.readiness.begin()
        self._turn(0)

    def _finish(self) -> None:
        """Close our half and read on a little: closing on unread bytes would reset what we sent."""
        self._draining = True
        self._buffer = b""
        self.deadline = self._server.readiness.now + LINGER_S
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._ended = True
        if self._ended:
            self.close()

    def _drain(self) -> None:
        """Read and drop what a client still sends after our last answer."""
        for _ in range(BURST_REQUESTS):
            if not self._unread:
                return
            self._buffer = b""
            if not self._receive():
                if self._ended:
                    self.close()
                return
        self._buffer = b""
        self._server.readiness.again(self._fd)

    def _move(self, *, secure: bool) -> None:
        received = self._buffer
        self._detach()
        self._server.move(self._sock, self.peer, received, secure=secure)

    def expire(self) -> None:
        """End a connection that outlived its deadline."""
        if self.busy:
            self._server.router.turn_away("stalled", self.peer)
            self.reset()
            return
        if self._in_head:
            self._server.router.turn_away("slow_head", self.peer)
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
            self._server.gone(self.peer)

    def _detach(self) -> None:
        self._server.readiness.forget(self._fd)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._fd = -1
        self._buffer = b""
        self.busy = False
        self._out.close()
        self._server.forget(self)
