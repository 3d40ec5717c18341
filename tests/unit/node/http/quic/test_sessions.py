"""Both engines behind the one interface: a client and a server in virtual time, over a path that loses."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from functools import cache
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.node.http.quic.aioquic_engine import AioquicEngine
from farcast.node.http.quic.datagram import Endpoint
from farcast.node.http.quic.ids import read_ids
from farcast.node.http.quic.link import Link
from farcast.node.http.quic.qh3_engine import Qh3Engine, Qh3Session
from farcast.node.http.quic.session import (
    DATAGRAM_BYTES,
    Closed,
    Data,
    Engine,
    Event,
    Head,
    Opened,
    Reset,
    Session,
    Stopped,
)
from farcast.node.http.tls import Certificate, make_certificate, peer_key
from farcast.protocol.errors import UnreachableError
from farcast.protocol.identity import Identity

BOX = Identity(b"e" * 32)
CLIENT, SERVER = ("192.0.2.1", 4_000), ("192.0.2.2", 443)
DELAY_S = 0.01
ENGINES = pytest.mark.parametrize("engine", [Qh3Engine, AioquicEngine])
FIELDS = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"192.0.2.2"), (b":path", b"/")]


@cache
def _certificate() -> Certificate:
    return make_certificate(BOX, 1_800_000_000.0)


class Path:
    """Carries datagrams between a client and the session that an engine makes for it."""

    def __init__(self, engine: Callable[[Certificate], Engine], loses: Callable[[], bool]) -> None:
        self.now = 1_000.0
        self.loses = loses
        self.client = Qh3Session.client(SERVER, self.now)
        first = self.client.take(self.now)
        ids = read_ids(first[0][0])
        assert ids is not None
        self.server: Session = engine(_certificate()).accept(ids.destination, b"")
        self.flying = [(self.now + DELAY_S, self.server, data) for data, _ in first]
        self.seen: dict[Session, list[Event]] = {self.client: [], self.server: []}

    def until(self, reached: Callable[[], bool], within_s: float = 60.0) -> None:
        """Let time pass until ``reached``."""
        end = self.now + within_s
        while not reached():
            assert self.now < end, self.seen
            self._step()

    def _step(self) -> None:
        wakes = [session.wake_at for session in (self.client, self.server)]
        times = [at for at in wakes if at is not None] + [at for at, _, _ in self.flying]
        assert times
        self.now = max(self.now + 1e-6, min(times))  # a real clock never stands between two looks
        here = [item for item in self.flying if item[0] <= self.now]
        self.flying = [item for item in self.flying if item[0] > self.now]
        for session, sender in ((self.client, SERVER), (self.server, CLIENT)):
            if datagrams := [data for _, to, data in here if to is session]:
                session.receive(datagrams, sender, self.now)
            if (at := session.wake_at) is not None and at <= self.now:
                session.tick(self.now)
            while (event := session.next_event()) is not None:
                self.seen[session].append(event)
            other = self.server if session is self.client else self.client
            for data, _ in session.take(self.now):
                assert session is self.client or len(data) <= DATAGRAM_BYTES  # a client may probe for more
                if not self.loses():
                    self.flying.append((self.now + DELAY_S, other, data))

    def of(self, session: Session, kind: type[Event]) -> list[Event]:
        """Return the events of one kind that a session told."""
        return [event for event in self.seen[session] if isinstance(event, kind)]

    def body(self, session: Session, stream: int) -> bytes:
        """Return what came on a stream."""
        return b"".join(
            event.data for event in self.seen[session] if isinstance(event, Data) and event.stream == stream
        )

    def ended(self, session: Session, stream: int) -> bool:
        """Say whether all of a stream has come."""
        return any(
            event.ended
            for event in self.seen[session]
            if isinstance(event, Head | Data) and event.stream == stream
        )


def _never() -> bool:
    return False


@ENGINES
@settings(deadline=None, max_examples=12)
@given(
    st.integers(min_value=0, max_value=2**32),
    st.floats(min_value=0, max_value=0.15),
    st.lists(st.integers(min_value=0, max_value=60_000), min_size=1, max_size=4),
)
def test_every_answer_arrives_whole_over_a_path_that_loses(
    engine: Callable[[Certificate], Engine], seed: int, loss: float, sizes: list[int]
) -> None:
    dice = random.Random(seed)
    path = Path(engine, lambda: dice.random() < loss)
    path.until(lambda: bool(path.of(path.client, Opened)))
    (opened,) = path.of(path.client, Opened)
    assert isinstance(opened, Opened)
    assert peer_key(opened.certificate) == BOX.key
    bodies = [dice.randbytes(size) for size in sizes]
    streams = [path.client.open(FIELDS, end=True) for _ in bodies]
    path.until(lambda: all(path.ended(path.server, stream) for stream in streams))
    for stream, body in zip(streams, bodies, strict=True):
        path.server.send_head(stream, [(b":status", b"200")], end=False)
        path.server.send(stream, body, end=False)
        path.server.send(stream, b"", end=True)
    path.until(lambda: all(path.ended(path.client, stream) for stream in streams))
    assert [path.body(path.client, stream) for stream in streams] == bodies
    assert path.server.queued() == 0


@ENGINES
def test_a_reset_and_a_stop_are_told_and_the_rest_goes_on(engine: Callable[[Certificate], Engine]) -> None:
    path = Path(engine, _never)
    path.until(lambda: bool(path.of(path.client, Opened)))
    broken, stopped, whole = (path.client.open(FIELDS, end=True) for _ in range(3))
    path.until(lambda: all(path.ended(path.server, stream) for stream in (broken, stopped, whole)))
    for stream in (broken, stopped, whole):
        path.server.send_head(stream, [(b":status", b"200")], end=False)
    path.server.reset(broken, 0x102)
    path.client.stop(stopped, 0x10C)
    path.until(lambda: bool(path.of(path.client, Reset)) and bool(path.of(path.server, Stopped)))
    assert Reset(broken, 0x102) in path.seen[path.client]
    assert Stopped(stopped, 0x10C) in path.seen[path.server]
    for stream in (broken, stopped):  # nothing happens on them any more
        path.server.send(stream, b"x", end=True)
    path.server.send(whole, b"whole", end=True)
    path.until(lambda: path.ended(path.client, whole))
    assert path.body(path.client, whole) == b"whole"
    assert path.body(path.client, broken) == path.body(path.client, stopped) == b""


class Nowhere:
    """An endpoint without a socket: what the session sends, the path takes by itself."""

    closed = blocked = False

    def send(self, datagrams: list[bytes], address: object, local: bytes) -> None:
        """Drop what is sent."""


@ENGINES
async def test_a_body_without_end_stops_with_its_stream_between_two_pieces(
    engine: Callable[[Certificate], Engine],
) -> None:
    path = Path(engine, _never)
    path.until(lambda: bool(path.of(path.client, Opened)))
    stream = path.client.open(FIELDS, end=True)
    path.until(lambda: path.ended(path.server, stream))
    path.server.send_head(stream, [(b":status", b"200")], end=False)
    link = Link(path.server, cast("Endpoint", Nowhere()), lambda _: None)
    pieces = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal pieces
        while True:
            pieces += 1
            assert pieces < 9, "the stream was stopped, and its body still asked for"
            if pieces == 2:  # the writer waits for nothing now, so nobody wakes it
                path.client.stop(stream, 0x10C)
                path.until(lambda: bool(path.of(path.server, Stopped)))
            yield b"piece"

    with pytest.raises(UnreachableError) as stopped:
        await link.pump(stream, endless())
    assert (stopped.value.reason, pieces) == ("stopped", 2)
    link.drop()


@ENGINES
def test_a_closed_session_says_so_at_both_ends(engine: Callable[[Certificate], Engine]) -> None:
    path = Path(engine, _never)
    path.until(lambda: bool(path.of(path.client, Opened)) and bool(path.of(path.server, Opened)))
    path.server.close(0x100, "enough")
    path.until(lambda: bool(path.of(path.client, Closed)))
    assert path.client.closed
    assert path.client.wake_at is None


@ENGINES
@settings(deadline=None, max_examples=30)
@given(st.lists(st.binary(max_size=1_300), max_size=6))
def test_any_bytes_leave_a_session_that_can_be_asked_anything(
    engine: Callable[[Certificate], Engine], datagrams: list[bytes]
) -> None:
    session = engine(_certificate()).accept(b"d" * 8, b"")
    session.receive(datagrams, CLIENT, 1.0)
    session.take(1.0)
    session.tick(1.1)
    assert session.queued() == session.queued(0) == 0
    session.send_head(0, [(b":status", b"200")], end=True)
    session.send(0, b"x", end=True)
    session.reset(0, 1)
    session.stop(0, 1)
    session.close()
    session.take(1.2)
    while session.next_event() is not None:
        pass
