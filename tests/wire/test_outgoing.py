"""Connections that a byte server takes over, on loopback: what room they get, and that they are answered."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.http import connection
from farcast.node.http.bytes import ByteServer
from farcast.node.http.exchange import Answer, FilePart, Hosts, Router
from farcast.node.http.files import FileCache
from farcast.node.http.outgoing import BURST_BYTES, WIDE_BYTES
from farcast.node.http.tally import HttpMetrics

MIB = 1 << 20
Pair = tuple[socket.socket, socket.socket]
GET = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


class _Nowhere:
    """Every request here is answered from files."""

    connections = 0

    def take(
        self, sock: socket.socket, peer: str, received: bytes, *, secure: bool, gone: Callable[[], None]
    ) -> None:
        raise AssertionError(sock, peer, received, secure, gone)

    async def close(self) -> None:
        return


@pytest.fixture
def blocks(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / str(number) for number in range(BURST_BYTES // MIB)]
    for path in paths:
        path.write_bytes(os.urandom(MIB))
    return paths


@pytest.fixture
async def server(blocks: list[Path]) -> AsyncIterator[ByteServer]:
    parts = [FilePart(str(path), 0, MIB) for path in blocks]
    made = ByteServer(
        Router(Hosts()), lambda _: Answer(200, {}, parts), _Nowhere(), files=FileCache(),
        tally=HttpMetrics(CollectorRegistry()).carrier("tcp"), epoch=lambda: 1,
    )  # fmt: skip
    yield made
    await made.close(0)


def _ends_at_a_burst() -> bool:
    """Say whether the kernel's own buffers end at a burst, and a program may ask for more."""
    most, asked = (
        int(Path(f"/proc/sys/net/{name}").read_text().split()[-1])
        for name in ("ipv4/tcp_wmem", "core/wmem_max")
    )
    return most < WIDE_BYTES <= 2 * asked


def _room(sock: socket.socket) -> int:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)


@pytest.fixture
async def warm(server: ByteServer, blocks: list[Path]) -> AsyncIterator[ByteServer]:
    """The same, which has answered a moment ago, and has a connection for whose sake it keeps files open."""
    with _taken_over(server) as (client, _):
        await _answer(client, blocks)
        yield server


@pytest.fixture
def repeated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where in their files those pieces begin that are sent by the way of what is answered again."""
    begun = list[int]()

    def sendfile(out: int, file: int, offset: int, count: int) -> int:
        begun.append(offset)
        return os.sendfile(out, file, offset, count)

    monkeypatch.setattr(connection, "sendfile", sendfile)
    return begun


async def _answer(client: socket.socket, blocks: list[Path]) -> None:
    client.sendall(GET)
    assert await asyncio.to_thread(_body, client) == _all(blocks)


@contextmanager
def _taken_over(server: ByteServer, room: int = 0, received: bytes = b"") -> Generator[Pair]:
    """Connect a client that takes little at a time; the server's end has ``room``."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
        client.connect(listener.getsockname())
        sock, _ = listener.accept()
        sock.setblocking(False)
        if room:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room // 2)
        server.adopt(sock, "127.0.0.1", received)
        yield client, sock


def _all(blocks: list[Path]) -> bytes:
    return b"".join(path.read_bytes() for path in blocks)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(
    ("room", "wide"),
    [(BURST_BYTES // 8, False), (BURST_BYTES * 7 // 8, True), (2 * BURST_BYTES, False)],
    ids=["little", "nearly a burst", "more"],
)
async def test_who_takes_nearly_a_burst_at_once_gets_room_for_one_with_its_head(
    server: ByteServer, blocks: list[Path], room: int, *, again: bool, wide: bool
) -> None:
    if again:
        with _taken_over(server) as (client, _):
            await _answer(client, blocks)
    with _taken_over(server, room) as (client, sock):
        before = _room(sock)
        client.sendall(GET)
        await asyncio.sleep(0.2)  # as much is on its way as has room
        after = _room(sock)
        body = await asyncio.to_thread(_body, client)
    assert after == (WIDE_BYTES if wide and _ends_at_a_burst() else before)
    assert body == _all(blocks)


@pytest.mark.parametrize("room", [8 << 10, 300 << 10, 1_500 << 10, 2 << 20, 0])
async def test_what_was_answered_a_moment_ago_is_answered_the_same_wherever_it_stops(
    warm: ByteServer, blocks: list[Path], repeated: list[int], room: int
) -> None:
    with _taken_over(warm, room) as (client, _):
        for _ in range(3):
            await _answer(client, blocks)
    assert len(repeated) >= 3


async def test_what_was_let_go_of_meanwhile_is_opened_again(
    warm: ByteServer, blocks: list[Path], repeated: list[int]
) -> None:
    warm.files.close()
    with _taken_over(warm) as (client, _):
        await _answer(client, blocks)
        assert not repeated
        await _answer(client, blocks)
        assert repeated


async def test_who_was_answered_again_in_more_than_one_stretch_is_idle_from_then_on(
    warm: ByteServer, blocks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the rest leaves right behind what the first stretch left over."""

    def short(out: int, file: int, offset: int, count: int) -> int:
        return os.sendfile(out, file, offset, min(count, 1_000))

    monkeypatch.setattr(connection, "sendfile", short)
    with _taken_over(warm, 2 * BURST_BYTES) as (client, sock):
        [mine] = [one for one in warm._connections if one._fd == sock.fileno()]
        await _answer(client, blocks)
        assert mine.deadline > warm.readiness.now + warm.limits.head_s


@pytest.mark.parametrize("cut", range(BURST_BYTES // MIB))
async def test_an_answer_whose_file_was_cut_since_ends_with_a_reset(
    warm: ByteServer, blocks: list[Path], cut: int
) -> None:
    os.truncate(blocks[cut], MIB // 3)
    with _taken_over(warm) as (client, _):
        client.sendall(GET)
        with pytest.raises(ConnectionResetError):
            await asyncio.to_thread(_body, client)


async def test_a_connection_taken_over_after_a_long_pause_is_answered(
    server: ByteServer, blocks: list[Path]
) -> None:
    server.readiness.now -= 2 * server.limits.head_s  # nobody had a turn for so long
    with _taken_over(server, received=GET) as (client, _):
        body = await asyncio.to_thread(_body, client)
    assert body == _all(blocks)


def _body(client: socket.socket) -> bytes:
    """Read one answer."""
    client.settimeout(10)
    got = bytearray()
    while len(got) < BURST_BYTES or len(got.partition(b"\r\n\r\n")[2]) < BURST_BYTES:
        data = client.recv(MIB)
        assert data, "the server ended the connection"
        got += data
    return bytes(got.partition(b"\r\n\r\n")[2])
