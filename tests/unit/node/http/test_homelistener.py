"""The household's listener by real sockets: who is no neighbour is not heard, nobody takes all its room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry

from farcast.node.http.exchange import Answer, Exchange, Hosts, Router
from farcast.node.http.homelistener import CLIENT_CONNECTIONS, HomeListener
from farcast.node.http.tally import HttpMetrics


@asynccontextmanager
async def listening(*, on_link: bool) -> AsyncGenerator[tuple[HomeListener, CollectorRegistry]]:
    registry = CollectorRegistry()

    async def hello(exchange: Exchange) -> Answer:
        del exchange
        return Answer(200, {"content-type": "text/plain"}, b"hello")

    router = Router(Hosts(), token="secret")
    router.route("GET", "/hello", hello)
    listener = HomeListener(router, HttpMetrics(registry), lambda _: on_link, host="127.0.0.1", port=0)
    await listener.start()
    try:
        yield listener, registry
    finally:
        await listener.close(0.1)


async def ask(listener: HomeListener) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    try:
        request = (
            f"GET /secret/hello HTTP/1.1\r\nhost: 127.0.0.1:{listener.port}\r\nconnection: close\r\n\r\n"
        )
        writer.write(request.encode())
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def refused(registry: CollectorRegistry, reason: str) -> float | None:
    return registry.get_sample_value("farcast_node_http_refusals_total", {"reason": reason})


async def test_a_neighbour_is_answered() -> None:
    async with listening(on_link=True) as (listener, _):
        assert (await ask(listener)).endswith(b"hello")


async def test_who_is_not_on_link_gets_not_a_byte() -> None:
    async with listening(on_link=False) as (listener, registry):
        assert await ask(listener) == b""
        assert refused(registry, "off_link") == 1


async def test_one_client_has_so_many_connections_and_then_room_again() -> None:
    async with listening(on_link=True) as (listener, registry):
        held = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(CLIENT_CONNECTIONS)]
        await asyncio.sleep(0.05)
        assert await ask(listener) == b""
        assert refused(registry, "client_connections") == 1
        for _, writer in held:
            writer.close()
        await asyncio.sleep(0.1)
        assert (await ask(listener)).endswith(b"hello")
