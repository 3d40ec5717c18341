"""One link's multicast sockets: an ear in the group, a mouth on the link's own address.

The mouth also hears what is sent to it alone: answers, and presence from where multicast is filtered.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

import ifaddr

from ..protocol.presence import PRESENCE_LIMIT_BYTES

GROUP_IPV4 = "239.255.74.34"
GROUP_IPV6 = "ff12::7434"
PORT = 7434
DRAIN_DATAGRAMS = 64
EAR_BYTES = 1 << 20
"""What may wait while this box does other things: a tenth of a second of ten thousand datagrams."""
_IP_MULTICAST_ALL, _IPV6_MULTICAST_ALL = 49, 29
"""Linux, ``ip(7)`` and ``ipv6(7)``: with 0 a socket hears only the groups it joined itself."""

Address = tuple[str, int] | tuple[str, int, int, int]
"""As the socket module has it: host and port, for IPv6 also flow and scope."""
Hear = Callable[["Link", bytes, str, Address, bool], None]


class Link:
    """Multicast on one interface, for one IP version; ``hear(link, data, host, sender, alone)`` gets all.

    ``host`` is the sender's address as it may be dialled, an IPv6 one with its scope; ``alone`` says that
    it was sent to this box, not to the group.
    """

    def __init__(self, ear: socket.socket, mouth: socket.socket, target: Address, hear: Hear) -> None:
        self._ear, self._mouth = ear, mouth
        self._target = target
        self._hear = hear
        self.host: str = mouth.getsockname()[0]
        self.port: int = mouth.getsockname()[1]
        loop = asyncio.get_running_loop()
        for sock in (ear, mouth):
            loop.add_reader(sock, self._drain, sock)

    def send(self, data: bytes) -> None:
        """Send to everybody on the link; raises ``OSError``."""
        self._mouth.sendto(data, self._target)

    def tell(self, data: bytes, address: Address) -> None:
        """Send to one address; raises ``OSError``."""
        self._mouth.sendto(data, address)

    def close(self) -> None:
        """Leave the group."""
        loop = asyncio.get_running_loop()
        for sock in (self._ear, self._mouth):
            loop.remove_reader(sock)
            sock.close()

    def _drain(self, sock: socket.socket) -> None:
        for _ in range(DRAIN_DATAGRAMS):
            try:
                data, sender = sock.recvfrom(PRESENCE_LIMIT_BYTES + 1)
            except OSError:  # drained, or an ICMP answer to what was sent
                return
            self._hear(self, data, _host(sender), sender, sock is self._mouth)


def open_ipv4(address: str, group: str, port: int, mouth_port: int, hear: Hear) -> Link:
    """Join the IPv4 ``group`` by the interface of ``address``.

    ``mouth_port`` is wished for, any other is taken where it is not free. Raises ``OSError``.
    """
    ear, mouth = _sockets(socket.AF_INET)
    try:
        local = socket.inet_aton(address)
        ear.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
        ear.bind((group, port))
        ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + local)
        mouth.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, local)
        mouth.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
        _bind(mouth, (address, mouth_port))
        return Link(ear, mouth, (group, port), hear)
    except OSError:
        ear.close()
        mouth.close()
        raise


def open_ipv6(index: int, port: int, mouth_port: int, hear: Hear) -> Link:
    """Join the IPv6 group on the interface with this index; raises ``OSError``."""
    ear, mouth = _sockets(socket.AF_INET6)
    try:
        membership = socket.inet_pton(socket.AF_INET6, GROUP_IPV6) + struct.pack("@I", index)
        ear.setsockopt(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)
        ear.bind((GROUP_IPV6, port, 0, index))
        ear.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)
        mouth.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        mouth.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 1)
        _bind(mouth, (_link_local(index), mouth_port, 0, index))
        return Link(ear, mouth, (GROUP_IPV6, port, 0, index), hear)
    except OSError:
        ear.close()
        mouth.close()
        raise


def indexes_of(address: str) -> list[int]:
    """Return the interfaces that have the IPv4 ``address`` and an IPv6 link-local one; at most one."""
    return [
        adapter.index
        for adapter in ifaddr.get_adapters()
        if adapter.index is not None
        and any(found.ip == address for found in adapter.ips)
        and any(found.is_IPv6 and found.ip[0].startswith("fe80:") for found in adapter.ips)
    ]


def _link_local(index: int) -> str:
    for adapter in ifaddr.get_adapters():
        for found in adapter.ips:
            if adapter.index == index and found.is_IPv6 and found.ip[0].startswith("fe80:"):
                return found.ip[0]
    msg = f"interface {index} has no IPv6 link-local address"
    raise OSError(msg)


def _sockets(family: socket.AddressFamily) -> tuple[socket.socket, socket.socket]:
    ear, mouth = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
    for sock in (ear, mouth):
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, EAR_BYTES)  # the kernel gives what it allows
    ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return ear, mouth


def _bind(mouth: socket.socket, address: Address) -> None:
    try:
        mouth.bind(address)
    except OSError:
        mouth.bind((address[0], 0, *address[2:]))


def _host(sender: tuple[str, int, int, int] | tuple[str, int]) -> str:
    """Return the host of a sender, an IPv6 link-local one with the name of its interface."""
    if len(sender) == 2 or not sender[3]:  # noqa: PLR2004 - an IPv4 address has two parts
        return sender[0]
    return f"{sender[0]}%{socket.if_indextoname(sender[3])}"
