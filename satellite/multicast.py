"""UDP multicast sockets on one chosen interface (IPv4; ``ip(7)``)."""

from __future__ import annotations

import socket
import struct

from ..protocol.errors import UsageError

RECEIVE_BUFFER_BYTES = 4 << 20
_ANY = "0.0.0.0"  # noqa: S104 - the kernel chooses; nothing is bound to it
_IP_MULTICAST_ALL = 49
"""Linux, ``ip(7)``: with 0 a socket hears only the groups it joined itself."""


def sender(interface: str, ttl: int) -> socket.socket:
    """Open a socket whose multicast leaves by ``interface``.

    ``interface`` is a name or an IPv4 address of this box; "" lets the system choose.

    Raises:
        UsageError: where there is no such interface.

    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, _mreqn(_ANY, interface))
    except (OSError, UsageError) as error:
        sock.close()
        raise _unusable(interface, error) from error
    return sock


def receiver(group: str, port: int, interface: str) -> socket.socket:
    """Open a socket that hears ``group`` on ``interface``, given as for ``sender``.

    Raises:
        UsageError: where there is no such interface or the port is taken.

    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        sock.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
        sock.bind((group, port))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, _mreqn(group, interface))
    except (OSError, UsageError) as error:
        sock.close()
        raise _unusable(interface, error) from error
    return sock


def _mreqn(group: str, interface: str) -> bytes:
    """Return a ``struct ip_mreqn``: group, local address, interface index."""
    address, index = _ANY, 0
    if interface[:1].isdigit():
        address = interface
    elif interface:
        index = socket.if_nametoindex(interface)
    return struct.pack("=4s4si", socket.inet_aton(group), socket.inet_aton(address), index)


def _unusable(interface: str, error: Exception) -> UsageError:
    name = interface or "the default interface"
    return UsageError(f"no multicast on {name}: {error}; name another in [satellite] interface")
