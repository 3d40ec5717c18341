"""Which engine serves a client: told by its first datagram, loaded when the first such client comes."""

from __future__ import annotations

import asyncio

from ..tls import Certificate
from .ids import Ids
from .qh3_engine import Qh3Engine
from .session import Engine


class Engines:
    """The engines of one server: ``qh3``, and ``aioquic`` for clients without a connection id."""

    def __init__(self, certificate: Certificate) -> None:
        """Serve as the owner of ``certificate``."""
        self._certificate = certificate
        self._named: Engine = Qh3Engine(certificate)
        self._unnamed: Engine | None = None
        self._loading: asyncio.Task[None] | None = None

    def choose(self, ids: Ids) -> Engine | None:
        """Return the engine for the client of an Initial; None while it loads: the client sends again."""
        if ids.source:
            return self._named
        if self._unnamed is None and self._loading is None:
            # a tenth of a second and some MB that a relay without browsers never spends
            self._loading = asyncio.get_running_loop().create_task(self._load())
        return self._unnamed

    async def close(self) -> None:
        """Let a load under way end: a thread cannot be stopped."""
        if self._loading is not None:
            await self._loading

    async def _load(self) -> None:
        def make() -> Engine:
            from .aioquic_engine import AioquicEngine

            return AioquicEngine(self._certificate)

        self._unnamed = await asyncio.to_thread(make)
