"""Names: looks hosts up, and gives their addresses in the order in which they are best tried."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from aiohttp import ClientRequest, ClientTimeout, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from ...protocol.errors import UnreachableError
from ..overlay import Overlay, is_overlay
from .address import HostPort, is_public
from .dualstack import DualStack
from .quic.session import Address

TTL_S = 60.0
NAMES = 1_024

Found = list[tuple[int, str, Address]]
"""Family, address in words, and address to connect to."""


class Names(AbstractResolver):
    """Resolves for one dialler, over TCP and QUIC alike; an answer is kept for a minute."""

    def __init__(self, network: Callable[[], str], *, allow_private: bool) -> None:
        """``network`` names the network this box is on: answers and experience hold for that one."""
        self._network = network
        self._allow_private = allow_private
        self.overlay = Overlay()
        self._stack = DualStack()
        self._kept: dict[tuple[str, str, int], tuple[float, Found]] = {}
        self._asking: dict[tuple[str, str, int], asyncio.Task[Found]] = {}

    async def addresses(self, host: str, port: int) -> Found:
        """Return where to connect to, the best first.

        Raises:
            UnreachableError: ``no_address``.

        """
        loop = asyncio.get_running_loop()
        network = self._network()
        key = (network, host, port)
        until, found = self._kept.get(key, (0.0, []))
        if loop.time() >= until:
            asking = self._asking.get(key)
            if asking is None:
                asking = self._asking[key] = loop.create_task(self._ask(key))
                asking.add_done_callback(lambda _: self._asking.pop(key, None))
            found = await asyncio.shield(asking)
        return self._stack.order(network, host, found)

    async def allowed(self, where: HostPort) -> list[tuple[int, Address]]:
        """Return the addresses that may be dialled, the best first.

        Raises:
            UnreachableError: ``no_address``; ``private_address`` where there are only such.

        """
        found = await self.addresses(where.host, where.port)
        allowed = [(family, address) for family, host, address in found if self.may_dial(host)]
        if not allowed:
            message = f"{where.host} is a private address, which is never dialled from here"
            raise UnreachableError(message, reason="private_address")
        return allowed

    def may_dial(self, host: str) -> bool:
        """Say whether this literal address may be dialled from here."""
        if is_overlay(host):
            return self.overlay.here  # from elsewhere it would go to whatever router there is
        return self._allow_private or is_public(host)

    def connected(self, host: str, family: int, address: str) -> None:
        """Note which address of a name answered."""
        network = self._network()
        kept = [found for (net, name, _), (_, found) in self._kept.items() if (net, name) == (network, host)]
        raced = any(one[0] != family for found in kept for one in found)
        self._stack.connected(network, host, family, address, raced=raced)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Answer aiohttp; raises ``OSError``."""
        try:
            found = await self.addresses(host, port)
        except UnreachableError as error:
            raise OSError(str(error)) from error
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=address, port=port, family=one, proto=0, flags=flags)
            for one, address, _ in found
            if family in (socket.AF_UNSPEC, one)
        ]

    async def close(self) -> None:
        """End what is being asked."""
        for asking in list(self._asking.values()):
            asking.cancel()

    async def _ask(self, key: tuple[str, str, int]) -> Found:
        _, host, port = key
        loop = asyncio.get_running_loop()
        try:
            infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            message = f"{host} cannot be resolved: {error.strerror}"
            raise UnreachableError(message, reason="no_address") from error
        found: Found = [
            (int(family), str(address[0]), cast("Address", address)) for family, *_, address in infos
        ]
        if len(self._kept) >= NAMES:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = (loop.time() + TTL_S, found)
        return found


class NamedConnector(TCPConnector):
    """Tells ``names`` which address of a name a connection came about with."""

    def __init__(self, names: Names, **rest: object) -> None:
        """Resolve by ``names``; ``rest`` is as in ``TCPConnector``."""
        super().__init__(resolver=names, use_dns_cache=False, **rest)  # type: ignore[arg-type]
        self._names = names

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,  # noqa: ASYNC109 - the name is aiohttp's
    ) -> Connection:
        """Return a connection, kept or new."""
        connection = await super().connect(req, traces, timeout)
        peer = connection.transport.get_extra_info("peername") if connection.transport else None
        if peer and req.url.raw_host:
            family = socket.AF_INET6 if ":" in str(peer[0]) else socket.AF_INET
            self._names.connected(req.url.raw_host, family, str(peer[0]))
        return connection
