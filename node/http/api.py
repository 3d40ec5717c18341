"""The aiohttp carrier: every HTTP/1.1 request that the byte protocol does not answer by itself."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import aclosing, suppress
from http import HTTPStatus
from typing import Any

from aiohttp import HttpVersion11, web
from aiohttp.web_protocol import RequestHandler

from ...protocol.errors import RefusedError, UnreachableError
from .address import plain
from .exchange import Answer, Exchange, Router
from .files import FileCache
from .governor import Governor
from .meter import Meter
from .reply import BODILESS, LINGER
from .tally import Tally

__all__ = ["BODILESS", "LINGER", "READ_TIMEOUT_S", "SLOWEST_BYTES_S", "ApiServer", "too_large"]

READ_TIMEOUT_S = 30.0
"""A request body arrives within this, plus its size at ``SLOWEST_BYTES_S``."""
SLOWEST_BYTES_S = 16 << 10
STALL_S = 30.0
"""A client that takes nothing for this long loses its connection."""
IDLE_S = 60.0
_OPTIONS: dict[str, Any] = {
    "lingering_time": 2.0,
    "auto_decompress": False,
    "access_log": None,
}
_SMALL_BYTES = 64 << 10
_USER_TIMEOUT: int = getattr(socket, "TCP_USER_TIMEOUT", 0)

Admit = Callable[[str], Callable[[], None] | None]
"""Takes a client's address; returns what to call when its connection ends, None where it may not speak."""


class ApiServer:
    """Serves a router over connections it is handed; the protocol factory is ``protocol()``."""

    def __init__(
        self,
        router: Router,
        files: FileCache,
        plain: Tally,
        secure: Tally,
        meter: Meter | None = None,
        *,
        idle_s: float = IDLE_S,
        stall_s: float = STALL_S,
        admit: Admit | None = None,
    ) -> None:
        """Answer through ``router``, counting clear connections in ``plain``, TLS in ``secure``.

        ``meter`` paces and counts what is sent; a connection unused for ``idle_s``, or whose client
        takes nothing for ``stall_s``, is closed, and one that ``admit`` refuses is not read at all.
        """
        self._idle_s = idle_s
        self._stall_s = stall_s
        self._admit = admit
        self._meter = meter or Meter(Governor())
        self._router = router
        self._files = files
        self._plain = plain
        self._secure = secure
        self._server = web.Server(self._handle, handler_cancellation=True)

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._server.connections)

    def protocol(self, lost: Callable[[], None] = lambda: None) -> ApiProtocol:
        """Return a fresh protocol for one accepted connection; ``lost`` is called once when it ends."""
        return ApiProtocol(
            self._server, self._router, self._plain, lost,
            idle_s=self._idle_s, stall_s=self._stall_s, admit=self._admit,
        )  # fmt: skip

    async def close(self, drain_s: float) -> None:
        """End idle connections now, and busy ones within ``drain_s``."""
        self._server.pre_shutdown()
        await self._server.shutdown(drain_s)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError
        protocol = request.protocol
        assert isinstance(protocol, ApiProtocol)
        secure = transport.get_extra_info("sslcontext") is not None
        headers: dict[str, str] = {}
        for name, value in request.headers.items():
            name = name.lower()  # noqa: PLW2901 - header names compare without case
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        try:
            exchange = Exchange.of(
                request.method,
                request.raw_path,
                headers,
                peer=plain(request.remote or ""),
                secure=secure,
                reader=lambda limit: _read(request, limit),
                is_open=protocol.is_open,
            )
        except RefusedError as error:
            answer = self._router.fail(error, plain(request.remote or ""))
        else:
            try:
                answer = await self._router.handle(exchange)
            except asyncio.CancelledError:
                self._router.refused("client_gone")
                raise
        return await self._send(request, transport, answer, self._secure if secure else self._plain)

    async def _send(
        self, request: web.BaseRequest, transport: asyncio.Transport, answer: Answer, tally: Tally
    ) -> web.StreamResponse:
        headers = {"server": "farcast", **answer.headers}
        peer = plain(request.remote or "")
        length, whole = answer.length, answer.body
        tally.answered(answer.status)
        if answer.status in BODILESS:
            length, whole = None, b""
        elif length is not None:
            headers["content-length"] = str(length)
        if request.method == "HEAD":
            whole = b""
        elif isinstance(whole, bytes) and len(whole) <= _SMALL_BYTES:
            tally.sent_bytes += len(whole)
            self._meter.governor.flow(peer).bytes += len(whole)
            return web.Response(status=answer.status, headers=headers, body=whole)
        response = web.StreamResponse(status=answer.status, headers=headers)
        if length is None and answer.status not in BODILESS and request.version >= HttpVersion11:
            response.enable_chunked_encoding()
        try:
            async with asyncio.timeout(STALL_S):
                await response.prepare(request)
            if request.method != "HEAD":
                async with aclosing(self._files.stream(answer)) as chunks:
                    async for chunk in chunks:
                        await self._meter.spend(peer, len(chunk))
                        async with asyncio.timeout(self._stall_s):
                            await response.write(chunk)
                        tally.sent_bytes += len(chunk)
            async with asyncio.timeout(STALL_S):
                await response.write_eof()
        except asyncio.CancelledError:
            reset(transport)
            raise
        except Exception as error:  # noqa: BLE001 - part of the body is out, so only a reset can tell
            reset(transport)
            self._router.cut_short(error)
        return response


