"""One authenticated HTTP/3 connection to another box, with many requests on it at once."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable

from ....protocol.errors import RemoteError, UnreachableError
from ....protocol.identity import peer_id
from ....protocol.ports import Reply
from ..tls import peer_key
from .datagram import Endpoint
from .link import Link
from .qh3_engine import Qh3Session
from .session import (
    NO_ERROR,
    REQUEST_CANCELLED,
    Address,
    Closed,
    Data,
    Event,
    Head,
    Opened,
    Reset,
    Stopped,
)

HANDSHAKE_S = 4.0
SILENCE_S = 1.0
"""Asked and nothing heard for this long: the peer may have restarted, so others dial again."""
REQUESTS = 64
_CHUNK_BYTES = 256 << 10


class Channel:
    """A connection whose peer has proven that it owns ``key``; make one with ``open``."""

    def __init__(self, sock: socket.socket, remote: Address, key: bytes) -> None:
        """Begin the handshake over ``sock``, a connected UDP socket."""
        self._loop = asyncio.get_running_loop()
        self._key = key
        self._calls: dict[int, _Call] = {}
        self._slots = asyncio.Semaphore(REQUESTS)
        self._asked_at = 0.0
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._endpoint = Endpoint(sock, self._received, self._lost)
        session = Qh3Session.client(remote, self._loop.time())
        self._link = Link(session, self._endpoint, self._event)
        self._link.connected = True
        self._link.flush()

    @classmethod
    async def open(cls, family: int, remote: Address, key: bytes) -> Channel:
        """Connect to ``remote`` and check its key.

        Raises:
            UnreachableError: nobody there, or no handshake within ``HANDSHAKE_S``.
            RemoteError: ``wrong_key`` or ``malformed``: the peer is not the owner of ``key``.

        """
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.setblocking(False)
        try:
            sock.connect(remote)
        except OSError as error:
            sock.close()
            raise UnreachableError(f"no route to {remote[0]}: {error.strerror}") from error
        channel = cls(sock, sock.getpeername(), key)
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                await channel._ready
        except TimeoutError as error:
            channel.close()
            raise UnreachableError(f"{remote[0]} does not answer by QUIC", reason="timeout") from error
        except BaseException:
            channel.close()
            raise
        return channel

    @property
    def alive(self) -> bool:
        """Whether new requests should go here."""
        if self._link.closed:
            return False
        silent_s = self._loop.time() - self._asked_at
        return self._asked_at <= self._link.heard_at or silent_s < SILENCE_S

    @property
    def busy(self) -> bool:
        """Whether requests are under way."""
        return bool(self._calls)

    async def request(
        self,
        method: str,
        authority: str,
        path: str,
        *,
        body: bytes,
        headers: dict[str, str],
        limit_bytes: int,
        arrived: Callable[[int], None] | None = None,
    ) -> Reply:
        """Make one request; cancelling it resets its stream.

        ``arrived`` is told the bytes of the body as they come.

        Raises:
            UnreachableError: the connection or the stream ended before the answer did.
            RemoteError: ``too_large`` past ``limit_bytes``.

        """
        async with self._slots:
            call = await self._begin(method, authority, path, body, headers)
            try:
                status, fields = await call.head
                data = bytearray()
                while chunk := await call.read():
                    data += chunk
                    if arrived is not None:
                        arrived(len(chunk))
                    if len(data) > limit_bytes:
                        message = f"an answer from {authority} over the limit of {limit_bytes} bytes"
                        raise RemoteError(message, reason="too_large")
                return Reply(status, fields, bytes(data))
            finally:
                self._end(call)

    def close(self) -> None:
        """End the connection; requests under way fail."""
        self._link.close(NO_ERROR)
        self._endpoint.close()

    async def _begin(
        self, method: str, authority: str, path: str, body: bytes, headers: dict[str, str]
    ) -> _Call:
        if self._link.closed:
            raise UnreachableError(f"the connection to {authority} is closed", reason="closed")
        fields = [
            (b":method", method.encode()),
            (b":scheme", b"https"),
            (b":authority", authority.encode()),
            (b":path", path.encode()),
            *((name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()),
        ]
        if body or method not in ("GET", "HEAD"):
            fields.append((b"content-length", str(len(body)).encode()))
        if self._asked_at <= self._link.heard_at:
            self._asked_at = self._loop.time()
        stream = await self._link.open(fields, end=not body)
        call = self._calls[stream] = _Call(stream, sized=method != "HEAD")
        if body:
            try:
                await self._link.pump(stream, _slices(body))
            except UnreachableError as error:
                if error.reason != "stopped":  # an early answer, like 413, stops the body
                    self._end(call)
                    raise
            except BaseException:
                self._end(call)
                raise
        return call

    def _end(self, call: _Call) -> None:
        """Forget a call; where it is not over, reset both halves of its stream."""
        self._calls.pop(call.stream, None)
        call.head.cancel()
        if not call.over:
            self._link.session.reset(call.stream, REQUEST_CANCELLED)
            self._link.session.stop(call.stream, REQUEST_CANCELLED)
            self._link.soon()

    def _received(self, datagrams: list[bytes], address: Address, local: bytes) -> None:
        self._link.receive(datagrams, address, local)

    def _lost(self, error: OSError) -> None:
        if not self._ready.done():
            self._ready.set_exception(UnreachableError(f"refused: {error.strerror}", reason="refused"))
        else:
            self._link.close(NO_ERROR)

    def _event(self, event: Event) -> None:
        if isinstance(event, Data | Head | Reset):
            call = self._calls.get(event.stream)
            if call is not None:
                call.take(event)
        elif isinstance(event, Stopped):
            self._link.abandon(event.stream)
        elif isinstance(event, Opened):
            self._check(event.certificate)
        elif isinstance(event, Closed):
            gone = UnreachableError(f"the connection ended: {event.reason or event.code}", reason="closed")
            if not self._ready.done():
                self._ready.set_exception(gone)
            for call in list(self._calls.values()):
                call.fail(gone)
            self._endpoint.close()

    def _check(self, certificate: bytes) -> None:
        if self._ready.done():
            return
        try:
            key = peer_key(certificate)
            if key != self._key:
                message = f"the peer is {peer_id(key)}, not {peer_id(self._key)}"
                raise RemoteError(message, reason="wrong_key")  # noqa: TRY301 - one place tells the waiter
        except RemoteError as error:
            self._ready.set_exception(error)
        else:
            self._ready.set_result(None)


class _Call:
    """One request under way: its head once that is here, and its body in pieces."""

    def __init__(self, stream: int, *, sized: bool) -> None:
        self.stream = stream
        self.head: asyncio.Future[tuple[int, dict[str, str]]] = asyncio.get_running_loop().create_future()
        self.over = False
        self._sized = sized
        self._chunks: deque[bytes] = deque()
        self._left: int | None = None
        self._error: RemoteError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def take(self, event: Data | Head | Reset) -> None:
        """Take in what came on the stream."""
        if isinstance(event, Reset):
            self.fail(UnreachableError(f"the peer reset the stream ({event.code:#x})", reason="reset"))
            return
        if isinstance(event, Head):
            self._take_head(event)
        elif event.data:
            self._chunks.append(event.data)
            if self._left is not None:
                self._left -= len(event.data)
        if event.ended:
            self.over = True
            if self._left:
                self._error = UnreachableError("the answer is not as long as it says", reason="truncated")
        self._wake()

    def fail(self, error: RemoteError) -> None:
        """End the call with ``error``."""
        self.over = True
        self._error = self._error or error
        if not self.head.done():
            self.head.set_exception(self._error)
            self.head.exception()  # whoever was to wait may have left already
        self._wake()

    async def read(self) -> bytes:
        """Return the next piece of the body, empty at its end."""
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self.over:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._chunks.popleft()

    def _take_head(self, event: Head) -> None:
        if self.head.done():  # trailers
            return
        fields: dict[str, str] = {}
        for raw_name, raw_value in event.headers:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
        status = int(fields.pop(":status"))
        declared = fields.get("content-length", "")
        if self._sized and declared.isascii() and declared.isdigit() and status != 304:  # noqa: PLR2004
            self._left = int(declared[:18])
        self.head.set_result((status, fields))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def _slices(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), _CHUNK_BYTES):
        yield body[at : at + _CHUNK_BYTES]
