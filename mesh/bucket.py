"""A token bucket: so many at once, so many a second in the long run; time in seconds of any one clock."""

from __future__ import annotations


class Bucket:
    """Starts full; a clock that runs backward adds nothing and takes nothing away."""

    def __init__(self, burst: int, per_s: float) -> None:
        """Hold ``burst`` tokens at most and gain ``per_s`` a second."""
        self._burst = float(burst)
        self._per_s = per_s
        self._level = float(burst)
        self._at = float("-inf")

    def take(self, now: float) -> bool:
        """Take one token; False where there is none."""
        self._fill(now)
        if self._level < 1:
            return False
        self._level -= 1
        return True

    def ready_at(self, now: float) -> float:
        """Return when the next token is there."""
        self._fill(now)
        return now if self._level >= 1 else now + (1 - self._level) / self._per_s

    def _fill(self, now: float) -> None:
        if now > self._at:
            self._level = min(self._burst, self._level + (now - self._at) * self._per_s)
            self._at = now
