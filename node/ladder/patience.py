"""Patience: how long a flight may be silent or slow before it counts as late, and when as lost."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from ...protocol.ports import Cost, Source, TierName
from .flight import Flight, Want
from .health import Health, Tuning
from .roster import Roster

LOST_S, SILENT_S = 1.0, 3.0
"""A flight silent for this long is lost: in a tier whose pace is known, and in one where it is not."""
UNWATCHED_SILENT_S = 10.0
"""The same for a relay that fills."""
EQUAL_S = 1.0
"""What an equal gets before anybody else is asked: it may be filling for all the others."""
RAMP, WINDOW_BYTES = 4.0, 8 << 10
"""A flight that has just begun, by a first window at least, may become so many times quicker (RFC 5681)."""
TRIES = 3
"""After so many flights were left, a block's next ones get twice the time: the line itself is slow."""
DOUBLINGS = 2
RADIO_SILENCE = 10.0
"""A radio may be silent so many times longer than other tiers before a flight counts as lost."""


class Patience:
    """Judges flights by what is usual for their tier and their source.

    With ``hurried`` a silent flight is lost within seconds, as a player needs it; a relay that fills waits
    longer, because who is asked may be filling too.
    """

    def __init__(self, tuning: Tuning, roster: Roster, *, hurried: bool) -> None:
        self._tuning = tuning
        self._roster = roster
        self._hurried = hurried

    def hedge_s(self, tier: TierName, health: Health, want: Want) -> float:
        """Return how long a source may be silent before the next is asked as well."""
        shortest, longest = self._tuning.hedge_min_s, self._tuning.hedge_max_s
        delay = min(max(self._roster.pace(tier).p95(longest), shortest), longest)
        listing = self._roster.listing(tier)
        if listing.own:
            delay = max(delay, EQUAL_S)
        if not listing.watched and health.rate_bytes_s:
            delay = max(delay, 2 * health.expected_s(want.size))
        if want.buffer_s is not None:
            delay = min(delay, max(want.buffer_s / 3, shortest))
        return delay

    def stall_s(self, one: Flight) -> float:
        """Return how long a flight may pause once bytes have come: those on their way come close together."""
        shortest, longest = self._tuning.hedge_min_s, self._tuning.hedge_max_s
        own_s = longest if one.first_at is None else one.first_at - one.started
        usual = max(self._roster.pace(one.source.tier).p95(own_s), one.gap_s, one.health.gap_s)
        if one.want.stage:  # all tries for a block share one hedge delay
            limit = min(max(1.25 * max(usual, own_s), 1.5 * shortest), longest)
        else:
            limit = min(max(2 * usual, 2 * shortest), longest)
        if one.want.buffer_s is not None:
            limit = min(limit, max(one.want.buffer_s / 3, shortest))
        return limit * _calm(one.want)

    def late_at(self, one: Flight) -> float:
        """Return when a flight is late if nothing more is heard of it."""
        return one.last_at + self.stall_s(one) if one.bytes else one.started + one.patience_s

    def late(self, one: Flight, now: float, instead: Callable[[Want], Source | None]) -> bool:
        """Say whether a flight is late; ``instead`` names who would be asked next."""
        if one.landed_at is not None:
            return False  # its bytes are here and being verified: nobody else is quicker
        if now >= self.late_at(one):
            return True
        if not one.bytes:
            return False
        left_s = self.left_s(one, now)
        if left_s == inf:
            return one.overdue  # late once, it has to show that it is quick now
        want, slack_s = one.want, one.want.slack_s(now)
        other = instead(want)
        if other is None:
            return left_s > slack_s
        expected_s = self._roster.health(other).expected_s(want.size)
        limit_s = min(2 * expected_s + self._tuning.hedge_max_s, max(slack_s, expected_s))
        return left_s > limit_s * _calm(want)

    def left_s(self, one: Flight, now: float) -> float:
        """Return how long a flight will take for the rest; without end where it shows no pace."""
        pace = self.pace_bytes_s(one, now)
        if not pace or one.first_at is None:
            return inf
        fresh = now - one.first_at < self._tuning.hedge_max_s and pace >= one.rate_bytes_s
        if fresh and one.bytes >= WINDOW_BYTES:
            pace *= RAMP
        return (one.want.size - one.bytes) / pace

    def pace_bytes_s(self, one: Flight, now: float) -> float:
        """Return how fast a flight delivers now, 0 where it has stalled or not begun."""
        if not one.bytes or now >= self.late_at(one):
            return 0.0
        return one.pace_bytes_s(now)

    def outlying(self, one: Flight, now: float) -> bool:
        """Say whether a late flight is late enough to be left without a second one beside it."""
        if one.first_at is not None and one.watched:
            stalled = now - one.last_at >= self.stall_s(one)
            return stalled or now - one.first_at >= self._tuning.hedge_max_s * _calm(one.want)
        usual = 3 * self._roster.pace(one.source.tier).p95(self._tuning.hedge_max_s)
        return now - one.last_at >= max(self._tuning.hedge_max_s, usual, one.patience_s)

    def dead_at(self, one: Flight) -> float:
        """Return when a silent flight is given up even with nothing beside it; each time twice as late."""
        if one.landed_at is not None:
            return one.want.deadline
        pace = self._roster.pace(one.source.tier)
        patience: float = 1 << min(one.silences, DOUBLINGS if self._hurried else 5)
        if self._roster.listing(one.source.tier).cost is Cost.RADIO:
            patience *= RADIO_SILENCE
        if one.watched and self._hurried:
            return one.last_at + max(LOST_S if pace else SILENT_S, 4 * pace.p95(0.0)) * patience
        usual = 4 * one.health.expected_s(one.want.size)
        return one.last_at + max(SILENT_S if self._hurried else UNWATCHED_SILENT_S, usual) * patience


def _calm(want: Want) -> int:
    """Return how many times longer than usual a block's flights may take, after those that were left."""
    return 1 << min(want.silences.total() // TRIES, DOUBLINGS)
