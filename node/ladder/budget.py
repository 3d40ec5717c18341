"""The budget of a film: how many bytes may arrive twice so that nobody waits."""

from __future__ import annotations


class Budget:
    """What one film may spend on bytes that arrive twice: a share of it, or 4 MiB where that is more."""

    FREE_BYTES = 4 << 20
    RACES_BYTES, RACE_BYTES = 256 << 10, 32 << 10
    """Kept for races, and what one costs: what a loser sends before its first byte is seen and it is told."""

    def __init__(self, waste_percent: int) -> None:
        self._waste_percent = waste_percent
        self.delivered_bytes = 0
        self.wasted_bytes = 0
        self.held_bytes = 0

    def room(self, size_bytes: int) -> bool:
        """Say whether one more copy of ``size_bytes`` may be asked for."""
        return self._left_bytes() >= size_bytes + self.RACES_BYTES

    def may_race(self) -> bool:
        """Say whether one more flight may be begun that is cancelled at its first byte."""
        return self._left_bytes() >= self.RACE_BYTES

    def hold(self, more_bytes: int) -> None:
        """Set more aside for copies under way, or less."""
        self.held_bytes += more_bytes

    def _left_bytes(self) -> int:
        allowed = max(self.FREE_BYTES, self.delivered_bytes * self._waste_percent // 100)
        return allowed - self.wasted_bytes - self.held_bytes
