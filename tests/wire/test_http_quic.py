# pyright: reportPrivateUsage=false
"""The HTTP/3 server on loopback, asked by our own client and by an independent one."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aioquic.asyncio.client import connect  # pyright: ignore[reportUnknownVariableType]
from aioquic.asyncio.protocol import QuicConnectionProtocol, QuicStreamHandler
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import QuicEvent, StreamReset

from farcast.node.http.governor import Governor, Lan, Rules, State
from farcast.node.http.meter import Meter
from farcast.node.http.quic import aioquic_engine, datagram, qh3_engine
from farcast.node.http.quic.channel import Channel
from farcast.node.http.quic.gate import GateLimits
from farcast.node.http.quic.session import Address
from farcast.node.http.tls import peer_key
from farcast.protocol.errors import RemoteError, UnreachableError
from farcast.protocol.identity import Identity
from farcast.tests.wire.quic_box import BOX, CERTIFICATE, SIZE, Box, dialled, get, running, unname, until


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    made = Box(tmp_path)
    async with running(made) as made.server:
        yield made


async def test_a_file_arrives_whole_and_in_ranges(box: Box) -> None:
    async with dialled(box) as channel:
        status, headers, body = await get(channel, "/file")
        assert (status, headers["content-length"], body == box.whole) == (200, str(SIZE), True)
        status, _, body = await get(channel, "/file", headers={"range": "bytes=999990-1000009"})
        assert (status, body) == (206, box.whole[999_990:1_000_010])
        assert await get(channel, "/file", headers={"if-none-match": '"f"'}) == (
            304,
            {"server": "farcast", "etag": '"f"'},
            b"",
        )
        status, headers, body = await get(channel, "/file", method="HEAD")
        assert (status, headers["content-length"], body) == (200, str(SIZE), b"")


async def test_many_requests_share_one_connection(box: Box) -> None:
    async with dialled(box) as channel:
        bodies = [os.urandom(50_000 + at) for at in range(150)]
        replies = await asyncio.gather(*(get(channel, "/echo", method="POST", body=body) for body in bodies))
        assert [body for _, _, body in replies] == bodies
        assert replies[0][1]["x-secure"] == "True"
        assert replies[0][1]["x-peer"] == "127.0.0.1"
        assert not channel.busy


async def test_the_wrong_key_is_refused_before_any_request(box: Box) -> None:
    with pytest.raises(RemoteError) as caught:
        async with dialled(box, Identity(b"x" * 32).key):
            pass
    assert caught.value.reason == "wrong_key"


async def test_nobody_there_is_unreachable_at_once() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(UnreachableError):
        async with asyncio.timeout(2):
            await Channel.open(socket.AF_INET, ("127.0.0.1", port), BOX.key)


async def test_a_cancelled_request_cancels_its_handler_and_leaves_the_connection(box: Box) -> None:
    async with dialled(box) as channel:
        waiting = asyncio.ensure_future(get(channel, "/wait"))
        await asyncio.wait_for(box.started.wait(), 5)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert not channel.busy
        assert (await get(channel, "/echo", method="POST", body=b"x"))[2] == b"x"
        assert box.cancelled == 1


async def test_a_client_that_only_opens_and_cancels_loses_its_connection(box: Box) -> None:
    async with dialled(box) as channel:
        for _ in range(130):
            waiting = asyncio.ensure_future(get(channel, "/wait"))
            await asyncio.sleep(0.003)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await until(lambda: not channel.alive)
    assert "too_many_resets" in box.reasons
    async with dialled(box) as channel:
        assert (await get(channel, "/echo", method="POST", body=b"x"))[0] == 200


async def test_a_failing_iterator_resets_its_stream(box: Box) -> None:
    async with dialled(box) as channel:
        with pytest.raises(UnreachableError) as caught:
            await get(channel, "/fail")
        assert caught.value.reason == "reset"
        assert box.reasons == ["upstream"]
        assert (await get(channel, "/echo", method="POST", body=b"x"))[0] == 200


async def test_bodies_past_a_limit_are_refused_both_ways(box: Box) -> None:
    async with dialled(box) as channel:
        assert (await get(channel, "/echo", method="POST", body=bytes(SIZE + 1)))[0] == 413
        with pytest.raises(RemoteError) as caught:
            await get(channel, "/endless")
        assert caught.value.reason == "too_large"
        assert (await get(channel, "/echo", method="POST", body=b"x"))[0] == 200


async def test_after_many_unproven_handshakes_a_client_must_prove_its_address(tmp_path: Path) -> None:
    box = Box(tmp_path)
    async with running(box, GateLimits(unproven=0)):
        async with dialled(box) as channel:
            assert (await get(channel, "/echo", method="POST", body=b"x"))[2] == b"x"
        for kind in (_Independent, _Nameless):
            assert await _ask_aioquic(box, "/file", kind) == (200, box.whole)
        assert "unproven_address" in box.reasons


async def test_sessions_past_the_limit_are_not_begun(tmp_path: Path) -> None:
    box = Box(tmp_path)
    async with running(box, GateLimits(sessions=1)), dialled(box):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5), dialled(box):
                pass
        assert set(box.reasons) == {"too_many_connections"}


def _cannot_segment(_: socket.socket) -> bool:
    return False


async def test_datagrams_go_one_by_one_where_the_kernel_cannot_segment(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datagram, "_tune", _cannot_segment)
    async with running(box), dialled(box) as channel:
        assert (await get(channel, "/file"))[2] == box.whole


async def test_noise_changes_nothing(box: Box) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as noise:
        for size in range(0, 1500, 7):
            noise.sendto(os.urandom(size), box.address)
            noise.sendto(b"\xc3\x00\x00\x00\x01\x08" + os.urandom(size), box.address)
    async with dialled(box) as channel:
        assert (await get(channel, "/echo", method="POST", body=b"x"))[2] == b"x"


async def test_an_unknown_version_is_told_ours(box: Box) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        first = b"\xc0\x1a\x2a\x3a\x4a\x08" + b"d" * 8 + b"\x08" + b"s" * 8
        await loop.sock_sendto(sock, first.ljust(1200, b"\0"), box.address)
        async with asyncio.timeout(5):
            reply = await loop.sock_recv(sock, 1500)
    assert reply[1:] == b"\0\0\0\0\x08" + b"s" * 8 + b"\x08" + b"d" * 8 + b"\0\0\0\x01"


async def test_a_closing_server_lets_answers_finish_and_tells_its_clients(tmp_path: Path) -> None:
    box = Box(tmp_path)
    async with running(box) as server, dialled(box) as channel:
        asked = asyncio.ensure_future(get(channel, "/file"))
        await asyncio.sleep(0.01)
        await server.close(5)
        assert (await asked)[2] == box.whole
        await until(lambda: not channel.alive)


class _Independent(QuicConnectionProtocol):
    """A small HTTP/3 client on aioquic."""

    done: asyncio.Future[tuple[int, bytes]]

    def ask(self, path: str) -> None:
        """Send one GET."""
        self.done = asyncio.get_running_loop().create_future()
        self._http = H3Connection(self._quic)
        self._status, self._body = 0, bytearray()
        stream = self._quic.get_next_available_stream_id()
        fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"127.0.0.1")]
        self._http.send_headers(stream, [*fields, (b":path", path.encode())], end_stream=True)
        self.transmit()

    def quic_event_received(self, event: QuicEvent) -> None:
        """Collect the answer."""
        if isinstance(event, StreamReset) and not self.done.done():
            self.done.set_exception(ConnectionResetError(event.error_code))
        if hasattr(self, "_http"):
            for each in self._http.handle_event(event):
                self._take(each)

    def _take(self, event: H3Event) -> None:
        if isinstance(event, HeadersReceived):
            self._status = int(dict(event.headers)[b":status"])
        elif isinstance(event, DataReceived):
            self._body += event.data
        if isinstance(event, HeadersReceived | DataReceived) and event.stream_ended:
            self.done.set_result((self._status, bytes(self._body)))


class _Nameless(_Independent):
    """The same without a connection id, as browsers are; the library itself knows no such client."""

    def __init__(self, quic: QuicConnection, stream_handler: QuicStreamHandler | None = None) -> None:
        """Take the id from ``quic`` before its first packet."""
        unname(quic)
        super().__init__(quic, stream_handler)


async def _ask_aioquic(box: Box, path: str, kind: type[_Independent] = _Independent) -> tuple[int, bytes]:
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=["h3"], verify_mode=ssl.CERT_NONE, max_datagram_frame_size=65_536
    )
    async with connect(*box.address, configuration=configuration, create_protocol=kind) as client:
        assert isinstance(client, _Independent)
        client.ask(path)
        async with asyncio.timeout(20):
            return await client.done


KINDS = pytest.mark.parametrize("kind", [_Independent, _Nameless])


@KINDS
async def test_an_independent_client_is_served(box: Box, kind: type[_Independent]) -> None:
    assert await _ask_aioquic(box, "/file", kind) == (200, box.whole)
    status, body = await _ask_aioquic(box, "/none", kind)
    assert status == 404
    assert b'"reason":"no_route"' in body


@KINDS
async def test_an_independent_client_sees_a_reset_and_our_certificate(
    box: Box, kind: type[_Independent]
) -> None:
    with pytest.raises(ConnectionResetError):
        await _ask_aioquic(box, "/fail", kind)
    der = ssl.PEM_cert_to_DER_cert(CERTIFICATE.certificate_pem.decode())
    assert peer_key(der) == BOX.key


async def test_clients_with_and_without_ids_are_served_side_by_side_and_leave_nothing(box: Box) -> None:
    async with dialled(box) as channel:
        answers = await asyncio.gather(
            *(_ask_aioquic(box, "/file", kind) for kind in (_Independent, _Nameless, _Nameless)),
            get(channel, "/file"),
        )
        assert [answer[-1] == box.whole for answer in answers] == [True] * 4
    await until(lambda: not box.server._sessions)
    assert not box.server._peers
    assert not box.server._unnamed
    assert not box.server.tasks


@KINDS
async def test_a_client_that_falls_silent_is_forgotten_after_the_idle_time(
    tmp_path: Path, kind: type[_Independent], monkeypatch: pytest.MonkeyPatch
) -> None:
    for engine in (qh3_engine, aioquic_engine):
        monkeypatch.setattr(engine, "IDLE_S", 1.0)
    box = Box(tmp_path)
    configuration = QuicConfiguration(alpn_protocols=["h3"], verify_mode=ssl.CERT_NONE)
    async with running(box) as server:
        async with connect(*box.address, configuration=configuration, create_protocol=kind) as client:
            assert isinstance(client, _Independent)
            client.ask("/file")
            assert (await client.done)[1] == box.whole
            with monkeypatch.context() as silence:
                silence.setattr(client, "transmit", lambda: None)
                await asyncio.sleep(0.5)
                assert len(server._sessions) == 1
                await until(lambda: not server._sessions)
        assert not server._peers
        assert not server._unnamed
        # qh3's packet builder may fail at aioquic's acknowledgements, and what is said last is stray
        assert set(box.reasons) <= {"quic_engine_fault", "stray_datagram"}


async def test_small_answers_do_not_wait_for_bulk(box: Box) -> None:
    async with dialled(box) as channel:
        bulk = [asyncio.ensure_future(get(channel, "/file")) for _ in range(40)]
        await asyncio.sleep(0)
        small = await get(channel, "/echo", method="POST", body=b"x")
        assert small[2] == b"x"
        assert sum(each.done() for each in bulk) < 20
        assert [body == box.whole for _, _, body in await asyncio.gather(*bulk)] == [True] * 40


async def test_many_streams_at_once_still_go_out_by_the_batch(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    send = datagram.Endpoint._send

    def counted(self: datagram.Endpoint, batch: list[bytes], address: Address | None, local: bytes) -> bool:
        if len(batch[0]) > 1_000:  # a body's, no acknowledgement
            batches.append(len(batch))
        return send(self, batch, address, local)

    monkeypatch.setattr(datagram.Endpoint, "_send", counted)
    async with dialled(box) as channel:
        answers = await asyncio.gather(*(get(channel, "/file") for _ in range(24)))
        assert all(body == box.whole for _, _, body in answers)
    assert sum(batches) / len(batches) > 12  # streams that take turns by the packet gave three


async def test_browsers_past_their_limit_wait_and_others_do_not(tmp_path: Path) -> None:
    box = Box(tmp_path)
    async with running(box, GateLimits(unnamed=0)), dialled(box) as channel:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await _ask_aioquic(box, "/file", _Nameless)
        assert set(box.reasons) == {"too_many_browsers"}
        assert (await get(channel, "/file"))[2] == box.whole


async def test_the_operator_contract_holds_by_http3_too(tmp_path: Path) -> None:
    box = Box(tmp_path)
    governor = Governor(Rules(upload_bytes_s=4_000_000, client_connections=1), Lan(()))
    box.router.admit = (meter := Meter(governor)).admit
    async with running(box, meter=meter):
        async with dialled(box) as channel:
            begun = asyncio.get_running_loop().time()
            for _ in range(2):
                assert (await get(channel, "/file"))[2] == box.whole
            assert asyncio.get_running_loop().time() - begun > 0.4
            assert governor.wan.bytes == 2 * SIZE
            async with dialled(box) as other:  # one too many of this client's
                await until(lambda: not other.alive)
            assert "client_connections" in box.reasons
            governor.set_state(State.PAUSED)
            status, headers, _ = await get(channel, "/ipfs/any")
            assert (status, "retry-after" in headers) == (503, True)
        await until(lambda: governor.connections == 0)
