"""The QUIC engine behind one narrow interface: an HTTP/3 session as bytes in, events and bytes out.

Nothing outside this module knows which library speaks QUIC, so another engine can take its place.
Sans-IO: time is an argument, datagrams go in and come out; a shell owns the socket and the timer.
Two faults of qh3 2.1 are met here: a client with an empty connection id is never answered by it
(``Ids.source`` is empty; a server must drop those), and building a datagram may fail with "packet
builder capacity exhausted": what was built before is sent, the rest waits for the next turn.
"""

from __future__ import annotations

import logging
import ssl
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from qh3.h3.connection import H3Connection
from qh3.h3.events import DataReceived, H3Event, HeadersReceived, StopSending, StreamReset
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection, QuicConnectionError
from qh3.quic.events import (
    ConnectionIdIssued,
    ConnectionIdRetired,
    ConnectionTerminated,
    HandshakeCompleted,
    QuicEvent,
)
from qh3.quic.packet import encode_quic_retry, encode_quic_version_negotiation

from ...protocol.errors import UnreachableError
from .datagram import Address
from .tls import Certificate

if TYPE_CHECKING:
    from qh3._hazmat import QuicConnectionCore

# the engine warns of every peer that closes; reasons are events here
logging.getLogger("quic").setLevel(logging.CRITICAL)

NO_ERROR = 0x100
INTERNAL_ERROR = 0x102
EXCESSIVE_LOAD = 0x107
REQUEST_CANCELLED = 0x10C
"""Application error codes (RFC 9114 section 8.1)."""

VERSION = 1
INITIAL_BYTES = 1_200
DATAGRAM_BYTES = 1_232
"""Passes every IPv6 path (RFC 8200 section 5: 1280 bytes with headers)."""
ID_BYTES = 8
IDLE_S = 30.0
_LONG_HEADER = 0x80
_FIXED_BIT = 0x40
_TYPE_BITS = 0x30
_ID_LIMIT_BYTES = 20

Headers = Sequence[tuple[bytes, bytes]]


class Ids(NamedTuple):
    """What a server must know of a datagram before any key (RFC 8999, RFC 9000 section 17.2)."""

    version: int
    """0 for a short header, which has none."""
    destination: bytes
    source: bytes
    initial: bool
    token: bytes


class Opened(NamedTuple):
    """The handshake is done; ``certificate`` is the server's (DER) on the client's side, else empty."""

    certificate: bytes


class Head(NamedTuple):
    """A head, or trailers where a head came before."""

    stream: int
    headers: Headers
    ended: bool


class Data(NamedTuple):
    """Bytes of a body; ``ended`` with the last, which may be empty."""

    stream: int
    data: bytes
    ended: bool


class Reset(NamedTuple):
    """The peer ended its half of the stream abnormally: nothing more will come."""

    stream: int
    code: int


class Stopped(NamedTuple):
    """The peer wants no more of what we send on the stream."""

    stream: int
    code: int


class IdIssued(NamedTuple):
    """The peer may address this session by ``id`` from now on."""

    id: bytes


class IdRetired(NamedTuple):
    """The peer no longer uses ``id``."""

    id: bytes


class Closed(NamedTuple):
    """The session is over; nothing can be sent."""

    code: int
    reason: str


Event = Opened | Head | Data | Reset | Stopped | IdIssued | IdRetired | Closed


