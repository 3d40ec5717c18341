"""Talking to one router: each protocol as a way to map a port, over real sockets."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import aiohttp

from ...protocol.errors import RefusedError, RemoteError, UnreachableError
from ..http.address import is_public
from . import natpmp, pcp, upnp
from .lease import Carrier, Lease, Wish

FIRST_WAIT_S = 0.25
TRIES = 4
"""A router on the link answers in milliseconds; four tries, each twice as long, are 3.75 s (RFC 6886 3.1)."""
HTTP_S = 5.0
SEARCH_S = 2.0

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """Where the router is: its address, this box's on the same link, and the ports it is asked at."""

    router: str
    client: str
    pcp_port: int = pcp.PORT
    search: tuple[str, int] = (upnp.GROUP, upnp.PORT)


class Way(Protocol):
    """One protocol by which the router may map ports."""

    name: str

    async def map(self, wish: Wish, ttl_s: int) -> Lease:
        """Map a port, or renew it.

        Raises:
            RefusedError: the router says no.
            UnreachableError: it does not speak this protocol, or not at all.

        """
        ...

    async def unmap(self, wish: Wish) -> None:
        """Delete a mapping; raises as ``map``."""
        ...


class Pcp:
    """PCP; every mapping keeps the nonce it was made with, or the router takes it for another's."""

    name = "PCP"

    def __init__(self, place: Place) -> None:
        self._place = place
        self._nonces = {carrier: secrets.token_bytes(pcp.NONCE_BYTES) for carrier in Carrier}

    async def map(self, wish: Wish, ttl_s: int) -> Lease:
        """Map or renew; raises as ``Way.map``."""
        nonce = self._nonces[wish.carrier]
        request = pcp.ask_mapping(wish, self._place.client, nonce, ttl_s)

        def accept(data: bytes) -> pcp.Mapped | None:
            found = pcp.read_mapping(data)
            ours = (nonce, wish.carrier, wish.internal_port)
            return found if (found.nonce, found.carrier, found.internal_port) == ours else None

        found = await _ask(self._place, request, accept)
        return Lease(found.external_host, found.external_port, found.ttl_s)

    async def unmap(self, wish: Wish) -> None:
        """Delete; raises as ``Way.map``."""
        await self.map(wish, 0)


class NatPmp:
    """NAT-PMP, PCP's forerunner."""

    name = "NAT-PMP"

    def __init__(self, place: Place) -> None:
        self._place = place

    async def map(self, wish: Wish, ttl_s: int) -> Lease:
        """Map or renew; raises as ``Way.map``."""

        def accept(data: bytes) -> natpmp.Mapped | None:
            found = natpmp.read_mapping(data, wish.carrier)
            return found if found.internal_port == wish.internal_port else None

        found = await _ask(self._place, natpmp.ask_mapping(wish, ttl_s), accept)
        host = await _ask(self._place, natpmp.ask_address(), natpmp.read_address) if ttl_s else ""
        return Lease(host, found.external_port, found.ttl_s)

    async def unmap(self, wish: Wish) -> None:
        """Delete; raises as ``Way.map``."""
        await self.map(wish, 0)


