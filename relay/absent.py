"""What a relay has just learned not to be there: so that asking again costs nothing. Pure."""

from __future__ import annotations

from collections import OrderedDict

from ..protocol.cid import Cid

ABSENT_S = 30.0
ABSENT_LIMIT = 4_096


class Absent:
    """CIDs that the origin lacks or no title reaches, for a short while; the oldest are forgotten first.

    Only an answer goes in here: silence and time-outs say nothing about a block.
    """

    def __init__(self, *, ttl_s: float = ABSENT_S, limit: int = ABSENT_LIMIT) -> None:
        self._ttl_s = ttl_s
        self._limit = limit
        self._until: OrderedDict[Cid, float] = OrderedDict()

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._until)

    def note(self, cid: Cid, now: float) -> None:
        """Remember from ``now`` on that a block is not to be had."""
        self._until[cid] = now + self._ttl_s
        self._until.move_to_end(cid)
        if len(self._until) > self._limit:
            self._until.popitem(last=False)

    def holds(self, cid: Cid, now: float) -> bool:
        """Say whether that is still remembered."""
        until = self._until.get(cid)
        if until is None:
            return False
        if now < until:
            return True
        del self._until[cid]
        return False

    def clear(self) -> None:
        """Forget all: the catalog has grown, so anything may be there now."""
        self._until.clear()
