from __future__ import annotations

import asyncio
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.node.http.quic import datagram
from farcast.node.http.quic.datagram import SEGMENTED_BYTES, SEGMENTS, Endpoint, batches
from farcast.node.http.quic.session import Address

_SO_NO_CHECK = 11


@settings(deadline=None)
@given(st.lists(st.sampled_from([1, 40, 1200, 1232, 9000]), max_size=200))
def test_batches_keep_every_datagram_in_order_and_suit_the_kernel(sizes: list[int]) -> None:
    datagrams = [bytes([at % 256]) * size for at, size in enumerate(sizes)]
    groups = list(batches(datagrams))
    assert [datagram for group in groups for datagram in group] == datagrams
    for group in groups:
        assert len(group) <= SEGMENTS
        assert sum(map(len, group)) <= max(SEGMENTED_BYTES, len(group[0]))
        assert {len(datagram) for datagram in group[:-1]} <= {len(group[0])}
        assert len(group[-1]) <= len(group[0])


def _ignore(_: list[bytes], __: Address, ___: bytes) -> None:
    """Drop what comes."""


async def test_datagrams_of_mixed_sizes_arrive_one_by_one_at_a_plain_socket() -> None:
    sent = [bytes([at]) * (1232 if at % 5 else 300) for at in range(60)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        plain.bind(("127.0.0.1", 0))
        plain.setblocking(False)
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        endpoint = Endpoint(sock, _ignore)
        endpoint.send(sent, plain.getsockname())
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(5):
            assert [await loop.sock_recv(plain, 2000) for _ in sent] == sent
        endpoint.close()


async def test_an_endpoint_answers_from_the_address_it_was_asked_at() -> None:
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.setblocking(False)
    sock.bind(("::", 0))

    def echo(datagrams: list[bytes], address: Address, local: bytes) -> None:
        endpoint.send(datagrams, address, local)

    endpoint = Endpoint(sock, echo)
    loop = asyncio.get_running_loop()
    for asked in ("127.0.0.1", "127.0.0.2", "127.9.9.9"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.bind(("127.0.0.1", 0))
            await loop.sock_sendto(client, b"hello", (asked, endpoint.address[1]))
            async with asyncio.timeout(5):
                data, sender = await loop.sock_recvfrom(client, 100)
            assert (data, sender[0]) == (b"hello", asked)
    endpoint.close()


async def test_a_connected_endpoint_is_told_when_its_peer_is_gone() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        where = gone.getsockname()
    lost: asyncio.Future[OSError] = asyncio.get_running_loop().create_future()

    def tell(error: OSError) -> None:
        if not lost.done():
            lost.set_result(error)

    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.connect(where)
    endpoint = Endpoint(sock, _ignore, tell)
    endpoint.send([b"anyone?"], None)
    async with asyncio.timeout(5):
        assert isinstance(await lost, ConnectionRefusedError)
    endpoint.close()


async def test_datagrams_the_kernel_does_not_take_are_queued_in_order_and_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # local datagram sockets refuse once their peer has a few unread, as a full network card does
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for sock in (ours, theirs):
        sock.setblocking(False)
    monkeypatch.setattr(datagram, "QUEUE_BYTES", 100_000)
    woken = asyncio.Event()
    endpoint = Endpoint(ours, _ignore)
    sent = [at.to_bytes(4, "big") + bytes(996) for at in range(10_000)]
    endpoint.send(sent, None)
    assert endpoint.blocked
    assert endpoint.dropped
    endpoint.when_writable(woken.set)
    loop = asyncio.get_running_loop()
    kept = len(sent) - endpoint.dropped
    async with asyncio.timeout(5):
        got = [await loop.sock_recv(theirs, 2_000) for _ in range(kept)]
        await woken.wait()
    assert got == sent[:kept]
    assert not endpoint.blocked
    endpoint.close()
    theirs.close()


async def test_datagrams_for_a_route_that_refuses_segments_go_one_by_one() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        plain.bind(("127.0.0.1", 0))
        plain.setblocking(False)
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        # without checksums the kernel refuses to segment, with EIO or EINVAL by its version
        sock.setsockopt(socket.SOL_SOCKET, _SO_NO_CHECK, 1)
        endpoint = Endpoint(sock, _ignore)
        assert endpoint.segmented
        endpoint.send([b"a" * 1232, b"b" * 1232], plain.getsockname())
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(5):
            assert [await loop.sock_recv(plain, 2_000) for _ in range(2)] == [b"a" * 1232, b"b" * 1232]
        assert not endpoint.segmented
        endpoint.close()
