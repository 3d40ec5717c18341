"""Names with a dead IPv6 address: a quarter of a second once for a network, over TCP and over QUIC."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from farcast.node.http.dial import HttpDialer
from farcast.node.http.dualstack import ATTEMPT_S
from farcast.node.http.exchange import Hosts
from farcast.node.http.listener import Listener
from farcast.protocol.ports import Source, TierName
from farcast.tests.wire.talkingbox import BOX, TalkingBox

QUICK_S = 0.2


@contextmanager
def swallowed(port: int) -> Generator[None]:
    """Let [::1] drop what is sent to ``port``: a full backlog for TCP, a deaf socket for UDP."""
    with ExitStack() as open_:
        deaf = open_.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        full = open_.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_STREAM))
        try:
            deaf.bind(("::1", port))
            full.bind(("::1", port))
        except OSError as error:
            pytest.skip(f"no IPv6 on loopback: {error}")
        full.listen(0)
        for _ in range(4):
            guest = open_.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_STREAM))
            guest.setblocking(False)
            guest.connect_ex(("::1", port))
        yield


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[TalkingBox]:
    made = TalkingBox(tmp_path)
    async with Listener(made.router, lambda _: None, BOX, made.metrics, host="127.0.0.1", port=0) as listener:
        made.port = listener.port
        made.router.allowed = Hosts(["one.example", "two.example", "three.example"])
        with swallowed(listener.port):
            yield made


@pytest.fixture
async def networks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let every name have both addresses, the dead one first; the one entry names the network."""

    async def both(_: str, port: int, **__: object) -> list[tuple[object, ...]]:
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", both)
    return ["home"]


async def took_s(work: asyncio.Task[object]) -> float:
    began = asyncio.get_running_loop().time()
    await work
    return asyncio.get_running_loop().time() - began


@pytest.mark.parametrize("carrier", ["plain TCP", "QUIC"])
async def test_a_dead_ipv6_address_costs_a_quarter_second_once_for_a_network(
    box: TalkingBox, networks: list[str], carrier: str
) -> None:
    async def ask(name: str) -> float:
        source = Source(TierName.RELAY, name, f"{name}:{box.port}", box.source.key)
        loop = asyncio.get_running_loop()
        if carrier == "QUIC":
            return await took_s(loop.create_task(dialer.request(source, "GET", "/ipfs/x?format=raw")))
        return await took_s(loop.create_task(dialer.get_block(source, box.cid)))

    async with HttpDialer(allow_private=True, network=lambda: networks[0]) as dialer:
        first = await ask("one.example")
        assert ATTEMPT_S <= first <= ATTEMPT_S + QUICK_S
        assert await ask("two.example") <= QUICK_S, "another name, whose IPv6 is as dead"
        networks[0] = "train"
        assert await ask("three.example") >= ATTEMPT_S, "another network knows nothing yet"
        networks[0] = "home"
        assert await ask("one.example") <= QUICK_S, "its connections are gone, what was learned is not"
    expected = "quic" if carrier == "QUIC" else "tcp"
    assert box.answers(expected) == 4
