"""Bulk: blocks by the carrier that has proved fastest, over plain TCP where that is the one.

A block is public and its CID tells whether the bytes are right, so it needs no authenticated channel:
what comes over plain TCP from a box with a key is verified here, before anybody has it. Bytes that are
wrong are the path's doing until the box itself has answered over its own channel, so nobody on the way
can bring a box into disrepute.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter

from ...protocol.cid import Cid
from ...protocol.errors import RemoteError, UnreachableError
from ...protocol.ports import Reply, Source
from ...protocol.unixfs import BLOCK_LIMIT_BYTES
from .address import Place, authority, parse_address
from .paths import FIRM_S, SOFT_S, TAMPERED_S, Carrier, Flight, Path
from .quic.channel import Channel
from .tcp import Ask, TcpCarrier

HEAD_START_S = 0.3
"""What a TCP connection gets before QUIC is tried as well."""
SECOND_SYN_S = 1.3
"""What it gets where TCP is known to work: a lost SYN is sent again after a second (RFC 6298)."""
SILENCE_S = 8.0
"""A TCP connection that brings nothing for so long has failed; a relay that fills may need seconds."""
PUBLIC_FIELDS = frozenset({"cache-control", "farcast-hop", "farcast-title"})
"""The request headers that plain TCP may show to everybody on the way; any other keeps a block off it."""
_OK = 200
_REFUSALS = frozenset({400, 404, 410, 412, 429, 451, 503})
"""What a box may answer about a block; any other answer is somebody else's until its channel says so."""


class Call(NamedTuple):
    """One request, whatever carries it."""

    method: str
    path: str
    body: bytes
    headers: dict[str, str]
    limit_bytes: int
    arrived: Callable[[int], None] | None = None


class _Arrivals:
    """Tells how much of a block is here, by the attempt that is furthest."""

    def __init__(
        self, tell: Callable[[int], None] | None, moved: Callable[[int], None] | None = None
    ) -> None:
        self._tell, self._moved = tell, moved
        self._most = 0

    def attempt(self) -> Callable[[int], None]:
        """Return what one attempt tells its bytes to, as they come."""
        total = 0

        def add(size_bytes: int) -> None:
            nonlocal total
            total += size_bytes
            if self._moved is not None:
                self._moved(size_bytes)
            if self._tell is not None and total > self._most:
                self._most = total
                self._tell(total)

        return add


class _Want(NamedTuple):
    source: Source
    place: Place
    path: Path
    call: Call
    cid: Cid
    arrivals: _Arrivals


class TamperedError(UnreachableError):
    """What came over plain TCP was not what the box has."""


