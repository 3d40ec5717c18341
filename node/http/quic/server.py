"""The HTTP/3 server: one UDP port, many sessions, every request answered through the router."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections import Counter

from ..address import zoned
from ..exchange import Router
from ..files import FileCache
from ..governor import OFF_LINK, Governor
from ..meter import Meter
from ..tally import Tally
from ..tls import Certificate
from .datagram import Endpoint
from .engines import Engines
from .gate import Gate, GateLimits, Load, Refuse, Respond, network
from .ids import ID_BYTES, Ids, read_ids
from .peer import Peer
from .session import NO_ERROR, Address

LAST_S = 0.1


class QuicServer:
    """Serves a router by HTTP/3 on one UDP socket."""

    def __init__(
        self,
        router: Router,
        certificate: Certificate,
        *,
        files: FileCache,
        tally: Tally,
        limits: GateLimits | None = None,
        meter: Meter | None = None,
    ) -> None:
        """Answer through ``router`` as the owner of ``certificate``, as far as ``meter`` allows."""
        self.meter = meter or Meter(Governor())
        self.router = router
        self.files = files
        self.tally = tally
        self.loop = asyncio.get_running_loop()
        self.tasks: set[asyncio.Task[None]] = set()
        self.unread_bytes = 0
        self._gate = Gate(secrets.token_bytes(32), limits or GateLimits())
        self._engines = Engines(certificate)
        self._peers: dict[bytes, Peer] = {}
        self._sessions: set[Peer] = set()
        self._unnamed = 0
        self._neighbours: Counter[str] = Counter()
        self._handshakes: dict[Peer, None] = {}  # the oldest first
        tally.connections = lambda: len(self._sessions)
        self._closing = False
        self._endpoint: Endpoint | None = None

    def listen(self, sock: socket.socket) -> None:
        """Serve on ``sock``, a bound non-blocking UDP socket; owns it from now on."""
        self._endpoint = Endpoint(sock, self._received)

    async def close(self, drain_s: float = 5.0) -> None:
        """Take no new sessions or requests, give answers under way ``drain_s``, then close all."""
        self._closing = True
        end = self.loop.time() + drain_s
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=drain_s)
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        while self.loop.time() < end and any(peer.link.session.queued() for peer in self._sessions):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        if self._sessions:
            await asyncio.sleep(min(LAST_S, drain_s))  # what was sent last is still on its way
        for peer in list(self._sessions):
            peer.link.close(NO_ERROR)
        if self._endpoint is not None:
            self._endpoint.close()
        await self._engines.close()

    @property
    def closing(self) -> bool:
        """Whether new requests are refused."""
        return self._closing

    def name(self, peer: Peer, id: bytes) -> None:  # noqa: A002 - QUIC calls it so
        """Deliver datagrams for connection id ``id`` to ``peer``."""
        self._peers[id] = peer
        peer.ids.add(id)

    def unname(self, peer: Peer, id: bytes) -> None:  # noqa: A002 - as above
        """Forget one connection id of ``peer``."""
        if self._peers.get(id) is peer:
            del self._peers[id]
        peer.ids.discard(id)

    def settled(self, peer: Peer) -> None:
        """Count the handshake of ``peer`` as done, or as given up."""
        del self._handshakes[peer]
        self._neighbours[peer.network] -= 1
        if not self._neighbours[peer.network]:
            del self._neighbours[peer.network]

    def forget(self, peer: Peer) -> None:
        """Drop a closed session."""
        for id_ in list(peer.ids):
            self.unname(peer, id_)
        if peer in self._sessions:
            self._sessions.remove(peer)
            self._unnamed -= not peer.named

    def _received(self, datagrams: list[bytes], address: Address, local: bytes) -> None:
        if not self.meter.governor.serves(zoned(address)):
            for _ in datagrams:
                self.router.refused(OFF_LINK)
            return
        batch: list[bytes] = []
        last: Peer | None = None
        for datagram in datagrams:
            ids = read_ids(datagram)
            if ids is None:
                self.router.turn_away("malformed_datagram", address[0])
                continue
            peer = self._peers.get(ids.destination) or self._admit(ids, len(datagram), address, local)
            if peer is None:
                continue
            if peer is not last and last is not None:
                last.link.receive(batch, address, local)
                batch = []
            last = peer
            batch.append(datagram)
        if last is not None:
            last.link.receive(batch, address, local)

    def _admit(self, ids: Ids, size_bytes: int, address: Address, local: bytes) -> Peer | None:
        endpoint = self._endpoint
        if endpoint is None or self._closing:
            return None
        here = network(address[0])
        load = Load(len(self._sessions), self._unnamed, len(self._handshakes), self._neighbours[here])
        noise = secrets.token_bytes(ID_BYTES)
        verdict = self._gate.judge(ids, size_bytes, address, load, noise=noise, now=self.loop.time())
        if isinstance(verdict, Respond):
            endpoint.send([verdict.packet], address, local)
            self.router.refused("unproven_address" if ids.initial else "unknown_version")
            return None
        if isinstance(verdict, Refuse):
            self.router.turn_away(verdict.reason, address[0])
            return None
        engine = self._engines.choose(ids)
        if engine is None:
            return None
        session = engine.accept(verdict.original, verdict.retried)
        peer = Peer(self, endpoint, session, address, network=here, named=bool(ids.source))
        self._handshakes[peer] = None
        self._neighbours[here] += 1
        self._unnamed += not peer.named
        self._sessions.add(peer)
        self.name(peer, ids.destination)
        self.name(peer, session.id)
        if len(self._handshakes) > self._gate.limits.handshakes:
            next(iter(self._handshakes)).give_up("too_many_handshakes")
        return peer
