"""Fates: what befalls the tiers of one evening, drawn from a seed.

Any sequence of faults, with one promise: at every moment at least one tier that costs nothing and never
lies is well, and its line carries more than twice what the film needs. Which one changes as often as the
faults do.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from farcast.protocol.ports import Cost, Source, TierName
from farcast.tests.sim.cinema import SEGMENT_S, Cinema
from farcast.tests.sim.edges import FAULTS, FLAP_S, Change, Edge, Script
from farcast.tests.sim.world import World

TIERS = (TierName.CDN, TierName.RELAY, TierName.MESH)
SEGMENTS = 30
SPANS_S = (0.4, 1.0, 3.0, 6.0, 12.0, 20.0)
SETTLED_S = 11.0
"""A tier well for so long may be asked again: no back-off is longer than ten seconds."""
COUNTS = {TierName.CDN: 1, TierName.RELAY: 4, TierName.MESH: 2}


class Line(NamedTuple):
    """Round trip in seconds and bytes a second, each drawn between two bounds."""

    rtt_s: tuple[float, float]
    rate_bytes_s: tuple[float, float]

    def draw(self, random: Random) -> tuple[float, float]:
        """Return one line."""
        return random.uniform(*self.rtt_s), random.uniform(*self.rate_bytes_s)


NEAR: dict[TierName, Line] = dict.fromkeys(TIERS, Line((0.002, 0.01), (4e7, 1e8)))
"""A block needs less than a tenth of a second, cold: all there is to wait for is the hedge delay."""
FAR = {
    TierName.CDN: Line((0.02, 0.12), (2e6, 6e6)),
    TierName.RELAY: Line((0.03, 0.2), (2e6, 5e6)),
    TierName.MESH: Line((0.002, 0.004), (5e6, 2e7)),
}


def edge(world: World, tier: TierName, number: int, script: Script, line: Line) -> Edge:
    """Return one source of a tier; only a CDN has no key."""
    key = b"" if tier is TierName.CDN else bytes([tier, number]) * 16
    name = f"{tier.label}{number}"
    return Edge(world, Source(tier, name, f"{name}.example:7433", key), [script], *line.draw(world.random))


@dataclass
class Fate:
    """One evening: the player and what happens to it."""

    seed: int
    cinema: Cinema
    scripts: dict[TierName, Script]
    trusty: tuple[TierName, ...]

    def settled(self, since: float, until: float) -> bool:
        """Say whether one of the trusty tiers was well for long before ``since`` and is until ``until``."""
        return any(self.scripts[tier].well(since - SETTLED_S, until) for tier in self.trusty)

    def last_onset(self, since: float, until: float) -> float:
        """Return when the latest fault began, or changed, in a stretch of time; ``since`` if none did."""
        onsets = [since]
        for script in self.scripts.values():
            for place, change in enumerate(script.changes):
                end = script.changes[place + 1].since if place + 1 < len(script.changes) else until
                flaps = int((min(end, until) - change.since) / FLAP_S) if change.fault == "flap" else 0
                onsets += [change.since + FLAP_S * flap for flap in range(max(flaps, 0) + 1)]
        return max(onset for onset in onsets if onset <= until)


def draw(seed: int, lines: dict[TierName, Line]) -> Fate:
    """Draw one evening."""
    world = World(seed)
    random = world.random
    metered = random.choice((None, None, *TIERS))
    liar = random.choice([None, *(tier for tier in TIERS if tier is not metered)])
    trusty = tuple(tier for tier in TIERS if tier not in (metered, liar))
    changes: dict[TierName, list[Change]] = {tier: [] for tier in TIERS}
    now, end = 0.0, SEGMENTS * SEGMENT_S * 1.5
    while now < end:
        span_s = random.choice(SPANS_S) * random.uniform(0.5, 1.5)
        well = random.choice(trusty)
        for tier in TIERS:
            faults = [fault for fault in FAULTS if fault != "corrupt" or tier not in trusty]
            is_well = tier is well or random.random() < 0.3
            delay_s = 0.0 if tier is well else random.uniform(0.0, min(span_s, 0.6))
            changes[tier].append(Change(now + delay_s, "" if is_well else random.choice(faults)))
        now += span_s
    scripts = {tier: Script(found) for tier, found in changes.items()}
    edges = [
        edge(world, tier, number, scripts[tier], lines[tier])
        for tier in TIERS
        for number in range(COUNTS[tier])
    ]
    costs = {metered: Cost.METERED} if metered else {}
    unseen = frozenset({TierName.MESH} if random.random() < 0.5 else ())
    cinema = Cinema(world, edges, segments=SEGMENTS, costs=costs, tells=random.random() < 0.7, unseen=unseen)
    return Fate(seed, cinema, scripts, trusty)