class Bulk:
    """Brings blocks; its dialler lends the carriers and the memory of paths."""

    def __init__(
        self,
        path: Callable[[Place], Path],
        tcp: Callable[[], TcpCarrier] | None,
        channel: Callable[[Source, Call], Awaitable[Reply]],
        ready: Callable[[Place], asyncio.Future[Channel] | None],
        registry: CollectorRegistry | None,
    ) -> None:
        """``channel`` asks a box over its authenticated channel; ``ready`` tells once QUIC reaches it.

        ``tcp`` gives the carrier of plain TCP; None: everything goes over the channel.
        """
        self._blocks = Counter(
            "farcast_node_carried_blocks",
            "Blocks that came from boxes, by carrier.",
            ["carrier"],
            registry=registry,
        )
        self._failures = Counter(
            "farcast_node_carrier_failures",
            "Blocks that a carrier failed to bring, by reason; another carrier was tried.",
            ["carrier", "reason"],
            registry=registry,
        )
        self._path = path
        self._tcp = tcp
        self._channel = channel
        self._ready = ready
        self.races = True
        """Whether a second carrier may bring a block too, where the first is late."""
        self._queues: dict[Path, deque[asyncio.Future[None]]] = {}

    async def get(
        self,
        source: Source,
        cid: Cid,
        headers: dict[str, str],
        arrived: Callable[[int], None] | None = None,
        moved: Callable[[int], None] | None = None,
    ) -> Reply:
        """Return the answer to a request for a block, whatever the status.

        ``arrived`` hears how much of it is here, ``moved`` of all bytes by whichever carrier.

        Raises:
            UnreachableError: no carrier brought an answer.
            RemoteError: as ``TcpCarrier.request``.

        """
        call = Call("GET", f"/ipfs/{cid}?format=raw", b"", headers, BLOCK_LIMIT_BYTES)
        arrivals = _Arrivals(arrived, moved)
        if not source.key:
            return await self._channel(source, call._replace(arrived=arrivals.attempt()))
        place = Place(source.address, source.key)
        parse_address(source.address)
        path = self._path(place)
        want = _Want(source, place, path, call, cid, arrivals)
        if self._tcp is None or not PUBLIC_FIELDS.issuperset(headers):
            return await self._authenticated(want, path.begin(Carrier.QUIC, self._now()))
        flight = await self._turn(path)
        try:
            patience_s = path.patience_s(flight)
            if patience_s is None or not self.races:
                return await self._by(want, flight)
            return await self._tried(want, flight, patience_s)
        finally:
            path.leave(flight, self._now())  # where it never began
            self._wake(path)

    async def _tried(self, want: _Want, flight: Flight, patience_s: float) -> Reply:
        """Let a challenger bring a block; once it is late the favourite is asked too, and the first wins."""
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._by(want, flight))]
        try:
            await asyncio.wait(tasks, timeout=patience_s)
            if not tasks[0].done():
                second = want.path.begin(flight.carrier.other, self._now())
                tasks.append(loop.create_task(self._by(want, second)))
            for first in asyncio.as_completed(tasks):
                with suppress(UnreachableError):
                    return await first
            return await tasks[0]  # both failed: this says why
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _by(self, want: _Want, flight: Flight) -> Reply:
        """Bring a block by the flight's carrier, or by the other one where that fails."""
        path, by_tcp = want.path, flight.carrier is Carrier.TCP
        try:
            return await (self._plain if by_tcp else self._authenticated)(want, flight)
        except UnreachableError as error:
            if error.reason in ("private_address", "closed"):
                raise
            self._failures.labels(flight.carrier.name.lower(), error.reason).inc()
            if not by_tcp:
                return await self._plain(want, path.begin(Carrier.TCP, self._now()))
            if error.reason == "refused" and path.recently(Carrier.TCP, self._now()):
                path.gone(Carrier.TCP)  # the box has ended: who waits should ask another at once
                raise
            reply = await self._authenticated(want, path.begin(Carrier.QUIC, self._now()))
            pause_s = {"tampered": TAMPERED_S, "refused": FIRM_S}.get(error.reason, SOFT_S)
            path.fails(Carrier.TCP, pause_s, self._now())  # the box is there, so it was the carrier
            return reply

    async def _authenticated(self, want: _Want, flight: Flight) -> Reply:
        """Ask over the box's channel: by QUIC, or by TLS where UDP is blocked, which is not measured."""
        path = want.path
        try:
            reply = await self._channel(want.source, want.call._replace(arrived=want.arrivals.attempt()))
            now = self._now()
            if reply.status == _OK and path.closed(Carrier.QUIC, now):
                self._blocks.labels("tls").inc()
            elif reply.status == _OK:
                path.arrived(flight, len(reply.body), now)
                path.finish(flight, now)
                self._blocks.labels("quic").inc()
            return reply
        finally:
            path.leave(flight, self._now())
            self._wake(path)

    async def _plain(self, want: _Want, flight: Flight) -> Reply:
        """Ask over plain TCP; only an honest no, or the very bytes the CID names, come back."""
        assert self._tcp is not None
        call, place, path = want.call, want.place, want.path
        carrier, ask, loop = self._tcp(), Ask(), asyncio.get_running_loop()
        tell = want.arrivals.attempt()

        def arrived(size_bytes: int) -> None:
            path.arrived(flight, size_bytes, loop.time())
            tell(size_bytes)

        task = loop.create_task(
            carrier.request(
                call.method,
                f"http://{place.address}{call.path}",
                b"",
                body=b"",
                headers={**call.headers, "host": authority(place.address)},
                limit_bytes=call.limit_bytes,
                ask=ask,
                arrived=arrived,
                silence_s=SILENCE_S,
            )
        )
        try:
            if not await self._connects(task, ask, place, path):
                message = f"{place.address} answers by QUIC, not by TCP"
                raise UnreachableError(message, reason="late")
            reply = await self._checked(task, ask, place, want.cid)
            path.works(Carrier.TCP)
            if reply.status == _OK:
                path.finish(flight, self._now())
                self._blocks.labels("tcp").inc()
            return reply
        finally:
            path.leave(flight, self._now())
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._wake(path)

    async def _checked(self, task: asyncio.Task[Reply], ask: Ask, place: Place, cid: Cid) -> Reply:
        """Return what came over plain TCP, if it is what a box answers."""
        try:
            reply = await task
        except UnreachableError as error:
            if ask.sent or error.reason == "private_address":
                raise
            raise UnreachableError(str(error), reason="refused") from error
        except RemoteError as error:  # longer than any block, or no HTTP at all
            raise TamperedError(str(error), reason="tampered") from error
        if reply.status not in _REFUSALS | {_OK}:
            message = f"{place.address} answered {reply.status}, which no box says of a block"
            raise TamperedError(message, reason="tampered")
        if reply.status == _OK and not await asyncio.to_thread(cid.matches, reply.body):
            message = f"bytes that are not the block {cid} came over plain TCP from {place.address}"
            raise TamperedError(message, reason="tampered")
        return reply

    async def _connects(self, task: asyncio.Task[Reply], ask: Ask, place: Place, path: Path) -> bool:
        """Wait for the TCP connection; False once QUIC reaches the box while it is still not there."""
        loop = asyncio.get_running_loop()
        connected = loop.create_task(ask.connected.wait())
        watched: set[asyncio.Future[Any]] = {task, connected}
        try:
            await asyncio.wait(watched, timeout=HEAD_START_S, return_when=asyncio.FIRST_COMPLETED)
            if not ask.sent and path.recently(Carrier.TCP, loop.time()):
                await asyncio.wait(watched, timeout=SECOND_SYN_S, return_when=asyncio.FIRST_COMPLETED)
            rival = None if ask.sent or task.done() else self._ready(place)
            if rival is not None:
                await asyncio.wait({*watched, rival}, return_when=asyncio.FIRST_COMPLETED)
                if not rival.done() or rival.cancelled() or rival.exception() is not None:
                    rival = None
        finally:
            connected.cancel()
        if ask.sent:
            path.connected(Carrier.TCP, loop.time())
        return ask.sent or task.done() or rival is None

    async def _turn(self, path: Path) -> Flight:
        """Begin the next block by the carrier the path chooses, once that has room for it."""
        while True:
            carrier = path.choose(self._now())
            if carrier is Carrier.QUIC or path.has_lane():
                return path.begin(carrier, self._now())
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._queues.setdefault(path, deque()).append(turn)
            await turn

    def _wake(self, path: Path) -> None:
        """Let all who wait look again, in their order; the queue is as long as callers are many."""
        for turn in self._queues.pop(path, ()):
            if not turn.done():
                turn.set_result(None)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
