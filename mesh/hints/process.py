"""The gossip process: libp2p's gossipsub and nothing else, away from everything that matters.

Run as ``python -P -m farcast.mesh.hints.process FD NET HOST PORT`` by the box that owns the other end
of the socket FD. Any peer can end it by a malformed frame; that is why it is a process of its own
(docs/adr/0041). It has a key of its own, made at each start, and nothing of the box's.
"""

from __future__ import annotations

import importlib
import logging
import os
import resource
import secrets
import socket
import sys
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from ...protocol.errors import RemoteError
from ...protocol.hint import HINT_LIMIT_BYTES, open_hint
from ..bucket import Bucket
from .pipe import (
    MESSAGE_LIMIT_BYTES,
    VERSION,
    Alive,
    Dial,
    Down,
    Heard,
    Tell,
    ToBox,
    ToProcess,
    Up,
    pack,
    read_of_box,
)

TOPIC = "/farcast/hints/1/"
LOOK_S, ALIVE_S = 0.5, 5.0
DIALS_AT_ONCE = 4
DIAL_S = 10.0
CONNECTIONS = 64
RPC_LIMIT_BYTES = 64 << 10
MEMORY_BYTES = 512 << 20
"""Of private memory; an idle one has 90 MB."""
NICE = 5
AUTHORS_KEPT = 1_024
SHUNNED_KEPT = 256
AUTHOR_BURST, AUTHOR_PER_S = 16, 0.5
ALL_BURST, ALL_PER_S = 64, 16.0
MISSING, CRASHED = 3, 70


class Admission:
    """What is passed on, to the box and to other peers: hints of this origin, at a bounded rate."""

    def __init__(self, net: bytes, clock: Callable[[], float]) -> None:
        self._net = net
        self._clock = clock
        self._authors: OrderedDict[bytes, Bucket] = OrderedDict()
        self._all = Bucket(ALL_BURST, ALL_PER_S)

    def admits(self, data: bytes, author: bytes) -> bool:
        """Say whether a hint goes on; its signatures are looked at by each box, not here."""
        if len(data) > HINT_LIMIT_BYTES:
            return False
        bucket = self._authors.get(author)
        if bucket is None:
            bucket = self._authors[author] = Bucket(AUTHOR_BURST, AUTHOR_PER_S)
            if len(self._authors) > AUTHORS_KEPT:
                self._authors.popitem(last=False)
        self._authors.move_to_end(author)
        now = self._clock()
        if not (bucket.take(now) and self._all.take(now)):
            return False
        try:
            return open_hint(data).net == self._net
        except RemoteError:
            return False


