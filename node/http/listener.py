"""The public port: TCP, TLS and UDP under one number."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from time import time
from types import TracebackType
from typing import Self

from ...protocol.identity import Identity
from .api import ApiServer
from .apiport import DRAIN_S
from .binding import bind_pair, bind_shared
from .bytes import DEFAULTS, ByteServer, Limits, Lookup
from .exchange import Router
from .files import FileCache
from .governor import Governor
from .handover import ToApi
from .hotset import HotSet
from .meter import Meter
from .notice import Herald
from .quic.server import QuicServer
from .stream import Streams
from .tally import HttpMetrics
from .tls import make_certificate, server_context
from .workers import Workers


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
        streams: Streams | None = None,
    ) -> None:
        """Serve as ``identity``; ``setting`` is the key to name when the port is taken.

        ``epoch`` differs once an answer of ``lookup`` may be untrue; ``governor`` keeps the operator's
        contract; ``hot`` are blocks in memory; ``workers`` is how many processes serve, this one included;
        ``streams`` are the protocols besides HTTP that a TLS client may ask for.
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
        self._streams = streams or {}
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
        stall_s = self._limits.stall_s
        api = ApiServer(self._router, self._files, tally("tcp"), tally("tls"), self.meter, stall_s=stall_s)
        files = self._files
        byte_server = ByteServer(
            self._router,
            self._lookup,
            ToApi(
                api,
                server_context(certificate, self._streams),
                metrics.refused,
                self._limits.head_s,
                self._streams,
            ),
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
