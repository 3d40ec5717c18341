"""The dialler against real listeners: QUIC, TLS, plain CDN addresses, and paths that block one of them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import time

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.http.dial import HttpDialer
from farcast.node.http.listener import Listener
from farcast.node.http.tally import HttpMetrics
from farcast.protocol.errors import FarcastError, RemoteError, UnreachableError
from farcast.protocol.ports import Source, TierName
from farcast.tests.wire.talkingbox import BOX, DEVICE, SIZE, TalkingBox

Box = TalkingBox


async def ask(dialer: HttpDialer, source: Source) -> bytes:
    """Return the block as any answer comes: over the authenticated channel."""
    return (await dialer.request(source, "GET", "/ipfs/x?format=raw")).body


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    made = Box(tmp_path)
    async with Listener(made.router, lambda _: None, BOX, made.metrics, host="127.0.0.1", port=0) as listener:
        made.port = listener.port
        yield made


@pytest.fixture
async def dialer() -> AsyncIterator[HttpDialer]:
    made = HttpDialer(allow_private=True)
    yield made
    await made.close()


@asynccontextmanager
async def _no_udp(box: Box, *, swallowed: bool) -> AsyncGenerator[Source, None]:
    """Give a source that reaches the box by TCP alone: UDP is swallowed, or refused."""

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", box.port)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65_536):
                target.write(data)
                await target.drain()
            target.close()

        await asyncio.gather(copy(reader, back), copy(there, writer), return_exceptions=True)

    server = await asyncio.start_server(forward, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hole:
        if swallowed:
            hole.bind(("127.0.0.1", port))
        try:
            yield box.source._replace(address=f"127.0.0.1:{port}")
        finally:
            server.close()
            await server.wait_closed()


async def test_a_block_comes_by_quic_and_the_connection_is_reused(box: Box, dialer: HttpDialer) -> None:
    for _ in range(3):
        assert await ask(dialer, box.source) == box.block
    assert (box.answers("quic"), box.answers("tls")) == (3, 0)
    assert box.metrics.carrier("quic").connections() == 1


async def test_requests_at_once_share_one_handshake(box: Box, dialer: HttpDialer) -> None:
    blocks = await asyncio.gather(*(ask(dialer, box.source) for _ in range(20)))
    assert set(blocks) == {box.block}
    assert box.metrics.carrier("quic").connections() == 1


async def test_where_udp_is_swallowed_tls_answers_soon_and_at_once_the_next_time(
    box: Box, dialer: HttpDialer
) -> None:
    async with _no_udp(box, swallowed=True) as source:
        started = time()
        assert (await dialer.request(source, "POST", "/echo", body=b"once")).body == b"once"
        assert time() - started < 2
        started = time()
        assert (await dialer.request(source, "POST", "/echo", body=b"twice")).body == b"twice"
        assert time() - started < 0.25
    assert (box.answers("quic"), box.answers("tls")) == (0, 2)


async def test_where_udp_is_refused_tls_answers_at_once(box: Box, dialer: HttpDialer) -> None:
    async with _no_udp(box, swallowed=False) as source:
        started = time()
        assert (await dialer.request(source, "POST", "/echo", body=b"once")).body == b"once"
        assert time() - started < 0.25
    assert (box.answers("quic"), box.answers("tls")) == (0, 1)


async def test_a_race_of_both_transports_asks_once(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farcast.node.http.dial.HEAD_START_S", 0.0)
    bodies = [f"{at}".encode() for at in range(10)]
    for body in bodies:
        fresh = HttpDialer(allow_private=True)
        assert (await fresh.request(box.source, "POST", "/echo", body=body)).body == body
        await fresh.close()
    assert box.answers("quic") + box.answers("tls") == len(bodies)


@pytest.mark.parametrize("udp", [True, False])
async def test_another_key_is_refused_on_either_transport(box: Box, dialer: HttpDialer, udp: bool) -> None:  # noqa: FBT001
    stranger = box.source._replace(key=DEVICE.key)
    if udp:
        with pytest.raises(RemoteError) as caught:
            await dialer.request(stranger, "GET", "/ipfs/x")
    else:
        async with _no_udp(box, swallowed=True) as source:
            with pytest.raises(RemoteError) as caught:
                await dialer.request(source._replace(key=DEVICE.key), "GET", "/ipfs/x")
    assert caught.value.reason == "wrong_key"
    assert box.answers("quic") + box.answers("tls") == 0


async def test_nothing_there_is_unreachable(dialer: HttpDialer) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        source = Source(TierName.RELAY, "none", f"127.0.0.1:{probe.getsockname()[1]}", BOX.key)
    with pytest.raises(UnreachableError):
        await dialer.request(source, "GET", "/", timeout_s=3)


async def test_a_box_restarted_on_its_port_is_found_again(tmp_path: Path, dialer: HttpDialer) -> None:
    box = Box(tmp_path)
    async with Listener(box.router, lambda _: None, BOX, box.metrics, host="127.0.0.1", port=0) as listener:
        box.port = listener.port
        assert await ask(dialer, box.source) == box.block
    async with Listener(box.router, lambda _: None, BOX, box.metrics, host="127.0.0.1", port=box.port):
        async with asyncio.timeout(5):
            assert await ask(dialer, box.source) == box.block


async def test_a_box_on_every_address_is_reached_at_each(tmp_path: Path, dialer: HttpDialer) -> None:
    box = Box(tmp_path)
    async with Listener(box.router, lambda _: None, BOX, box.metrics, port=0) as listener:
        for host in ("127.0.0.1", "127.0.0.2", "[::1]"):
            source = box.source._replace(address=f"{host}:{listener.port}")
            assert await ask(dialer, source) == box.block
        assert box.answers("quic") == 3
        cdn = box.cdn._replace(address=f"http://[::1]:{listener.port}")
        assert await ask(dialer, cdn) == box.block


async def test_private_addresses_are_never_dialled_unless_allowed(box: Box) -> None:
    dialer = HttpDialer()
    named = Source(TierName.CDN, "cdn", f"http://localhost:{box.port}")
    for source in (box.source, box.cdn, named, box.source._replace(address=f"localhost:{box.port}")):
        with pytest.raises(UnreachableError) as caught:
            await dialer.request(source, "GET", "/ipfs/x")
        assert caught.value.reason == "private_address"
    assert box.answers("quic") + box.answers("tls") + box.answers("tcp") == 0
    await dialer.close()


async def test_a_cdn_is_asked_plainly_without_redirects_or_negotiation(box: Box, dialer: HttpDialer) -> None:
    reply = await dialer.request(box.cdn, "GET", "/ipfs/x?format=raw")
    assert reply.body == box.block
    assert reply.headers["x-fields"] == "accept-encoding host"
    assert (await dialer.request(box.cdn, "GET", "/redirect")).status == 302
    assert box.answers("tcp") == 2


@pytest.mark.parametrize(
    ("base", "path", "target"),
    [
        ("", "/x?format=raw", "/x?format=raw"),
        ("/films/", "/x", "/films/x"),
        ("?verify=1-a", "/x?format=raw", "/x?format=raw&verify=1-a"),
        ("/films?verify=1-a", "/x", "/films/x?verify=1-a"),
        ("/bcdn_token=a&expires=1/films", "/x?format=raw", "/bcdn_token=a&expires=1/films/x?format=raw"),
    ],
)
async def test_a_token_in_a_base_goes_with_every_request(
    dialer: HttpDialer, base: str, path: str, target: str
) -> None:
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.split()[1].decode())
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        place = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await dialer.request(Source(TierName.CDN, "cdn", place + base), "GET", path)
    assert asked == [target]


@pytest.mark.parametrize("keyed", [True, False])
async def test_an_answer_past_the_limit_is_too_large(box: Box, dialer: HttpDialer, keyed: bool) -> None:  # noqa: FBT001
    source = box.source if keyed else box.cdn
    with pytest.raises(RemoteError) as caught:
        await dialer.request(source, "GET", "/ipfs/huge", limit_bytes=SIZE)
    assert caught.value.reason == "too_large"
    assert await ask(dialer, source) == box.block


@pytest.mark.parametrize("keyed", [True, False])
async def test_silence_ends_at_the_deadline_and_frees_the_handler(
    box: Box,
    dialer: HttpDialer,
    keyed: bool,  # noqa: FBT001
) -> None:
    with pytest.raises(UnreachableError) as caught:
        await dialer.request(box.source if keyed else box.cdn, "GET", "/wait", timeout_s=0.5)
    assert caught.value.reason == "timeout"
    await asyncio.wait_for(box.ended.wait(), 5)


async def test_a_signed_request_proves_its_key_once(box: Box, dialer: HttpDialer) -> None:
    for body in (b"", b"pulses" * 1000):
        reply = await dialer.signed_request(box.source, "POST", "/signed?x=1", body, DEVICE)
        assert (reply.status, reply.body) == (200, body)
        assert reply.headers["x-key"] == DEVICE.key.hex()


async def test_a_proof_meant_for_another_box_is_refused(box: Box, dialer: HttpDialer) -> None:
    # a box in the middle hands our proof on to the real one: its key is in the proof
    async with Listener(
        box.router, lambda _: None, DEVICE, HttpMetrics(CollectorRegistry()), host="127.0.0.1", port=0
    ) as middle:
        source = Source(TierName.RELAY, "middle", f"127.0.0.1:{middle.port}", DEVICE.key)
        reply = await dialer.signed_request(source, "POST", "/signed", b"x", DEVICE)
    assert reply.status == 401
    assert b"wrong_request" in reply.body
    assert "www-authenticate" in reply.headers


@pytest.mark.parametrize("address", ["", "host", "host:0", "host:99999", "::1:80", "[::1]", "http://x:1/"])
async def test_a_malformed_address_is_one_clear_error(dialer: HttpDialer, address: str) -> None:
    with pytest.raises(FarcastError) as caught:
        await dialer.request(Source(TierName.RELAY, "odd", address, BOX.key), "GET", "/")
    assert caught.value.reason == "malformed"


async def test_a_closed_dialler_dials_no_more(box: Box) -> None:
    dialer = HttpDialer(allow_private=True)
    await dialer.request(box.source, "GET", "/ipfs/x")
    await dialer.close()
    for source in (box.source, box.cdn):
        with pytest.raises(UnreachableError):
            await dialer.request(source, "GET", "/ipfs/x")
