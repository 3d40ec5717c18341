# pyright: reportPrivateUsage=false
"""Floods and noise at the HTTP/3 port: bounded, counted by reason, and others do not feel it."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farcast.node.http.files import CHUNK_BYTES
from farcast.node.http.quic import link, peer
from farcast.node.http.quic.gate import GateLimits
from farcast.node.http.quic.ids import Ids, read_ids
from farcast.node.http.quic.link import LINK_BYTES
from farcast.node.http.quic.peer import Peer
from farcast.node.http.quic.qh3_engine import Qh3Session
from farcast.node.http.quic.server import QuicServer
from farcast.tests.wire.quic_box import Box, Rude, dialled, get, running, unname, until

HANDSHAKES = 10_000
NAMELESS = Ids(1, b"d" * 8, b"", initial=True, token=b"")
RETRY = 0xF0
REASONS = {
    "malformed_datagram",
    "stray_datagram",
    "unknown_version",
    "unproven_address",
    "bad_retry_token",
    "too_many_connections",
    "too_many_handshakes",
    "too_many_browsers",
    "slow_handshake",
    "quic_engine_fault",
}


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    made = Box(tmp_path)
    async with running(made) as made.server:
        yield made


def _udp(host: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind((host, 0))
    return sock


def _initial(box: Box) -> bytes:
    """Return the first datagram of a client that means it."""
    return Qh3Session.client(box.address, time.monotonic()).take(time.monotonic())[0][0]


def _nameless_initial(box: Box) -> bytes:
    """Return the same of a client without a connection id."""
    quic = QuicConnection(configuration=QuicConfiguration(alpn_protocols=["h3"]))
    unname(quic)
    quic.connect(box.address, now=time.monotonic())
    return quic.datagrams_to_send(now=time.monotonic())[0][0]


def _again(initial: bytes) -> bytes:
    """Return the same datagram for another connection id: as far as a server can tell, another client's.

    Its contents do not decrypt, which a server finds out only once it has made a session for it.
    """
    return initial[:6] + os.urandom(8) + initial[14:]


def _received(sock: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            yield sock.recv(65_536)
        except BlockingIOError:
            return


@pytest.mark.parametrize("addresses", [1, 12])
async def test_ten_thousand_half_open_handshakes_leave_room_for_others(
    box: Box, addresses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer, "HANDSHAKE_S", 1.5)
    server, worst_s = box.server, 0.0
    real = [_initial(box) for _ in range(400)]
    attackers = [_udp(f"127.0.1.{at}") for at in range(1, addresses + 1)]
    async with dialled(box) as friend:
        for at in range(HANDSHAKES):
            attacker = attackers[at % addresses]
            attacker.sendto(_again(real[0]) if at % 25 else real[at // 25], box.address)
            if at % 40 == 0:  # what the kernel holds is read before more is sent
                await asyncio.sleep(0)
                for each in attackers:
                    for datagram in _received(each):
                        if datagram[0] & RETRY == RETRY:  # he is really there, so he proves it
                            each.sendto(_with_token(real[0], datagram), box.address)
            if at % 1_000 == 0:
                begun = time.monotonic()
                assert (await get(friend, "/echo", method="POST", body=b"x"))[2] == b"x"
                async with dialled(box) as newcomer:
                    assert (await get(newcomer, "/echo", method="POST", body=b"y"))[2] == b"y"
                worst_s = max(worst_s, time.monotonic() - begun)
            assert len(server._handshakes) <= 256
            assert len(server._sessions) <= min(32 * addresses, 256) + 12
        counted = Counter(box.reasons)
        assert counted["too_many_handshakes"] > HANDSHAKES // 2
        assert set(counted) <= REASONS
        assert worst_s < 2
        # the attackers' sessions end by themselves, and leave nothing
        await until(lambda: not server._handshakes)
        assert not server._neighbours
        assert set(server._peers.values()) == server._sessions
    for each in attackers:
        each.close()


def _with_token(initial: bytes, retry: bytes) -> bytes:
    """Return ``initial`` as its client repeats it after ``retry`` (RFC 9000 section 17.2.5.3)."""
    ids = read_ids(initial)
    assert ids is not None
    at = 7 + retry[5]
    id_end = at + retry[at - 1]
    token = retry[id_end:-16]
    head = initial[:5] + retry[at - 1 : id_end] + bytes((len(ids.source),)) + ids.source
    return (head + (0x4000 | len(token)).to_bytes(2, "big") + token + bytes(1_200))[:1_200]


@pytest.mark.parametrize("make", [_initial, _nameless_initial])
async def test_a_client_that_never_answers_gets_at_most_three_times_what_it_sent(
    box: Box, make: Callable[[Box], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer, "HANDSHAKE_S", 2.0)
    if make is _nameless_initial:  # its engine loads first
        box.server._engines.choose(NAMELESS)
        await until(lambda: box.server._engines.choose(NAMELESS) is not None)
    with closing(_udp()) as silent:
        initial = make(box)
        silent.sendto(initial, box.address)
        await asyncio.sleep(2.5)  # past every repetition, and past its dropping
        got = sum(map(len, _received(silent)))
    assert 0 < got <= 3 * len(initial)
    assert "slow_handshake" in box.reasons


async def test_past_a_number_of_handshakes_an_address_must_be_proven_and_no_session_is_made(
    tmp_path: Path,
) -> None:
    box = Box(tmp_path)
    async with running(box, GateLimits(unproven=5)) as server:
        initial = _initial(box)
        with closing(_udp("127.0.0.3")) as many:
            for _ in range(50):
                many.sendto(_again(initial), box.address)
            await until(lambda: box.reasons.count("unproven_address") == 45)
            assert len(server._sessions) == 5
            retries = [datagram for datagram in _received(many) if datagram[0] & RETRY == RETRY]
            assert len(retries) == 45
            assert all(len(datagram) < len(initial) for datagram in retries)
        with closing(_udp("127.0.0.4")) as thief:  # another's token is worth nothing
            thief.sendto(_with_token(initial, retries[0]), box.address)
            await until(lambda: "bad_retry_token" in box.reasons)
        async with dialled(box) as channel:
            assert (await get(channel, "/echo", method="POST", body=b"x"))[2] == b"x"


@pytest.mark.parametrize("make", [_initial, _nameless_initial])
async def test_an_initial_cut_anywhere_or_with_any_byte_wrong_makes_no_trouble(
    box: Box, make: Callable[[Box], bytes]
) -> None:
    initial = make(box)
    with closing(_udp("127.0.0.5")) as noise:
        for at in range(0, 1_200, 3):
            noise.sendto(initial[:at], box.address)
            spoilt = bytearray(initial)
            spoilt[at] ^= 0xFF
            noise.sendto(bytes(spoilt), box.address)
            if at % 60 == 0:
                await asyncio.sleep(0)
    async with dialled(box) as channel:
        assert (await get(channel, "/echo", method="POST", body=b"x"))[2] == b"x"
    assert set(box.reasons) <= REASONS
    assert len(box.server._sessions) <= 34


async def test_a_session_hears_any_bytes_and_lives_or_ends_in_order(box: Box) -> None:
    async with dialled(box) as channel:
        (session,) = box.server._sessions
        ids = sorted(session.ids)
        with closing(_udp()) as noise:
            for at in range(2_000):
                noise.sendto(b"\x40" + ids[at % len(ids)] + os.urandom(at % 1_300), box.address)
                if at % 50 == 0:
                    await asyncio.sleep(0)
        assert (await get(channel, "/echo", method="POST", body=b"x"))[2] == b"x"


def _long(data: bytes, version: bytes, size: int) -> bytes:
    return (b"\xc3" + version + b"\x08" + data).ljust(size, b"\0")


DATAGRAMS = st.lists(
    st.binary(max_size=1_300)
    | st.builds(
        _long,
        st.binary(max_size=1_300),
        st.sampled_from([b"\0\0\0\1", b"\x1a*:J"]),
        st.sampled_from([0, 1_200]),
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(DATAGRAMS)
def test_the_demultiplexer_takes_any_run_of_datagrams(tmp_path: Path, datagrams: list[bytes]) -> None:
    async def deliver() -> None:
        box = Box(tmp_path)
        async with running(box) as server:
            server._received(datagrams, ("127.0.0.6", 4_433), b"")
            assert len(server._sessions) <= len(datagrams)
            assert set(server._peers.values()) == server._sessions
            assert set(box.reasons) <= REASONS
            for session in list(server._sessions):
                session.link.close(0)
            assert not server._peers
            assert not server._handshakes

    asyncio.run(deliver())


def _streams(server: QuicServer) -> int:
    """Return how many requests the server still knows, in any of its books."""
    found = len(server.tasks)
    for session in server._sessions:
        found += _books(session)
    return found


def _books(client: Peer) -> int:
    session = client.link.session
    assert isinstance(session, Qh3Session)
    http = session._http
    requests = [stream for stream in getattr(http, "_stream", {}) if not stream & 2]
    return len(client._requests) + len(client.link._writers) + len(session._sending) + len(requests)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/wait"), ("GET", "/endless"), ("GET", "/file"), ("POST", "/echo"), ("GET", "/none")],
)
async def test_requests_reset_by_their_client_leave_no_task_and_no_stream(
    box: Box, method: str, path: str
) -> None:
    rude = Rude(box)
    await asyncio.wait_for(rude.opened.wait(), 5)
    for _ in range(3):
        streams = [await rude.ask(path, method) for _ in range(25)]
        await asyncio.sleep(0.05)
        for stream in streams:
            rude.leave(stream)
        await until(lambda: _streams(box.server) == 0)
    assert box.server.unread_bytes == 0
    async with asyncio.timeout(5):  # more than a hundred in all: the engine counts none of them as open
        streams = [await rude.ask(path, method) for _ in range(40)]
    for stream in streams[:25]:
        rude.leave(stream)
    async with dialled(box) as polite:
        assert (await get(polite, "/echo", method="POST", body=b"x"))[2] == b"x"
    rude.close()
    await until(lambda: not box.server._sessions)
    assert not box.server._peers
    assert not box.server.tasks


async def test_a_client_that_stops_reading_bounds_what_waits_for_it_and_is_given_up(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "STALL_S", 1.0)
    rude = Rude(box)
    await asyncio.wait_for(rude.opened.wait(), 5)
    for _ in range(20):
        await rude.ask("/endless")
    await until(lambda: len(box.server.tasks) == 20)
    rude.fall_silent()
    await asyncio.sleep(0.5)
    (client,) = box.server._sessions
    assert 0 < client.link.session.queued() <= LINK_BYTES + CHUNK_BYTES
    await asyncio.wait(box.server.tasks, timeout=20)  # the engine's own repetitions may put it off
    await until(lambda: not box.server.tasks)
    assert "client_gone" in box.reasons
    rude.close()
    await until(lambda: not box.server._sessions)
    assert not box.server.tasks
    assert not box.server._handshakes
    assert not box.server._neighbours
