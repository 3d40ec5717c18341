"""Blocks from boxes: plain TCP first, verified, and QUIC where TCP is closed, late, mute, slow or lying."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.http import bulk, paths
from farcast.node.http.address import Place
from farcast.node.http.dial import HttpDialer
from farcast.node.http.listener import Listener
from farcast.node.http.paths import LANES, Carrier
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.errors import RefusedError, UnreachableError
from farcast.protocol.ports import Reply, Source
from farcast.tests.wire.talkingbox import BOX, TalkingBox, UdpRelay

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
WRONG = {
    "a page": b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nplease log in"[:-1],
    "a redirect": b"HTTP/1.1 302 Found\r\nlocation: http://hotel.example/\r\ncontent-length: 0\r\n\r\n",
    "a gate": b"HTTP/1.1 511 Network Authentication Required\r\ncontent-length: 0\r\n\r\n",
    "no HTTP": b"SSH-2.0-hello\r\n",
    "too much": b"HTTP/1.1 200 OK\r\ncontent-length: 99000000\r\n\r\n" + bytes(3 << 20),
    "a part": b"HTTP/1.1 200 OK\r\ncontent-length: 1048576\r\n\r\n" + bytes(70_000),
}


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[TalkingBox]:
    made = TalkingBox(tmp_path)
    async with Listener(made.router, lambda _: None, BOX, made.metrics, host="127.0.0.1", port=0) as listener:
        made.port = listener.port
        yield made


@pytest.fixture
async def dialer() -> AsyncIterator[HttpDialer]:
    made = HttpDialer(allow_private=True)
    yield made
    await made.close()


def free_pair() -> int:
    """Return a port that is free for TCP and for UDP."""
    with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        udp.bind(("127.0.0.1", tcp.getsockname()[1]))
        return int(tcp.getsockname()[1])


@asynccontextmanager
async def way(box: TalkingBox, tcp: Serve | None = None) -> AsyncGenerator[Source, None]:
    """Give a source whose UDP reaches the box and whose TCP is what ``tcp`` makes of it; None: closed."""
    port = free_pair()
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: UdpRelay(("127.0.0.1", box.port)), local_addr=("127.0.0.1", port)
    )
    serving = set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        assert tcp is not None
        serving.add(task)
        try:
            await tcp(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port) if tcp else None
    try:
        yield box.source._replace(address=f"127.0.0.1:{port}")
    finally:
        transport.close()
        if server is not None:
            server.close()
            await server.wait_closed()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


def through(box: TalkingBox, pause_s: list[float]) -> Serve:
    """Return a TCP way to the box whose connections share a link: ``pause_s[0]`` for 64 KiB to the client."""
    link = asyncio.Lock()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", box.port)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, slow: list[float]) -> None:
            try:
                while data := await source.read(65_536):
                    target.write(data)
                    await target.drain()
                    if slow[0]:
                        async with link:
                            await asyncio.sleep(slow[0])
            except OSError:
                pass  # one end left; the other is told by the close below
            target.close()

        try:
            await asyncio.gather(copy(reader, back, [0.0]), copy(there, writer, pause_s))
        finally:
            back.close()

    return serve


async def test_a_block_comes_by_plain_tcp_on_connections_that_are_kept(
    box: TalkingBox, dialer: HttpDialer
) -> None:
    for _ in range(3):
        assert await dialer.get_block(box.source, box.cid) == box.block
    assert (box.answers("tcp"), box.answers("tls"), box.answers("quic")) == (3, 0, 0)


async def test_who_wants_no_plain_blocks_gets_them_over_the_channel(box: TalkingBox) -> None:
    async with HttpDialer(allow_private=True, plain_blocks=False) as dialer:
        assert await dialer.get_block(box.source, box.cid) == box.block
    assert (box.answers("tcp"), box.answers("quic")) == (0, 1)


async def test_many_blocks_at_once_share_a_few_connections(box: TalkingBox, dialer: HttpDialer) -> None:
    count = 0
    serve = through(box, [0.0])

    async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        await serve(reader, writer)

    async with way(box, counted) as source:
        blocks = await asyncio.gather(*(dialer.get_block(source, box.cid) for _ in range(40)))
    assert blocks == [box.block] * 40
    assert 1 <= count <= LANES[-1]
    assert box.answers("tcp") == 40


async def test_a_title_goes_along_as_a_hint(box: TalkingBox, dialer: HttpDialer) -> None:
    await dialer.get_block(box.source, box.cid, headers={"farcast-title": "film"})
    assert "farcast-title" in box.last_fields
    assert box.answers("tcp") == 1


async def test_what_not_everybody_may_read_never_goes_along_in_the_clear(
    box: TalkingBox, dialer: HttpDialer
) -> None:
    assert await dialer.get_block(box.source, box.cid, headers={"authorization": "Farcast x"}) == box.block
    assert "authorization" in box.last_fields
    assert (box.answers("tcp"), box.answers("quic")) == (0, 1)


async def test_where_tcp_is_closed_quic_brings_the_block_at_once(box: TalkingBox, dialer: HttpDialer) -> None:
    async with way(box) as source:
        for _ in range(2):
            started = monotonic()
            assert await dialer.get_block(source, box.cid) == box.block
            assert monotonic() - started < 1.0
        assert box.answers("quic") == 2
        assert dialer.path(Place(source.address, source.key)).closed(Carrier.TCP, monotonic() + 50)


async def test_where_syns_are_swallowed_quic_brings_the_block_and_the_next_one_sooner(
    box: TalkingBox, dialer: HttpDialer
) -> None:
    async with way(box) as source:
        where = ("127.0.0.1", int(source.address.rpartition(":")[2]))
        with socket.socket() as deaf, socket.socket() as first, socket.socket() as second:
            deaf.bind(where)
            deaf.listen(0)
            for filler in (first, second):  # a full backlog drops what comes after
                filler.setblocking(False)
                filler.connect_ex(where)
            await asyncio.sleep(0.05)
            started = monotonic()
            assert await dialer.get_block(source, box.cid) == box.block
            assert bulk.HEAD_START_S < monotonic() - started < bulk.HEAD_START_S + 1.0
            started = monotonic()
            assert await dialer.get_block(source, box.cid) == box.block
            assert monotonic() - started < bulk.HEAD_START_S
    assert box.answers("quic") == 2


async def test_where_tcp_connects_and_says_nothing_quic_brings_the_block(
    box: TalkingBox, dialer: HttpDialer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "SILENCE_S", 0.4)
    seen = list[bytes]()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        await reader.read()
        writer.close()

    async with way(box, mute) as source:
        assert await dialer.get_block(source, box.cid) == box.block
        assert await dialer.get_block(source, box.cid) == box.block
    assert (len(seen), box.answers("quic")) == (1, 2)


@pytest.mark.parametrize("lie", WRONG)
async def test_what_somebody_on_the_way_says_is_never_taken_for_the_box(
    box: TalkingBox, dialer: HttpDialer, lie: str
) -> None:
    asked = list[bytes]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(WRONG[lie])
        writer.close()

    async with way(box, answer) as source:
        for _ in range(3):
            assert await dialer.get_block(source, box.cid) == box.block
        assert box.answers("quic") == 3
        assert len(asked) <= 2  # aiohttp asks once more where a connection breaks off
        assert dialer.path(Place(source.address, source.key)).closed(Carrier.TCP, monotonic() + 1)


async def test_a_box_that_has_other_bytes_itself_is_told_by_its_own_channel(
    box: TalkingBox, dialer: HttpDialer
) -> None:
    other = Cid.of(RAW, b"other")
    assert not other.matches(
        await dialer.get_block(box.source, other)
    )  # the caller bans the box, not the path
    assert (box.answers("tcp"), box.answers("quic")) == (1, 1)


async def test_a_refusal_is_the_answer_and_asks_nobody_else(box: TalkingBox, dialer: HttpDialer) -> None:
    box.busy = True
    with pytest.raises(RefusedError) as caught:
        await dialer.get_block(box.source, box.cid)
    assert (caught.value.status, caught.value.retry_after_s) == (429, 3.0)
    assert (box.answers("tcp"), box.answers("quic")) == (1, 0)


async def test_slow_tcp_loses_to_quic_and_a_closed_one_is_used_again_once_it_recovers(
    box: TalkingBox, dialer: HttpDialer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "SLOW_BYTES_S", 20e6)  # else it takes a minute of a really slow path
    async with way(box, through(box, [0.03])) as source:
        path = dialer.path(Place(source.address, source.key))
        await asyncio.gather(*(dialer.get_block(source, box.cid) for _ in range(14)))
        assert path.favourite is Carrier.QUIC
        assert path.switches == 1
    monkeypatch.setattr(bulk, "FIRM_S", 0.2)
    async with way(box) as source:
        await dialer.get_block(source, box.cid)
        assert box.answers("tcp") < 14
        await asyncio.sleep(0.25)
        port = int(source.address.rpartition(":")[2])
        before = box.answers("tcp")
        async with await asyncio.start_server(through(box, [0.0]), "127.0.0.1", port):
            assert await dialer.get_block(source, box.cid) == box.block
        assert box.answers("tcp") == before + 1


async def test_a_challenger_that_hangs_costs_a_block_little_and_loses(
    box: TalkingBox, dialer: HttpDialer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[Source]()

    async def hang(source: Source, call: bulk.Call) -> Reply:
        del call
        asked.append(source)
        await asyncio.sleep(60)
        raise AssertionError

    monkeypatch.setattr(paths, "SLOW_BYTES_S", 20e6)
    monkeypatch.setattr(dialer.bulk, "_channel", hang)
    async with way(box, through(box, [0.02])) as source:
        for _ in range(6):
            async with asyncio.timeout(5):
                assert await dialer.get_block(source, box.cid) == box.block
        path = dialer.path(Place(source.address, source.key))
    assert len(asked) == 1
    assert path.favourite is Carrier.TCP
    assert all(meter.flights == 0 for meter in path.meters.values())


async def test_where_udp_is_blocked_blocks_never_wait_for_it(box: TalkingBox, dialer: HttpDialer) -> None:
    async with await asyncio.start_server(through(box, [0.0]), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hole:
            hole.bind(("127.0.0.1", port))
            hole.setblocking(False)
            source = box.source._replace(address=f"127.0.0.1:{port}")
            started = monotonic()
            for _ in range(3):
                assert await dialer.get_block(source, box.cid) == box.block
            assert monotonic() - started < 1.0
            with pytest.raises(BlockingIOError):
                hole.recv(1)


async def test_a_block_nobody_waits_for_any_more_gives_its_lane_back(
    box: TalkingBox, dialer: HttpDialer
) -> None:
    box.hangs = True
    waiting = [asyncio.ensure_future(dialer.get_block(box.source, box.cid)) for _ in range(9)]
    await asyncio.wait_for(box.started.wait(), 5)
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    box.hangs = False
    assert await dialer.get_block(box.source, box.cid) == box.block
    path = dialer.path(Place(box.source.address, box.source.key))
    assert all(meter.flights == 0 for meter in path.meters.values())


async def test_nobody_there_is_unreachable_and_blames_no_carrier(dialer: HttpDialer, box: TalkingBox) -> None:
    source = box.source._replace(address=f"127.0.0.1:{free_pair()}")
    with pytest.raises(UnreachableError):
        await dialer.get_block(source, box.cid)
    path = dialer.path(Place(source.address, source.key))
    assert not path.closed(Carrier.TCP, monotonic())


async def test_a_box_that_ended_is_told_at_once_and_looked_for_again_by_every_carrier(
    tmp_path: Path, dialer: HttpDialer, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = TalkingBox(tmp_path)
    async with Listener(box.router, lambda _: None, BOX, box.metrics, host="127.0.0.1", port=0) as listener:
        box.port = listener.port
        assert await dialer.get_block(box.source, box.cid) == box.block
    asked = list[Source]()

    async def channel(source: Source, call: bulk.Call) -> Reply:
        del call
        asked.append(source)
        raise UnreachableError("nobody there")

    monkeypatch.setattr(dialer.bulk, "_channel", channel)
    for tries in (0, 1):
        with pytest.raises(UnreachableError):
            await dialer.get_block(box.source, box.cid)
        assert len(asked) == tries


async def test_what_carried_blocks_and_what_failed_to_is_counted(box: TalkingBox) -> None:
    registry = CollectorRegistry()
    async with HttpDialer(allow_private=True, registry=registry) as dialer:
        await dialer.get_block(box.source, box.cid)
        async with way(box) as source:
            await dialer.get_block(source, box.cid)
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }
    assert samples == {
        ("farcast_node_carried_blocks_total", "tcp"): 1,
        ("farcast_node_carried_blocks_total", "quic"): 1,
        ("farcast_node_carrier_failures_total", "tcp", "refused"): 1,
    }


async def test_private_addresses_are_never_asked_for_blocks_unless_allowed(box: TalkingBox) -> None:
    async with HttpDialer() as dialer:
        for source in (box.source, box.cdn):
            with pytest.raises(UnreachableError) as caught:
                await dialer.get_block(source, box.cid)
            assert caught.value.reason == "private_address"
    assert sum(box.answers(carrier) for carrier in ("tcp", "tls", "quic")) == 0
