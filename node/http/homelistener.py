"""The home's listener: what televisions of this household reach, and nobody further away.

It exists only where the viewer opted in. A client that is not on one of this box's own links loses its
connection before a byte of it is read; the router's token and Host checks stand behind that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from .api import ApiServer
from .exchange import Router
from .files import FileCache
from .governor import Governor, Rules
from .listener import BACKLOG, DRAIN_S, LOCAL_IDLE_S, bind_tcp
from .tally import HttpMetrics

CONNECTIONS, CLIENT_CONNECTIONS = 64, 16


class HomeListener:
    """Serves ``router`` to clients that ``on_link`` knows; ``start`` it, and ``close`` it first of all."""

    def __init__(
        self,
        router: Router,
        metrics: HttpMetrics,
        on_link: Callable[[str], bool],
        *,
        host: str = "0.0.0.0",  # noqa: S104 - whoever is not on link is turned away
        port: int = 7481,
        setting: str = "[lan] port",
    ) -> None:
        """Serve on ``host``; ``setting`` is the key to name when the port is taken."""
        self._router = router
        self._metrics = metrics
        self._on_link = on_link
        self._host = host
        self._setting = setting
        self._files = FileCache()
        rules = Rules(connections=CONNECTIONS, client_connections=CLIENT_CONNECTIONS)
        self._governor = Governor(rules, lambda _: False)
        self._api: ApiServer | None = None
        self._server: asyncio.Server | None = None
        self.port = port
        router.refused = metrics.refused

    async def start(self) -> None:
        """Bind and serve; raises ``UsageError`` where the port is taken."""
        sock = bind_tcp(self._host, self.port, self._setting)
        self.port = sock.getsockname()[1]
        tally = self._metrics.carrier("home")
        api = self._api = ApiServer(
            self._router,
            self._files,
            tally,
            tally,
            idle_s=LOCAL_IDLE_S,
            stall_s=LOCAL_IDLE_S,
            admit=self._admit,
        )
        tally.connections = lambda: api.connections
        self._server = await asyncio.get_running_loop().create_server(
            api.protocol, sock=sock, backlog=BACKLOG
        )

    async def close(self, drain_s: float = DRAIN_S) -> None:
        """Stop accepting, let answers under way finish within ``drain_s``, close everything."""
        if self._server is None or self._api is None:
            return
        self._server.close()
        await self._api.close(drain_s)
        await self._server.wait_closed()
        self._server = None
        self._files.close()

    def _admit(self, peer: str) -> Callable[[], None] | None:
        """Take on a client of this household, as long as there is room; returns what ends it."""
        if not self._on_link(peer):
            self._metrics.refused("off_link")
            return None
        refusal = self._governor.connect(peer)
        if refusal is not None:
            self._metrics.refused(refusal.reason)
            return None
        return partial(self._governor.disconnect, peer)
