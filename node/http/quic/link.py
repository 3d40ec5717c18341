"""The asyncio shell of one HTTP/3 session: its timer, its sending, and writers that wait for room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from ....protocol.errors import UnreachableError
from .datagram import Endpoint
from .session import Address, Closed, Event, Session

LINK_BYTES = 8 << 20
"""Bytes of all streams of one connection that may wait for their first sending."""
STALL_S = 30.0


class Link:
    """Drives ``session`` over ``endpoint`` and gives every event to ``handle``.

    ``remote`` is None where the endpoint is a connected socket.
    """

    def __init__(self, session: Session, endpoint: Endpoint, handle: Callable[[Event], None]) -> None:
        """Start with nothing sent; call ``flush`` where the session already has something to say."""
        self.session = session
        self.endpoint = endpoint
        self.connected = False
        self.closed = False
        self.heard_at = 0.0
        self._handle = handle
        self._loop = asyncio.get_running_loop()
        self._local = b""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._soon = False
        self._blocked = False
        self._writers: dict[int, asyncio.Future[None]] = {}

    def receive(self, datagrams: list[bytes], address: Address, local: bytes) -> None:
        """Take in datagrams that came from ``address`` to ``local``."""
        self._local = local
        self.heard_at = self._loop.time()
        self.session.receive(datagrams, address, self.heard_at)
        self._step()

    def flush(self) -> None:
        """Send what may be sent now, arm the timer, and wake writers with room."""
        self._soon = False
        if self.endpoint.closed:
            return
        if self.endpoint.blocked:
            if not self._blocked:
                self._blocked = True
                self.endpoint.when_writable(self._unblock)
            return
        out = self.session.take(self._loop.time())
        start = 0
        for at in range(1, len(out) + 1):
            if at == len(out) or out[at][1] != out[start][1]:
                address = None if self.connected else out[start][1]
                self.endpoint.send([data for data, _ in out[start:at]], address, self._local)
                start = at
        self._arm()
        if self._writers:
            self._wake()

    def soon(self) -> None:
        """Flush once this turn of the loop is over, however often it is asked."""
        if not self._soon and not self.closed:
            self._soon = True
            self._loop.call_soon(self._step)

    async def pump(self, stream: int, chunks: AsyncIterator[bytes]) -> int:
        """Send a body and its end, as fast as the peer takes it; returns its size.

        Raises:
            UnreachableError: the peer stopped the stream, left, or took nothing for ``STALL_S``.

        """
        total = 0
        async for chunk in chunks:
            await self._room(stream)
            self.session.send(stream, chunk, end=False)
            total += len(chunk)
            self.soon()
        self.session.send(stream, b"", end=True)
        self.soon()
        return total

    def abandon(self, stream: int) -> None:
        """Wake the writer of a stream that the peer has stopped; it then fails."""
        writer = self._writers.pop(stream, None)
        if writer is not None and not writer.done():
            writer.set_exception(UnreachableError("the peer wants no more of this answer", reason="stopped"))

    def close(self, code: int) -> None:
        """Say goodbye and stop; ``handle`` gets ``Closed``."""
        if self.closed:
            return
        self.session.close(code)
        self.flush()
        self._end(Closed(code, "closed here"))

    async def _room(self, stream: int) -> None:
        while self._full(stream):
            writer = self._writers[stream] = self._loop.create_future()
            try:
                async with asyncio.timeout(STALL_S):
                    await writer
            except TimeoutError as error:
                raise UnreachableError("the peer takes nothing any more", reason="stalled") from error
            finally:
                self._writers.pop(stream, None)
        if self.closed:
            raise UnreachableError("the connection is closed", reason="closed")

    def _full(self, stream: int) -> bool:
        return self.session.queued(stream) >= self.session.stream_bytes or self.session.queued() >= LINK_BYTES

    def _wake(self) -> None:
        if self.session.queued() >= LINK_BYTES:
            return
        for stream, writer in self._writers.items():
            if not writer.done() and self.session.queued(stream) < self.session.stream_bytes:
                writer.set_result(None)

    def _unblock(self) -> None:
        self._blocked = False
        self._step()

    def _step(self) -> None:
        self._soon = False
        while (event := self.session.next_event()) is not None:
            if isinstance(event, Closed):
                self.flush()
                self._end(event)
                return
            self._handle(event)
        if not self.closed:
            self.flush()

    def _arm(self) -> None:
        at = None if self.closed else self.session.wake_at
        if self._timer is not None and at != self._timer_at:
            self._timer.cancel()
            self._timer = None
        if self._timer is None and at is not None:
            self._timer = self._loop.call_at(at, self._tick)
        self._timer_at = at

    def _tick(self) -> None:
        self._timer = None
        self.session.tick(max(self._timer_at or 0.0, self._loop.time()))
        self._step()

    def _end(self, event: Closed) -> None:
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for stream in list(self._writers):
            self.abandon(stream)
        self._handle(event)
