"""The engine ``aioquic``: pure Python, ten times the work, for clients that have no connection id.

Those are the browsers: they tell their connections apart by port (RFC 9000 section 5.2), which the
other engine cannot answer.
"""

from __future__ import annotations

import logging

from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import (
    ConnectionIdIssued,
    ConnectionIdRetired,
    ConnectionTerminated,
    HandshakeCompleted,
    QuicEvent,
    StopSendingReceived,
    StreamReset,
)
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate

from ..tls import Certificate
from .ids import ID_BYTES, VERSION
from .session import (
    DATAGRAM_BYTES,
    IDLE_S,
    Address,
    Data,
    Head,
    IdIssued,
    IdRetired,
    Opened,
    Reset,
    Stopped,
)
from .shaped import ShapedSession

# as for the other engine: what peers do are events here
for _name in ("quic", "http3"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class AioquicSession(ShapedSession):
    """A ``Session`` on aioquic, as a server."""

    stream_bytes = 96 << 10

    def __init__(self, quic: QuicConnection) -> None:
        """Wrap a fresh connection; use ``AioquicEngine``."""
        super().__init__(quic)
        self._quic = quic
        self._heard = False

    def receive(self, datagrams: list[bytes], address: Address, now: float) -> None:
        """Take in datagrams from ``address``."""
        self._heard = True
        with self._guard():
            for datagram in datagrams:
                self._quic.receive_datagram(datagram, address, now=now)
            self._drain()

    def take(self, now: float) -> list[tuple[bytes, Address]]:
        """Return the datagrams that may be sent now."""
        out: list[tuple[bytes, Address]] = []
        if self._heard:
            with self._guard():
                out = self._quic.datagrams_to_send(now)
        return out

    @property
    def room(self) -> int:
        """None: a server opens no requests."""
        return 0

    @property
    def starved(self) -> bool:
        """Whether neither congestion window nor pacing hold back what is queued: then the peer does."""
        loss = self._quic._loss  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - it tells nowhere else
        room = loss.congestion_window - loss.bytes_in_flight
        return room >= DATAGRAM_BYTES and self._quic._pacing_at is None  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]

    def queued(self, stream: int | None = None) -> int:
        """Return the bytes of ``stream``, or of all, that wait for their first sending."""
        if self.closed:
            return 0
        streams = self._quic._streams  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - it tells nowhere else
        if stream is None:
            return sum(each.sender._buffer_stop - each.sender.next_offset for each in streams.values())  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        found = streams.get(stream)
        return 0 if found is None else found.sender._buffer_stop - found.sender.next_offset  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]

    def _translate(self, event: QuicEvent) -> None:
        if isinstance(event, HandshakeCompleted):
            self._http = H3Connection(self._quic)
            self._events.append(Opened(b""))
        elif isinstance(event, ConnectionIdIssued):
            self._events.append(IdIssued(event.connection_id))
        elif isinstance(event, ConnectionIdRetired):
            self._events.append(IdRetired(event.connection_id))
        elif isinstance(event, ConnectionTerminated):
            self._end(event.error_code, event.reason_phrase)
        elif isinstance(self._http, H3Connection):
            for each in self._http.handle_event(event):
                self._translate_http(each)
            if isinstance(event, StreamReset):
                self._events.append(Reset(event.stream_id, event.error_code))
            elif isinstance(event, StopSendingReceived):
                self._sending.discard(event.stream_id)
                self._events.append(Stopped(event.stream_id, event.error_code))

    def _translate_http(self, event: H3Event) -> None:
        if isinstance(event, DataReceived):
            self._events.append(Data(event.stream_id, event.data, event.stream_ended))
        elif isinstance(event, HeadersReceived):
            self._sending.add(event.stream_id)
            self._events.append(Head(event.stream_id, event.headers, event.stream_ended))


class AioquicEngine:
    """Begins sessions of one server; all of them share one configuration."""

    def __init__(self, certificate: Certificate) -> None:
        """Serve as the owner of ``certificate``."""
        self._configuration = QuicConfiguration(
            is_client=False,
            alpn_protocols=["h3"],
            idle_timeout=IDLE_S,
            connection_id_length=ID_BYTES,
            max_datagram_size=DATAGRAM_BYTES,
            max_datagram_frame_size=65_536,
            supported_versions=[VERSION],
            certificate=load_pem_x509_certificate(certificate.certificate_pem),
            private_key=load_pem_private_key(certificate.key_pem, None),
        )

    def accept(self, original: bytes, retried: bytes) -> AioquicSession:
        """Answer a client whose first Initial was for ``original`` (``retried`` after a Retry)."""
        return AioquicSession(
            QuicConnection(
                configuration=self._configuration,
                original_destination_connection_id=original,
                retry_source_connection_id=retried or None,
            )
        )
