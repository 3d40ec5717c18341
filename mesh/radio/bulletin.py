"""The bulletin: what a box says next by radio, and when, within its share of the air.

A pure core; times in seconds of one clock. What was never said comes first, in the order it is offered;
then what was said longest ago and is due again. After each datagram the air is left to others for as long
as the share asks, so whatever is offered, no more is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

ITEMS_LIMIT = 64
FRAME_BYTES = 19
"""Of Reticulum, around each datagram."""
NEVER_S = float("inf")


class Item(NamedTuple):
    """A datagram, and after how long it is worth saying again (``NEVER_S``: once is enough)."""

    datagram: bytes
    again_s: float


class Bulletin:
    """One radio of ``bps`` bits a second, of whose time ``share`` (above 0, at most 1) is this box's."""

    def __init__(self, bps: float, share: float) -> None:
        self._byte_s = 8 / bps / share
        self._items: Sequence[Item] = ()
        self._said: dict[bytes, float] = {}
        self._free_at = float("-inf")

    @property
    def wake_at(self) -> float:
        """When there may be something to say again; infinite where nothing of what is offered ever is."""
        return max(min(map(self._due_at, self._items), default=NEVER_S), self._free_at)

    def offer(self, items: Sequence[Item]) -> None:
        """Say these from now on, the first ``ITEMS_LIMIT`` of them, and nothing that was offered before."""
        self._items = items[:ITEMS_LIMIT]
        here = {item.datagram for item in self._items}
        self._said = {datagram: at for datagram, at in self._said.items() if datagram in here}

    def take(self, now: float) -> bytes | None:
        """Return what to say at ``now``, None where it is time for nothing."""
        due = [item.datagram for item in self._items if self._due_at(item) <= now]
        if not due or now < self._free_at:
            return None
        datagram = min(due, key=lambda one: self._said.get(one, float("-inf")))
        self._said[datagram] = now
        self._free_at = now + (len(datagram) + FRAME_BYTES) * self._byte_s
        return datagram

    def _due_at(self, item: Item) -> float:
        said = self._said.get(item.datagram)
        return float("-inf") if said is None else said + item.again_s
