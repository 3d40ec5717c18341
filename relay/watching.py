"""What is being watched through this relay: counted by title, and fetched a little ahead of the player."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic

from prometheus_client import CollectorRegistry, Counter

from ..node.catalog.library import Library
from ..node.http.exchange import Answer, Exchange, Handler
from ..node.http.head import Head
from ..protocol.cid import Cid
from ..protocol.errors import FarcastError
from .ahead import Ahead
from .demand import Demand
from .fill import Fill

NOTED = 4_096
LOOK_S = 0.2
AT_ONCE = 4
WAITING = 64
"""Segments that may wait to be fetched ahead; more are left to be asked for."""

Lookup = Callable[[Head], Answer | None]


class Watching:
    """Hears of every request for a title's file; works through them beside the serving."""

    def __init__(
        self,
        library: Library,
        fill: Fill,
        demand: Demand,
        clock_ms: Callable[[], int],
        registry: CollectorRegistry,
        *,
        ahead: int,
    ) -> None:
        """Bring ``ahead`` segments in advance; 0 only counts."""
        self._library = library
        self._fill = fill
        self._demand = demand
        self._clock_ms = clock_ms
        self._ahead = Ahead(ahead)
        self._noted: deque[str] = deque(maxlen=NOTED)
        self._wanted: asyncio.Queue[tuple[str, str]] = asyncio.Queue(WAITING)
        self._brought = Counter(
            "farcast_relay_ahead_segments",
            "Segments fetched before they were asked for, by result.",
            ["result"],
            registry=registry,
        )
        for result in ("brought", "held", "left_out", "failed"):
            self._brought.labels(result)

    def lookup(self, inner: Lookup) -> Lookup:
        """Hear of what the fast path answers."""

        def look(head: Head) -> Answer | None:
            answer = inner(head)
            if answer is not None and head.path.startswith("/watch/"):
                self._noted.append(head.path)
            return answer

        return look

    def handler(self, inner: Handler) -> Handler:
        """Hear of what a handler answers."""

        async def handle(exchange: Exchange) -> Answer:
            answer = await inner(exchange)
            if exchange.method == "GET":
                self._noted.append(exchange.path)
            return answer

        return handle

    async def run(self) -> None:
        """Count and fetch ahead until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(self._bring())
            while True:
                self._look()
                await asyncio.sleep(LOOK_S)

    def _look(self) -> None:
        now, now_ms = monotonic(), self._clock_ms()
        counts: dict[str, int] = {}
        while self._noted:
            title, _, path = self._noted.popleft().removeprefix("/watch/").partition("/")
            if not self._library.lists(title):
                continue
            counts[title] = counts.get(title, 0) + 1
            for after in self._ahead.asked(title, path, now):
                try:
                    self._wanted.put_nowait((title, after))
                except asyncio.QueueFull:
                    self._brought.labels("left_out").inc()
        for title, requests in counts.items():
            self._demand.asked(title, now_ms, requests)

    async def _bring(self) -> None:
        while True:
            title, path = await self._wanted.get()
            try:
                self._brought.labels(await self._segment(title, path)).inc()
            except FarcastError:
                self._brought.labels("failed").inc()  # the last segment has none after it, or nobody has it

    async def _segment(self, title: str, path: str) -> str:
        result = "held"

        async def fetch(cid: Cid) -> bytes:
            nonlocal result
            result = "brought"
            return await self._fill.block(cid, title)

        plan = await self._library.plan(title, path, fetch)  # of a file of one block, that is the block
        for leaf in plan.leaves:
            if not self._fill.holds(leaf.cid):
                await fetch(leaf.cid)
        return result
