"""A box that serves its own links alone, and who asks it, as programs for namespaces.

``doorbox.py serve``: a public port; each line it reads is answered with what it has refused, and
which of its interfaces it takes for tunnels, as JSON. ``doorbox.py ask ADDRESS``: what somebody got there.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections import Counter

import ifaddr
from prometheus_client import CollectorRegistry

from farcast.node.http.dial import HttpDialer
from farcast.node.http.exchange import Answer, Exchange, Hosts, Router
from farcast.node.http.governor import Governor
from farcast.node.http.listener import Listener
from farcast.node.http.tally import HttpMetrics
from farcast.node.links import Links
from farcast.node.tunnels import is_tunnel
from farcast.protocol.identity import Identity
from farcast.protocol.ports import Source, TierName

BOX = Identity(b"d" * 32)
PORT = 7433
ASKS = 8
"""Connections by plain TCP: enough that each of two processes is met."""
WAIT_S = 5.0
DROPPED = "dropped"
GET = b"GET /hello HTTP/1.1\r\nhost: box\r\nconnection: close\r\n\r\n"


async def hello(exchange: Exchange) -> Answer:
    """Answer anybody whom the port lets in."""
    del exchange
    return Answer(200, {"content-type": "text/plain"}, b"hello")


async def serve() -> None:
    """Be the box, with a second process, until the line closes; what it logs is told too."""
    registry = CollectorRegistry()
    router = Router(Hosts(["box"]))
    router.route("GET", "/hello", hello)
    governor = Governor(processes=2)
    governor.served = Links(tunnels=False)
    logged: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: logged.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    metrics = HttpMetrics(registry)
    loop = asyncio.get_running_loop()
    async with Listener(
        router, lambda _: None, BOX, metrics, host="::", port=PORT, governor=governor, workers=2
    ):
        lines = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        print("ready", flush=True)  # noqa: T201 - the parent reads it
        while await lines.readline():
            await asyncio.sleep(1.2)  # a worker tells once a second what it counted
            refused = Counter[str]()
            for family in registry.collect():
                for sample in family.samples:
                    if sample.name == "farcast_node_http_refusals_total":
                        refused[sample.labels["reason"]] += int(sample.value)
            tunnels = [one.name for one in ifaddr.get_adapters() if is_tunnel(one.name)]
            told = {"refused": refused, "tunnels": tunnels, "logged": logged}
            print(json.dumps(told), flush=True)  # noqa: T201 - likewise


async def ask(address: str) -> None:
    """Ask by plain TCP, TLS and QUIC."""
    bodies = [await plain(address.rpartition(":")[0].strip("[]")) for _ in range(ASKS)]
    async with HttpDialer(allow_private=True) as dialer:
        source = Source(TierName.MESH, BOX.peer_id, address, BOX.key)
        tls, quic = await dialer.reach(source, timeout_s=WAIT_S)
    print(json.dumps({"plain": bodies, "tls": tls, "quic": quic}))  # noqa: T201 - the parent reads it


async def plain(host: str) -> str:
    """Return the last word of an answer, or what became of the connection."""
    writer = None
    try:
        async with asyncio.timeout(WAIT_S):
            reader, writer = await asyncio.open_connection(host, PORT)
            writer.write(GET)
            return (await reader.read()).decode().rpartition("\r\n")[2] or DROPPED
    except ConnectionResetError:
        return DROPPED
    except (ConnectionError, TimeoutError) as error:
        return type(error).__name__
    finally:
        if writer is not None:
            writer.close()


if __name__ == "__main__":
    asyncio.run(serve() if sys.argv[1] == "serve" else ask(sys.argv[2]))
