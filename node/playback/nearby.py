"""Nearby: while a title is watched, its next blocks come from neighbours where one has or is bringing them.

So several who watch one title behind one uplink cost that uplink about one copy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ...mesh.sharer import Sharer
from ...protocol.cid import Cid
from ...protocol.errors import FarcastError
from .layouts import Layouts

LEAST_S, MOST_S, UNKNOWN_S = 0.2, 4.0, 2.0
"""How long a player's block may be waited for that a neighbour is bringing: a third of its buffer."""
MAKING_LIMIT = 4


class Nearby:
    """Asks neighbours first; ``fetch`` brings a title's folders by the tiers alone."""

    def __init__(
        self, layouts: Layouts, sharer: Sharer, fetch: Callable[[Cid, str], Awaitable[bytes]]
    ) -> None:
        self._layouts = layouts
        self._sharer = sharer
        self._fetch = fetch
        self._making: dict[str, asyncio.Task[None]] = {}

    async def seek(self, title: str, cid: Cid, buffer_s: float | None) -> bool:
        """Return True once the block is in the store; False where this box is to fetch it, then ``found``.

        ``buffer_s`` is what the player still holds.
        """
        layout = self._layouts.made(title)
        if layout is None:
            self._make(title)
            return False
        patience_s = UNKNOWN_S if buffer_s is None else min(max(buffer_s / 3, LEAST_S), MOST_S)
        return await self._sharer.seek(layout, cid, patience_s)

    def found(self, title: str, cid: Cid, *, here: bool) -> None:
        """Hear that this box fetched a block itself, or could not."""
        layout = self._layouts.made(title)
        if layout is not None:
            self._sharer.found(layout.digest, cid, here=here)

    async def close(self) -> None:
        """End what is under way."""
        for task in self._making.values():
            task.cancel()
        await asyncio.gather(*self._making.values(), return_exceptions=True)

    def _make(self, title: str) -> None:
        """Learn what a title is made of, beside its playing."""
        if title not in self._making and len(self._making) < MAKING_LIMIT:
            task = self._making[title] = asyncio.get_running_loop().create_task(self._learn(title))
            task.add_done_callback(lambda _: self._making.pop(title, None))

    async def _learn(self, title: str) -> None:
        try:
            await self._layouts.of(title, lambda cid: self._fetch(cid, title))
        except FarcastError:
            return  # the title plays without; the next block tries again
