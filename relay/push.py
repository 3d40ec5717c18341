"""Push-fill: in the operator's quiet hours new titles come in before anybody asks for them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial

from prometheus_client import CollectorRegistry, Counter

from ..node.blocks.store import DiskStore
from ..node.catalog.library import Library
from ..protocol.cid import DAG_PB, Cid
from ..protocol.errors import FarcastError
from ..protocol.identity import peer_id
from ..protocol.unixfs import leaves, listing
from .demand import Candidate, Demand, Portion, portions
from .fill import Fill

PUSH_S = 60.0
STEP_BYTES = 256 << 20
"""Brought between two looks at the plan."""
SPARE_PERCENT = 10
"""Of the quota is left for what people ask for: pushing never makes anything leave."""
FOLDER_DEPTH = 3

_NUMBER = re.compile(r"([0-9]+)\.[^.]*\Z")


class Push:
    """Brings what ``portions`` chooses; ``quiet`` says whether now is the time, ``budget`` what is left."""

    def __init__(
        self,
        library: Library,
        store: DiskStore,
        fill: Fill,
        demand: Demand,
        quiet: Callable[[int], bool],
        budget: Callable[[str], int | None],
        clock_ms: Callable[[], int],
        registry: CollectorRegistry,
    ) -> None:
        self._library = library
        self._store = store
        self._fill = fill
        self._demand = demand
        self._quiet = quiet
        self._budget = budget
        self._clock_ms = clock_ms
        self._bytes = Counter(
            "farcast_relay_pushed_bytes", "Bytes brought before anybody asked.", registry=registry
        )

    async def step(self) -> int:
        """Bring a little of what is wanted most, while it is quiet; returns the bytes that came."""
        if not self._quiet(self._clock_ms()):
            return 0
        left = STEP_BYTES
        for portion in await asyncio.to_thread(self.plan):
            left -= await self._bring(portion, left)
            if left <= 0 or not self._quiet(self._clock_ms()):
                break
        return STEP_BYTES - left

    def plan(self) -> list[Portion]:
        """Return what to bring now, most wanted first. Blocking."""
        spare = self._store.quota_bytes * SPARE_PERCENT // 100
        room = self._store.quota_bytes - spare - self._store.held_bytes
        found: list[Candidate] = []
        for title in self._library.titles():
            try:
                entry, manifest = self._library.entry(title), self._library.manifest(title)
                sizes = map(self._store.size, self._library.reached(title))
            except FarcastError:
                continue  # its manifest comes first
            held = sum(size for size in sizes if size)
            publisher = peer_id(manifest.publisher)
            found.append(Candidate(title, publisher, entry.at_ms, manifest.size_bytes, held))
        return portions(found, self._demand, self._clock_ms(), room, self._budget)

    async def _bring(self, portion: Portion, most_bytes: int) -> int:
        came, limit = 0, min(portion.size_bytes, most_bytes)
        try:
            async with aclosing(self._blocks(portion.title)) as blocks:
                async for cid in blocks:
                    if came >= limit or not self._quiet(self._clock_ms()):
                        break
                    if not self._fill.holds(cid):
                        size = len(await self._fill.block(cid, portion.title))
                        self._bytes.inc(size)
                        came += size
        except FarcastError:
            return came  # not to be had now, or the contract says no: the next round tries again
        return came

    async def _blocks(self, title: str) -> AsyncGenerator[Cid]:
        """Yield a title's blocks in the order of watching: what has no number, then segment by segment."""
        fetch = self._fill.of(title)
        root = (await self._library.learn(title, fetch)).root_cid
        files: list[tuple[int, str, Cid]] = []
        folders = [("", root, 0)]
        while folders:
            above, cid, depth = folders.pop()
            for link in await self._library.walk(partial(listing, cid), fetch):
                path = f"{above}/{link.name}"
                number = _NUMBER.search(link.name)
                if (
                    link.cid.codec == DAG_PB
                    and number is None
                    and depth < FOLDER_DEPTH
                    and "." not in link.name
                ):
                    folders.append((path, link.cid, depth + 1))
                else:
                    files.append((int(number[1]) if number else -1, path, link.cid))
        for _, _, cid in sorted(files, key=lambda file: file[:2]):
            if cid.codec != DAG_PB:
                yield cid  # a file of one block
                continue
            for leaf in await self._library.walk(partial(leaves, cid), fetch):
                yield leaf.cid
