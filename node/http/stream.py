"""Streams: connections that speak a protocol of our own by TLS, told from HTTP by their ALPN name (RFC 7301).

They share the public port with HTTP. The dialled box proves its key by its certificate before the protocol
hears of the connection; who dialled is the protocol's to find out.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence

from ...protocol.errors import RemoteError, UnreachableError
from ...protocol.identity import peer_id
from .bytes import tune
from .quic.attempts import Found
from .tls import client_context, peer_key

Streams = Mapping[str, Callable[[Callable[[], None]], asyncio.BaseProtocol]]
"""By ALPN name what makes the protocol of an accepted connection, told what to call at its end."""


async def dial_stream(
    addresses: Sequence[Found], key: bytes, alpn: str, protocol: Callable[[], object], timeout_s: float
) -> None:
    """Connect to the owner of ``key`` by the first address that answers, and let ``protocol`` serve it.

    Raises:
        UnreachableError, RemoteError: as ``ports.StreamDialer``.

    """
    failure: RemoteError = UnreachableError("there is no address to try", reason="no_address")
    context = client_context()
    context.set_alpn_protocols([alpn])
    for family, address in addresses:
        host = str(address[0])
        gate = _Gate(key, alpn, protocol)
        try:
            async with asyncio.timeout(timeout_s):
                await _connect(family, host, address, context, gate)
        except (OSError, EOFError, TimeoutError) as error:
            text = "silence" if isinstance(error, TimeoutError) else str(error)
            failure = UnreachableError(f"{peer_id(key)} at {host}: {text}")
            continue
        if gate.failure is None:
            return
        failure = gate.failure
    raise failure


class ByAlpn(asyncio.Protocol):
    """Stands before the protocol of an accepted TLS connection until its ALPN name says which that is."""

    def __init__(self, streams: Streams, http: asyncio.Protocol, gone: Callable[[], None]) -> None:
        """Serve ``http`` unless a name of ``streams`` was agreed on."""
        self._streams, self._http, self._gone = streams, http, gone
        self.streaming = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Step aside."""
        assert isinstance(transport, asyncio.Transport)
        name = transport.get_extra_info("ssl_object").selected_alpn_protocol()
        made = self._streams.get(name or "")
        self.streaming = made is not None
        protocol = made(self._gone) if made is not None else self._http
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


class _Gate(asyncio.Protocol):
    """Lets a dialled connection pass to its protocol where the peer is who it should be."""

    def __init__(self, key: bytes, alpn: str, protocol: Callable[[], object]) -> None:
        self._key, self._alpn, self._protocol = key, alpn, protocol
        self.failure: RemoteError | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        try:
            self._check(transport.get_extra_info("ssl_object"))
        except RemoteError as error:
            self.failure = error
            transport.abort()
            return
        protocol = self._protocol()
        assert isinstance(protocol, asyncio.BaseProtocol)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)

    def _check(self, tls: ssl.SSLObject) -> None:
        key = peer_key(tls.getpeercert(binary_form=True) or b"")
        if key != self._key:
            message = f"the peer is {peer_id(key)}, not {peer_id(self._key)}"
            raise RemoteError(message, reason="wrong_key")
        if tls.selected_alpn_protocol() != self._alpn:
            raise RemoteError(f"{peer_id(key)} does not speak {self._alpn}", reason="unknown_alpn")


async def _connect(
    family: int, host: str, address: Iterable[object], context: ssl.SSLContext, gate: _Gate
) -> None:
    loop = asyncio.get_running_loop()
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, tuple(address))
        tune(sock, host)
        await loop.create_connection(lambda: gate, sock=sock, ssl=context, server_hostname="")
    except BaseException:
        sock.close()
        raise