class Upnp:
    """UPnP-IGD: found by multicast, asked by SOAP."""

    name = "UPnP"

    def __init__(self, place: Place) -> None:
        self._place = place
        self._service: upnp.Service | None = None

    async def map(self, wish: Wish, ttl_s: int) -> Lease:
        """Map or renew; raises as ``Way.map``."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=HTTP_S)) as session:
            service = self._service or await self._find(session)
            try:
                host = await _call(session, service, "GetExternalIPAddress", {}, "NewExternalIPAddress")
                if is_public(host):  # no mapping makes another address reachable from outside
                    await self._add(session, service, wish, ttl_s)
            except UnreachableError:
                self._service = None  # a router that came up again may listen elsewhere
                raise
            self._service = service
            return Lease(host, wish.external_port, ttl_s)

    async def unmap(self, wish: Wish) -> None:
        """Delete; raises as ``Way.map``."""
        if self._service is not None:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=HTTP_S)) as session:
                arguments = upnp.delete_mapping(wish.carrier, wish.external_port)
                await _call(session, self._service, "DeletePortMapping", arguments)

    async def _add(
        self, session: aiohttp.ClientSession, service: upnp.Service, wish: Wish, ttl_s: int
    ) -> None:
        arguments = upnp.add_mapping(wish, self._place.client, ttl_s)
        try:
            await _call(session, service, "AddPortMapping", arguments)
        except upnp.SoapError as error:
            if error.code != upnp.ONLY_PERMANENT:
                raise
            await _call(session, service, "AddPortMapping", arguments | {"NewLeaseDuration": "0"})

    async def _find(self, session: aiohttp.ClientSession) -> upnp.Service:
        failure: RemoteError = UnreachableError("no router answers UPnP on this network", reason="no_router")
        for location in await _search(self._place):
            try:
                _, description = await _fetch(session, "GET", location, upnp.DESCRIPTION_LIMIT_BYTES)
                return upnp.read_service(description, location)
            except RemoteError as error:
                failure = error
        raise failure


class _Answers(asyncio.DatagramProtocol):
    """Datagrams as they come, with their sender's address; more than 64 unread are dropped."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[tuple[bytes, str]] = asyncio.Queue(64)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if not self.queue.full():
            self.queue.put_nowait((data, addr[0]))

    def error_received(self, exc: Exception) -> None:
        """Let the time-out tell: a closed port may open, and the next try find it."""


async def _ask(place: Place, request: bytes, accept: Callable[[bytes], T | None]) -> T:
    """Send ``request`` until the router answers it; ``accept`` gives None for what answers another."""
    loop = asyncio.get_running_loop()
    transport, answers = await loop.create_datagram_endpoint(
        _Answers, remote_addr=(place.router, place.pcp_port)
    )
    try:
        for number in range(TRIES):
            transport.sendto(request)
            try:
                async with asyncio.timeout(FIRST_WAIT_S * 2**number):
                    while True:
                        data, _ = await answers.queue.get()
                        found = accept(data)
                        if found is not None:
                            return found
            except TimeoutError:
                continue
    finally:
        transport.close()
    message = f"the router {place.router} does not answer at UDP port {place.pcp_port}"
    raise UnreachableError(message, reason="no_router")


async def _search(place: Place) -> list[str]:
    """Return where descriptions of routers are, as those that answered within two seconds say."""
    loop = asyncio.get_running_loop()
    transport, answers = await loop.create_datagram_endpoint(_Answers, local_addr=(place.client, 0))
    found: dict[str, None] = {}
    try:
        for target in upnp.TARGETS:
            transport.sendto(upnp.search(target), place.search)
        async with asyncio.timeout(SEARCH_S):
            while not found:
                data, sender = await answers.queue.get()
                location = upnp.read_location(data, sender)
                if location is not None and sender == place.router:
                    found[location] = None
    except TimeoutError:
        pass
    finally:
        transport.close()
    return list(found)


async def _call(
    session: aiohttp.ClientSession,
    service: upnp.Service,
    action: str,
    arguments: dict[str, str],
    wanted: str = "",
) -> str:
    headers, body = upnp.call(service.kind, action, arguments)
    status, data = await _fetch(
        session, "POST", service.control, upnp.ANSWER_LIMIT_BYTES, headers=headers, body=body
    )
    return upnp.read_answer(status, data, wanted)


async def _fetch(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    limit_bytes: int,
    *,
    headers: dict[str, str] | None = None,
    body: bytes = b"",
) -> tuple[int, bytes]:
    try:
        async with session.request(
            method, url, headers=headers, data=body or None, allow_redirects=False
        ) as reply:
            data = bytearray()
            async for chunk in reply.content.iter_chunked(16 << 10):
                data += chunk
                if len(data) > limit_bytes:
                    raise RefusedError("the router's UPnP answer is too large", reason="too_large")
            return reply.status, bytes(data)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise UnreachableError(
            f"the router does not answer UPnP calls: {error}", reason="no_router"
        ) from error
