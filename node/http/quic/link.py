"""The asyncio shell of one HTTP/3 session: its timer, its sending, and writers that wait for room."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import islice

from ....protocol.errors import UnreachableError
from .datagram import Endpoint
from .session import NO_ERROR, Address, Closed, Event, Headers, Session

LINK_BYTES = 8 << 20
"""Bytes of all streams of one connection that may wait for their first sending."""
TURN_BYTES = 64 << 10
"""What may still be queued when the next bulk stream has its turn: a piece of its body.

An engine takes packets from its streams in turn, each of a size of its own, and datagrams of unlike
size do not go out in one system call; one stream after another also finishes earlier than all at once.
"""
SMALL_BYTES = 16 << 10
"""A piece up to this size waits for no turn."""
STALL_S = 30.0

Spend = Callable[[int], Awaitable[None]]
"""Returns once so many bytes may be sent."""


class Link:
    """Drives ``session`` over ``endpoint`` and gives every event to ``handle``.

    ``connected`` says that the endpoint's socket is: it then names no address when it sends.
    """

    def __init__(self, session: Session, endpoint: Endpoint, handle: Callable[[Event], None]) -> None:
        """Start with nothing sent; call ``flush`` where the session already has something to say."""
        self.session = session
        self.endpoint = endpoint
        self.connected = False
        self._ended = False
        self.heard_at = 0.0
        self._handle = handle
        self._loop = asyncio.get_running_loop()
        self._local = b""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._soon = False
        self._blocked = False
        self._stuck_bytes = 0
        self._turned_at = 0.0
        self._writers: dict[int, asyncio.Future[None]] = {}
        self._openers: deque[asyncio.Future[None]] = deque()

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more, even where ``handle`` has not been told yet."""
        return self._ended or self.session.closed

    def receive(self, datagrams: list[bytes], address: Address, local: bytes) -> None:
        """Take in datagrams that came from ``address`` to ``local``.

        What they make possible is sent once this turn of the loop is over: a datagram that answers
        one acknowledgement costs as much as a batch that answers all that are waiting.
        """
        self._local = local
        self.heard_at = self._loop.time()
        self.session.receive(datagrams, address, self.heard_at)
        self.soon()

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
        self._stuck_bytes = self.session.queued() if self.session.starved else 0
        if self._writers:
            self._wake()
        if self._openers:
            self._let_open(max(0, self.session.room))

    def soon(self) -> None:
        """Flush once this turn of the loop is over, however often it is asked."""
        if not self._soon and not self._ended:
            self._soon = True
            self._loop.call_soon(self._step)

    async def open(self, headers: Headers, *, end: bool) -> int:
        """Open a stream with a request head, once the peer lets us.

        Raises:
            UnreachableError: ``closed``, or ``stalled`` where the peer allows none for ``STALL_S``.

        """
        deadline = self._loop.time() + STALL_S
        while not self.closed and self.session.room <= 0:
            opener = self._loop.create_future()
            self._openers.append(opener)
            try:
                async with asyncio.timeout_at(deadline):
                    await opener
            except TimeoutError as error:
                raise UnreachableError("the peer allows no more requests", reason="stalled") from error
            finally:
                self._openers.remove(opener)
        stream = self.session.open(headers, end=end)
        self.soon()
        return stream

    async def pump(self, stream: int, chunks: AsyncIterator[bytes], spend: Spend | None = None) -> int:
        """Send a body and its end, as fast as the peer takes it and ``spend`` lets go; returns its size.

        Raises:
            UnreachableError: the peer stopped the stream, left, or took nothing for ``STALL_S``.

        """
        total = 0
        async for chunk in chunks:
            if spend is not None:
                await spend(len(chunk))
            await self._room(stream, len(chunk))
            if not self.session.sends(stream):  # else a body without end would never wait, nor let others
                raise UnreachableError("the peer wants no more of this answer", reason="stopped")
            self.session.send(stream, chunk, end=False)
            total += len(chunk)
            self.soon()
        self.session.send(stream, b"", end=True)
        self.soon()
        return total

    def abandon(self, stream: int) -> None:
        """Wake the writer of a stream that the peer has stopped; it then fails."""
        writer = self._writers.pop(stream, None)
        if writer is not None:
            writer.cancel()

    def close(self, code: int) -> None:
        """Say goodbye and stop; ``handle`` gets ``Closed``."""
        if self._ended:
            return
        self.session.close(code)
        self.flush()
        self._end(Closed(code, "closed here"))

    def drop(self) -> None:
        """Stop without a word; ``handle`` gets ``Closed``."""
        if not self._ended:
            self._end(Closed(NO_ERROR, "dropped here"))

    async def _room(self, stream: int, size_bytes: int) -> None:
        while self._full(stream, size_bytes):
            writer = self._writers[stream] = self._loop.create_future()
            try:
                await self._turn(stream, writer)
            finally:
                self._writers.pop(stream, None)
            if not self.closed and self.session.queued(stream) < self.session.stream_bytes:
                return
        if self.closed:
            raise UnreachableError("the connection is closed", reason="closed")

    async def _turn(self, stream: int, writer: asyncio.Future[None]) -> None:
        """Wait for ``writer``, as long as its own bytes move, or with none of its own anybody's."""
        while not writer.done():
            before = self.session.queued(stream)
            await asyncio.wait((writer,), timeout=STALL_S)
            left = self.session.queued(stream)
            moved = left < before if before else self._loop.time() - self._turned_at < STALL_S
            if not writer.done() and not moved:
                raise UnreachableError("the peer takes nothing any more", reason="stalled")
        if writer.cancelled():
            raise UnreachableError("the peer wants no more of this answer", reason="stopped")

    def _full(self, stream: int, size_bytes: int) -> bool:
        session = self.session
        if session.queued(stream) >= session.stream_bytes or session.queued() >= LINK_BYTES:
            return True
        return size_bytes > SMALL_BYTES and not self._idle()

    def _idle(self) -> bool:
        """Whether a bulk stream may have its turn; what only the peer can set free keeps no other from it."""
        return self.session.queued() <= min(LINK_BYTES, TURN_BYTES + self._stuck_bytes)

    def _wake(self) -> None:
        """Give the writer that has waited longest its turn."""
        if not self._idle():
            return
        for stream, writer in self._writers.items():
            if not writer.done() and self.session.queued(stream) < self.session.stream_bytes:
                writer.set_result(None)
                self._turned_at = self._loop.time()
                return

    def _let_open(self, count: int) -> None:
        for opener in islice(self._openers, count):
            if not opener.done():
                opener.set_result(None)

    def _unblock(self) -> None:
        self._blocked = False
        self._step()

    def _step(self) -> None:
        self._soon = False
        while not self._ended and (event := self.session.next_event()) is not None:
            if isinstance(event, Closed):
                self.flush()
                self._end(event)
                return
            self._handle(event)
        if not self._ended:
            self.flush()

    def _arm(self) -> None:
        at = None if self._ended else self.session.wake_at
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
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for stream in list(self._writers):
            self.abandon(stream)
        self._let_open(len(self._openers))
        self._handle(event)
