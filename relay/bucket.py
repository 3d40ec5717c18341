"""A token bucket that may run into debt: what came has come, and the next waits (sans-IO)."""

from __future__ import annotations

BURST_S = 1.0


class Bucket:
    """Holds at most a second's worth of a rate; ``rate_bps`` 0 never waits."""

    def __init__(self, rate_bps: int, now: float) -> None:
        """Begin full; ``now`` is monotonic seconds."""
        self.rate_bps = rate_bps
        self._bits = rate_bps * BURST_S
        self._at = now

    def change(self, rate_bps: int, now: float) -> None:
        """Go on at another rate; a debt stays one."""
        if rate_bps != self.rate_bps:
            self._fill(now)
            self.rate_bps = rate_bps
            self._bits = min(self._bits, rate_bps * BURST_S)

    def spend(self, size_bytes: int, now: float) -> None:
        """Take what was transferred, even into debt."""
        self._fill(now)
        if self.rate_bps:
            self._bits -= size_bytes * 8

    def wait_s(self, now: float) -> float:
        """Return how long the next transfer waits."""
        self._fill(now)
        return -self._bits / self.rate_bps if self.rate_bps and self._bits < 0 else 0.0

    def _fill(self, now: float) -> None:
        gained = max(0.0, now - self._at) * self.rate_bps
        self._at = max(now, self._at)
        self._bits = min(self._bits + gained, self.rate_bps * BURST_S)
