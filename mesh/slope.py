"""The slope: how many neighbours lie between this box and a way home, so that pulses run downhill.

A distance vector of one destination (RFC 2453 section 3.4 has the trade). A way that got worse counts as
none for a while: by then whoever relied on it has taken back its own word, and nobody leads in a circle.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..protocol.presence import NO_WAY

HOLD_S = 30.0
"""Longer than a withdrawal takes to everybody: each box passes it on within half a second."""


class Slope:
    """One box's place on it."""

    def __init__(self) -> None:
        self.hops = NO_WAY
        self._held_until = float("-inf")

    def look(self, neighbours: Iterable[int], *, reaches: bool, now: float) -> int:
        """Return the hops to say now, from what the ``neighbours`` say; ``reaches`` where it needs none.

        ``now`` is in seconds and never goes back.
        """
        found = 0 if reaches else min(min(neighbours, default=NO_WAY) + 1, NO_WAY)
        if found > self.hops:
            self._held_until = now + HOLD_S
        if found > 1 and now < self._held_until:  # a neighbour that says 0 has it from nobody: no circle
            found = NO_WAY
        self.hops = found
        return found
