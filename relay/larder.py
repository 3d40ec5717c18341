"""The larder: what is held of each publisher stays within the contract, others' titles stay out."""

from __future__ import annotations

import asyncio
from typing import Protocol

from ..node.catalog.library import Library
from ..protocol.cid import Cid
from ..protocol.errors import FarcastError, RefusedError
from ..protocol.identity import peer_id
from .carried import Budgets, Carried, Share
from .contractmetrics import PublisherShare

LOOK_S = 60.0


class Blocks(Protocol):
    """What the larder asks of the store."""

    def size(self, cid: Cid) -> int | None:
        """Return a held block's size."""
        ...

    def drop(self, cid: Cid) -> bool:
        """Remove a block."""
        ...

    def pinned(self) -> dict[str, list[Cid]]:
        """Return the pinned blocks by label."""
        ...


class Larder:
    """Asked before a title's block is fetched, and looking over the shelves once a minute."""

    def __init__(self, carried: Carried, library: Library, store: Blocks) -> None:
        self._budgets = Budgets(carried)
        self._library = library
        self._store = store

    @property
    def carried(self) -> Carried:
        """The contract's list of publishers."""
        return self._budgets.carried

    def change(self, carried: Carried) -> None:
        """Hold to another list from the next block on."""
        self._budgets.carried = carried

    def held_bytes(self, publisher: str) -> int:
        """Return what is held of ``publisher``, as of the last look and what came since."""
        return self._budgets.held_bytes(publisher)

    def shares(self) -> list[PublisherShare]:
        """Return what is held of each publisher known, and his budget."""
        return [
            PublisherShare(publisher, self._budgets.held_bytes(publisher), self.carried.budget(publisher))
            for publisher in self._budgets.publishers()
        ]

    def admit(self, title: str) -> None:
        """Let a block of ``title`` be fetched.

        Raises:
            RefusedError: 404 ``not_carried`` for a publisher the contract leaves out.

        """
        publisher = self._publisher(title)
        if publisher is None:
            return  # its manifest comes first, and tells
        if not self.carried.carries(publisher):
            message = f"this relay does not carry {title}: its operator left the publisher out"
            raise RefusedError(message, status=404, reason="not_carried")
        self._budgets.used(title, publisher)

    async def came(self, title: str, size_bytes: int) -> None:
        """Hear that so many bytes of ``title`` came in; make room if its publisher has too much."""
        publisher = self._publisher(title)
        if publisher is None:
            return
        self._budgets.used(title, publisher, size_bytes)
        budget = self.carried.budget(publisher)
        if budget is not None and self._budgets.held_bytes(publisher) > budget:
            await self.tidy()

    async def look(self) -> None:
        """Measure every title's share, and let go of what is over a budget."""
        if self.carried.bounded:
            self._budgets.measured(await asyncio.to_thread(self._measure))
            await self.tidy()

    async def tidy(self) -> None:
        """Let go of the titles that are over a budget."""
        for title in self._budgets.over():
            self._budgets.dropped(title, await asyncio.to_thread(self._drop, title))

    def _measure(self) -> dict[str, Share]:
        found: dict[str, Share] = {}
        for title in self._library.titles():
            publisher = self._publisher(title)
            if publisher is not None:
                sizes = map(self._store.size, self._library.reached(title))
                found[title] = Share(publisher, sum(size for size in sizes if size))
        return found

    def _drop(self, title: str) -> int:
        """Drop a title's blocks, those that an operator pinned aside; returns the bytes freed."""
        pinned = {cid for cids in self._store.pinned().values() for cid in cids}
        freed = 0
        for cid in self._library.reached(title):
            size = self._store.size(cid)
            if size and cid not in pinned and self._store.drop(cid):
                freed += size
        return freed

    def _publisher(self, title: str) -> str | None:
        try:
            return peer_id(self._library.manifest(title).publisher)
        except FarcastError:
            return None
