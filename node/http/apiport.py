"""A port that only answers by a router: no blocks, no TLS, no UDP."""

from __future__ import annotations

import asyncio

from .api import Admit, ApiServer
from .binding import BACKLOG, bind_tcp
from .exchange import Router
from .files import FileCache
from .tally import HttpMetrics

DRAIN_S = 5.0
IDLE_S = 6 * 3_600.0
"""A player that plays out what it has keeps its connection; that it closes says it is gone."""


class ApiPort:
    """Serves ``router`` on one TCP port; ``start`` it, and ``close`` it first of all."""

    def __init__(
        self,
        router: Router,
        metrics: HttpMetrics,
        carrier: str,
        *,
        host: str,
        port: int,
        setting: str,
        admit: Admit | None = None,
    ) -> None:
        """Count as ``carrier``; ``setting`` is the key to name when the port is taken."""
        self.router = router
        self.port = port
        self._host = host
        self._setting = setting
        self._admit = admit
        self._tally = metrics.carrier(carrier)
        self._files = FileCache()
        self._api: ApiServer | None = None
        self._server: asyncio.Server | None = None
        router.refused = metrics.refused

    async def start(self) -> None:
        """Bind and serve; raises ``UsageError`` where the port is taken."""
        sock = bind_tcp(self._host, self.port, self._setting)
        self.port = sock.getsockname()[1]
        self.bound()
        tally = self._tally
        api = self._api = ApiServer(
            self.router, self._files, tally, tally, idle_s=IDLE_S, stall_s=IDLE_S, admit=self._admit
        )
        tally.connections = lambda: api.connections
        self._server = await asyncio.get_running_loop().create_server(
            api.protocol, sock=sock, backlog=BACKLOG
        )

    def bound(self) -> None:
        """Do what wants the port's number before the first connection."""

    async def close(self, drain_s: float = DRAIN_S) -> None:
        """Stop accepting, let answers under way finish within ``drain_s``, close everything."""
        if self._server is None or self._api is None:
            return
        self._server.close()
        await self._api.close(drain_s)
        await self._server.wait_closed()
        self._server = None
        self._files.close()
