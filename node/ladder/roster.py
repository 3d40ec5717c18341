"""The roster: which sources there are, tier by tier, and which of them may be asked for a block now.

Pure. Inside a tier rendezvous hashing (highest random weight) names two candidates for a CID: the
first, where its cache is warm, unless it costs twice the second by peak-EWMA (power of two choices
with affinity). An ejected source comes back as one probe at a time. What is known of sources, and how
soon a tier answers, holds for the network it was seen from.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple, TypeVar

from ...protocol.cid import Cid
from ...protocol.ports import Cost, Source, TierName
from .bans import Bans
from .health import Health, Tuning
from .pace import Pace

AFFINITY = 2.0
OWNERS = 2
"""How many relays own a block among themselves, by rendezvous."""
PROBE_GAP_S = 1.0
REFUSED_S = 2.0
_MEMORY = 4_096
_NETWORKS = 16

K = TypeVar("K")
V = TypeVar("V")


class Listing(NamedTuple):
    """One tier as known now; ``watched`` says that its flights tell of bytes as they arrive.

    ``reserve`` are asked where none of ``sources`` may be. With ``own``, the key of this box, the
    tier is this box's equals: a block's two owners by rendezvous, of those who own it before this box.
    """

    sources: tuple[Source, ...]
    cost: Cost = Cost.FREE
    watched: bool = False
    reserve: tuple[Source, ...] = ()
    own: bytes = b""

    def offered(self, cid: Cid) -> list[tuple[Source, ...]]:
        """Return who may be asked for a block at all, the reserve apart."""
        if not self.own:
            return [self.sources, self.reserve]
        mine = _weight(cid, self.own)
        ranked = sorted(((_rank(cid, source), source) for source in self.sources), reverse=True)
        return [tuple(source for rank, source in ranked[:OWNERS] if rank > mine), self.reserve]


@dataclass(slots=True)
class _Network:
    health: dict[Source, Health] = field(default_factory=dict[Source, Health])
    paces: dict[TierName, Pace] = field(default_factory=lambda: {tier: Pace() for tier in TierName})


class Roster:
    """Sources, their health on this network, and what they may not be asked for."""

    def __init__(self, tuning: Tuning, order: Sequence[TierName] = tuple(TierName)) -> None:
        self._tuning = tuning
        self._places = {tier: place for place, tier in enumerate(order)}
        self._tiers: dict[TierName, Listing] = {}
        self._networks: OrderedDict[str, _Network] = OrderedDict()
        self._bans = Bans()
        self._name = ""
        self._here = self._networks[""] = _Network()
        self._probe_free = dict.fromkeys(TierName, float("-inf"))
        self._refused: OrderedDict[tuple[Cid, Source], tuple[float, float]] = OrderedDict()

    def replace(self, tier: TierName, listing: Listing) -> bool:
        """Take what is known of ``tier`` now; True where that is news."""
        if self._tiers.get(tier) == listing:
            return False
        self._tiers[tier] = listing
        return True

    def network(self, name: str) -> bool:
        """Use what is remembered of the network ``name``; True where it is another one than before."""
        if name == self._name:
            return False
        self._name = name
        self._here = self._networks.setdefault(name, _Network())
        self._networks.move_to_end(name)
        while len(self._networks) > _NETWORKS:
            self._networks.popitem(last=False)
        return True

    def pace(self, tier: TierName) -> Pace:
        """Return how soon a tier answers on this network."""
        return self._here.paces[tier]

    def listing(self, tier: TierName) -> Listing:
        """Return what is known of a tier."""
        return self._tiers.get(tier, Listing(()))

    def health(self, source: Source) -> Health:
        """Return the health record of a source, a fresh one for a stranger."""
        known = self._here.health
        found = known.get(source)
        if found is None:
            found = known[source] = Health()
            if len(known) > _MEMORY:
                del known[next(iter(known))]
        return found

    def up(self, tier: TierName, now: float) -> int:
        """Count a tier's sources that are neither ejected nor banned."""
        listing = self.listing(tier)
        return sum(self._up(source, now) for source in (*listing.sources, *listing.reserve))

    def panics(self, now: float) -> bool:
        """Say whether no source that costs nothing is above doubt: then all are worth a try."""
        return not any(self.up(tier, now) for tier in self.order(Cost.FREE))

    def order(self, up_to: Cost = Cost.RADIO) -> list[TierName]:
        """Return the tiers that can be asked, nearest cost first; the satellite is none of them."""
        asked = [
            tier
            for tier, listing in self._tiers.items()
            if tier is not TierName.SATELLITE and listing.cost <= up_to
        ]
        return sorted(asked, key=lambda tier: (self._tiers[tier].cost, self._places[tier]))

    def choose(
        self,
        cid: Cid,
        size_bytes: int,
        now: float,
        *,
        busy: Container[Source],
        probe: bool,
        up_to: Cost = Cost.RADIO,
        avoid: Container[TierName] = (),
    ) -> Source | None:
        """Return the next source over all tiers but those to ``avoid``; the others are as in ``pick``."""
        for tier in self.order(up_to):
            if tier in avoid:
                continue
            source = self.pick(tier, cid, size_bytes, now, busy=busy, probe=probe)
            if source is not None:
                return source
        return None

    def pick(
        self, tier: TierName, cid: Cid, size_bytes: int, now: float, *, busy: Container[Source], probe: bool
    ) -> Source | None:
        """Return the tier's next source for a block, None where none may be asked.

        ``busy`` sources have it in flight already; with ``probe`` a source whose back-off is over is
        preferred, at most one a second for each tier.
        """
        for offered in self.listing(tier).offered(cid):
            source = self._best(tier, offered, cid, size_bytes, now, busy=busy, probe=probe)
            if source is not None:
                return source
        return None

    def _best(
        self,
        tier: TierName,
        offered: Sequence[Source],
        cid: Cid,
        size_bytes: int,
        now: float,
        *,
        busy: Container[Source],
        probe: bool,
    ) -> Source | None:
        up: list[tuple[int, Source]] = []
        doubtful: list[tuple[int, Source]] = []
        for source in offered:
            health = self.health(source)
            if health.up(now):
                if not self.barred(cid, source, now, busy):
                    up.append((_rank(cid, source), source))
            elif probe and health.half_open(now) and not self.barred(cid, source, now, busy):
                doubtful.append((_rank(cid, source), source))
        if doubtful and (not up or now >= self._probe_free[tier]):
            return max(doubtful)[1]
        best = [source for _, source in sorted(up, reverse=True)[:2]]
        if len(best) > 1:
            first, second = (self.health(source).cost(size_bytes) for source in best)
            if first > AFFINITY * second:
                return best[1]
        return best[0] if best else None

    def resort(
        self,
        cid: Cid,
        now: float,
        *,
        busy: Container[Source],
        up_to: Cost = Cost.RADIO,
        avoid: Container[TierName] = (),
    ) -> Source | None:
        """Return whom to ask when nobody is above doubt: who failed longest ago, at least a second.

        Back-off beyond that second is there to spare a viewer who has something better; this one has not.
        """
        found: list[tuple[float, int, Source]] = []
        for place, tier in enumerate(self.order(up_to)):
            offered = [] if tier in avoid else self.listing(tier).offered(cid)
            for source in (one for sources in offered for one in sources):
                health = self.health(source)
                if health.desperate(now) and not self.barred(cid, source, now, busy):
                    found.append((health.ejected_at, place, source))
        return min(found)[2] if found else None

    def barred(self, cid: Cid, source: Source, now: float, busy: Container[Source]) -> bool:
        """Say whether this source may not be asked for this block now, whatever its health."""
        if source in busy or self._bans.banned(source, self._name, now):
            return True
        if self._bans.poisoned(cid, source, self._name):
            return True
        return now < self._refused.get((cid, source), (0.0, 0.0))[0]

    def denied(self, cid: Cid, now: float, shun: Container[TierName] = ()) -> bool:
        """Say whether all who must know have just said that they lack a block: equals need not."""
        asked = [
            source
            for tier in self.order()
            if tier not in shun and not self._tiers[tier].own
            for source in (*self._tiers[tier].sources, *self._tiers[tier].reserve)
        ]
        return bool(asked) and all(now < self._refused.get((cid, one), (0.0, 0.0))[0] for one in asked)

    def probe(self, source: Source, now: float) -> bool:
        """Note that ``source`` is asked now; True where that is its one half-open probe."""
        health = self.health(source)
        if source.tier is TierName.SATELLITE or health.up(now):
            return False
        health.probing = True
        self._probe_free[source.tier] = now + PROBE_GAP_S
        return True

    def refused(self, cid: Cid, source: Source, now: float) -> None:
        """Remember that ``source`` lacks ``cid``: not asked for it again for 2 s, then 4 s, 8 s."""
        last = self._refused.get((cid, source), (0.0, REFUSED_S / 2))[1]
        pause = min(2 * last, self._tuning.probe_s)
        _remember(self._refused, (cid, source), (now + pause, pause))

    def lied(self, cid: Cid, source: Source, now: float) -> None:
        """Remember wrong bytes: never again this CID from this key or address."""
        self._bans.lied(cid, source, self._name, now)

    def _up(self, source: Source, now: float) -> bool:
        return self.health(source).up(now) and not self._bans.banned(source, self._name, now)


def _rank(cid: Cid, source: Source) -> int:
    return _weight(cid, source.key or source.address.encode())


def _weight(cid: Cid, name: bytes) -> int:
    return int.from_bytes(blake2b(cid.digest + name, digest_size=8).digest())


def _remember(memory: OrderedDict[K, V], key: K, value: V) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > _MEMORY:
        memory.popitem(last=False)
