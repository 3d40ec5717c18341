"""The byte server on loopback, spoken to by bare sockets."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.http.bytes import Limits
from farcast.node.http.connection import RECEIVE_BYTES
from farcast.node.http.exchange import Answer, Exchange, FilePart, Hosts, Router
from farcast.node.http.governor import Governor, Lan, Rules, State
from farcast.node.http.head import Head
from farcast.node.http.listener import Listener
from farcast.node.http.tally import HttpMetrics
from farcast.node.http.tls import client_context, peer_key
from farcast.protocol.errors import RefusedError, UsageError
from farcast.protocol.identity import Identity

BOX = Identity(b"b" * 32)
QUICK = Limits(connections=8, head_s=0.4, idle_s=0.8, stall_s=0.5)
GET = b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s\r\n"


class Box:
    """A listener with two block files, one long file, and some routes."""

    def __init__(self, folder: Path) -> None:
        """Write the files."""
        self.blocks = [os.urandom(300_000), os.urandom(70_001)]
        self.whole = b"".join(self.blocks)
        for at, block in enumerate(self.blocks):
            (folder / f"{at}").write_bytes(block)
        self.long = folder / "long"
        with self.long.open("wb") as file:
            file.truncate(64 << 20)
        parts = [FilePart(str(folder / f"{at}"), 0, len(block)) for at, block in enumerate(self.blocks)]
        fields = {"etag": '"seg"', "content-type": "video/mp4"}
        self.answers = {
            "/segment": Answer(200, fields, parts),
            "/long": Answer(200, {}, [FilePart(str(self.long), 0, 64 << 20)]),
            "/gone": Answer(200, {}, [FilePart(str(folder / "none"), 0, 1)]),
            "/short": Answer(200, {}, [FilePart(str(folder / "1"), 0, 70_002)]),
            "/small": Answer(200, {}, b"small"),
        }
        self.router = Router(Hosts(["box.example"]))
        self.router.route("GET", "/slow/{n}", self._slow)
        self.router.route("POST", "/echo", self._echo)
        self.router.route("GET", "/fail/{kind}", self._fail)
        self.router.route("GET", "/parts", self._parts)
        self.metrics = HttpMetrics(CollectorRegistry())
        self.port = 0

    def lookup(self, head: Head) -> Answer | None:
        """Answer what is ready."""
        if head.path == "/bug":
            raise KeyError(head.path)
        return self.answers.get(head.path)

    async def _slow(self, exchange: Exchange) -> Answer:
        await asyncio.sleep(0.01)
        return Answer.json({"n": exchange.match["n"], "secure": exchange.secure})

    async def _echo(self, exchange: Exchange) -> Answer:
        return Answer(200, {}, await exchange.read(100_000))

    async def _parts(self, _: Exchange) -> Answer:
        return self.answers["/segment"]

    async def _fail(self, exchange: Exchange) -> Answer:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"a" * 1000
            if exchange.match["kind"] != "short":
                raise RefusedError("the source failed", reason="upstream")

        sized = {"content-length": "2000"} if exchange.match["kind"] != "chunked" else {}
        return Answer(200, sized, chunks())

    def refused(self, reason: str) -> float:
        """Count refusals for one reason."""
        for family in self.metrics.collect():
            for sample in family.samples:
                if sample.labels.get("reason") == reason:
                    return sample.value
        return 0


@asynccontextmanager
async def _running(
    box: Box, limits: Limits = QUICK, governor: Governor | None = None
) -> AsyncGenerator[Listener, None]:
    async with Listener(
        box.router, box.lookup, BOX, box.metrics, host="127.0.0.1", port=0, limits=limits, governor=governor
    ) as listener:
        box.port = listener.port
        yield listener


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    made = Box(tmp_path)
    async with _running(made):
        yield made


async def _drain(reader: asyncio.StreamReader) -> int:
    """Read to the end; raises ``ConnectionResetError`` where that is abnormal."""
    total = 0
    async with asyncio.timeout(20):
        while data := await reader.read(1 << 20):
            total += len(data)
    return total


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - counters have no event
            await asyncio.sleep(0.02)


async def _talk(box: Box, sent: bytes, *, until_close: bool = True) -> bytes:
    """Send bytes and return all that comes until the server closes; ``ConnectionError`` on reset."""
    reader, writer = await asyncio.open_connection("127.0.0.1", box.port)
    try:
        writer.write(sent)
        async with asyncio.timeout(10):
            return await reader.read(-1 if until_close else 1 << 20)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def _close(path: bytes, fields: bytes = b"") -> bytes:
    return GET % (path, fields + b"Connection: close\r\n")


def _split(data: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}, body


async def test_a_segment_of_two_blocks_is_sent_whole(box: Box) -> None:
    status, headers, body = _split(await _talk(box, _close(b"/segment")))
    assert status == 200
    assert headers["content-length"] == str(len(box.whole))
    assert headers["etag"] == '"seg"'
    assert body == box.whole


async def test_a_range_across_blocks_is_sent_exactly(box: Box) -> None:
    status, headers, body = _split(await _talk(box, _close(b"/segment", b"Range: bytes=299990-300009\r\n")))
    assert status == 206
    assert headers["content-range"] == f"bytes 299990-300009/{len(box.whole)}"
    assert body == box.whole[299_990:300_010]


async def test_head_and_conditions_send_no_body(box: Box) -> None:
    head = (GET % (b"/segment", b"Connection: close\r\n")).replace(b"GET", b"HEAD")
    status, headers, body = _split(await _talk(box, head))
    assert (status, headers["content-length"], body) == (200, str(len(box.whole)), b"")
    status, headers, body = _split(await _talk(box, _close(b"/segment", b'If-None-Match: "seg"\r\n')))
    assert (status, body) == (304, b"")
    assert "content-length" not in headers
    status, headers, body = _split(await _talk(box, _close(b"/segment", b"Range: bytes=999999-\r\n")))
    assert (status, headers["content-length"], body) == (416, "0", b"")


async def test_pipelined_requests_are_answered_in_order_whoever_answers(box: Box) -> None:
    paths = [b"/small", b"/segment", b"/slow/1", b"/slow/2", b"/parts"]
    sent = b"".join(GET % (path, b"") for path in paths) + _close(b"/slow/3")
    data = await _talk(box, sent)
    bodies: list[bytes] = []
    while data:
        _, headers, rest = _split(data)
        size = int(headers["content-length"])
        bodies.append(rest[:size])
        data = rest[size:]
    small, segment, one, two, parts, three = bodies
    assert (small, segment, parts) == (b"small", box.whole, box.whole)
    assert [b'"n":"%d"' % n in body for n, body in ((1, one), (2, two), (3, three))] == [True] * 3


@pytest.mark.parametrize("start", [0, 295_000], ids=["of one block", "across two blocks"])
async def test_many_pipelined_requests_are_all_answered_while_the_client_reads_late(
    box: Box, start: int
) -> None:
    count, size = 300, 60_000
    reader, writer = await asyncio.open_connection("127.0.0.1", box.port)
    asked = GET % (b"/segment", b"Range: bytes=%d-%d\r\n" % (start, start + size - 1))
    writer.write(asked * count)
    await asyncio.sleep(0.2)
    digest = hashlib.sha256(box.whole[start : start + size]).digest()
    for _ in range(count):
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"206 Partial Content" in head
            assert hashlib.sha256(await reader.readexactly(size)).digest() == digest
    writer.close()


async def test_more_than_is_read_at_once_is_all_answered_on_a_quiet_connection(box: Box) -> None:
    asked, count = GET % (b"/segment", b"Range: bytes=0-0\r\n"), 2 * RECEIVE_BYTES // 60
    reader, writer = await asyncio.open_connection("127.0.0.1", box.port)
    for requests in (1, 1, count):
        writer.write(asked * requests)
        for _ in range(requests):
            async with asyncio.timeout(5):
                assert b"206 Partial Content" in await reader.readuntil(b"\r\n\r\n")
                assert await reader.readexactly(1) == box.whole[:1]
        await asyncio.sleep(0.05)
    writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n X: folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding : chunked\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
async def test_an_ambiguous_request_is_400_and_what_follows_is_never_read(box: Box, sent: bytes) -> None:
    data = await _talk(box, sent + GET % (b"/small", b""))
    status, headers, body = _split(data)
    assert (status, headers["connection"]) == (400, "close")
    assert data.count(b"HTTP/1.1 ") == 1
    assert b"small" not in body
    assert box.refused("bad_request") == 1


async def test_an_unknown_host_is_421_even_for_what_is_ready(box: Box) -> None:
    sent = _close(b"/segment").replace(b"Host: 127.0.0.1", b"Host: evil.example")
    status, _, _ = _split(await _talk(box, sent))
    assert status == 421
    assert _split(await _talk(box, sent.replace(b"evil", b"box")))[0] == 200


async def test_a_look_up_s_bug_is_a_500_and_ends_the_connection(box: Box) -> None:
    data = await _talk(box, GET % (b"/bug", b"") + GET % (b"/small", b""))
    assert _split(data)[0] == 500
    assert data.count(b"HTTP/1.1 ") == 1
    assert box.refused("bug") == 1


async def test_a_body_goes_to_the_router_and_is_bounded(box: Box) -> None:
    post = b"POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    assert _split(await _talk(box, post + b"Content-Length: 5\r\n\r\nhello"))[2] == b"hello"
    chunked = post + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    assert _split(await _talk(box, chunked))[2] == b"hello"
    assert _split(await _talk(box, post + b"Content-Length: 100001\r\n\r\n"))[0] == 413
    big = b"%x\r\n" % 200_000 + b"x" * 200_000 + b"\r\n0\r\n\r\n"
    assert _split(await _talk(box, post + b"Transfer-Encoding: chunked\r\n\r\n" + big))[0] == 413


async def test_a_client_that_expects_100_is_told_to_continue(box: Box) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", box.port)
    writer.write(
        b"POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    )
    async with asyncio.timeout(5):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hi")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(2) == b"hi"
    writer.close()


async def test_a_file_gone_or_cut_since_the_look_up_is_left_to_the_router(box: Box) -> None:
    for path in (b"/gone", b"/short"):
        assert _split(await _talk(box, _close(path)))[0] == 404


@pytest.mark.parametrize("kind", ["chunked", "sized", "short"])
async def test_a_failing_iterator_ends_in_a_reset(box: Box, kind: str) -> None:
    with pytest.raises(ConnectionResetError):
        await _talk(box, GET % (f"/fail/{kind}".encode(), b""))


async def test_a_file_cut_while_it_is_sent_ends_in_a_reset(box: Box) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", box.port, limit=1 << 16)
    writer.write(GET % (b"/long", b""))
    await reader.readexactly(1000)
    os.truncate(box.long, 1 << 20)
    with pytest.raises(ConnectionResetError):
        await _drain(reader)
    assert box.refused("truncated") == 1
    writer.close()


async def test_what_was_sent_ahead_is_not_looked_at_once_the_connection_has_ended(tmp_path: Path) -> None:
    box, governor = Box(tmp_path), Governor()
    async with _running(box, Limits(), governor):
        reader, writer = await asyncio.open_connection("127.0.0.1", box.port, limit=1 << 16)
        writer.write(
            GET % (b"/long", b"") + b"POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\n\r\nx"
        )
        await reader.readexactly(1000)
        os.truncate(box.long, 1 << 20)
        with pytest.raises(ConnectionResetError):
            await _drain(reader)
        await asyncio.sleep(0.1)
        assert (governor.connections, box.refused("truncated"), box.refused("client_gone")) == (0, 1, 0)
        writer.close()


async def test_a_block_cut_since_it_was_opened_ends_in_a_reset(box: Box, tmp_path: Path) -> None:
    asked = GET % (b"/segment", b"Range: bytes=0-99999\r\n")
    reader, writer = await asyncio.open_connection("127.0.0.1", box.port)
    writer.write(asked)
    await reader.readuntil(b"\r\n\r\n")
    assert await reader.readexactly(100_000) == box.whole[:100_000]
    os.truncate(tmp_path / "0", 50_000)
    writer.write(asked)
    await reader.readuntil(b"\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        await _drain(reader)
    assert box.refused("truncated") == 1
    writer.close()


async def test_a_head_that_comes_too_slowly_loses_the_connection(box: Box) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", box.port)
    for at in range(30):  # a byte now and then does not help
        with suppress(ConnectionError):
            writer.write(b"GET /small HTTP/1.1\r\nHost"[at : at + 1])
            await writer.drain()
        await asyncio.sleep(0.1)
        if reader.at_eof():
            break
    assert reader.at_eof()
    assert box.refused("slow_head") == 1
    writer.close()


async def test_a_client_that_stops_reading_is_reset(box: Box) -> None:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", box.port))
    await loop.sock_sendall(sock, GET % (b"/long", b""))
    await _until(lambda: box.refused("stalled"))
    reader, writer = await asyncio.open_connection(sock=sock)
    with pytest.raises(ConnectionResetError):
        await _drain(reader)
    writer.close()


async def test_an_idle_connection_is_closed(box: Box) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", box.port)
    writer.write(GET % (b"/small", b""))
    async with asyncio.timeout(10):
        assert (await reader.read(-1)).endswith(b"small")
    writer.close()


async def test_a_client_that_closes_its_half_still_gets_the_answer(box: Box) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", box.port)
    writer.write(GET % (b"/segment", b""))
    writer.write_eof()
    async with asyncio.timeout(5):
        assert (await reader.read(-1)).endswith(box.whole[-100:])
    writer.close()


async def test_connections_past_the_limit_get_a_503(box: Box) -> None:
    open_ones = [await asyncio.open_connection("127.0.0.1", box.port) for _ in range(QUICK.connections)]
    reader, writer = await asyncio.open_connection("127.0.0.1", box.port)
    async with asyncio.timeout(5):
        assert b"503" in await reader.read(-1)
    for _, each in [*open_ones, (reader, writer)]:
        each.close()
    await asyncio.sleep(0.05)
    assert _split(await _talk(box, _close(b"/small")))[0] == 200


async def test_tls_on_the_same_port_carries_the_boxs_key(box: Box) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", box.port, ssl=client_context())
    tls = writer.get_extra_info("ssl_object")
    assert isinstance(tls, ssl.SSLObject)
    certificate = tls.getpeercert(binary_form=True)
    assert certificate is not None
    assert peer_key(certificate) == BOX.key
    assert tls.version() == "TLSv1.3"
    writer.write(GET % (b"/slow/1", b"") + _close(b"/parts"))
    async with asyncio.timeout(5):
        data = await reader.read(-1)
    assert b'"secure":true' in data
    assert data.endswith(box.whole[-1000:])
    writer.close()


async def test_a_broken_tls_handshake_ends_that_connection_alone(box: Box) -> None:
    with suppress(ConnectionError):
        await _talk(box, b"\x16\x03\x01\x00\x05hello")
    await _until(lambda: box.refused("tls_handshake"))
    assert _split(await _talk(box, _close(b"/small")))[0] == 200


async def test_closing_lets_an_answer_under_way_finish(tmp_path: Path) -> None:
    box = Box(tmp_path)
    async with _running(box, Limits()) as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", box.port, limit=1 << 16)
        writer.write(GET % (b"/long", b""))
        head = await reader.readuntil(b"\r\n\r\n")
        closing = asyncio.ensure_future(listener.close(10))
        body = await _drain(reader)
        await closing
    assert b"content-length: 67108864" in head
    assert body == 64 << 20
    writer.close()


async def test_no_descriptor_stays_open_after_closing(tmp_path: Path) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    before = count()
    box = Box(tmp_path)
    async with _running(box):
        await _talk(box, _close(b"/segment"))
        await _talk(box, _close(b"/parts"))
    await asyncio.sleep(0.05)
    assert count() == before


async def test_a_taken_port_names_the_key_to_change(box: Box) -> None:
    listener = Listener(box.router, box.lookup, BOX, box.metrics, host="127.0.0.1", port=box.port)
    with pytest.raises(UsageError, match=r"\[listen\] port"):
        async with listener:
            pass


async def test_counts_tell_carrier_status_and_bytes(box: Box) -> None:
    await _talk(box, _close(b"/segment"))
    await _talk(box, _close(b"/slow/1"))
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in box.metrics.collect()
        for sample in family.samples
    }
    assert samples["farcast_node_http_requests_total", "tcp", "2xx"] == 2
    assert samples["farcast_node_http_sent_bytes_total", "tcp"] >= len(box.whole)


async def _ask(
    stream: tuple[asyncio.StreamReader, asyncio.StreamWriter], path: bytes
) -> tuple[int, str, int]:
    """Ask on an open connection; returns status, Retry-After and size of the body."""
    reader, writer = stream
    writer.write(GET % (path, b""))
    async with asyncio.timeout(10):
        status, headers, _ = _split(await reader.readuntil(b"\r\n\r\n"))
        size = int(headers["content-length"])
        await reader.readexactly(size)
    return status, headers.get("retry-after", ""), size


async def test_a_client_over_its_requests_is_told_when_to_come_back_and_keeps_its_connection(
    tmp_path: Path,
) -> None:
    box = Box(tmp_path)
    governor = Governor(Rules(client_requests_s=20, client_burst=3), Lan(()))
    async with _running(box, governor=governor):
        stream = await asyncio.open_connection("127.0.0.1", box.port)
        answers = [await _ask(stream, b"/small") for _ in range(4)]
        assert [status for status, _, _ in answers] == [200, 200, 200, 429]
        assert answers[3][1] == "1"
        await asyncio.sleep(0.2)
        assert (await _ask(stream, b"/slow/1"))[0] == 200  # aiohttp's path keeps the same rule
        answers = [await _ask(stream, b"/slow/1") for _ in range(5)]
        assert (429, "1") in {(status, retry) for status, retry, _ in answers}
        assert box.refused("client_requests") >= 2
        stream[1].close()


async def test_one_address_has_so_many_connections_and_gets_one_back_by_closing_one(tmp_path: Path) -> None:
    box = Box(tmp_path)
    governor = Governor(Rules(client_connections=2), Lan(()))
    async with _running(box, governor=governor):
        streams = [await asyncio.open_connection("127.0.0.1", box.port) for _ in range(2)]
        assert (await _ask(streams[0], b"/slow/1"))[0] == 200  # one of them is aiohttp's by now
        assert (await _ask(streams[1], b"/small"))[0] == 200
        assert _split(await _talk(box, b""))[0] == 429
        for _, writer in streams:
            writer.close()
        await _until(lambda: not governor.connections)
        assert _split(await _talk(box, _close(b"/small")))[0] == 200


async def test_the_upload_rate_is_shared_and_counted(tmp_path: Path) -> None:
    box = Box(tmp_path)
    governor = Governor(Rules(upload_bytes_s=1_000_000), Lan(()))
    async with _running(box, governor=governor):
        streams = [await asyncio.open_connection("127.0.0.1", box.port, limit=1 << 20) for _ in range(4)]
        started = asyncio.get_running_loop().time()
        sizes = [size for _, _, size in await asyncio.gather(*(_ask(each, b"/segment") for each in streams))]
        took_s = asyncio.get_running_loop().time() - started
        assert sizes == [len(box.whole)] * 4
        assert governor.wan.bytes == 4 * len(box.whole)
        # 1.48 MB at 1 MB/s, a second's worth of it at once; what is waited for comes in quanta of 64 KiB
        assert 0.3 < took_s < 3
        assert (await _ask(streams[0], b"/parts"))[2] == len(box.whole)  # aiohttp's path, by the meter
        assert governor.wan.bytes == 5 * len(box.whole)
        for _, writer in streams:
            writer.close()


async def test_a_client_that_ends_while_the_rate_holds_it_back_gives_back_its_part_at_once(
    tmp_path: Path,
) -> None:
    box = Box(tmp_path)
    governor = Governor(Rules(upload_bytes_s=200_000), Lan(()))
    async with _running(box, Limits(), governor):
        now = asyncio.get_running_loop().time
        assert governor.owe(2_000_000, now()) == pytest.approx(9, abs=0.1)
        _, writer = await asyncio.open_connection("127.0.0.1", box.port)
        writer.write(GET % (b"/long", b""))
        await _until(lambda: governor.owe(0, now()) > 9)
        writer.transport.abort()  # with the head unread, so by RST
        await _until(lambda: not governor.connections)
        assert 1 < governor.owe(0, now()) < 9
        assert governor.wan.bytes == 0


async def test_a_transfer_that_the_rate_would_hold_for_hours_ends(tmp_path: Path) -> None:
    """The last of a month's volume is gone: what is under way goes no further, and holds nothing."""
    box = Box(tmp_path)
    governor = Governor(Rules(upload_bytes_s=200_000), Lan(()))
    async with _running(box, Limits(stall_s=2), governor):
        reader, writer = await asyncio.open_connection("127.0.0.1", box.port, limit=1 << 16)
        writer.write(GET % (b"/long", b""))
        await reader.readuntil(b"\r\n\r\n")
        governor.set_rules(Rules(upload_bytes_s=1), asyncio.get_running_loop().time())
        with pytest.raises(ConnectionResetError):
            await _drain(reader)
        await _until(lambda: not governor.connections)
        assert box.refused("upload_rate") == 1
        writer.close()


