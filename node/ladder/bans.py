"""Bans: who sent wrong bytes, and what that costs them.

Wrong bytes for a CID end all asking for it there; three such CIDs end all asking for a day. A box known
by its key is judged everywhere: only it can answer under that key. An address without one is judged on
the network where it happened, because somebody on the way may have answered (a hotel's login page).
"""

from __future__ import annotations

from collections import OrderedDict

from ...protocol.cid import Cid
from ...protocol.ports import Source

BAN_S = 86_400.0
BAN_CIDS = 3
_POISONED_KEPT = 4_096
_LIARS_KEPT = 1_024

Ident = bytes | tuple[str, str]


class Bans:
    """At most 4,096 poisoned CIDs and 1,024 liars; the oldest are forgotten first."""

    def __init__(self) -> None:
        self._poisoned: OrderedDict[tuple[Cid, Ident], None] = OrderedDict()
        self._liars: OrderedDict[Ident, set[Cid]] = OrderedDict()
        self._until: OrderedDict[Ident, float] = OrderedDict()

    def lied(self, cid: Cid, source: Source, network: str, now: float) -> None:
        """Remember wrong bytes for ``cid``."""
        ident = _ident(source, network)
        self._poisoned[cid, ident] = None
        if len(self._poisoned) > _POISONED_KEPT:
            self._poisoned.popitem(last=False)
        cids = self._liars.setdefault(ident, set())
        self._liars.move_to_end(ident)
        cids.add(cid)
        if len(cids) >= BAN_CIDS:
            del self._liars[ident]
            self._until[ident] = now + BAN_S
            self._until.move_to_end(ident)
        for memory in (self._liars, self._until):
            if len(memory) > _LIARS_KEPT:
                memory.popitem(last=False)

    def poisoned(self, cid: Cid, source: Source, network: str) -> bool:
        """Say whether ``source`` sent wrong bytes for this very CID."""
        return bool(self._poisoned) and (cid, _ident(source, network)) in self._poisoned

    def banned(self, source: Source, network: str, now: float) -> bool:
        """Say whether ``source`` is asked for nothing now."""
        return bool(self._until) and now < self._until.get(_ident(source, network), now)


def _ident(source: Source, network: str) -> Ident:
    return source.key or (network, source.address)