class ApiProtocol(RequestHandler):
    """aiohttp's protocol; what it cannot read is counted and answered as every other refusal.

    Its own way logs a traceback and the sender's address for each malformed request.
    """

    __slots__ = ("_admit", "_left", "_lost", "_plain", "_router", "_stall_s")

    def __init__(
        self,
        server: web.Server,
        router: Router,
        plain: Tally,
        lost: Callable[[], None],
        *,
        idle_s: float = IDLE_S,
        stall_s: float = STALL_S,
        admit: Admit | None = None,
    ) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), keepalive_timeout=idle_s, **_OPTIONS)
        self._admit = admit
        self._stall_s = stall_s
        self._left = False
        self._router = router
        self._plain = plain
        self._lost: Callable[[], None] | None = lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or end at once where the client is not admitted."""
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and _USER_TIMEOUT:
            # aiohttp has no clock for what it has written: the kernel sees a client that takes none of it
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, int(self._stall_s * 1_000))
        if self._admit is not None and isinstance(transport, asyncio.Transport):
            name = transport.get_extra_info("peername")
            self._lost = self._admit(plain(name[0]) if name else "")
            if self._lost is None:
                transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell of the end."""
        self._left |= exc is not None
        super().connection_lost(exc)
        self.lost()

    def eof_received(self) -> None:
        """Note that it was the client who closed."""
        self._left = True
        super().eof_received()

    def is_open(self) -> bool:
        """Say whether the client has not closed the connection; one that this box closed tells nothing."""
        return not self._left

    def lost(self) -> None:
        """Tell of the end, once."""
        if self._lost is not None:
            lost, self._lost = self._lost, None
            lost()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a problem and close; raises ``ConnectionError`` where part of an answer is out."""
        del message
        if request.writer.output_size > 0:
            raise ConnectionError("part of an answer was sent already")
        error = exc if isinstance(exc, Exception) else TimeoutError()
        if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            error = RefusedError("this is no request that can be read", status=status, reason="bad_request")
        answer = self._router.fail(error, plain(request.remote or ""))
        self._plain.answered(answer.status)
        response = web.Response(status=answer.status, headers=answer.headers, body=answer.body)
        response.force_close()
        return response


async def _read(request: web.BaseRequest, limit_bytes: int) -> bytes:
    declared = request.content_length
    if declared is not None and declared > limit_bytes:
        raise too_large(limit_bytes)
    if request.headers.get("expect", "").lower() == "100-continue" and request.can_read_body:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = bytearray()
    try:
        async with asyncio.timeout(READ_TIMEOUT_S + limit_bytes / SLOWEST_BYTES_S):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit_bytes:
                    raise too_large(limit_bytes)
    except TimeoutError as error:
        raise RefusedError("the request body came too slowly", status=408, reason="slow_body") from error
    except web.RequestPayloadError as error:
        raise RefusedError("a malformed request body", status=400, reason="bad_request") from error
    except ConnectionError as error:
        raise UnreachableError("the client went away", reason="client_gone") from error
    return bytes(body)


def too_large(limit_bytes: int) -> RefusedError:
    """Return the refusal of a body over its limit."""
    message = f"the request body is over the limit of {limit_bytes} bytes"
    return RefusedError(message, status=413, reason="body_too_large")


def reset(transport: asyncio.Transport) -> None:
    """End a connection with RST, so that what was sent cannot pass for a complete answer."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
    transport.abort()
