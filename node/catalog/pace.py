"""How often a box looks for news: often while anybody uses it, seldom while nobody does."""

from __future__ import annotations

QUIET_S = 600.0
"""Without use for so long, a box is idle."""
_DOUBLINGS = 10


class Pace:
    """Decides when the next look is due; time in seconds of any one clock."""

    def __init__(self, poll_s: float, idle_poll_s: float) -> None:
        """Look every ``poll_s`` while in use and every ``idle_poll_s`` otherwise, never more often."""
        self._poll_s = poll_s
        self._idle_poll_s = max(poll_s, idle_poll_s)
        self._count: int | None = None
        self._used_at = float("-inf")
        self._looked_at = float("-inf")
        self._misses = 0

    def looked(self, now: float, *, found: bool) -> None:
        """Note a look for news and whether anybody answered."""
        self._looked_at = now
        self._misses = 0 if found else min(self._misses + 1, _DOUBLINGS)

    def saw(self, uses: int, now: float) -> bool:
        """Take the count of uses so far; True where a look is due at once, because use has begun again."""
        used = self._count is not None and uses != self._count
        self._count = uses
        was_idle = self.idle(now)
        if used:
            self._used_at = now
        return used and was_idle and now - self._looked_at >= self._poll_s

    def idle(self, now: float) -> bool:
        """Say whether nobody has used the box lately."""
        return now - self._used_at >= QUIET_S

    def pause_s(self, now: float) -> float:
        """Return the seconds until the next look; an idle box that nobody answers asks ever less often."""
        if not self.idle(now):
            return self._poll_s
        if self._misses:
            return min(self._poll_s * (1 << (self._misses - 1)), self._idle_poll_s)
        return self._idle_poll_s
