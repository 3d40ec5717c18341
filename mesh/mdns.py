"""mDNS: the cold start where the presence group is filtered but 224.0.0.251 is not.

A service found here is a hint and no more: anybody on the link can say anything, and a record lives
on for an hour after its box died. What follows from it is one presence to that address.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from typing import Final, cast

from zeroconf import IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from .link import Address

SERVICE: Final = "_farcast._udp.local."
LABEL_DIGITS = 16
REQUEST_MS = 3_000
HINTS_LIMIT = 32
VERSION = b"1"


def label(key: bytes) -> str:
    """Return the instance label of a presence key: it says nothing a listener does not hear anyway."""
    return sha256(key).hexdigest()[:LABEL_DIGITS]


class Mdns:
    """Announces one box and keeps the addresses of others.

    ``port`` is the listener's; ``presence_port`` where presence sent to this box alone is heard;
    ``found`` is called with every new hint.
    """

    def __init__(self, key: bytes, net: bytes, port: int, found: Callable[[Address], None]) -> None:
        self._name = f"{label(key)}.{SERVICE}"
        self._key, self._net, self._port = key, net, port
        self._found = found
        self._hints: dict[str, list[Address]] = {}
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._tasks: set[asyncio.Future[None]] = set()

    def hints(self) -> list[Address]:
        """Return where other boxes say they hear presence."""
        return [address for addresses in self._hints.values() for address in addresses]

    async def start(self, addresses: Sequence[str], presence_port: int) -> None:
        """Announce on the interfaces of ``addresses`` and browse.

        Raises ``OSError`` or ``zeroconf.Error`` where the system lets nobody speak mDNS.
        """
        self._zeroconf = AsyncZeroconf(interfaces=list(addresses), ip_version=IPVersion.V4Only)
        info = AsyncServiceInfo(
            SERVICE,
            self._name,
            addresses=[socket.inet_aton(address) for address in addresses],
            port=self._port,
            properties={
                b"v": VERSION,
                b"k": self._key.hex().encode(),
                b"net": self._net.hex().encode(),
                b"p": str(presence_port).encode(),
            },
            server=f"{self._name.partition('.')[0]}.local.",
        )
        register = cast(
            "Callable[..., Awaitable[asyncio.Future[None]]]",
            self._zeroconf.async_register_service,  # pyright: ignore[reportUnknownMemberType]
        )
        self._keep(await register(info, cooperating_responders=True))
        self._browser = AsyncServiceBrowser(self._zeroconf.zeroconf, SERVICE, handlers=[self._changed])

    async def stop(self) -> None:
        """Say goodbye and let go."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._browser is not None:
            await self._browser.async_cancel()
        if self._zeroconf is not None:
            await self._zeroconf.async_unregister_all_services()
            await self._zeroconf.async_close()
        self._browser = self._zeroconf = None
        self._hints.clear()

    def _changed(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        del service_type
        if state_change is ServiceStateChange.Removed:
            self._hints.pop(name, None)
        elif (
            name != self._name
            and (name in self._hints or len(self._hints) < HINTS_LIMIT)
            and len(self._tasks) < HINTS_LIMIT
        ):
            self._keep(asyncio.ensure_future(self._resolve(zeroconf, name)))

    def _keep(self, task: asyncio.Future[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _resolve(self, zeroconf: Zeroconf, name: str) -> None:
        info = AsyncServiceInfo(SERVICE, name)
        if not await info.async_request(zeroconf, REQUEST_MS):
            return
        text = info.properties
        port = (text.get(b"p") or b"").decode("ascii", "replace")
        if text.get(b"v") != VERSION or text.get(b"net") != self._net.hex().encode() or not port.isdecimal():
            return
        if not 0 < int(port) <= 65_535:  # noqa: PLR2004 - a UDP port
            return
        addresses: list[Address] = [(host, int(port)) for host in info.parsed_addresses(IPVersion.V4Only)[:4]]
        fresh = [address for address in addresses if address not in self._hints.get(name, ())]
        self._hints[name] = addresses
        for address in fresh:
            self._found(address)
