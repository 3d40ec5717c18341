"""The walk over a DAG that is being pinned: which block comes next, depth first, and how far it is."""

from __future__ import annotations

from collections.abc import Sequence

from ..protocol.cid import Cid
from ..protocol.errors import RemoteError

BLOCKS_LIMIT = 400_000
"""Most blocks of one pin: 400 GiB of films, and 60 MB of names while it is walked."""


class PinWalk:
    """Hands out each block below ``root`` once; pure.

    Whoever takes a block looks at it and reports it with ``arrived`` and the blocks it links to.
    ``known`` counts the different blocks known so far, ``held`` those that arrived, ``bytes`` theirs.
    """

    def __init__(self, root: Cid, *, limit_blocks: int = BLOCKS_LIMIT) -> None:
        self.root = root
        self.known = 1
        self.held = 0
        self.bytes = 0
        self._limit = limit_blocks
        self._seen = {root}
        self._waiting = [root]

    @property
    def whole(self) -> bool:
        """Whether every block there is has arrived."""
        return self.held == self.known

    def take(self) -> Cid | None:
        """Return the next block to look at; None while nothing waits."""
        return self._waiting.pop() if self._waiting else None

    def arrived(self, size_bytes: int, links: Sequence[Cid] = ()) -> list[Cid]:
        """Note a taken block and return those of its links that are new, in order.

        Raises:
            RemoteError: ``too_large`` past the limit of blocks.

        """
        fresh = [cid for cid in dict.fromkeys(links) if cid not in self._seen and not cid.is_identity]
        if self.known + len(fresh) > self._limit:
            message = f"{self.root} has more than {self._limit} blocks, more than one pin may"
            raise RemoteError(message, reason="too_large")
        self._seen.update(fresh)
        self._waiting += reversed(fresh)
        self.known += len(fresh)
        self.held += 1
        self.bytes += size_bytes
        if self.whole:
            self._seen.clear()  # a finished walk is three numbers
        return fresh