class Process:
    """One life of the process; ``run`` returns when the box has gone."""

    def __init__(self, link: socket.socket, net: bytes, host: str, port: int) -> None:
        """Listen on ``host`` and ``port`` for hints of ``net``; on nothing where ``host`` is empty."""
        self._trio: Any = importlib.import_module("trio")
        self._link: Any = self._trio.socket.from_stdlib_socket(link)
        self._topic = TOPIC + net.hex()
        self._host, self._port = host, port
        self._admission = Admission(net, self._trio.current_time)
        self._dialling = 0
        self._shunned = 0

    async def run(self) -> None:
        """Gossip until the box has gone."""
        trio, tools = self._trio, importlib.import_module("libp2p.tools.anyio_service")
        host, key = self._make_host()
        pubsub = self._make_pubsub(host)
        listen: list[Any] = []
        if self._host:
            family = "ip6" if ":" in self._host else "ip4"
            multiaddr = importlib.import_module("multiaddr")
            listen = [multiaddr.Multiaddr(f"/{family}/{self._host}/tcp/{self._port}")]
        async with host.run(listen_addrs=listen), trio.open_nursery() as nursery:
            nursery.start_soon(host.get_peerstore().start_cleanup_task, 60)
            async with (
                tools.background_trio_service(pubsub),
                tools.background_trio_service(pubsub.router),
            ):
                await pubsub.wait_until_ready()
                heard = await pubsub.subscribe(self._topic)
                await self._say(Up(VERSION, _port(host) if listen else 0, key))
                nursery.start_soon(self._pass_on, heard, host.get_id().to_bytes())
                nursery.start_soon(self._be_alive, host)
                await self._obey(host, pubsub, nursery)
                nursery.cancel_scope.cancel()

    async def _obey(self, host: Any, pubsub: Any, nursery: Any) -> None:  # noqa: ANN401 - an untyped library's
        while data := await self._link.recv(MESSAGE_LIMIT_BYTES + 1):
            message: ToProcess = read_of_box(data)
            if isinstance(message, Tell):
                nursery.start_soon(pubsub.publish, self._topic, message.hint)
            elif isinstance(message, Dial):
                if self._dialling < DIALS_AT_ONCE:
                    self._dialling += 1
                    nursery.start_soon(self._dial, host, message)
            elif self._shunned < SHUNNED_KEPT:
                self._shunned += 1
                pubsub.add_to_blacklist(importlib.import_module("libp2p.peer.id").ID(message.peer))

    async def _dial(self, host: Any, message: Dial) -> None:  # noqa: ANN401 - likewise
        try:
            peerinfo = importlib.import_module("libp2p.peer.peerinfo")
            multiaddr = importlib.import_module("multiaddr")
            info = peerinfo.info_from_p2p_addr(multiaddr.Multiaddr(message.address))
            if info.peer_id != host.get_id():
                with self._trio.move_on_after(DIAL_S):
                    await host.connect(info)
        except Exception as error:  # noqa: BLE001 - whatever the library raises for a peer that is not there
            logging.getLogger(__name__).info("not connected to %s: %s", message.address, error)
        finally:
            self._dialling -= 1

    async def _pass_on(self, heard: Any, own: bytes) -> None:  # noqa: ANN401 - likewise
        async for message in heard:
            author = bytes(message.from_id)
            if author != own and 0 < len(author) <= 64:  # noqa: PLR2004 - as the pipe has it
                await self._say(Heard(bytes(message.data), author))

    async def _be_alive(self, host: Any) -> None:  # noqa: ANN401 - likewise
        said, said_at = -1, 0.0
        while True:
            peers, now = len(host.get_connected_peers()), self._trio.current_time()
            if peers != said or now - said_at >= ALIVE_S:
                said, said_at = peers, now
                await self._say(Alive(peers))
            await self._trio.sleep(LOOK_S)

    async def _say(self, message: ToBox) -> None:
        await self._link.send(pack(message))

    def _make_host(self) -> tuple[Any, bytes]:
        """Return a host that speaks TCP and Noise and nothing else; its defaults would take plaintext."""
        libp2p = importlib.import_module("libp2p")
        noise = importlib.import_module("libp2p.security.noise.transport")
        ed25519 = importlib.import_module("libp2p.crypto.ed25519")
        x25519 = importlib.import_module("libp2p.crypto.x25519")
        config = importlib.import_module("libp2p.network.config")
        keys = ed25519.create_new_key_pair(secrets.token_bytes(32))
        secure = noise.Transport(keys, noise_privkey=x25519.create_new_key_pair().private_key)
        host = libp2p.new_host(
            key_pair=keys,
            sec_opt={noise.PROTOCOL_ID: secure},
            muxer_preference="YAMUX",
            connection_config=config.ConnectionConfig(
                max_connections=CONNECTIONS, min_connections=0, low_watermark=0, high_watermark=CONNECTIONS
            ),
        )
        return host, keys.public_key.to_bytes()

    def _make_pubsub(self, host: Any) -> Any:  # noqa: ANN401 - likewise
        gossipsub = importlib.import_module("libp2p.pubsub.gossipsub")
        pubsubs = importlib.import_module("libp2p.pubsub.pubsub")
        router = gossipsub.GossipSub(
            protocols=[gossipsub.PROTOCOL_ID_V12, gossipsub.PROTOCOL_ID_V11],
            degree=4,
            degree_low=3,
            degree_high=8,
            heartbeat_interval=1,  # the default is two minutes
            max_messages_per_topic_per_second=50.0,  # own ones count; the admission below is tighter
        )
        pubsub = pubsubs.Pubsub(
            host,
            router,
            strict_signing=True,
            max_inbound_rpc_size=RPC_LIMIT_BYTES,
            allowed_topics={self._topic},
        )
        own = host.get_id()

        def admits(forwarder: Any, message: Any) -> bool:  # noqa: ANN401 - likewise
            return forwarder == own or self._admission.admits(bytes(message.data), bytes(message.from_id))

        pubsub.set_topic_validator(self._topic, admits, is_async_validator=False)
        return pubsub


def _port(host: Any) -> int:  # noqa: ANN401 - likewise
    for address in host.get_addrs():
        port = address.value_for_protocol("tcp")
        if port:
            return int(port)
    return 0


def _end(link: socket.socket, reason: str, why: str, code: int) -> None:
    """Say why, and end at once: what the library left running must not hold the process."""
    link.setblocking(False)
    try:
        link.send(pack(Down(reason, why[:200])))
    except OSError:
        code = CRASHED
    sys.stderr.flush()
    os._exit(code)


def _first(error: BaseException) -> BaseException:
    """Return what is at the bottom of exception groups within groups."""
    while isinstance(error, BaseExceptionGroup):
        inner: tuple[BaseException, ...] = cast("BaseExceptionGroup[BaseException]", error).exceptions
        error = inner[0]
    return error


def main(arguments: list[str]) -> None:
    """Run the process for the box at the other end."""
    number, net, host, port = arguments
    link = socket.socket(fileno=int(number))
    os.nice(NICE)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        importlib.import_module("libp2p")
    except ImportError as error:
        _end(link, "missing", str(error), MISSING)
    own = link.dup()  # the library's loop closes the other
    trio: Any = importlib.import_module("trio")
    try:
        trio.run(partial(_live, link, bytes.fromhex(net), host, int(port)))
    except BaseException as error:  # noqa: BLE001 - a peer's frame can raise anything here, groups included
        first = _first(error)
        reason = "port" if isinstance(first, OSError) and "in use" in str(first) else "crash"
        _end(own, reason, f"{type(first).__name__}: {first}", CRASHED)
    os._exit(0)


async def _live(link: socket.socket, net: bytes, host: str, port: int) -> None:
    await Process(link, net, host, port).run()


if __name__ == "__main__":
    main(sys.argv[1:])
