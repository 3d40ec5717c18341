"""The grapevine: hints as a box sees them, told and heard by as many carriers as there are.

The back end ``none`` is a grapevine without a carrier. What came by two carriers is heard once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter

from ...protocol.hint import TOPICS, Topic
from ...protocol.ports import Told
from .hearsay import TAKEN, Hearsay, Rules, Teller

TELL_TIMEOUT_S = 20.0

log = logging.getLogger(__name__)


class Carrier(Protocol):
    """One way for hints to travel; ``way`` is its name in metrics."""

    way: str

    async def tell(self, hints: Sequence[bytes]) -> None:
        """Tell encoded hints to whoever listens; best effort, failures are counted and nothing is raised."""
        ...

    def mute(self, teller: str) -> None:
        """Have nothing more to do with somebody who told nonsense."""
        ...


class Grapevine:
    """The ``Hints`` port over ``carriers``; ``net`` is the id of the origin whose news this is."""

    def __init__(
        self,
        net: bytes,
        registry: CollectorRegistry,
        *,
        clock: Callable[[], float] = time.monotonic,
        rules: Rules | None = None,
    ) -> None:
        self.carriers: list[Carrier] = []
        self._clock = clock
        self._core = Hearsay(net, rules)
        self._heard = {topic: asyncio.Event() for topic in TOPICS}
        self._to_tell = asyncio.Event()
        self._counts = Counter(
            "farcast_mesh_hints_heard",
            "Hints others told, by the way they came and what became of them.",
            ["way", "result"],
            registry=registry,
        )
        self._told = Counter("farcast_mesh_hints_told", "Hints told, by way.", ["way"], registry=registry)

    def hear(self, data: bytes, way: str, teller: str) -> str:
        """Take one encoded hint as it came; returns ``taken``, or the reason why not."""
        result = self._core.hear(data, (way, teller), self._clock())
        self._counts.labels(way, result).inc()
        if result == TAKEN:
            for event in self._heard.values():
                event.set()
        return result

    def doubt(self, way: str, teller: str) -> None:
        """Note that what somebody told was no news at all."""
        self._doubt((way, teller))

    def is_muted(self, way: str, teller: str) -> bool:
        """Say whether somebody is not listened to."""
        return self._core.is_muted((way, teller), self._clock())

    async def publish(self, topic: Topic, news: bytes) -> None:
        """Have ``news`` told by every carrier, soon and once."""
        if not self.carriers:
            return
        result = self._core.tell(topic, news, self._clock())
        if result == TAKEN:
            self._to_tell.set()
        else:
            log.debug("a hint about %s is not told: %s", topic, result)

    async def listen(self, topic: Topic) -> AsyncIterator[Told]:
        """Yield what others tell about ``topic``, for as long as the box runs."""
        event = self._heard[topic]
        while True:
            event.clear()
            while (heard := self._core.take(topic, self._clock())) is not None:
                yield Told(heard.news, partial(self._doubt, heard.teller))
            await event.wait()

    async def run(self) -> None:
        """Tell what is to be told, at the pace of the rules."""
        while True:
            self._to_tell.clear()
            hints = self._core.tellings(self._clock())
            if hints:
                async with asyncio.TaskGroup() as tasks:
                    for carrier in self.carriers:
                        tasks.create_task(self._tell(carrier, hints))
            wake_at = self._core.wake_at(self._clock())
            try:
                async with asyncio.timeout(None if wake_at is None else max(0.0, wake_at - self._clock())):
                    await self._to_tell.wait()
            except TimeoutError:
                continue

    async def _tell(self, carrier: Carrier, hints: Sequence[bytes]) -> None:
        self._told.labels(carrier.way).inc(len(hints))
        try:
            async with asyncio.timeout(TELL_TIMEOUT_S):
                await carrier.tell(hints)
        except TimeoutError:
            log.debug("telling by %s took too long", carrier.way)

    def _doubt(self, teller: Teller) -> None:
        if self._core.doubt(teller, self._clock()):
            for carrier in self.carriers:
                if carrier.way == teller[0]:
                    carrier.mute(teller[1])
