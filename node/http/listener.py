"""The listeners: the public port (TCP, TLS and UDP under one number) and the loopback one."""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
from collections.abc import Callable
from time import time
from types import TracebackType
from typing import Self

from ...protocol.errors import UsageError
from ...protocol.identity import Identity
from .api import ApiServer
from .bytes import DEFAULTS, ByteServer, Limits, Lookup
from .exchange import Hosts, Router
from .files import FileCache
from .governor import Governor, is_local
from .handover import ToApi
from .hotset import HotSet
from .meter import Meter
from .notice import Herald
from .quic.server import QuicServer
from .tally import HttpMetrics
from .tls import make_certificate, server_context
from .workers import Workers

BACKLOG = 1_024
DRAIN_S = 5.0
LOCAL_IDLE_S = 6 * 3_600.0
"""A player that plays out what it has keeps its connection; that it closes says it is gone."""
SPARE_DESCRIPTORS = 2_048
"""For block files, databases and the connections this box makes."""
_PAIR_TRIES = 16


class Listener:
    """A box's public port: HTTP/1.1 and TLS on TCP, HTTP/3 on UDP, all answered by one router.

    ``lookup`` answers blocks and segments that are ready now (``bytes.Lookup``). Used as
    ``async with``; leaving drains. ``port`` 0 takes any number free for both TCP and UDP.
    """

    def __init__(
        self,
        router: Router,
        lookup: Lookup,
        identity: Identity,
        metrics: HttpMetrics,
        *,
        host: str = "",
        port: int = 7433,
        setting: str = "[listen] port",
        limits: Limits = DEFAULTS,
        epoch: Callable[[], object] = object,
        governor: Governor | None = None,
        hot: HotSet | None = None,
        workers: int = 1,
    ) -> None:
        """Serve as ``identity``; ``setting`` is the key to name when the port is taken.

        ``epoch`` differs once an answer of ``lookup`` may be untrue; ``governor`` keeps the operator's
        contract; ``hot`` are blocks in memory; ``workers`` is how many processes serve, this one included.
        """
        self._router = router
        self._lookup = lookup
        self._identity = identity
        self._metrics = metrics
        self._host = host
        self._setting = setting
        self._limits = limits
        self._servers: tuple[ByteServer, QuicServer, ApiServer] | None = None
        self._epoch = epoch
        self._files = FileCache(hot=hot)
        self.workers: Workers | None = None
        self._processes = workers
        self.governor = governor or Governor(processes=workers)
        self.meter = Meter(self.governor)
        self.port = port

    async def __aenter__(self) -> Self:
        """Bind and serve.

        Raises:
            UsageError: the port is taken or the address is not this machine's.

        """
        certificate = make_certificate(self._identity, time())
        tcp, udp = bind_pair(self._host, self.port, self._setting)
        self.port = tcp.getsockname()[1]
        extra: list[socket.socket] = []
        if self._processes > 1:
            tcp.close()  # it has found the number free; two boxes of one user would share it unseen else
            tcp, *extra = bind_shared(self._host, self.port, self._setting, self._processes)
        tally, metrics = self._metrics.carrier, self._metrics
        self._router.refused = metrics.refused
        self._router.tell = Herald(lambda peer: self.governor.local(peer))  # noqa: PLW0108 - networks change
        self._router.admit = self.meter.admit
        api = ApiServer(self._router, self._files, tally("tcp"), tally("tls"), self.meter)
        files = self._files
        byte_server = ByteServer(
            self._router,
            self._lookup,
            ToApi(api, server_context(certificate), metrics.refused, self._limits.head_s),
            files=files,
            tally=tally("tcp"),
            tls=True,
            limits=self._limits,
            epoch=self._epoch,
            governor=self.governor,
        )
        quic = QuicServer(self._router, certificate, files=files, tally=tally("quic"), meter=self.meter)
        byte_server.listen(tcp)
        quic.listen(udp)
        self._servers = (byte_server, quic, api)
        metrics.watch(self.governor, self._files.hot)
        if extra:
            workers = self.workers = Workers(extra, byte_server, self.governor, metrics)
            tally("tcp").connections = lambda: byte_server.open_connections + workers.connections
            workers.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop as ``close``."""
        await self.close()

    async def close(self, drain_s: float = DRAIN_S) -> None:
        """Stop accepting, let answers under way finish within ``drain_s``, close everything."""
        if self.workers is not None:
            await self.workers.close()
            self.workers = None
        if self._servers is not None:
            (byte_server, quic, api), self._servers = self._servers, None
            await asyncio.gather(byte_server.close(drain_s), quic.close(drain_s))
            await api.close(drain_s)
            self._files.close()


class LocalListener:
    """The loopback listener of page, gateway and admin; only programs on this machine reach it.

    The router's Host check becomes this listener's: ``127.0.0.1``, ``localhost`` and ``[::1]``
    with its port, which stops other sites' names that resolve to this machine (DNS rebinding).
    """

    def __init__(
        self,
        router: Router,
        metrics: HttpMetrics,
        *,
        host: str = "127.0.0.1",
        port: int = 7480,
        setting: str = "[admin] port",
    ) -> None:
        """Serve ``router``; ``setting`` is the key to name when the port is taken."""
        self._router = router
        self._metrics = metrics
        self._host = host
        self._setting = setting
        self._files = FileCache()
        self._api: ApiServer | None = None
        self._server: asyncio.Server | None = None
        self.port = port
        router.refused = metrics.refused
        router.tell = Herald(is_local)

    async def __aenter__(self) -> Self:
        """Bind and serve; raises ``UsageError`` where the port is taken."""
        sock = bind_tcp(self._host, self.port, self._setting)
        self.port = sock.getsockname()[1]
        names = ("127.0.0.1", "localhost", "[::1]")
        self._router.allowed = Hosts([f"{name}:{self.port}" for name in names], addresses=False)
        tally = self._metrics.carrier("local")
        api = self._api = ApiServer(
            self._router, self._files, tally, tally, idle_s=LOCAL_IDLE_S, stall_s=LOCAL_IDLE_S
        )
        tally.connections = lambda: api.connections
        self._server = await asyncio.get_running_loop().create_server(
            self._api.protocol, sock=sock, backlog=BACKLOG
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop as ``close``."""
        await self.close()

    async def close(self, drain_s: float = DRAIN_S) -> None:
        """Stop accepting, let answers under way finish within ``drain_s``, close everything."""
        if self._server is None or self._api is None:
            return
        self._server.close()
        await self._api.close(drain_s)
        await self._server.wait_closed()
        self._server = None
        self._files.close()


def raise_descriptors(connections: int) -> None:
    """Allow this process as many open files as ``connections`` want, if its hard limit lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_DESCRIPTORS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def bind_pair(host: str, port: int, setting: str) -> tuple[socket.socket, socket.socket]:
    """Bind TCP and UDP to one number on ``host`` (empty: every address, IPv4 and IPv6).

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
    family = socket.AF_INET6 if (every and socket.has_dualstack_ipv6()) or ":" in host else socket.AF_INET
    sock = socket.socket(family, kind)
    try:
        sock.setblocking(False)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if every else 1)
        sock.bind(("::" if every and family == socket.AF_INET6 else host, port))
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
