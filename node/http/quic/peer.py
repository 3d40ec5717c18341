"""One client of the HTTP/3 server: its session, its requests, and their answers."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from ....protocol.errors import RefusedError, RemoteError, UnreachableError
from ..address import plain
from ..api import BODILESS, READ_TIMEOUT_S, SLOWEST_BYTES_S, too_large
from ..exchange import Answer, Exchange
from ..head import FIELD_LIMIT, HEAD_LIMIT_BYTES
from .datagram import Endpoint
from .link import Link
from .session import (
    EXCESSIVE_LOAD,
    INTERNAL_ERROR,
    NO_ERROR,
    Address,
    Closed,
    Data,
    Event,
    Head,
    Headers,
    IdIssued,
    IdRetired,
    Opened,
    Reset,
    Session,
    Stopped,
)

if TYPE_CHECKING:
    from .server import QuicServer

BODY_BYTES = 8 << 20
"""What one request body may hold unread; a handler's own limit is usually smaller."""
UNREAD_BYTES = 128 << 20
"""The same for all requests of the server."""
HANDSHAKE_S = 5.0
"""What a handshake may take before its session is dropped."""
RESETS = 100
"""Cancelled requests forgiven a connection, besides four for each one it let finish."""


class _Request:
    """One request as it arrives."""

    __slots__ = ("body", "ended", "failure", "limit", "task", "unread", "waiter")

    def __init__(self) -> None:
        self.body = bytearray()
        self.ended = False
        self.failure: RemoteError | None = None
        self.limit = BODY_BYTES
        self.task: asyncio.Task[None] | None = None
        self.waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class Peer:
    """One client: its session, and the requests it has open."""

    def __init__(
        self,
        server: QuicServer,
        endpoint: Endpoint,
        session: Session,
        address: Address,
        *,
        network: str,
        named: bool,
    ) -> None:
        """Answer the client at ``address`` in ``network``, ``named`` by a connection id or not."""
        self.server = server
        self.link = Link(session, endpoint, self._event)
        self.ids: set[bytes] = set()
        self.network = network
        self.named = named
        self._address = plain(str(address[0]))
        self._requests: dict[int, _Request] = {}
        self._connected = False
        self._late: asyncio.TimerHandle | None = server.loop.call_later(
            HANDSHAKE_S, self.give_up, "slow_handshake"
        )
        self._finished = self._resets = 0

    def _event(self, event: Event) -> None:
        if isinstance(event, Data):
            self._data(event)
        elif isinstance(event, Head):
            self._head(event)
        elif isinstance(event, Reset | Stopped):
            self._cancel(event.stream)
        elif isinstance(event, Opened):
            self._settle()
            self._connect()
        elif isinstance(event, IdIssued):
            self.server.name(self, event.id)
        elif isinstance(event, IdRetired):
            self.server.unname(self, event.id)
        else:
            self._closed(event)

    def _settle(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
            self.server.settled(self)

    def _connect(self) -> None:
        """Take the client on, now that it has proven its address, unless the contract has no place for it."""
        refusal = self.server.meter.connect(self._address)
        if refusal is None:
            self._connected = True
        else:
            self.server.router.turn_away(refusal.reason, self._address)
            self.link.close(EXCESSIVE_LOAD)

    async def _spend(self, size_bytes: int) -> None:
        await self.server.meter.spend(self._address, size_bytes)

    def give_up(self, reason: str) -> None:
        """Drop a session whose handshake is not done, and count why; nobody unproven is told."""
        self.server.router.turn_away(reason, self._address)
        self.link.drop()

    def _closed(self, _: Closed) -> None:
        self._settle()
        if self._connected:
            self._connected = False
            self.server.meter.disconnect(self._address)
        if self.link.session.faults:
            self.server.router.refused("quic_engine_fault")
        for request in list(self._requests.values()):
            if request.task is not None:
                request.task.cancel()
        self.server.forget(self)

    def _head(self, event: Head) -> None:
        request = self._requests.get(event.stream)
        if request is not None:  # trailers: nothing in them is used
            request.ended |= event.ended
            request.wake()
            return
        request = self._requests[event.stream] = _Request()
        request.ended = event.ended
        server = self.server
        request.task = server.loop.create_task(self._serve(event.stream, request, event.headers))
        server.tasks.add(request.task)
        request.task.add_done_callback(server.tasks.discard)

    def _data(self, event: Data) -> None:
        request = self._requests.get(event.stream)
        if request is None or request.failure is not None:
            return
        request.body += event.data
        request.ended |= event.ended
        self.server.unread_bytes += len(event.data)
        if len(request.body) > request.limit:
            self._fail(event.stream, request, too_large(request.limit))
        elif self.server.unread_bytes > UNREAD_BYTES:
            busy = RefusedError(
                "too many request bodies at once", status=503, retry_after_s=1.0, reason="busy"
            )
            self._fail(event.stream, request, busy)
        request.wake()

    def _fail(self, stream: int, request: _Request, failure: RemoteError) -> None:
        if request.failure is None:
            request.failure = failure
            self.link.session.stop(stream, NO_ERROR)
        self._forget_body(request)

    def _forget_body(self, request: _Request) -> None:
        self.server.unread_bytes -= len(request.body)
        request.body.clear()

    def _cancel(self, stream: int) -> None:
        request = self._requests.get(stream)
        if request is None or request.task is None:
            return
        self._resets += 1
        self.link.abandon(stream)
        request.task.cancel()
        if self._resets > RESETS + 4 * self._finished:
            self.server.router.turn_away("too_many_resets", self._address)
            self.link.close(EXCESSIVE_LOAD)

    async def _serve(self, stream: int, request: _Request, fields: Headers) -> None:
        link, router = self.link, self.server.router
        try:
            method, answer = await self._answer(stream, request, fields)
            await self._send(stream, answer, method)
            self._finished += 1
        except asyncio.CancelledError:
            link.session.reset(stream, INTERNAL_ERROR)
            raise
        except Exception as error:  # noqa: BLE001 - part of the body is out, so only a reset can tell
            link.session.reset(stream, INTERNAL_ERROR)
            if isinstance(error, UnreachableError):
                router.refused("client_gone")
            else:
                router.cut_short(error)
        finally:
            self._requests.pop(stream, None)
            self._forget_body(request)
            if not request.ended:
                link.session.stop(stream, NO_ERROR)
            link.soon()

    async def _answer(self, stream: int, request: _Request, fields: Headers) -> tuple[str, Answer]:
        router = self.server.router
        if self.server.closing:
            error = RefusedError("this box is shutting down", status=503, retry_after_s=1.0, reason="closing")
            return "GET", router.fail(error)
        method = "GET"
        try:
            method, target, headers = read_fields(fields)
            exchange = Exchange.of(
                method,
                target,
                headers,
                peer=self._address,
                secure=True,
                reader=lambda limit: self._read(stream, request, limit, headers.get("content-length")),
            )
        except RefusedError as error:
            return method, router.fail(error, self._address)
        return method, await router.handle(exchange)

    async def _send(self, stream: int, answer: Answer, method: str) -> None:
        server, length = self.server, answer.length
        headers = {"server": "farcast", **answer.headers}
        if length is not None and answer.status not in BODILESS:
            headers["content-length"] = str(length)
        fields = [(b":status", str(answer.status).encode())]
        fields += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        server.tally.answered(answer.status)
        empty = method == "HEAD" or answer.status in BODILESS or length == 0
        self.link.session.send_head(stream, fields, end=empty)
        if not empty:
            async with aclosing(server.files.stream(answer)) as chunks:
                server.tally.sent_bytes += await self.link.pump(stream, chunks, self._spend)

    async def _read(self, stream: int, request: _Request, limit: int, declared: str | None) -> bytes:
        request.limit = min(limit, BODY_BYTES)
        if len(request.body) > limit or (declared is not None and _size(declared) > limit):
            self._fail(stream, request, too_large(limit))
        try:
            async with asyncio.timeout(READ_TIMEOUT_S + limit / SLOWEST_BYTES_S):
                while not request.ended and request.failure is None:
                    request.waiter = self.server.loop.create_future()
                    await request.waiter
        except TimeoutError as error:
            raise RefusedError("the request body came too slowly", status=408, reason="slow_body") from error
        if request.failure is not None:
            raise request.failure
        body = bytes(request.body)
        self._forget_body(request)
        if declared is not None and _size(declared) != len(body):
            raise RefusedError("a body that is not as long as it says", reason="bad_request")
        return body


def read_fields(fields: Headers) -> tuple[str, str, dict[str, str]]:
    """Split a request's fields into method, target and headers, ``:authority`` as ``host``.

    Raises:
        RefusedError: 431 past the limits of any head here; 400 without a path.

    """
    if (
        len(fields) > FIELD_LIMIT + 4
        or sum(len(name) + len(value) for name, value in fields) > HEAD_LIMIT_BYTES
    ):
        message = "a request head that is too large"
        raise RefusedError(message, status=431, reason="head_too_large")
    headers: dict[str, str] = {}
    for raw_name, raw_value in fields:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    method, target = headers.pop(":method", ""), headers.pop(":path", "")
    host = headers.pop(":authority", headers.get("host", ""))
    if headers.get("host", host) != host or not target.startswith("/"):
        raise RefusedError("a request for two hosts, or for none", reason="bad_request")
    headers.pop(":scheme", None)
    headers["host"] = host
    return method, target, headers


def _size(declared: str) -> int:
    if not (declared.isascii() and declared.isdigit() and len(declared) <= 15):  # noqa: PLR2004 - below 2^53
        raise RefusedError("a malformed Content-Length", reason="bad_request")
    return int(declared)
