"""Which pathways answer, as this box sees it while players ask it for steering."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from http import HTTPStatus

from prometheus_client import CollectorRegistry, Gauge

from ...protocol.errors import FarcastError
from ...protocol.ports import Dialer, Source
from .pathway import Pathway

LOOK_S = 5.0
TIMEOUT_S = 3.0
WANTED_S = 60.0
"""A pathway that was not asked about for so long is looked at no more."""
WATCHED = 32
_PATH = "/healthz"


class PathwayHealth:
    """Asks every pathway in use whether it answers; idle boxes ask nobody."""

    def __init__(self, dialer: Dialer, clock: Callable[[], float], registry: CollectorRegistry) -> None:
        """``clock`` gives monotonic seconds; the dialler refuses private addresses where it should."""
        self._dialer = dialer
        self._clock = clock
        self._wanted: dict[Pathway, float] = {}
        self.lost: frozenset[str] = frozenset()
        """The bases that did not answer when last looked at."""
        states = Gauge(
            "farcast_node_steering_pathways", "Pathways that players are steered to, by state.", ["state"],
            registry=registry,
        )  # fmt: skip
        states.labels("lost").set_function(lambda: len(self.lost))
        states.labels("answering").set_function(lambda: len(self._wanted) - len(self.lost))

    def want(self, ways: Sequence[Pathway]) -> None:
        """Look at these pathways for the next minute."""
        now = self._clock()
        for way in ways:
            if way.base and (way in self._wanted or len(self._wanted) < WATCHED):
                self._wanted[way] = now

    async def look(self) -> None:
        """Ask all of them once, side by side; to be called every ``LOOK_S``."""
        now = self._clock()
        self._wanted = {way: at for way, at in self._wanted.items() if now - at < WANTED_S}
        ways = list(self._wanted)
        answers = await asyncio.gather(*(self._answers(way) for way in ways))
        self.lost = frozenset(way.base for way, answers in zip(ways, answers, strict=True) if not answers)

    async def _answers(self, way: Pathway) -> bool:
        source = Source(way.tier, way.name, way.base)
        try:
            reply = await self._dialer.request(source, "GET", _PATH, timeout_s=TIMEOUT_S)
        except FarcastError:
            return False
        return reply.status < HTTPStatus.INTERNAL_SERVER_ERROR
