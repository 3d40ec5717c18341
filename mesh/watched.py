"""What somebody here watches soon: which blocks, and who brings each from outside.

A block has its turn with one of the boxes that lack something, the next one's comes after it, and so on in a
circle. Who needs a block asks those right before it whether they bring it, and does so itself once all said
no. So a claim that is late on its way costs no second copy, and whoever watches alone waits for answers only.
Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

WATCHED_LIMIT = 16
ASKED_LIMIT = 2
"""So many that are right before this box are asked."""
ANSWER_S = 1.0
"""How long an answer is waited for, and how long one who heard no is left to bring the block."""
LEFT_LIMIT = 256


class Watched:
    """The blocks needed soon, the next one first."""

    def __init__(self, own: bytes) -> None:
        """``own`` is this box's key among its neighbours."""
        self._own = own
        self._refused: dict[int, set[bytes]] = {}
        self._left: OrderedDict[int, tuple[bytes, float]] = OrderedDict()

    def __iter__(self) -> Iterator[int]:
        """Go through them, the next one first."""
        return iter([*self._refused])

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._refused)

    def __contains__(self, block: int) -> bool:
        """Whether a block is one of them."""
        return block in self._refused

    def need(self, blocks: Iterable[int]) -> list[int]:
        """Take these in place of those before, as many as there is room for; returns those that were left."""
        before = self._refused
        self._refused = {block: before.get(block, set()) for block in [*blocks][:WATCHED_LIMIT]}
        return [block for block in before if block not in self._refused]

    def came(self, block: int) -> None:
        """Hear that a block is here."""
        self._refused.pop(block, None)
        self._left.pop(block, None)

    def refused(self, key: bytes, block: int) -> None:
        """Hear that a box does not bring a block, or has not said so in time."""
        if block in self._refused:
            self._refused[block].add(key)

    def before(self, block: int, receivers: Sequence[bytes]) -> list[bytes]:
        """Return who of ``receivers``, sorted and with this box, is still to be asked, in their order."""
        me = receivers.index(self._own)
        count = min((me - block) % len(receivers), ASKED_LIMIT)
        asked = [receivers[me - ahead] for ahead in range(count, 0, -1)]
        return [key for key in asked if key not in self._refused.get(block, ())]

    def leave(self, block: int, key: bytes, now: float) -> None:
        """Note that ``key`` heard from here that this box does not bring a block: it is about to."""
        self._left[block] = (key, now)
        self._left.move_to_end(block)
        if len(self._left) > LEFT_LIMIT:
            self._left.popitem(last=False)

    def left_to(self, block: int, now: float) -> bytes:
        """Return who is about to bring a block; nothing where nobody is."""
        key, at = self._left.get(block, (b"", now))
        return key if now - at < ANSWER_S else b""
