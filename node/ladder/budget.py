"""The budget of a film: how many bytes may arrive twice so that nobody waits."""

from __future__ import annotations


class Budget:
    """What one film may spend on bytes that arrive twice: a share of it, or 4 MiB where that is more."""

    FREE_BYTES = 4 << 20

    def __init__(self, waste_percent: int) -> None:
        self._waste_percent = waste_percent
        self.delivered_bytes = 0
        self.wasted_bytes = 0
        self.reserved_bytes = 0

    def reserve(self, size_bytes: int) -> bool:
        """Set room for one more copy aside; False where there is none left."""
        allowed = max(self.FREE_BYTES, self.delivered_bytes * self._waste_percent // 100)
        if self.wasted_bytes + self.reserved_bytes + size_bytes > allowed:
            return False
        self.reserved_bytes += size_bytes
        return True

    def settle(self, reserved_bytes: int, wasted_bytes: int) -> int:
        """Give a reservation back and book what was really wasted, at most that; returns it."""
        wasted = min(wasted_bytes, reserved_bytes)
        self.reserved_bytes -= reserved_bytes
        self.wasted_bytes += wasted
        return wasted
