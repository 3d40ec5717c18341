"""Sockets of the listeners: bound to a port, and the message where it cannot be had."""

from __future__ import annotations

import errno
import resource
import socket

from ...protocol.errors import UsageError

BACKLOG = 1_024
SPARE_DESCRIPTORS = 2_048
"""For block files, databases and the connections this box makes."""
_PAIR_TRIES = 16


def raise_descriptors(connections: int) -> None:
    """Allow this process as many open files as ``connections`` want, if its hard limit lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_DESCRIPTORS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def bind_pair(host: str, port: int, setting: str) -> tuple[socket.socket, socket.socket]:
    """Bind TCP and UDP to one number on ``host`` (empty or ``::``: every address, IPv4 and IPv6).

    Raises:
        UsageError: the number is taken, or ``host`` is not this machine's.

    """
    for _ in range(_PAIR_TRIES):
        tcp = bind_tcp(host, port, setting)
        try:
            return tcp, _bind(host, tcp.getsockname()[1], socket.SOCK_DGRAM, setting)
        except UsageError:
            tcp.close()
            if port:
                raise
    raise UsageError(f"no port is free for both TCP and UDP; set {setting}", reason="port_taken")


def bind_tcp(host: str, port: int, setting: str) -> socket.socket:
    """Bind and listen on ``host``; raises as ``bind_pair``."""
    sock = _bind(host, port, socket.SOCK_STREAM, setting)
    sock.listen(BACKLOG)
    return sock


def bind_shared(host: str, port: int, setting: str, count: int) -> list[socket.socket]:
    """Listen ``count`` times on one port, connections spread by the kernel; raises as ``bind_pair``."""
    socks: list[socket.socket] = []
    try:
        for _ in range(count):
            sock = _bind(host, port, socket.SOCK_STREAM, setting, shared=True)
            socks.append(sock)
            sock.listen(BACKLOG)
    except BaseException:
        for sock in socks:
            sock.close()
        raise
    return socks


def _bind(
    host: str, port: int, kind: socket.SocketKind, setting: str, *, shared: bool = False
) -> socket.socket:
    every = not host or host == "::"
    is_v6 = socket.has_dualstack_ipv6() if every else ":" in host
    family = socket.AF_INET6 if is_v6 else socket.AF_INET
    sock = socket.socket(family, kind)
    try:
        sock.setblocking(False)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if every else 1)
        sock.bind((("::" if family == socket.AF_INET6 else "") if every else host, port))
    except OSError as error:
        sock.close()
        what = "UDP" if kind == socket.SOCK_DGRAM else "TCP"
        if error.errno == errno.EADDRINUSE:
            message = (
                f"{what} port {port} is taken by another program; set {setting} to another, or to 0 for any"
            )
            raise UsageError(message, reason="port_taken") from error
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            setting = setting.replace(" port", " host") + " to an address of this machine"
        message = (
            f"{what} port {port} cannot be opened on {host or 'any address'}: {error.strerror}; set {setting}"
        )
        raise UsageError(message, reason="cannot_bind") from error
    return sock
