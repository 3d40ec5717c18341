"""The engine ``qh3``: a Rust core, for every peer that has a connection id, and for our own client.

Two faults of qh3 2.1 are met here: a client with an empty connection id is never answered by it (the
other engine serves those), and building a datagram may fail with "packet builder capacity exhausted":
what was built before is sent, the rest waits for the next turn.
"""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING, Self

from qh3.h3.connection import H3Connection
from qh3.h3.events import DataReceived, H3Event, HeadersReceived, StopSending, StreamReset
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection
from qh3.quic.events import (
    ConnectionIdIssued,
    ConnectionIdRetired,
    ConnectionTerminated,
    HandshakeCompleted,
    QuicEvent,
)

from ..tls import Certificate
from .ids import ID_BYTES
from .session import (
    DATAGRAM_BYTES,
    IDLE_S,
    NO_ERROR,
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

if TYPE_CHECKING:
    from qh3._hazmat import QuicConnectionCore

# the engine warns of every peer that closes; reasons are events here
logging.getLogger("quic").setLevel(logging.CRITICAL)


class Qh3Session(ShapedSession):
    """A ``Session`` on qh3, as client or server."""

    stream_bytes = 384 << 10

    def __init__(self, quic: QuicConnection) -> None:
        """Wrap a fresh connection; use ``client`` or ``Qh3Engine``."""
        super().__init__(quic)
        self._quic = quic
        self._client = quic.configuration.is_client

    @classmethod
    def client(cls, address: Address, now: float) -> Self:
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

    def receive(self, datagrams: list[bytes], address: Address, now: float) -> None:
        """Take in datagrams from ``address``."""
        with self._guard():
            self._quic.receive_many_datagrams(datagrams, address, now=now)
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

    def queued(self, stream: int | None = None) -> int:
        """Return the bytes of ``stream``, or of all, that wait for their first sending."""
        return 0 if self.closed else self._quic.get_send_buffer_size(stream)

    @property
    def room(self) -> int:
        """How many more streams the peer lets us ``open`` now (its limit counts all ever opened)."""
        return self._quic.max_concurrent_bidi_streams - self._quic.get_next_available_stream_id() // 4

    @property
    def starved(self) -> bool:
        """Whether neither congestion window nor pacing hold back what is queued: then the peer does."""
        core = self._core
        if core is None or core.bytes_in_flight + DATAGRAM_BYTES > core.congestion_window:
            return False
        timer = core.get_timer()
        return timer is None or timer[0] != "pacing"

    @property
    def _core(self) -> QuicConnectionCore | None:
        return self._quic._core  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]

    def _drain(self) -> None:
        super()._drain()
        core = self._core
        if core is not None and core.state in ("draining", "terminated"):
            self._end(NO_ERROR, "closed by the peer")  # the engine itself tells only after some seconds

    def _translate(self, event: QuicEvent) -> None:
        if isinstance(event, HandshakeCompleted):
            # not earlier: control streams in the first flight trip the packet builder, which loses it
            self._http = H3Connection(self._quic)
            certificate = self._quic.get_peercert()
            self._events.append(Opened(certificate.public_bytes() if certificate is not None else b""))
        elif isinstance(event, ConnectionIdIssued):
            self._events.append(IdIssued(event.connection_id))
        elif isinstance(event, ConnectionIdRetired):
            self._events.append(IdRetired(event.connection_id))
        elif isinstance(event, ConnectionTerminated):
            self._end(event.error_code, event.reason_phrase)
        elif isinstance(self._http, H3Connection):
            for each in self._http.handle_event(event):
                self._translate_http(each)

    def _translate_http(self, event: H3Event) -> None:
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


class Qh3Engine:
    """Begins sessions of one server; all of them share one configuration."""

    def __init__(self, certificate: Certificate) -> None:
        """Serve as the owner of ``certificate``."""
        self._configuration = configuration = QuicConfiguration(
            is_client=False,
            alpn_protocols=["h3"],
            idle_timeout=IDLE_S,
            connection_id_length=ID_BYTES,
            max_datagram_size=DATAGRAM_BYTES,
            max_datagram_frame_size=65_536,
        )
        configuration.load_cert_chain(certificate.certificate_pem, certificate.key_pem)  # pyright: ignore[reportUnknownMemberType]

    def accept(self, original: bytes, retried: bytes) -> Qh3Session:
        """Answer a client whose first Initial was for ``original`` (``retried`` after a Retry)."""
        return Qh3Session(
            QuicConnection(
                configuration=self._configuration,
                original_destination_connection_id=original,
                retry_source_connection_id=retried or None,
            )
        )
