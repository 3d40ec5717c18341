"""The dialler: asks boxes by key, over QUIC or TLS, whichever the path lets through, and CDNs by URL."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Coroutine
from time import time
from types import TracebackType
from typing import Any, NamedTuple, Self, cast

from ...protocol.cid import Cid
from ...protocol.errors import RefusedError, UnreachableError
from ...protocol.identity import Identity
from ...protocol.ports import Reply, Source
from ...protocol.request import authorization, read_challenge
from .address import HostPort, authority, is_public, parse_address
from .download import Download
from .quic.channel import Channel
from .quic.session import Address
from .tcp import Ask, TcpCarrier

BLOCK_LIMIT_BYTES = 2 << 20
HEAD_START_S = 0.3
"""What QUIC gets before TCP is tried as well (the head start browsers give it)."""
BLOCKED_S = 60.0
"""How long a source is asked by TCP alone once QUIC has failed there."""
CHANNELS = 128
REMEMBERED = 1_024
PROBLEM_LIMIT_BYTES = 64 << 10
_UNAUTHORIZED = 401


class _Place(NamedTuple):
    address: str
    key: bytes


class HttpDialer:
    """Implements ``ports.Dialer`` for one box; close it when done."""

    def __init__(self, *, allow_private: bool = False) -> None:
        """Dial public addresses only, unless ``allow_private`` (LAN, tests): then loopback too."""
        self._allow_private = allow_private
        self._channels: dict[_Place, Channel] = {}
        self._openings: dict[_Place, asyncio.Task[Channel]] = {}
        self._blocked_until: dict[_Place, float] = {}
        self._tcp: TcpCarrier | None = None
        self._closed = False

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
    ) -> Reply:
        """Make one request to ``source`` and return its answer, whatever the status.

        Raises:
            UnreachableError: no authenticated connection, or silence until ``timeout_s``.
            RemoteError: ``wrong_key`` where the peer is not ``source.key``; ``too_large`` past
                ``limit_bytes``.

        """
        call = _Call(method, path, body, headers or {}, limit_bytes)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._request(source, call)
        except TimeoutError as error:
            message = f"{source.name} at {source.address} was silent for {timeout_s:g} s"
            raise UnreachableError(message, reason="timeout") from error

    async def stream(self, source: Source, path: str) -> AsyncIterator[bytes]:
        """Stream the body of a 200 answer to ``GET path``.

        Bulk goes by TCP first: its kernel paces it (BBR) and holds the sender back where we are slow.

        Raises:
            UnreachableError, RemoteError: as ``request``, also while iterating.
            RefusedError: any other status.

        """
        try:
            async with asyncio.timeout(20.0):
                reply, download = await self._download(source, path)
        except TimeoutError as error:
            message = f"{source.name} at {source.address} did not answer"
            raise UnreachableError(message, reason="timeout") from error
        if reply.status != 200:  # noqa: PLR2004 - OK
            download.close()
            raise refusal(source, path, reply)
        return download

    async def get_block(self, source: Source, cid: Cid, *, timeout_s: float = 10.0) -> bytes:
        """Return the block ``cid`` from ``source``, not yet verified.

        Raises:
            UnreachableError, RemoteError: as ``request``.
            RefusedError: any status but 200.

        """
        path = f"/ipfs/{cid}?format=raw"
        reply = await self.request(source, "GET", path, limit_bytes=BLOCK_LIMIT_BYTES, timeout_s=timeout_s)
        if reply.status != 200:  # noqa: PLR2004 - OK
            raise refusal(source, path, reply)
        return reply.body

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

    async def _request(self, source: Source, call: _Call) -> Reply:
        place = _Place(source.address, source.key)
        if not source.key:
            return await self._by_tcp(place, call, Ask())
        channel = self._channels.get(place)
        if channel is not None and channel.alive:
            return await self._by_quic(channel, place, call)
        opening = self._opening(place)
        if opening is None:
            return await self._by_tcp(place, call, Ask())
        await asyncio.wait({opening}, timeout=HEAD_START_S)
        if not opening.done():
            return await self._race(opening, place, call)
        try:
            channel = opening.result()
        except UnreachableError:
            return await self._by_tcp(place, call, Ask())
        return await self._by_quic(channel, place, call)

    async def _race(self, opening: asyncio.Task[Channel], place: _Place, call: _Call) -> Reply:
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
            return reply
        finally:
            await _cancel(by_tcp)

    async def _by_quic(self, channel: Channel, place: _Place, call: _Call) -> Reply:
        return await channel.request(
            call.method,
            authority(place.address),
            call.path,
            body=call.body,
            headers=call.headers,
            limit_bytes=call.limit_bytes,
        )

    async def _by_tcp(self, place: _Place, call: _Call, ask: Ask) -> Reply:
        return await self._carrier().request(
            call.method,
            self._url(place, call.path),
            place.key,
            body=call.body,
            headers=_with_host(place, call.headers),
            limit_bytes=call.limit_bytes,
            ask=ask,
        )

    async def _download(self, source: Source, path: str) -> tuple[Reply, Download]:
        place = _Place(source.address, source.key)
        ask = Ask()
        try:
            return await self._carrier().download(
                self._url(place, path), place.key, _with_host(place, {}), ask
            )
        except UnreachableError:
            if ask.sent or not source.key:
                raise
        channel = await self._dial(place)
        try:
            return await channel.download(authority(place.address), path, {})
        except BaseException:
            channel.close()
            raise

    def _opening(self, place: _Place) -> asyncio.Task[Channel] | None:
        """Return the QUIC handshake under way to ``place``, begun now if need be; None while blocked."""
        if self._closed:
            raise UnreachableError("this dialler is closed", reason="closed")
        loop = asyncio.get_running_loop()
        if self._blocked_until.get(place, 0.0) > loop.time():
            return None
        opening = self._openings.get(place)
        if opening is not None:
            return opening
        opening = loop.create_task(self._keep(place, self._dial(place)))
        self._openings[place] = opening
        opening.add_done_callback(lambda done: self._opened(place, done))
        return opening

    async def _keep(self, place: _Place, dial: Coroutine[Any, Any, Channel]) -> Channel:
        channel = await dial
        stale = self._channels.pop(place, None)
        if stale is not None and not stale.busy:
            stale.close()
        self._channels[place] = channel
        self._blocked_until.pop(place, None)
        self._trim()
        return channel

    def _opened(self, place: _Place, done: asyncio.Task[Channel]) -> None:
        self._openings.pop(place, None)
        if not done.cancelled() and isinstance(done.exception(), UnreachableError):
            self._block(place)

    async def _dial(self, place: _Place) -> Channel:
        host, port = parse_address(place.address)
        family, address = await self._resolve(HostPort(host, port))
        return await Channel.open(family, address, place.key)

    async def _resolve(self, where: HostPort) -> tuple[int, Address]:
        """Return the first address of ``where`` that may be dialled."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(where.host, where.port, type=socket.SOCK_DGRAM)
        except OSError as error:
            message = f"{where.host} cannot be resolved: {error.strerror}"
            raise UnreachableError(message, reason="no_address") from error
        for family, _, _, _, address in found:
            if self._allow_private or is_public(str(address[0])):
                return family, cast("Address", address)
        message = f"{where.host} is a private address, which is never dialled from here"
        raise UnreachableError(message, reason="private_address")

    def _trim(self) -> None:
        """Close the oldest idle channels past the limit, and dead ones."""
        for place, channel in list(self._channels.items()):
            if not channel.alive or (len(self._channels) > CHANNELS and not channel.busy):
                del self._channels[place]
                if not channel.busy:
                    channel.close()

    def _block(self, place: _Place) -> None:
        if len(self._blocked_until) >= REMEMBERED:
            self._blocked_until.pop(next(iter(self._blocked_until)))
        self._blocked_until[place] = asyncio.get_running_loop().time() + BLOCKED_S

    def _carrier(self) -> TcpCarrier:
        if self._closed:
            raise UnreachableError("this dialler is closed", reason="closed")
        if self._tcp is None:
            self._tcp = TcpCarrier(allow_private=self._allow_private)
        return self._tcp

    def _url(self, place: _Place, path: str) -> str:
        if place.key:
            parse_address(place.address)
            return f"https://{place.address}{path}"
        return place.address.rstrip("/") + path


class _Call(NamedTuple):
    method: str
    path: str
    body: bytes
    headers: dict[str, str]
    limit_bytes: int


def _with_host(place: _Place, headers: dict[str, str]) -> dict[str, str]:
    """Name the host of a keyed box without its link-local zone, which aiohttp would send along."""
    return {**headers, "host": authority(place.address)} if place.key else headers


async def _cancel(task: asyncio.Task[Reply]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def refusal(source: Source, path: str, reply: Reply) -> RefusedError:
    """Return the error of an answer that is a no, with its Retry-After where that is in seconds."""
    after = reply.headers.get("retry-after", "")
    return RefusedError(
        f"{source.name} at {source.address} answered {reply.status} for {path}",
        status=reply.status,
        retry_after_s=float(after) if after.isascii() and after.isdigit() else None,
    )
