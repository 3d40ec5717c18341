"""Supply: what each tier has brought, how often it failed, and for which title, since this box started."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge

from ...protocol.cid import Cid
from ...protocol.ports import Source, TierName
from ...protocol.pulse import Served

FAILOVERS_KEPT = 200
ARRIVALS_KEPT = 4_096
_TITLES_KEPT = 64
_SERVED_LIMIT = 4
_RELAY_BYTES = 16
_KBYTE = 1_000


class Failover(NamedTuple):
    """Another tier began to serve; ``ms`` is how long the first such block took."""

    before: TierName
    after: TierName
    cause: str
    ms: int


class Arrival(NamedTuple):
    """Which tier brought a block, how long its flight took, and when it was here (inf: pushed)."""

    tier: TierName
    took_ms: int
    at: float


class _Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.blocks = Counter(
            "farcast_node_tier_blocks", "Verified blocks a tier brought first.", ["tier"], registry=registry
        )
        self.bytes = Counter(
            "farcast_node_tier_bytes", "Bytes of verified blocks a tier brought first.", ["tier"],
            registry=registry,
        )  # fmt: skip
        self.rejected = Counter(
            "farcast_node_tier_rejected", "Blocks refused because their hash was wrong.", ["tier"],
            registry=registry,
        )  # fmt: skip
        self.failed = Counter(
            "farcast_node_tier_failures", "Flights that ended without a block.", ["tier", "reason"],
            registry=registry,
        )  # fmt: skip
        self.failovers = Counter(
            "farcast_node_failovers", "Changes of the tier that serves.", ["from", "to"], registry=registry
        )
        self.hedged = Counter(
            "farcast_node_hedged_bytes", "Bytes that arrived twice because of hedging.", registry=registry
        )
        self.given_up = Counter(
            "farcast_node_blocks_given_up", "Blocks no tier delivered in time.", ["reason"], registry=registry
        )
        self.up = Gauge(
            "farcast_node_tier_sources", "Sources that may be asked.", ["tier"], registry=registry
        )
        for tier in TierName:
            for counter in (self.blocks, self.bytes, self.rejected):
                counter.labels(tier.label)


class Supply:
    """Counts for people, metrics and pulses; ``blocks``, ``bytes`` and ``rejected`` by tier."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Count on ``registry``."""
        self._metrics = _Metrics(registry)
        self._served: OrderedDict[str, dict[tuple[TierName, bytes], int]] = OrderedDict()
        self._wasted_bytes = 0
        self._arrivals: OrderedDict[Cid, Arrival] = OrderedDict()
        self.failovers: deque[Failover] = deque(maxlen=FAILOVERS_KEPT)
        self.blocks = dict.fromkeys(TierName, 0)
        self.bytes = dict.fromkeys(TierName, 0)
        self.rejected = dict.fromkeys(TierName, 0)

    def brought(self, tier: TierName, size_bytes: int) -> None:
        """Count a verified block that this tier put into the store first."""
        self.blocks[tier] += 1
        self.bytes[tier] += size_bytes
        self._metrics.blocks.labels(tier.label).inc()
        self._metrics.bytes.labels(tier.label).inc(size_bytes)

    def served(self, title: str, source: Source, size_bytes: int) -> None:
        """Note who brought a block of ``title``, for the next pulse."""
        if not title:
            return
        entries = self._served.setdefault(title, {})
        key = (source.tier, source.key[:_RELAY_BYTES] if source.tier is TierName.RELAY else b"")
        entries[key] = entries.get(key, 0) + size_bytes
        self._served.move_to_end(title)
        if len(self._served) > _TITLES_KEPT:
            self._served.popitem(last=False)

    def arrived(self, cid: Cid, arrival: Arrival) -> None:
        """Remember how a block came, for the map on the page."""
        self._arrivals[cid] = arrival
        self._arrivals.move_to_end(cid)
        if len(self._arrivals) > ARRIVALS_KEPT:
            self._arrivals.popitem(last=False)

    def arrival(self, cid: Cid) -> Arrival | None:
        """Return how a block came, None where that was long ago or before this box started."""
        return self._arrivals.get(cid)

    def take_served(self, title: str) -> list[Served]:
        """Return the kilobytes each source brought for ``title`` since the last call, the largest four."""
        entries = self._served.get(title, {})
        largest = sorted(entries.items(), key=lambda item: -item[1])[:_SERVED_LIMIT]
        taken = [
            Served(int(tier), relay, size // _KBYTE) for (tier, relay), size in largest if size >= _KBYTE
        ]
        for one in taken:
            entries[TierName(one.tier), one.relay] -= one.kbytes * _KBYTE
        return taken

    def failed(self, tier: TierName, reason: str) -> None:
        """Count a flight that ended without a block; a hash mismatch is a rejected block."""
        self._metrics.failed.labels(tier.label, reason).inc()
        if reason == "hash_mismatch":
            self.rejected[tier] += 1
            self._metrics.rejected.labels(tier.label).inc()

    def switched(self, failover: Failover) -> None:
        """Note that another tier serves now."""
        self.failovers.append(failover)
        self._metrics.failovers.labels(failover.before.label, failover.after.label).inc()

    def given_up(self, reason: str) -> None:
        """Count a block that no tier delivered in time."""
        self._metrics.given_up.labels(reason).inc()

    def wasted(self, total_bytes: int) -> None:
        """Take the ladder's running total of bytes that came twice."""
        self._metrics.hedged.inc(total_bytes - self._wasted_bytes)
        self._wasted_bytes = total_bytes

    def up(self, tier: TierName, sources: int) -> None:
        """Take how many sources of a tier may be asked now."""
        self._metrics.up.labels(tier.label).set(sources)
