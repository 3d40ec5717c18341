"""A UDP socket for QUIC: many datagrams a system call both ways (UDP_SEGMENT and UDP_GRO), and bounded.

A sendto for each datagram costs 3 microseconds, a segment of a 44-datagram send half of one: half of
what a QUIC sender costs. Where kernel or network card offer neither, datagrams go one by one.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from .session import Address

Receive = Callable[[list[bytes], Address, bytes], None]
"""Called with the datagrams of one read, their sender, and the address of ours they came to."""

RECEIVE_BYTES = 1 << 16
READS = 32
READ_BYTES = 256 << 10
"""Reads in a row, and bytes, before other work has its turn: a sender waits for the acknowledgement."""
SEGMENTS = 64
SEGMENTED_BYTES = 64_000
QUEUE_BYTES = 4 << 20
_UDP_SEGMENT = 103
_UDP_GRO = 104
_IP_PKTINFO = 8
_IP_MTU_DISCOVER = 10
_IPV6_MTU_DISCOVER = 23
_PMTUDISC_PROBE = 3
_BUFFER_BYTES = 4 << 20
_ANCILLARY_BYTES = socket.CMSG_SPACE(4) + socket.CMSG_SPACE(20) + socket.CMSG_SPACE(12)
_PACKET_INFO = ((socket.IPPROTO_IP, _IP_PKTINFO), (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO))
_TOO_BIG = errno.EMSGSIZE
_NO_SEGMENTS = (errno.EIO, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOPROTOOPT)


class Endpoint:
    """One non-blocking UDP socket; owns it."""

    def __init__(
        self, sock: socket.socket, receive: Receive, lost: Callable[[OSError], None] = lambda _: None
    ) -> None:
        """Deliver to ``receive``; ``lost`` is called when a connected socket reports its peer gone."""
        self._sock = sock
        self._receive = receive
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[list[bytes], Address | None, bytes]] = deque()
        self._queued_bytes = 0
        self._woken: list[Callable[[], None]] = []
        self.dropped = 0
        self.segmented = _tune(sock)
        self._loop.add_reader(sock, self._readable)

    @property
    def blocked(self) -> bool:
        """Whether the kernel takes no more for now; call ``when_writable`` instead of sending."""
        return bool(self._queue)

    @property
    def closed(self) -> bool:
        """Whether the socket is closed."""
        return self._sock.fileno() < 0

    @property
    def address(self) -> Address:
        """The address this socket is bound to."""
        address: Address = self._sock.getsockname()
        return address

    def when_writable(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` once when the kernel takes datagrams again."""
        self._woken.append(wake)

    def send(self, datagrams: Sequence[bytes], address: Address | None, local: bytes = b"") -> None:
        """Send ``datagrams`` to ``address`` (None on a connected socket) from ``local``, or queue them.

        Past ``QUEUE_BYTES`` they are dropped, as any network may; QUIC sends again.
        """
        if self.closed:
            return
        for batch in batches(datagrams) if self.segmented else ([each] for each in datagrams):
            if self._queue or not self._send(batch, address, local):
                self._enqueue(batch, address, local)

    def close(self) -> None:
        """Close the socket; what is queued is not sent."""
        if not self.closed:
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()
        self._queue.clear()
        self._woken.clear()

    def _readable(self) -> None:
        """Read what is there, and deliver what came from one sender in a row together."""
        datagrams: list[bytes] = []
        sender: tuple[Address, bytes] | None = None
        left = READ_BYTES
        for _ in range(READS):
            read = self._read()
            if read is None:
                break
            data, segment, address, local = read
            if sender is not None and sender != (address, local):
                self._receive(datagrams, *sender)
                datagrams = []
                if self.closed:
                    return
            sender = (address, local)
            if 0 < segment < len(data):
                datagrams += [data[at : at + segment] for at in range(0, len(data), segment)]
            else:
                datagrams.append(data)
            left -= len(data)
            if left <= 0:
                break
        if sender is not None:
            self._receive(datagrams, *sender)

    def _read(self) -> tuple[bytes, int, Address, bytes] | None:
        """Return one read: bytes, size of each datagram in them, sender, our address; None: no more."""
        try:
            data, ancillary, _, address = self._sock.recvmsg(RECEIVE_BYTES, _ANCILLARY_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            self._lost(error)
            return None
        segment, local = 0, b""
        for level, kind, value in ancillary:
            if (level, kind) == (socket.SOL_UDP, _UDP_GRO):
                segment = int.from_bytes(value[:4], sys.byteorder)
            elif (level, kind) in _PACKET_INFO:
                local = value
        return data, segment, address, local

    def _send(self, batch: list[bytes], address: Address | None, local: bytes) -> bool:
        """Send one batch; False where the kernel takes no more now. What it refuses is lost."""
        ancillary = [_reply_from(local)] if local else []
        if len(batch) > 1:
            ancillary.append((socket.SOL_UDP, _UDP_SEGMENT, struct.pack("=H", len(batch[0]))))
        try:
            if address is None:
                self._sock.sendmsg(batch, ancillary)
            else:
                self._sock.sendmsg(batch, ancillary, 0, address)
        except BlockingIOError:
            return False
        except OSError as error:
            if len(batch) > 1 and error.errno in _NO_SEGMENTS:
                # the route's card cannot segment: never try again, and send these one by one
                self.segmented = False
                return all(self._send([each], address, local) for each in batch)
            self.dropped += len(batch)
            if address is None and error.errno != _TOO_BIG:
                self._lost(error)
        return True

    def _enqueue(self, batch: list[bytes], address: Address | None, local: bytes) -> None:
        size = sum(map(len, batch))
        if self.closed or self._queued_bytes + size > QUEUE_BYTES:
            self.dropped += len(batch)
            return
        if not self._queue:
            self._loop.add_writer(self._sock, self._writable)
        self._queue.append((batch, address, local))
        self._queued_bytes += size

    def _writable(self) -> None:
        while self._queue:
            if not self._send(*self._queue[0]):
                return
            if self.closed:
                return
            batch, _, _ = self._queue.popleft()
            self._queued_bytes -= sum(map(len, batch))
        self._loop.remove_writer(self._sock)
        woken, self._woken = self._woken, []
        for wake in woken:
            wake()


def batches(datagrams: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Group datagrams as UDP_SEGMENT wants them: equal sizes, only the last may be shorter."""
    batch: list[bytes] = []
    size = total = 0
    for datagram in datagrams:
        length = len(datagram)
        if batch and (length > size or len(batch) == SEGMENTS or total + length > SEGMENTED_BYTES):
            yield batch
            batch, total = [], 0
        if not batch:
            size = length
        batch.append(datagram)
        total += length
        if length < size:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


def _tune(sock: socket.socket) -> bool:
    """Set what QUIC wants of a socket, where the kernel offers it; say whether it segments."""
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
    options = [
        # never fragment (RFC 9000 section 14): the engine probes for the size that passes
        (socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE),
        # a box with several addresses answers from the one it was asked at
        (socket.IPPROTO_IP, _IP_PKTINFO, 1),
        (socket.SOL_UDP, _UDP_GRO, 1),
    ]
    if sock.family == socket.AF_INET6:
        options += [
            (socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE),
            (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1),
        ]
    for level, option, value in options:
        with suppress(OSError):
            sock.setsockopt(level, option, value)
    try:
        sock.getsockopt(socket.SOL_UDP, _UDP_SEGMENT)
    except OSError:
        return False
    return True


def _reply_from(local: bytes) -> tuple[int, int, bytes]:
    """Turn received packet information into the one that sends from the same address (ip(7), ipv6(7))."""
    if len(local) == 12:  # noqa: PLR2004 - struct in_pktinfo: interface, local address, header address
        return socket.IPPROTO_IP, _IP_PKTINFO, b"\0\0\0\0" + local[4:8] + b"\0\0\0\0"
    return socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, local
