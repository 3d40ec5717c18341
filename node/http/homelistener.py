"""The home's listener: what televisions of this household reach, and nobody further away.

It exists only where the viewer opted in. A client that is not on one of this box's own links loses its
connection before a byte of it is read; the router's token and Host checks stand behind that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .apiport import ApiPort
from .exchange import Router
from .governor import Governor, Rules
from .tally import HttpMetrics

CONNECTIONS, CLIENT_CONNECTIONS = 64, 16


class HomeListener(ApiPort):
    """Serves ``router`` to clients that ``on_link`` knows."""

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
        super().__init__(router, metrics, "home", host=host, port=port, setting=setting, admit=self._admit)
        self._metrics = metrics
        self._on_link = on_link
        rules = Rules(connections=CONNECTIONS, client_connections=CLIENT_CONNECTIONS)
        self._governor = Governor(rules, lambda _: False)

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
