"""Requests over TCP: to boxes by TLS pinned to their key; plainly to CDN addresses, and for blocks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from types import SimpleNamespace

from aiohttp import (
    ClientError,
    ClientPayloadError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    Fingerprint,
    InvalidURL,
    ServerFingerprintMismatch,
    TraceConfig,
)
from yarl import URL

from ...protocol.errors import RemoteError, UnreachableError
from ...protocol.identity import peer_id
from ...protocol.ports import Reply
from .dualstack import ATTEMPT_S
from .names import NamedConnector, Names
from .tls import peer_key

CONNECTIONS = 256
IDLE_S = 10.0
"""How long a connection is kept unused: one that died in silence must not outlive the wait for a probe."""
_READ_BYTES = 256 << 10
_AUTOMATIC = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")


class Ask:
    """One attempt; ``connected`` once a connection is there, so that the request may have left."""

    def __init__(self) -> None:
        """Nothing is sent yet."""
        self.connected = asyncio.Event()

    @property
    def sent(self) -> bool:
        """Whether the request may have left."""
        return self.connected.is_set()


class TcpCarrier:
    """An HTTP/1.1 client that follows no redirect, keeps no cookie and negotiates no content."""

    def __init__(self, *, allow_private: bool, names: Names | None = None) -> None:
        """Dial only public addresses unless ``allow_private``; needs a running loop."""
        self._names = names or Names(str, allow_private=allow_private)
        trace = TraceConfig()
        trace.on_connection_create_end.append(_mark)
        trace.on_connection_reuseconn.append(_mark)
        self._session = ClientSession(
            connector=NamedConnector(
                self._names,
                limit=CONNECTIONS,
                keepalive_timeout=IDLE_S,
                socket_factory=self._socket,
                happy_eyeballs_delay=ATTEMPT_S,
            ),
            cookie_jar=DummyCookieJar(),
            timeout=ClientTimeout(total=None),
            skip_auto_headers=_AUTOMATIC,
            auto_decompress=False,
            read_bufsize=_READ_BYTES,
            trace_configs=[trace],
            trust_env=False,
        )

    async def request(
        self,
        method: str,
        url: str,
        key: bytes,
        *,
        body: bytes,
        headers: Mapping[str, str],
        limit_bytes: int,
        ask: Ask,
        arrived: Callable[[int], None] | None = None,
        silence_s: float | None = None,
    ) -> Reply:
        """Make one request; with ``key``, ``url`` is https and the peer must own that key.

        ``arrived`` is told the bytes of the body as they come; ``silence_s`` bounds every wait for more.

        Raises:
            UnreachableError: refused, reset, or ended short.
            RemoteError: ``wrong_key`` or ``malformed``; ``too_large`` past ``limit_bytes``.

        """
        response = await self._open(method, url, key, body, headers, ask, silence_s)
        try:
            declared = response.content_length
            data = bytearray()
            if declared is None or declared <= limit_bytes or method == "HEAD":
                async for chunk in response.content.iter_any():
                    data += chunk
                    if arrived is not None:
                        arrived(len(chunk))
                    if len(data) > limit_bytes:
                        break
                else:
                    return Reply(response.status, _fields(response), bytes(data))
            message = f"an answer from {url} over the limit of {limit_bytes} bytes"
            raise RemoteError(message, reason="too_large")
        except (ClientError, OSError) as error:
            raise _unreachable(url, error) from error
        finally:
            response.close() if not response.content.at_eof() else response.release()

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def _open(
        self,
        method: str,
        url: str,
        key: bytes,
        body: bytes,
        headers: Mapping[str, str],
        ask: Ask,
        silence_s: float | None = None,
    ) -> ClientResponse:
        try:
            return await self._session.request(
                method,
                URL(url, encoded=True),
                data=body or None,
                headers=headers,
                allow_redirects=False,
                ssl=KeyPin(key) if key else True,
                trace_request_ctx=ask,
                timeout=ClientTimeout(total=None, sock_read=silence_s),
            )
        except KeyMismatchError as error:
            raise error.reason from error
        except InvalidURL as error:
            raise RemoteError(f"{url[:80]!r} is no address to dial", reason="malformed") from error
        except (ClientError, OSError, ValueError) as error:
            raise _unreachable(url, error) from error

    def _socket(self, info: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
        """Make the socket for one resolved address, or refuse to dial it."""
        family, kind, proto, _, address = info
        if not self._names.may_dial(str(address[0])):
            raise PrivateAddressError(f"{address[0]} is a private address, which is never dialled from here")
        return socket.socket(family, kind, proto)


class PrivateAddressError(OSError):
    """A name or directory entry led to an address that must not be dialled."""


class KeyMismatchError(ServerFingerprintMismatch):
    """The TLS peer is not the owner of the key it was dialled by."""

    def __init__(self, reason: RemoteError, key: bytes, host: str, port: int) -> None:
        """Keep why."""
        super().__init__(key, b"", host, port)
        self.reason = reason


class KeyPin(Fingerprint):
    """Lets a TLS connection pass only where ``peer_key`` of its certificate is ``key``.

    Equal for equal keys, so that connections are shared between requests for one box.
    """

    def __init__(self, key: bytes) -> None:
        """Pin to ``key``, an Ed25519 public key."""
        self._key = key

    @property
    def fingerprint(self) -> bytes:
        """The pinned key."""
        return self._key

    def check(self, transport: asyncio.Transport) -> None:
        """Check the peer before anything is sent; raises ``KeyMismatchError``."""
        certificate = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        try:
            key = peer_key(certificate or b"")
        except RemoteError as error:
            failure = error
        else:
            if key == self._key:
                return
            failure = RemoteError(f"the peer is {peer_id(key)}, not {peer_id(self._key)}", reason="wrong_key")
        host, port, *_ = transport.get_extra_info("peername")
        raise KeyMismatchError(failure, self._key, host, port)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyPin) and other._key == self._key

    def __hash__(self) -> int:
        return hash(self._key)


async def _mark(_: ClientSession, context: SimpleNamespace, __: object) -> None:
    context.trace_request_ctx.connected.set()


def _fields(response: ClientResponse) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, value in response.headers.items():
        lower = name.lower()
        fields[lower] = f"{fields[lower]}, {value}" if lower in fields else value
    return fields


def _unreachable(url: str, error: Exception) -> UnreachableError:
    cause = getattr(error, "os_error", error)
    reason = "unreachable"
    if isinstance(cause, PrivateAddressError):
        reason = "private_address"
    elif isinstance(error, ClientPayloadError):
        reason = "truncated"
    return UnreachableError(f"{url.partition('?')[0]}: {cause}", reason=reason)
