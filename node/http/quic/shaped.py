"""What the sessions of both engines share: their libraries have connections of one shape."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from ....protocol.errors import UnreachableError
from .session import INTERNAL_ERROR, NO_ERROR, Closed, Event, Headers


class Quic(Protocol):
    """The part of both libraries' ``QuicConnection`` that is the same."""

    host_cid: bytes

    def get_timer(self) -> float | None:
        """Return when ``handle_timer`` is due."""
        ...

    def handle_timer(self, now: float) -> None:
        """Let what is due happen."""
        ...

    def next_event(self) -> Any:  # noqa: ANN401 - each library has event classes of its own
        """Return the next event or None."""
        ...

    def get_next_available_stream_id(self) -> int:
        """Return the id of the stream that a send would open."""
        ...

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        """Send RESET_STREAM."""
        ...

    def stop_stream(self, stream_id: int, error_code: int) -> None:
        """Send STOP_SENDING."""
        ...

    def close(self, error_code: int, frame_type: int | None = None, reason_phrase: str = "") -> None:
        """Send CONNECTION_CLOSE."""
        ...


class Http(Protocol):
    """The part of both libraries' ``H3Connection`` that is the same."""

    def send_headers(self, stream_id: int, headers: list[tuple[bytes, bytes]], end_stream: bool) -> None:  # noqa: FBT001 - theirs
        """Queue a HEADERS frame."""
        ...

    def send_data(self, stream_id: int, data: bytes, end_stream: bool) -> None:  # noqa: FBT001 - theirs
        """Queue a DATA frame."""
        ...


class ShapedSession(ABC):
    """Everything of a ``Session`` but ``receive``, ``take`` and ``queued``, which differ by engine."""

    stream_bytes = 0

    def __init__(self, quic: Quic) -> None:
        """Wrap a fresh connection of an engine."""
        self._shape = quic
        self._http: Http | None = None
        self._events: deque[Event] = deque()
        self._sending: set[int] = set()
        self.closed = False
        self.faults = 0
        self.id: bytes = quic.host_cid

    @property
    def wake_at(self) -> float | None:
        """When ``tick`` must be called, in the clock of ``now``."""
        return None if self.closed else self._shape.get_timer()

    def tick(self, now: float) -> None:
        """Let timers that are due run: loss, idle time-out, delayed acknowledgements."""
        with self._guard():
            self._shape.handle_timer(now=now)
            self._drain()

    def next_event(self) -> Event | None:
        """Return what happened next, or None."""
        return self._events.popleft() if self._events else None

    def open(self, headers: Headers, *, end: bool) -> int:
        """Send a request head on a new stream, mind ``room``, and return the stream.

        Raises:
            UnreachableError: ``closed``: the session is over.

        """
        if self.closed:
            raise UnreachableError("the connection is closed", reason="closed")
        stream = self._shape.get_next_available_stream_id()
        self._sending.add(stream)
        self.send_head(stream, headers, end=end)
        return stream

    def send_head(self, stream: int, headers: Headers, *, end: bool) -> None:
        """Send a head; nothing happens on a stream that the peer has stopped."""
        if self._sends(stream, end=end) and self._http is not None:
            with self._guard():
                self._http.send_headers(stream, list(headers), end)

    def send(self, stream: int, data: bytes, *, end: bool) -> None:
        """Queue bytes of a body; mind ``queued``. Nothing happens on a stopped stream."""
        if self._sends(stream, end=end) and self._http is not None:
            with self._guard():
                self._http.send_data(stream, data, end)

    def reset(self, stream: int, code: int) -> None:
        """End our half of ``stream`` abnormally; harmless where it has already ended."""
        if self._sends(stream, end=True):
            with suppress(Exception):  # each engine refuses in its own way what is over
                self._shape.reset_stream(stream, code)
            # both HTTP layers keep a stream until its halves are over, and are told of no reset of ours
            streams: dict[int, Any] = getattr(self._http, "_stream", {})
            known = streams.get(stream)
            if known is not None:
                known.sending_ended = True
                if known.is_ended():
                    del streams[stream]

    def stop(self, stream: int, code: int) -> None:
        """Tell the peer to send no more on ``stream``; harmless where it has ended."""
        if not self.closed:
            with suppress(Exception):  # as above
                self._shape.stop_stream(stream, code)

    def close(self, code: int = NO_ERROR, reason: str = "") -> None:
        """Close the session; ``take`` then returns its last datagram."""
        if not self.closed:
            with suppress(Exception):  # as above
                self._shape.close(error_code=code, reason_phrase=reason)

    def sends(self, stream: int) -> bool:
        """Say whether what is sent on ``stream`` still goes anywhere: not once the peer stopped it."""
        return stream in self._sending

    @contextmanager
    def _guard(self) -> Generator[None, None, None]:
        """End the session, and nothing else, where a peer's bytes trip the engine."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the engines have no one type for their failures
            self.faults += 1
            self.close(INTERNAL_ERROR)
            self._end(INTERNAL_ERROR, str(error))

    def _sends(self, stream: int, *, end: bool) -> bool:
        if stream not in self._sending:
            return False
        if end:
            self._sending.discard(stream)
        return True

    def _drain(self) -> None:
        while (event := self._shape.next_event()) is not None:
            self._translate(event)

    @abstractmethod
    def _translate(self, event: Any) -> None:  # noqa: ANN401 - each library has event classes of its own
        """Turn one event of the library into ours."""

    def _end(self, code: int, reason: str) -> None:
        if not self.closed:
            self.closed = True
            self._sending.clear()
            self._events.append(Closed(code, reason))
