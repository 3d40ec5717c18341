"""The dialler: asks boxes by key, over QUIC or TLS, whichever the path lets through, and CDNs by URL.

Blocks go their own way (``bulk.py``): anybody can check them, so they need no authenticated channel.
Over 400 lines because every way to a box begins here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from time import time
from types import TracebackType
from typing import Any, Self

from prometheus_client import CollectorRegistry, Gauge

from ...protocol.cid import Cid
from ...protocol.errors import UnreachableError
from ...protocol.identity import Identity
from ...protocol.ports import Reply, Source
from ...protocol.request import authorization, read_challenge
from .address import HostPort, Place, authority, parse_address, with_host
from .bulk import Bulk, Call
from .names import Names
from .paths import FIRM_S, Carrier, Path, Paths
from .problem import expect
from .quic.attempts import first_channel
from .quic.channel import Channel
from .reach import by_both, by_name
from .stream import dial_stream
from .tcp import Ask, TcpCarrier

HEAD_START_S = 0.3
"""What QUIC gets before TCP is tried as well (the head start browsers give it)."""
CHANNELS = 128
PROBLEM_LIMIT_BYTES = 64 << 10
_UNAUTHORIZED = 401


class HttpDialer:
    """Implements ``ports.Dialer`` for one box; close it when done."""

    def __init__(
        self,
        *,
        allow_private: bool = False,
        plain_blocks: bool = True,
        network: Callable[[], str] = str,
        registry: CollectorRegistry | None = None,
    ) -> None:
        """Dial public addresses only, unless ``allow_private`` (LAN, tests): then loopback too.

        ``plain_blocks`` lets blocks come over plain TCP, where whoever sees the line sees which they are.
        ``network`` names the network this box is on now; what is learned of paths holds for that one.
        """
        self._allow_private = allow_private
        self._network = network
        self.paths = Paths()
        plain = self._carrier if plain_blocks else None
        self.bulk = Bulk(self.path, plain, self._request, self._ready, registry)
        ways = Gauge(
            "farcast_node_paths",
            "Ways to boxes, by what carries their blocks.",
            ["carrier"],
            registry=registry,
        )
        for carrier in Carrier:
            ways.labels(carrier.name.lower()).set_function(partial(self.paths.favouring, carrier))
        self._channels: dict[Place, Channel] = {}
        self._openings: dict[Place, asyncio.Task[Channel]] = {}
        self._names = Names(network, allow_private=allow_private)
        self.overlay = self._names.overlay
        self._tcp: TcpCarrier | None = None
        self._here = ""
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False
        self.carried: Callable[[str, int, int], None] = lambda _address, _sent, _received: None
        """Hears of the body bytes sent to and received from an address, as they are answered."""

    async def request(
        self,
        source: Source,
        method: str,
        path: str,
        *,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        limit_bytes: int = 4 << 20,
        timeout_s: float = 10.0,
        arrived: Callable[[int], None] | None = None,
    ) -> Reply:
        """Make one request to ``source`` and return its answer, whatever the status.

        ``arrived`` is told the bytes of the answer's body as they come.

        Raises:
            UnreachableError: no authenticated connection, or silence until ``timeout_s``.
            RemoteError: ``wrong_key`` where the peer is not ``source.key``; ``too_large`` past
                ``limit_bytes``.

        """
        return await self._answer(
            source, Call(method, path, body, headers or {}, limit_bytes, arrived), timeout_s
        )

    async def _answer(self, source: Source, call: Call, timeout_s: float) -> Reply:
        try:
            async with asyncio.timeout(timeout_s):
                reply = await self._request(source, call)
                self.carried(source.address, len(call.body), len(reply.body))
                return reply
        except TimeoutError as error:
            message = f"{source.name} at {source.address} was silent for {timeout_s:g} s"
            raise UnreachableError(message, reason="timeout") from error

    async def get_block(
        self,
        source: Source,
        cid: Cid,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
        arrived: Callable[[int], None] | None = None,
    ) -> bytes:
        """Return the block ``cid`` from ``source``, by the carrier that has proved fastest there.

        Only the bytes a CID names can come back over plain TCP from a box with a key; from elsewhere they
        are the caller's to verify. ``headers`` that not everybody may read keep it off plain TCP.
        ``arrived`` is told how many of its bytes are here, by whichever carrier is furthest.

        Raises:
            UnreachableError, RemoteError: as ``request``.
            RefusedError: any status but 200.

        """
        return await self._bring(source, cid, dict(headers or {}), timeout_s, arrived)

    async def _bring(
        self,
        source: Source,
        cid: Cid,
        headers: dict[str, str],
        timeout_s: float,
        arrived: Callable[[int], None] | None,
        moved: Callable[[int], None] | None = None,
    ) -> bytes:
        """Return a block as ``get_block``; ``moved`` hears of all bytes, also those that came before."""
        try:
            async with asyncio.timeout(timeout_s):
                reply = await self.bulk.get(source, cid, headers, arrived, moved)
        except TimeoutError as error:
            message = f"{source.name} at {source.address} did not bring {cid} within {timeout_s:g} s"
            raise UnreachableError(message, reason="timeout") from error
        body = expect(reply, 200)
        self.carried(source.address, 0, len(body))
        return body

    def path(self, place: Place) -> Path:
        """Return what is known of the way to ``place`` from the network this box is on."""
        return self.paths.at(self._network(), place, asyncio.get_running_loop().time())

    async def signed_request(
        self,
        source: Source,
        method: str,
        path: str,
        body: bytes,
        identity: Identity,
        *,
        limit_bytes: int = 4 << 20,
        timeout_s: float = 10.0,
    ) -> Reply:
        """Make a request signed by ``identity`` over a nonce of the server.

        The nonce is asked for without the body; an answer to that other than 401 is returned.

        Raises:
            UnreachableError, RemoteError: as ``request``; ``malformed`` for a challenge that is none.

        """
        end = asyncio.get_running_loop().time() + timeout_s
        # asking for the nonce needs no body, so a large one crosses the path once
        first = await self.request(source, method, path, limit_bytes=limit_bytes, timeout_s=timeout_s)
        if first.status != _UNAUTHORIZED:
            return first
        nonce = read_challenge(first.headers.get("www-authenticate", ""))
        proof = authorization(
            identity,
            method=method,
            path=path,
            body=body,
            nonce=nonce,
            audience=source.key,
            at_ms=int(time() * 1000),
        )
        return await self.request(
            source,
            method,
            path,
            body=body,
            headers={"authorization": proof},
            limit_bytes=limit_bytes,
            timeout_s=max(0.1, end - asyncio.get_running_loop().time()),
        )

    async def open_stream(
        self, source: Source, alpn: str, protocol: Callable[[], object], *, timeout_s: float = 5.0
    ) -> None:
        """Connect to ``source`` by TLS under the ALPN name ``alpn``, and let ``protocol`` serve it.

        Raises:
            UnreachableError, RemoteError: as ``ports.StreamDialer``.

        """
        addresses = await self._names.allowed(parse_address(source.address))
        await dial_stream(addresses, source.key, alpn, protocol, timeout_s)

    async def reach(self, source: Source, *, timeout_s: float) -> tuple[str, str]:
        """Return why ``source`` is not reached by TLS, and why not by QUIC; empty texts where it is.

        Only handshakes are made, and the key is checked; a private address is not dialled unless allowed.
        """
        return await by_both(self._names.allowed, source, timeout_s)

    async def reach_web(self, host: str, port: int, *, timeout_s: float) -> str:
        """Return why ``host`` does not show a public certificate of its name; empty where it does."""
        return await by_name(self._names.allowed, HostPort(host, port), timeout_s)

    async def __aenter__(self) -> Self:
        """Return the dialer, to be closed at the end of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close as ``close``."""
        await self.close()

    async def close(self) -> None:
        """Close every connection and stop every attempt."""
        self._closed = True
        openings = list(self._openings.values())
        for opening in openings:
            opening.cancel()
        await asyncio.gather(*openings, return_exceptions=True)
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()
        if self._tcp is not None:
            await self._tcp.close()
            self._tcp = None
        await asyncio.gather(*self._leaving, return_exceptions=True)
        await self._names.close()

    async def _request(self, source: Source, call: Call) -> Reply:
        place = Place(source.address, source.key)
        self._move()
        if not source.key:
            return await self._by_tcp(place, call, Ask())
        channel = self._channels.get(place)
        if channel is not None and channel.alive:
            return await self._by_quic(channel, place, call)
        opening = self._opening(place)
        if opening is None:
            return await self._instead(place, call)
        await asyncio.wait({opening}, timeout=HEAD_START_S)
        if not opening.done():
            return await self._race(opening, place, call)
        try:
            channel = opening.result()
        except UnreachableError:
            return await self._instead(place, call)
        return await self._by_quic(channel, place, call)

    async def _instead(self, place: Place, call: Call) -> Reply:
        """Ask by TCP where QUIC fails; the outcome tells whether UDP was to blame."""
        try:
            reply = await self._by_tcp(place, call, Ask())
        except UnreachableError:
            self.path(place).works(Carrier.QUIC)  # nobody is there at all
            raise
        self.paths.udp_failed(self._network(), place)
        return reply

    async def _race(self, opening: asyncio.Task[Channel], place: Place, call: Call) -> Reply:
        """Ask by TCP while the QUIC handshake goes on; whichever connects first carries the request."""
        ask = Ask()
        by_tcp = asyncio.get_running_loop().create_task(self._by_tcp(place, call, ask))
        try:
            await asyncio.wait({opening, by_tcp}, return_when=asyncio.FIRST_COMPLETED)
            if not ask.sent and opening.done() and not opening.cancelled() and opening.exception() is None:
                await _cancel(by_tcp)  # it has not connected, so nothing was asked yet
                return await self._by_quic(opening.result(), place, call)
            try:
                reply = await by_tcp
            except UnreachableError:
                if ask.sent:
                    raise
                return await self._by_quic(await asyncio.shield(opening), place, call)
            if not opening.done():
                self._block(place)
                self.paths.udp_failed(self._network(), place)
            return reply
        finally:
            await _cancel(by_tcp)

    async def _by_quic(self, channel: Channel, place: Place, call: Call) -> Reply:
        return await channel.request(
            call.method,
            authority(place.address),
            call.path,
            body=call.body,
            headers=call.headers,
            limit_bytes=call.limit_bytes,
            arrived=call.arrived,
        )

    async def _by_tcp(self, place: Place, call: Call, ask: Ask) -> Reply:
        return await self._carrier().request(
            call.method,
            self._url(place, call.path),
            place.key,
            body=call.body,
            headers=with_host(place, call.headers),
            limit_bytes=call.limit_bytes,
            ask=ask,
            arrived=call.arrived,
        )

    def _ready(self, place: Place) -> asyncio.Future[Channel] | None:
        """Return the channel to ``place``, there already or on its way; None while QUIC is left alone."""
        channel = self._channels.get(place)
        if channel is None or not channel.alive:
            return self._opening(place)
        ready: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()
        ready.set_result(channel)
        return ready

    def _opening(self, place: Place) -> asyncio.Task[Channel] | None:
        """Return the QUIC handshake under way to ``place``, begun now if need be; None while blocked."""
        if self._closed:
            raise UnreachableError("this dialler is closed", reason="closed")
        loop = asyncio.get_running_loop()
        if self.path(place).closed(Carrier.QUIC, loop.time()):
            return None
        opening = self._openings.get(place)
        if opening is not None:
            return opening
        opening = loop.create_task(self._keep(place, self._dial(place)))
        self._openings[place] = opening
        opening.add_done_callback(lambda done: self._opened(place, done))
        return opening

    async def _keep(self, place: Place, dial: Coroutine[Any, Any, Channel]) -> Channel:
        channel = await dial
        stale = self._channels.pop(place, None)
        if stale is not None and not stale.busy:
            stale.close()
        self._channels[place] = channel
        self.path(place).works(Carrier.QUIC)
        self.path(place).connected(Carrier.QUIC, asyncio.get_running_loop().time())
        self.paths.udp_works(self._network())
        self._trim()
        return channel

    def _opened(self, place: Place, done: asyncio.Task[Channel]) -> None:
        self._openings.pop(place, None)
        if not done.cancelled() and isinstance(done.exception(), UnreachableError):
            self._block(place)

    async def _dial(self, place: Place) -> Channel:
        """Make a QUIC connection by the first address that answers; each has 250 ms before the next."""
        where = parse_address(place.address)
        channel, (family, address) = await first_channel(await self._names.allowed(where), place.key)
        self._names.connected(where.host, family, str(address[0]))
        return channel

    def _trim(self) -> None:
        """Close the oldest idle channels past the limit, and dead ones."""
        for place, channel in list(self._channels.items()):
            if not channel.alive or (len(self._channels) > CHANNELS and not channel.busy):
                del self._channels[place]
                if not channel.busy:
                    channel.close()

    def _block(self, place: Place) -> None:
        self.path(place).fails(Carrier.QUIC, FIRM_S, asyncio.get_running_loop().time())

    def _carrier(self) -> TcpCarrier:
        if self._closed:
            raise UnreachableError("this dialler is closed", reason="closed")
        self._move()
        self._tcp = self._tcp or TcpCarrier(allow_private=self._allow_private, names=self._names)
        return self._tcp

    def _move(self) -> None:
        """Leave all connections behind where this box is on another network now: their addresses are gone."""
        before, self._here = self._here, self._network()
        if before == self._here:
            return
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()
        if self._tcp is not None:
            leaving = asyncio.get_running_loop().create_task(self._tcp.close())
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
            self._tcp = None

    def _url(self, place: Place, path: str) -> str:
        if place.key:
            parse_address(place.address)
            return f"https://{place.address}{path}"
        base, _, token = place.address.partition("?")
        url = base.rstrip("/") + path
        return f"{url}{'&' if '?' in path else '?'}{token}" if token else url


async def _cancel(task: asyncio.Task[Reply]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
