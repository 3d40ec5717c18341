"""Dialling a relay back, against real listeners: what comes through, and what is never dialled."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from time import time

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.http.dial import HttpDialer
from farcast.node.http.exchange import Hosts, Router
from farcast.node.http.listener import Listener
from farcast.node.http.tally import HttpMetrics
from farcast.origin.dialback import AT_ONCE, DialBack
from farcast.origin.roster import unreachable
from farcast.protocol.directory import Endpoint, RelayRecord
from farcast.protocol.enrol import Fault
from farcast.protocol.errors import RefusedError
from farcast.protocol.identity import Identity

RELAY, STRANGER = Identity(b"r" * 32), Identity(b"s" * 32)


@asynccontextmanager
async def listening(identity: Identity = RELAY) -> AsyncGenerator[tuple[int, HttpMetrics]]:
    metrics = HttpMetrics(CollectorRegistry())
    listener = Listener(Router(Hosts()), lambda _: None, identity, metrics, host="127.0.0.1", port=0)
    async with listener:
        yield listener.port, metrics


@asynccontextmanager
async def dialback(*, allow_private: bool = True) -> AsyncGenerator[tuple[DialBack, CollectorRegistry]]:
    registry = CollectorRegistry()
    async with HttpDialer(allow_private=allow_private) as dialer:
        yield DialBack(dialer, registry), registry


def record(*ports: int, host: str = "127.0.0.1") -> RelayRecord:
    endpoints = [Endpoint(host, port, False) for port in ports]
    return RelayRecord(1, RELAY.key, endpoints, "", round(time() * 1_000), round(time() * 1_000) + 1)


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def test_a_relay_that_answers_with_its_key_has_no_fault_and_is_asked_nothing() -> None:
    async with listening() as (port, metrics), dialback() as (dial, registry):
        assert await dial.faults(record(port)) == []
        assert registry.get_sample_value("farcast_origin_dialbacks_total", {"lost": "nothing"}) == 1
        assert [sum(metrics.carrier(name).classes) for name in ("tcp", "tls", "quic")] == [0, 0, 0]


async def test_each_endpoint_is_judged_by_itself() -> None:
    closed = closed_port()
    async with listening() as (port, _), dialback() as (dial, _):
        found = await dial.faults(record(port, closed))
    assert found is not None
    assert [(fault.endpoint, fault.lost) for fault in found] == [(f"127.0.0.1:{closed}", "both")]
    assert found[0].why == "TCP: Connection refused"
    assert not unreachable(record(port, closed), found)
    assert unreachable(record(closed), found)


async def test_another_box_at_the_address_is_found_out() -> None:
    async with listening(STRANGER) as (port, _), dialback() as (dial, _):
        found = await dial.faults(record(port))
    assert found is not None
    assert found[0].lost == "both"
    assert STRANGER.peer_id in found[0].why


async def test_something_that_is_no_box_is_found_out() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server, dialback() as (dial, _):
        found = await dial.faults(record(server.sockets[0].getsockname()[1]))
    assert found is not None
    assert found[0].lost == "both"
    assert found[0].why.startswith("TCP: something else answers there")


async def test_a_relay_whose_udp_is_blocked_is_reached_by_half() -> None:
    async with listening() as (port, _), dialback() as (dial, _):

        async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65_536):
                writer.write(data)
            writer.close()

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inner, outer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(pipe(reader, outer), pipe(inner, writer), return_exceptions=True)

        server = await asyncio.start_server(forward, "127.0.0.1", 0)
        async with server:
            half = server.sockets[0].getsockname()[1]
            found = await dial.faults(record(half))
    assert found is not None
    assert [(fault.endpoint, fault.lost) for fault in found] == [(f"127.0.0.1:{half}", "udp")]
    assert not unreachable(record(half), found)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "10.0.0.1", "100.64.0.1", "169.254.169.254", "::1"]
)
async def test_a_private_address_is_never_dialled(host: str) -> None:
    async with listening() as (port, metrics), dialback(allow_private=False) as (dial, _):
        found = await dial.faults(record(port, host=host))
        assert found is not None
        assert found[0].lost == "both"
        assert "private address" in found[0].why
        assert metrics.carrier("tcp").connections() == 0
        tcp, udp = await dial.check(RELAY.key, host, port)
        assert "private address" in tcp
        assert "private address" in udp


async def test_so_many_are_dialled_at_once_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farcast.origin.dialback.WAIT_S", 0.05)
    go, at_work = asyncio.Event(), 0

    class Slow:
        async def reach(self, *_: object, **__: object) -> tuple[str, str]:
            nonlocal at_work
            at_work += 1
            await go.wait()
            return "", ""

    registry = CollectorRegistry()
    dial = DialBack(Slow(), registry)  # type: ignore[arg-type] # a dialler that takes its time
    tasks = [asyncio.ensure_future(dial.faults(record(1))) for _ in range(AT_ONCE + 2)]
    done, _ = await asyncio.wait(tasks, timeout=2, return_when=asyncio.FIRST_COMPLETED)
    assert done
    await asyncio.wait(tasks, timeout=0.2)
    assert at_work == AT_ONCE
    with pytest.raises(RefusedError) as caught:
        await dial.check(RELAY.key, "127.0.0.1", 1)
    assert caught.value.status == 429
    go.set()
    results: list[list[Fault] | None] = await asyncio.gather(*tasks)
    assert sum(result is None for result in results) == 2
    assert registry.get_sample_value("farcast_origin_dialbacks_total", {"lost": "untried"}) == 2
