"""Where connections go that the byte protocol does not answer: to aiohttp, by TLS first where asked."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

from .api import ApiServer
from .stream import ByAlpn, Streams


class ToApi:
    """Hands connections to the aiohttp server of this process."""

    def __init__(
        self,
        api: ApiServer,
        tls: ssl.SSLContext | None,
        failed: Callable[[str], None],
        handshake_s: float,
        streams: Streams | None = None,
    ) -> None:
        """Serve with ``tls`` where a client speaks it; ``failed`` is told why a hand-over came to nothing.

        ``streams`` are the protocols besides HTTP that a TLS client may ask for.
        """
        self._api = api
        self._tls = tls
        self._failed = failed
        self._handshake_s = handshake_s
        self._streams = streams or {}
        self._moving: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> int:
        """How many connections taken over are open now."""
        return len(self._moving) + self._api.connections

    def take(
        self, sock: socket.socket, peer: str, received: bytes, *, secure: bool, gone: Callable[[], None]
    ) -> None:
        """Serve ``sock`` by aiohttp."""
        del peer
        task = asyncio.get_running_loop().create_task(self._move(sock, received, secure=secure, gone=gone))
        self._moving.add(task)
        task.add_done_callback(self._moving.discard)

    async def close(self) -> None:
        """End what is still on its way over."""
        for task in self._moving:
            task.cancel()
        await asyncio.gather(*self._moving, return_exceptions=True)

    async def _move(
        self, sock: socket.socket, received: bytes, *, secure: bool, gone: Callable[[], None]
    ) -> None:
        protocol = self._api.protocol(gone)
        by_alpn = ByAlpn(self._streams, protocol, protocol.lost)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: by_alpn if secure else _Handover(protocol, received),
                sock,
                ssl=self._tls if secure else None,
                ssl_handshake_timeout=self._handshake_s if secure else None,
            )
        except (OSError, EOFError):  # ssl.SSLError and TimeoutError are OSErrors too
            self._failed("tls_handshake" if secure else "client_gone")
            sock.close()
            protocol.lost()


class _Handover(asyncio.Protocol):
    """Makes a connection aiohttp's, beginning with the bytes already read from it."""

    def __init__(self, protocol: asyncio.Protocol, received: bytes) -> None:
        self._protocol = protocol
        self._received = received

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.set_protocol(self._protocol)
        self._protocol.connection_made(transport)
        if self._received:
            self._protocol.data_received(self._received)
            asyncio.get_running_loop().call_soon(_pause_again, transport)


def _pause_again(transport: asyncio.Transport) -> None:
    """Pause where that was asked for at the hand-over: Python 3.11.2 begins to read behind it."""
    if not transport.is_reading():
        transport.resume_reading()
        transport.pause_reading()
