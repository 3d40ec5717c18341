"""The wall: which stretches of a box's wall clock are claimed, so that no second is claimed twice.

All players of a box share one: two tabs, or one player under two names, are one stretch of watching.
Times are seconds on the caller's monotonic clock.
"""

from __future__ import annotations

from math import inf

STRETCHES_KEPT = 256
"""Of claimed time; what lies before the oldest kept counts as claimed."""
_EPSILON_S = 1e-6


class Wall:
    """Claimed time as disjoint stretches, oldest first."""

    def __init__(self) -> None:
        """Begin with nothing claimed."""
        self.claimed: list[tuple[float, float]] = []
        self._floor = -inf

    def claim(self, start_s: float, end_s: float, most_ms: float) -> float:
        """Claim up to ``most_ms`` of what is free between two times, the latest first; returns the ms."""
        start_s = max(start_s, self._floor)
        if not self.claimed or self.claimed[-1][1] <= start_s:
            return self._claim_last(start_s, end_s, most_ms / 1000)
        at, left_s = end_s, most_ms / 1000
        found: list[tuple[float, float]] = []
        for begin, end in [*reversed(self.claimed), (-inf, start_s)]:
            if begin >= at:
                continue
            free_s = at - max(end, start_s)
            if free_s > 0 and left_s > 0:
                taken_s = min(free_s, left_s)
                found.append((at - taken_s, at))
                left_s -= taken_s
            at = min(at, begin)
            if at <= start_s or left_s <= 0:
                break
        if found:
            self._add(found)
        return sum(end - begin for begin, end in found) * 1000

    def _claim_last(self, start_s: float, end_s: float, most_s: float) -> float:
        """Claim behind everything that is claimed, as one player alone always does."""
        claimed, taken_s = self.claimed, min(end_s - start_s, most_s)
        if taken_s <= 0:
            return 0.0
        begin = end_s - taken_s
        if claimed and begin <= claimed[-1][1] + _EPSILON_S:
            claimed[-1] = (claimed[-1][0], end_s)
        else:
            claimed.append((begin, end_s))
            if len(claimed) > STRETCHES_KEPT:
                self._floor = claimed[-STRETCHES_KEPT][0]
                del claimed[:-STRETCHES_KEPT]
        return (end_s - begin) * 1000

    def _add(self, found: list[tuple[float, float]]) -> None:
        merged: list[tuple[float, float]] = []
        for begin, end in sorted([*self.claimed, *found]):
            if merged and begin <= merged[-1][1] + _EPSILON_S:
                merged[-1] = (merged[-1][0], max(merged[-1][1], end))
            else:
                merged.append((begin, end))
        if len(merged) > STRETCHES_KEPT:
            self._floor = merged[-STRETCHES_KEPT][0]
        self.claimed = merged[-STRETCHES_KEPT:]
