"""Turns: in which order a box claims blocks, so that those who do not speak of it hardly claim the same."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence


class Turns:
    """The blocks that may be claimed: own turns first, then others', the last of theirs first.

    A block is the turn of the receiver whose rank among all receivers' keys it has by its place. Each box
    begins at a place of its own, so that two that do not know of each other yet begin apart. Of one box's
    turns all others begin with different ones.
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
        count, me = len(receivers), receivers.index(self._own)
        turns: list[list[int]] = [[] for _ in receivers]
        for place in filter(lacking, range(self._count)):
            turns[place % count].append(place)
        self._mine = deque(self._in_order(self._own, turns[me]))
        later: list[tuple[bool, int, int, int]] = []
        for ahead in range(1, count):
            owner = (me + ahead) % count
            for last, place in enumerate(reversed(self._in_order(receivers[owner], turns[owner]))):
                later.append((last % (count - 1) != ahead - 1, last, ahead, place))
        self._others = deque(place for *_, place in sorted(later))

    def again(self, block: int, receivers: Sequence[bytes]) -> None:
        """List a block again that had been taken or passed over."""
        if len(self) < 2 * self._count:
            (self._mine if self.has(block, receivers) else self._others).appendleft(block)
        else:
            self._mine.clear()
            self._others.clear()
            self.stale = True

    def next(self, free: Callable[[int], bool], *, own: bool) -> int | None:
        """Take the next block that is ``free``, of its ``own`` turns or of others'; None if there is none."""
        blocks = self._mine if own else self._others
        while blocks:
            block = blocks.popleft()
            if free(block):
                return block
        return None

    def _in_order(self, key: bytes, turns: list[int]) -> list[int]:
        """Return a receiver's turns in the order in which it takes them."""
        start = bisect_left(turns, int.from_bytes(key[:8], "big") % max(1, self._count))
        return turns[start:] + turns[:start]
