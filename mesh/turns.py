"""Turns: in which order a box claims blocks, so that those who do not speak of it hardly claim the same."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence


class Turns:
    """The blocks that may be claimed: own turns first, then others' from the other end.

    A block is the turn of the receiver whose rank among all receivers' keys it has by its place. Each box
    begins at a place of its own, so that two that do not know of each other yet begin apart.
    """

    def __init__(self, own: bytes, count: int) -> None:
        """``own`` is this box's key; ``count`` how many blocks there are."""
        self._own, self._count = own, count
        self._mine: deque[int] = deque()
        self._others: deque[int] = deque()
        self.stale = True
        """Whether the list is to be made anew: receivers came, went or changed."""

    def __len__(self) -> int:
        """Return how many blocks are listed, those that may not be claimed any more included."""
        return len(self._mine) + len(self._others)

    def has(self, block: int, receivers: Sequence[bytes]) -> bool:
        """Whether a block is this box's turn among ``receivers``, in order, this box included."""
        return receivers[block % len(receivers)] == self._own

    def renew(self, receivers: Sequence[bytes], lacking: Callable[[int], bool]) -> None:
        """List what is ``lacking`` anew."""
        self.stale = False
        start = int.from_bytes(self._own[:8], "big") % max(1, self._count)
        places = [place for place in (*range(start, self._count), *range(start)) if lacking(place)]
        self._mine = deque(place for place in places if self.has(place, receivers))
        self._others = deque(place for place in reversed(places) if not self.has(place, receivers))

    def again(self, block: int) -> None:
        """List a block again that had been taken or passed over."""
        if len(self._mine) < 2 * self._count:
            self._mine.appendleft(block)
        else:
            self._mine.clear()
            self.stale = True

    def next(self, free: Callable[[int], bool]) -> int | None:
        """Take the next block that is ``free``; None where there is none."""
        for blocks in (self._mine, self._others):
            while blocks:
                block = blocks.popleft()
                if free(block):
                    return block
        return None
