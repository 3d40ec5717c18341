"""What the main process and its workers tell each other: one message a datagram on a SEQPACKET pair.

A worker asks for a reply by the head it read, hands connections over with their descriptor, and
reports its counts; the main process answers, and tells of a new epoch or new rules. Only these two
processes hold the ends, so messages are trusted and merely bounded.
"""

from __future__ import annotations

import socket
from typing import NamedTuple

import msgspec

MESSAGE_LIMIT_BYTES = 96 << 10
"""An answer of more file parts than fit is given by the main process itself."""
_CONTROL_FDS = 1


class Ask(msgspec.Struct, tag="ask", frozen=True, array_like=True):
    """Worker: what answers this head?"""

    number: int
    head: bytes


class Told(msgspec.Struct, tag="told", frozen=True, array_like=True):
    """Main: this answers it; status 0: hand the connection over."""

    number: int
    status: int = 0
    headers: dict[str, str] = {}
    parts: list[tuple[str, int, int]] = []
    body: bytes = b""


class Moved(msgspec.Struct, tag="moved", frozen=True, array_like=True):
    """Worker: here is a connection, with what was read from it."""

    peer: str
    received: bytes


class Counts(msgspec.Struct, tag="counts", frozen=True, array_like=True):
    """Worker: what happened since the last message, and how many connections are open."""

    classes: list[int]
    sent_bytes: int
    wan_bytes: int
    lan_bytes: int
    refusals: dict[str, int]
    connections: int


class Holds(msgspec.Struct, tag="holds", frozen=True, array_like=True):
    """Main: the state of things; ``epoch`` differs from the last one where answers may be untrue."""

    epoch: int
    state: str
    retry_after_s: float
    upload_bytes_s: int | None
    connections: int | None
    client_connections: int | None
    client_requests_s: float | None
    client_burst: int
    lan: tuple[str, ...]
    served: tuple[tuple[str, ...], tuple[str, ...]] | None


Message = Ask | Told | Moved | Counts | Holds
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Message)


class Received(NamedTuple):
    """A message and the socket that came with it."""

    message: Message
    sock: socket.socket | None


class Link:
    """One end of the pair; non-blocking."""

    def __init__(self, sock: socket.socket) -> None:
        """Own ``sock``, a non-blocking SEQPACKET socket of a pair."""
        self._sock = sock

    def fileno(self) -> int:
        """Return the descriptor, for the event loop."""
        return self._sock.fileno()

    def send(self, message: Message, sock: socket.socket | None = None) -> bool:
        """Send a message, with a socket where given; False where it is too large or the other is behind.

        Raises:
            OSError: the other end is gone.

        """
        data = _ENCODER.encode(message)
        if len(data) > MESSAGE_LIMIT_BYTES:
            return False
        try:
            if sock is None:
                self._sock.send(data)
            else:
                socket.send_fds(self._sock, [data], [sock.fileno()])
        except BlockingIOError:
            return False
        return True

    def receive(self) -> Received | None:
        """Return the next message; None where none is there.

        Raises:
            EOFError: the other end is gone.

        """
        try:
            data, fds, _, _ = socket.recv_fds(self._sock, MESSAGE_LIMIT_BYTES, _CONTROL_FDS)
        except BlockingIOError:
            return None
        except OSError as error:
            raise EOFError from error
        if not data:
            raise EOFError
        sock = None
        if fds:
            sock = socket.socket(fileno=fds[0])
            sock.setblocking(False)
        return Received(_DECODER.decode(data), sock)

    def close(self) -> None:
        """Close this end."""
        self._sock.close()


def pair() -> tuple[Link, socket.socket]:
    """Return the main process's end, and the socket to start a worker with."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for sock in (ours, theirs):
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MESSAGE_LIMIT_BYTES)
    return Link(ours), theirs