async def test_a_client_of_aiohttps_that_takes_nothing_is_ended_by_the_kernel(tmp_path: Path) -> None:
    """Small answers, asked for ahead and never read: aiohttp has no clock for those."""
    box = Box(tmp_path)
    governor = Governor()
    async with _running(box, Limits(stall_s=2), governor):
        sock = socket.socket()
        with sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, ("127.0.0.1", box.port))
            await loop.sock_sendall(sock, GET % (b"/slow/1", b""))
            await _until(lambda: governor.connections == 1)
            with suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(20):
                    while governor.connections:
                        await loop.sock_sendall(sock, GET % (b"/slow/1", b"") * 20)
            assert not governor.connections


async def test_a_pause_lets_what_is_under_way_finish_and_begins_nothing(tmp_path: Path) -> None:
    box = Box(tmp_path)
    governor = Governor()
    async with _running(box, Limits(), governor) as _:
        reader, writer = await asyncio.open_connection("127.0.0.1", box.port, limit=1 << 16)
        writer.write(GET % (b"/long", b""))
        await reader.readuntil(b"\r\n\r\n")
        governor.set_state(State.PAUSED, 9)
        other = await asyncio.open_connection("127.0.0.1", box.port)
        assert (await _ask(other, b"/segment"))[:2] == (503, "9")
        assert (await _ask(other, b"/slow/1"))[0] == 200  # no transfer
        async with asyncio.timeout(20):
            assert len(await reader.readexactly(64 << 20)) == 64 << 20
        governor.set_state(State.SERVING)
        again = await asyncio.open_connection("127.0.0.1", box.port)
        assert (await _ask(again, b"/segment"))[0] == 200
        for each in (writer, other[1], again[1]):
            each.close()


async def test_hostile_clients_are_told_of_once_a_minute_and_without_their_address(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        for _ in range(5):
            await _talk(box, b"nonsense\r\n\r\n")
    assert box.refused("bad_request") == 5
    lines = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert lines == ["refused a client on the LAN: bad_request"]
    assert "127.0.0" not in caplog.text


async def test_a_flood_of_requests_whose_answers_nobody_reads_stays_in_the_kernel(box: Box) -> None:
    """Requests sent ahead are not read while an answer waits, and others are served meanwhile."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", box.port))
    sent = 0
    with suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(0.4):
            while True:
                await loop.sock_sendall(sock, (GET % (b"/segment", b"")) * 100)
                sent += 100
    assert sent < 200_000  # the kernel pushed back
    for _ in range(10):
        assert _split(await _talk(box, _close(b"/segment")))[2] == box.whole
    await _until(lambda: box.refused("stalled"))
    sock.close()
