"""The loopback listener of page, gateway and admin; only programs on this machine reach it."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from .apiport import ApiPort
from .exchange import Hosts, Router
from .governor import is_local
from .notice import Herald
from .tally import HttpMetrics


class LocalListener(ApiPort):
    """Serves a router to this machine; used as ``async with``, and leaving drains.

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
        super().__init__(router, metrics, "local", host=host, port=port, setting=setting)
        router.tell = Herald(is_local)

    async def __aenter__(self) -> Self:
        """Bind and serve; raises ``UsageError`` where the port is taken."""
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop as ``close``."""
        await self.close()

    def bound(self) -> None:
        """Allow the names of this machine, with the port's number."""
        names = ("127.0.0.1", "localhost", "[::1]")
        self.router.allowed = Hosts([f"{name}:{self.port}" for name in names], addresses=False)
