"""A channel: gRPC calls over one HTTP/2 connection in the clear, one at a time and with bounded answers.

The ``h2`` library keeps the protocol's state; it is imported by whoever imports this module, so that is
done only where a dish is set (docs/dependencies.md). After gRPC's "gRPC over HTTP2"; nothing is compressed.
"""

from __future__ import annotations

import asyncio
import struct
from contextlib import suppress
from types import TracebackType
from typing import Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import H2Error

from ...protocol.errors import RemoteError, UnreachableError
from ..http.address import HostPort

LIMIT_BYTES = 512 << 10
"""Of all that comes over one connection, framing and all."""
READ_BYTES = 4 << 10
EVENTS_LIMIT = 512
"""Of frames and what they bring: tiny ones cost the library far more than their bytes."""
_WINDOW_BYTES = 512 << 10
_FIRST_WINDOW_BYTES = 65_535
_SETTINGS = b"\x04"
"""The kind of a server's first frame (RFC 9113 section 3.4)."""
_FRAME = struct.Struct(">BI")


class Channel:
    """One connection to ``where``; use as ``async with``, within a deadline of the caller's."""

    def __init__(self, where: HostPort) -> None:
        self._where = where
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self._heard_bytes = self._events = 0

    async def __aenter__(self) -> Self:
        """Connect; raises ``UnreachableError``."""
        try:
            self._reader, self._writer = await asyncio.open_connection(*self._where, limit=READ_BYTES)
        except OSError as error:
            message = f"nothing answers at {self._where.host}:{self._where.port}"
            raise UnreachableError(message) from error
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_WINDOW_BYTES - _FIRST_WINDOW_BYTES)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the connection, whatever state it is in."""
        del kind, error, trace
        self._writer.transport.abort()
        with suppress(OSError):
            await self._writer.wait_closed()

    async def call(self, path: str, message: bytes) -> bytes:
        """Send one message to a method and return the first one of the answer.

        Raises:
            UnreachableError: the connection broke.
            RemoteError: ``grpc`` where the method says no; ``malformed`` or ``oversized`` for no answer.

        """
        answer = _Answer(self._h2.get_next_available_stream_id())
        try:
            self._h2.send_headers(answer.stream, self._heads(path))
            self._h2.send_data(answer.stream, _FRAME.pack(0, len(message)) + message, end_stream=True)
            while not answer.ended:
                await self._send()
                data = await self._reader.read(READ_BYTES)
                if not data:
                    raise UnreachableError("the dish closed the connection")
                if not self._heard_bytes and data[3:4] not in (
                    b"",
                    _SETTINGS,
                ):  # the library would wait for more
                    raise RemoteError("the dish does not speak HTTP/2", reason="malformed")
                self._heard_bytes += len(data)
                events = self._h2.receive_data(data)
                self._events += len(events)
                if self._heard_bytes > LIMIT_BYTES or self._events > EVENTS_LIMIT:
                    raise RemoteError("the dish's answer has no end", reason="oversized")
                for event in events:
                    self._take(answer, event)
        except H2Error as error:
            raise RemoteError("the dish does not speak HTTP/2", reason="malformed") from error
        except OSError as error:
            raise UnreachableError("the connection to the dish broke") from error
        return answer.message()

    def _heads(self, path: str) -> list[tuple[str, str]]:
        return [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", f"/{path}"),
            (":authority", f"{self._where.host}:{self._where.port}"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ]

    async def _send(self) -> None:
        if data := self._h2.data_to_send():
            self._writer.write(data)
            await self._writer.drain()

    def _take(self, answer: _Answer, event: Event) -> None:
        if isinstance(event, DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
        answer.take(event)


class _Answer:
    """What has come of one call."""

    def __init__(self, stream: int) -> None:
        self.stream = stream
        self.ended = False
        self._heads: dict[bytes, bytes] = {}
        self._data = bytearray()

    def take(self, event: Event) -> None:
        """Take what happened; raises ``RemoteError`` ``grpc`` where the call was cut short."""
        if isinstance(event, ConnectionTerminated):
            raise RemoteError("the dish ended the connection", reason="grpc")
        if getattr(event, "stream_id", None) != self.stream:
            return
        if isinstance(event, ResponseReceived | TrailersReceived):
            self._heads.update((bytes(name), bytes(value)) for name, value in event.headers or [])
        elif isinstance(event, DataReceived):
            self._data += event.data or b""
        elif isinstance(event, StreamReset):
            raise RemoteError("the dish broke the call off", reason="grpc")
        elif isinstance(event, StreamEnded):
            self.ended = True

    def message(self) -> bytes:
        """Return the first message; raises ``RemoteError`` as ``Channel.call``."""
        status, code = (self._heads.get(name, b"") for name in (b":status", b"grpc-status"))
        if status != b"200" or code != b"0":
            said = code if status == b"200" else status
            raise RemoteError(f"the dish refused ({said[:8].decode('ascii', 'replace')})", reason="grpc")
        if len(self._data) >= _FRAME.size:
            packed, size = _FRAME.unpack_from(self._data)
            if not packed and size <= len(self._data) - _FRAME.size:
                return bytes(self._data[_FRAME.size : _FRAME.size + size])
        raise RemoteError("the dish's answer is no message", reason="malformed")
