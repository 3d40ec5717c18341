"""The one interface to a QUIC engine: an HTTP/3 session as bytes in, events and bytes out.

Nothing but an engine's own module knows which library speaks QUIC, so another engine takes its place
by offering this. Sans-IO: time is an argument, datagrams go in and come out; a ``Link`` owns the timer
and an ``Endpoint`` the socket. An engine bounds nothing: who sends minds ``queued``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

NO_ERROR = 0x100
INTERNAL_ERROR = 0x102
EXCESSIVE_LOAD = 0x107
REQUEST_CANCELLED = 0x10C
"""Application error codes (RFC 9114 section 8.1)."""

DATAGRAM_BYTES = 1_232
"""Passes every IPv6 path (RFC 8200 section 5: 1280 bytes with headers)."""
IDLE_S = 30.0

Address = tuple[str, int] | tuple[str, int, int, int]
Headers = Sequence[tuple[bytes, bytes]]


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


class Session(Protocol):
    """One QUIC connection that speaks HTTP/3, as client or server.

    No method but ``open`` raises: whatever a peer's bytes do to an engine ends this session alone,
    with ``Closed``, and counts in ``faults``.
    """

    id: bytes
    """The first connection id that the peer addresses us by."""
    closed: bool
    """Whether it is over; ``Closed`` comes, or has come, as an event."""
    faults: int
    stream_bytes: int
    """Bytes of one stream worth queueing at a time: what the engine sends in one turn of the loop."""

    @property
    def wake_at(self) -> float | None:
        """When ``tick`` must be called, in the clock of ``now``."""
        ...

    @property
    def room(self) -> int:
        """How many more streams the peer lets us ``open`` now."""
        ...

    @property
    def starved(self) -> bool:
        """Whether neither congestion window nor pacing hold back what is queued: then the peer does."""
        ...

    def receive(self, datagrams: list[bytes], address: Address, now: float) -> None:
        """Take in datagrams from ``address``."""
        ...

    def tick(self, now: float) -> None:
        """Let timers that are due run: loss, idle time-out, delayed acknowledgements."""
        ...

    def take(self, now: float) -> list[tuple[bytes, Address]]:
        """Return the datagrams that may be sent now."""
        ...

    def next_event(self) -> Event | None:
        """Return what happened next, or None."""
        ...

    def open(self, headers: Headers, *, end: bool) -> int:
        """Send a request head on a new stream, mind ``room``, and return the stream.

        Raises:
            UnreachableError: ``closed``: the session is over.

        """
        ...

    def send_head(self, stream: int, headers: Headers, *, end: bool) -> None:
        """Send a head; nothing happens on a stream that the peer has stopped."""
        ...

    def send(self, stream: int, data: bytes, *, end: bool) -> None:
        """Queue bytes of a body; mind ``queued``. Nothing happens on a stopped stream."""
        ...

    def sends(self, stream: int) -> bool:
        """Say whether what is sent on ``stream`` still goes anywhere: not once the peer stopped it."""
        ...

    def queued(self, stream: int | None = None) -> int:
        """Return the bytes of ``stream``, or of all, that wait for their first sending."""
        ...

    def reset(self, stream: int, code: int) -> None:
        """End our half of ``stream`` abnormally; harmless where it has already ended."""
        ...

    def stop(self, stream: int, code: int) -> None:
        """Tell the peer to send no more on ``stream``; harmless where it has ended."""
        ...

    def close(self, code: int = NO_ERROR, reason: str = "") -> None:
        """Close the session; ``take`` then returns its last datagram."""
        ...


class Engine(Protocol):
    """Begins sessions for clients of a server."""

    def accept(self, original: bytes, retried: bytes) -> Session:
        """Answer a client whose first Initial was for ``original`` (``retried`` after a Retry)."""
        ...
