"""Patience: how long a flight may be silent or slow before it counts as late, and when as lost."""

from __future__ import annotations

from collections.abc import Callable

from ...protocol.ports import Source, TierName
from .flight import Flight, Want
from .health import Health, Tuning
from .roster import Roster

LOST_S, SILENT_S = 1.0, 3.0
"""A flight silent for this long is lost: in a tier whose pace is known, and in one where it is not."""
UNWATCHED_SILENT_S = 10.0
EQUAL_S = 1.0
"""What an equal gets before anybody else is asked: it may be filling for all the others."""


class Patience:
    """Judges flights by what is usual for their tier and their source."""

    def __init__(self, tuning: Tuning, roster: Roster) -> None:
        self._tuning = tuning
        self._roster = roster

    def hedge_s(self, tier: TierName, health: Health, want: Want) -> float:
        """Return how long a source may be silent before the next is asked as well."""
        shortest, longest = self._tuning.hedge_min_s, self._tuning.hedge_max_s
        delay = min(max(self._roster.paces[tier].p95(longest), shortest), longest)
        listing = self._roster.listing(tier)
        if listing.own:
            delay = max(delay, EQUAL_S)
        if not listing.watched and health.rate_bytes_s:
            delay = max(delay, 2 * health.expected_s(want.size))
        if want.buffer_s is not None:
            delay = min(delay, max(want.buffer_s / 3, shortest))
        return delay

    def late(self, one: Flight, now: float, instead: Callable[[Want], Source | None]) -> bool:
        """Say whether a flight is late; ``instead`` names who would be asked next."""
        if not one.bytes:
            return now >= one.started + one.patience_s
        if now - one.last_at >= self._tuning.hedge_max_s:
            return True
        pace = one.pace_bytes_s(now)
        if not pace:
            return one.overdue  # late once, it has to show that it is quick now
        other = instead(one.want)
        if other is None:
            return False
        left_s = (one.want.size - one.bytes) / pace
        return left_s > 2 * self._roster.health(other).expected_s(one.want.size) + self._tuning.hedge_max_s

    def outlying(self, one: Flight, now: float) -> bool:
        """Say whether a late flight is late enough to be left without a second one beside it."""
        if one.first_at is not None and one.pace_bytes_s(now):
            return now - one.first_at >= self._tuning.hedge_max_s
        usual = 3 * self._roster.paces[one.source.tier].p95(self._tuning.hedge_max_s)
        return now - one.last_at >= max(self._tuning.hedge_max_s, usual, one.patience_s)

    def dead_at(self, one: Flight) -> float:
        """Return when a silent flight is given up even with nothing beside it; each time twice as late."""
        pace = self._roster.paces[one.source.tier]
        patience = 1 << min(one.want.failures[one.source.tier], 5)
        if one.watched:
            return one.last_at + max(LOST_S if pace else SILENT_S, 4 * pace.p95(0.0)) * patience
        usual = 4 * one.health.expected_s(one.want.size)
        return one.started + max(UNWATCHED_SILENT_S, usual) * patience
