"""Network addresses: how they are written, and which of them the open Internet may be asked for."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple

from ...protocol.errors import RemoteError

_NAT64 = IPv6Network("64:ff9b::/96")
_PORTS = 65_535
_SCOPE = 3


class HostPort(NamedTuple):
    """Where to dial: a name or address without brackets, and a port."""

    host: str
    port: int


class Place(NamedTuple):
    """A box: where it is dialled, and the key it must prove to own (empty for a CDN address)."""

    address: str
    key: bytes


def parse_address(text: str) -> HostPort:
    """Read ``host:port`` or ``[v6]:port``.

    Raises:
        RemoteError: ``malformed``; addresses come from peers and directories.

    """
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    digits = port.isascii() and port.isdigit() and len(port) <= len(str(_PORTS))
    if not host or not digits or not 0 < int(port) <= _PORTS or (":" in host) is not bracketed:
        raise RemoteError(f"{text[:80]!r} is no address of the form host:port", reason="malformed")
    return HostPort(host, int(port))


def is_public(host: str) -> bool:
    """Say whether ``host`` is a literal public unicast address; a name is not.

    An IPv6 address that carries an IPv4 one (mapped, 6to4, Teredo, NAT64) is as public as that.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        carried = _carried(address)
        if carried is not None:
            address = carried
    return address.is_global and not (address.is_multicast or address.is_reserved)


def plain(host: str) -> str:
    """Return an IPv4 address as such, where a dual-stack socket shows it as mapped."""
    return host.removeprefix("::ffff:") if "." in host else host


def zoned(address: Sequence[str | int]) -> str:
    """Return the host of a socket's address as ``plain`` has it, with the number of a link-local one's link.

    The order is that of ``accept`` and ``recvmsg``: host, port, and for IPv6 flow and scope.
    """
    host = plain(str(address[0]))
    return f"{host}%{address[3]}" if len(address) > _SCOPE and address[_SCOPE] else host


def authority(address: str) -> str:
    """Return ``address`` as a Host value: a link-local zone is this box's own business (RFC 9110 4.2.3)."""
    host, mark, rest = address.partition("%")
    return host + rest[rest.index("]") :] if mark and "]" in rest else address


def with_host(place: Place, headers: dict[str, str]) -> dict[str, str]:
    """Name the host of a keyed box without its link-local zone, which aiohttp would send along.

    A CDN is told that the bytes themselves are wanted: saying nothing would allow any coding (RFC 9110
    section 12.5.3).
    """
    if place.key:
        return {**headers, "host": authority(place.address)}
    return {"accept-encoding": "identity", **headers}


def _carried(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address.teredo is not None:
        return address.teredo[1]
    return address.ipv4_mapped or address.sixtofour