class Session:
    """One QUIC connection that speaks HTTP/3, as client or server."""

    def __init__(self, quic: QuicConnection) -> None:
        """Wrap a fresh engine connection; use ``client`` or ``server``."""
        self._quic = quic
        self._h3: H3Connection | None = None
        self._events: deque[Event] = deque()
        self._sending: set[int] = set()
        self._closed = False
        self._client = quic.configuration.is_client
        self.faults = 0
        self.id: bytes = quic.host_cid

    @classmethod
    def client(cls, address: Address, now: float) -> Session:
        """Begin a handshake with ``address``; any certificate passes, so the caller checks ``Opened``."""
        configuration = QuicConfiguration(
            is_client=True,
            alpn_protocols=["h3"],
            verify_mode=ssl.CERT_NONE,
            idle_timeout=IDLE_S,
            max_datagram_size=DATAGRAM_BYTES,
            max_datagram_frame_size=65_536,
        )
        quic = QuicConnection(configuration=configuration)
        quic.connect(address, now=now)
        return cls(quic)

    @classmethod
    def server(cls, configuration: QuicConfiguration, original: bytes, retried: bytes = b"") -> Session:
        """Begin to answer a client whose first Initial was for ``original`` (``retried`` after a Retry)."""
        return cls(
            QuicConnection(
                configuration=configuration,
                original_destination_connection_id=original,
                retry_source_connection_id=retried or None,
            )
        )

    @property
    def wake_at(self) -> float | None:
        """When ``tick`` must be called, in the clock of ``now``."""
        return None if self._closed else self._quic.get_timer()

    @property
    def room(self) -> int:
        """How many more requests the peer lets us open now."""
        return self._quic.max_concurrent_bidi_streams - self._quic.open_outbound_streams

    def receive(self, datagrams: list[bytes], address: Address, now: float) -> None:
        """Take in datagrams from ``address``."""
        with self._guard():
            self._quic.receive_many_datagrams(datagrams, address, now=now)
            self._drain()

    def tick(self, now: float) -> None:
        """Let timers that are due run: loss, idle time-out, delayed acknowledgements."""
        with self._guard():
            self._quic.handle_timer(now=now)
            self._drain()

    def take(self, now: float) -> list[tuple[bytes, Address]]:
        """Return the datagrams that may be sent now."""
        out: list[tuple[bytes, Address]] = []
        core = self._core  # not datagrams_to_send: it drops what it has built when the next one fails
        if core is None:
            return out
        try:
            while (built := core.poll_transmit(now)) is not None:
                out.append((built[0], built[1]))
        except RuntimeError:
            self.faults += 1
        return out

    def next_event(self) -> Event | None:
        """Return what happened next, or None."""
        return self._events.popleft() if self._events else None

    def open(self, headers: Headers, *, end: bool) -> int:
        """Send a request head on a new stream and return the stream.

        Raises:
            UnreachableError: ``closed``: the session is over.

        """
        if self._closed:
            raise UnreachableError("the connection is closed", reason="closed")
        stream = self._quic.get_next_available_stream_id()
        self._sending.add(stream)
        self.send_head(stream, headers, end=end)
        return stream

    def send_head(self, stream: int, headers: Headers, *, end: bool) -> None:
        """Send a head; nothing happens on a stream that the peer has stopped."""
        if self._sends(stream, end=end) and self._h3 is not None:
            with self._guard():
                self._h3.send_headers(stream, list(headers), end_stream=end)

    def send(self, stream: int, data: bytes, *, end: bool) -> None:
        """Queue bytes of a body; mind ``queued``. Nothing happens on a stopped stream."""
        if self._sends(stream, end=end) and self._h3 is not None:
            with self._guard():
                self._h3.send_data(stream, data, end_stream=end)

    def queued(self, stream: int | None = None) -> int:
        """Return the bytes of ``stream``, or of all, that wait for their first sending."""
        return 0 if self._closed else self._quic.get_send_buffer_size(stream)

    def reset(self, stream: int, code: int) -> None:
        """End our half of ``stream`` abnormally; harmless where it has already ended."""
        if self._sends(stream, end=True):
            with suppress(QuicConnectionError):
                self._quic.reset_stream(stream, code)

    def stop(self, stream: int, code: int) -> None:
        """Tell the peer to send no more on ``stream``; harmless where it has ended."""
        if not self._closed:
            with suppress(QuicConnectionError):
                self._quic.stop_stream(stream, code)

    def close(self, code: int = NO_ERROR, reason: str = "") -> None:
        """Close the session; ``take`` then returns its last datagram."""
        if not self._closed:
            self._quic.close(error_code=code, reason_phrase=reason)

    @property
    def _core(self) -> QuicConnectionCore | None:
        return self._quic._core  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]

    @contextmanager
    def _guard(self) -> Generator[None, None, None]:
        """End the session, and nothing else, where a peer's bytes trip the engine."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the engine has no one type for its failures
            self.faults += 1
            with suppress(Exception):
                self._quic.close(error_code=INTERNAL_ERROR)
            self._end(INTERNAL_ERROR, str(error))

    def _sends(self, stream: int, *, end: bool) -> bool:
        if stream not in self._sending:
            return False
        if end:
            self._sending.discard(stream)
        return True

    def _drain(self) -> None:
        while (event := self._quic.next_event()) is not None:
            self._translate(event)
        core = self._core
        if core is not None and core.state in ("draining", "terminated"):
            self._end(NO_ERROR, "closed by the peer")  # the engine itself tells only after some seconds

    def _translate(self, event: QuicEvent) -> None:
        if isinstance(event, HandshakeCompleted):
            # not earlier: control streams in the first flight trip the packet builder, which loses it
            self._h3 = H3Connection(self._quic)
            certificate = self._quic.get_peercert()
            self._events.append(Opened(certificate.public_bytes() if certificate is not None else b""))
        elif isinstance(event, ConnectionIdIssued):
            self._events.append(IdIssued(event.connection_id))
        elif isinstance(event, ConnectionIdRetired):
            self._events.append(IdRetired(event.connection_id))
        elif isinstance(event, ConnectionTerminated):
            self._end(event.error_code, event.reason_phrase)
        elif self._h3 is not None:
            for each in self._h3.handle_event(event):
                self._translate_h3(each)

    def _translate_h3(self, event: H3Event) -> None:
        if isinstance(event, DataReceived):
            self._events.append(Data(event.stream_id, event.data, event.stream_ended))
        elif isinstance(event, HeadersReceived):
            if not self._client:
                self._sending.add(event.stream_id)
            self._events.append(Head(event.stream_id, event.headers, event.stream_ended))
        elif isinstance(event, StreamReset):
            self._events.append(Reset(event.stream_id, event.error_code))
        elif isinstance(event, StopSending):
            self._sending.discard(event.stream_id)
            self._events.append(Stopped(event.stream_id, event.error_code))

    def _end(self, code: int, reason: str) -> None:
        if not self._closed:
            self._closed = True
            self._sending.clear()
            self._events.append(Closed(code, reason))


def server_configuration(certificate: Certificate) -> QuicConfiguration:
    """Return what all sessions of one server share."""
    configuration = QuicConfiguration(
        is_client=False,
        alpn_protocols=["h3"],
        idle_timeout=IDLE_S,
        connection_id_length=ID_BYTES,
        max_datagram_size=DATAGRAM_BYTES,
        max_datagram_frame_size=65_536,
    )
    configuration.load_cert_chain(certificate.certificate_pem, certificate.key_pem)  # pyright: ignore[reportUnknownMemberType]
    return configuration


def read_ids(datagram: bytes) -> Ids | None:
    """Read the connection ids of a datagram; None where it cannot be QUIC."""
    if len(datagram) <= ID_BYTES:
        return None
    first = datagram[0]
    if not first & _LONG_HEADER:
        return Ids(0, datagram[1 : 1 + ID_BYTES], b"", initial=False, token=b"")
    version = int.from_bytes(datagram[1:5], "big")
    try:
        destination, at = _sized(datagram, 5)
        source, at = _sized(datagram, at)
        initial = version == VERSION and not first & _TYPE_BITS
        token = _token(datagram, at) if initial else b""
    except IndexError:
        return None
    if version == VERSION and not (
        first & _FIXED_BIT and max(len(destination), len(source)) <= _ID_LIMIT_BYTES
    ):
        return None
    return Ids(version, destination, source, initial, token)


def negotiation(ids: Ids) -> bytes:
    """Return the packet that names the versions we speak (RFC 9000 section 17.2.1)."""
    return encode_quic_version_negotiation(
        source_cid=ids.destination, destination_cid=ids.source, supported_versions=[VERSION]
    )


def retry(ids: Ids, id: bytes, token: bytes) -> bytes:  # noqa: A002 - QUIC calls it so
    """Return the packet that asks a client to prove its address (RFC 9000 section 17.2.5)."""
    return encode_quic_retry(
        version=VERSION,
        source_cid=id,
        destination_cid=ids.source,
        original_destination_cid=ids.destination,
        retry_token=token,
    )


def _token(datagram: bytes, at: int) -> bytes:
    """Read the token of an Initial, whose length is a variable-length integer (RFC 9000 section 16)."""
    width = 1 << (datagram[at] >> 6)
    length = int.from_bytes(datagram[at : at + width], "big") & ((1 << (8 * width - 2)) - 1)
    return _span(datagram, at + width, length)


def _sized(datagram: bytes, at: int) -> tuple[bytes, int]:
    length = datagram[at]
    return _span(datagram, at + 1, length), at + 1 + length


def _span(datagram: bytes, at: int, length: int) -> bytes:
    if at + length > len(datagram):
        raise IndexError
    return datagram[at : at + length]
