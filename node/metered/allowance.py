"""The allowance: how many bytes may cross a metered link today, whatever the clock is made to say.

Pure. A day of budget ends when the clock, which ran evenly all the while, shows a later day; or when the
origin signed something on a later day. A clock that is set, forward or back, gives nothing by itself: from
then on a day ends after 24 hours that surely passed, until the origin's time and the clock's agree again.
Only a clock put forward while the box is off cannot be told from a box that was off for so long.
"""

from __future__ import annotations

from typing import NamedTuple

DAY_MS = 86_400_000
DAY_S = 86_400.0
JUMP_S = 120.0
"""A clock that gains or loses more than this between two looks was set."""
FIRST_SHARE = 20
"""One part of so many is kept for checkpoint and pulses, which come first."""
FIRST_MOST_BYTES = 20_000_000


class Record(NamedTuple):
    """What outlives a restart: the day (UTC, since 1970), what it has cost, and how sure its time is.

    ``elapsed_s`` surely passed since that day's budget began; ``wall_ms`` is the clock at the last look;
    ``even`` says that it was not set since.
    """

    day: int
    spent_bytes: int
    wall_ms: int
    elapsed_s: float
    even: bool


class Allowance:
    """One link's budget of ``daily_bytes``; ``now_s`` never goes back while the process lives."""

    def __init__(self, daily_bytes: int, record: Record | None, wall_ms: int, now_s: float) -> None:
        """Go on with ``record``, or begin a day; the box may have been off for any time in between."""
        self.daily_bytes = daily_bytes
        self._now_s = now_s
        if record is None:
            record = Record(wall_ms // DAY_MS, 0, wall_ms, 0.0, True)
        away_s = (wall_ms - record.wall_ms) / 1_000
        self._day = record.day
        self.spent_bytes = record.spent_bytes
        self._wall_ms = wall_ms
        self._elapsed_s = record.elapsed_s + min(max(away_s, 0.0), DAY_S)
        self._even = record.even and away_s >= -JUMP_S
        self._held_bytes = 0

    @property
    def day(self) -> int:
        """The day whose budget this is (UTC, since 1970)."""
        return self._day

    @property
    def kept_bytes(self) -> int:
        """What of a day is kept for checkpoint and pulses."""
        return min(self.daily_bytes // FIRST_SHARE, FIRST_MOST_BYTES)

    @property
    def used_bytes(self) -> int:
        """What today has cost, with what is under way."""
        return self.spent_bytes + self._held_bytes

    def look(self, wall_ms: int, now_s: float, proven_ms: int) -> bool:
        """Look at the clock; True where a new day's budget begins.

        ``proven_ms`` is the latest time that the origin signed: it has surely come.
        """
        step_s = max(now_s - self._now_s, 0.0)
        if abs((wall_ms - self._wall_ms) / 1_000 - step_s) > JUMP_S:
            self._even = False
        self._now_s, self._wall_ms = max(now_s, self._now_s), wall_ms
        self._elapsed_s += step_s
        day, proven = wall_ms // DAY_MS, proven_ms // DAY_MS
        if self._even and day > self._day:
            self._begin(max(day, proven), even=True)
        elif proven > self._day:
            self._begin(proven, even=day == proven)
        elif not self._even and self._elapsed_s >= DAY_S:
            self._begin(proven or day, even=False)
        else:
            return False
        return True

    def left_bytes(self, *, first: bool) -> int:
        """Return how much may still be spent; ``first`` for checkpoint and pulses."""
        return max(self.unspent_bytes(first=first) - self._held_bytes, 0)

    def unspent_bytes(self, *, first: bool) -> int:
        """Return the same as if nothing were under way: most of what is set aside comes back."""
        return max(self.daily_bytes - (0 if first else self.kept_bytes) - self.spent_bytes, 0)

    def hold(self, size_bytes: int, *, first: bool) -> bool:
        """Set aside what something may cost at most; False where that is more than is left."""
        if size_bytes > self.left_bytes(first=first):
            return False
        self._held_bytes += size_bytes
        return True

    def settle(self, held_bytes: int, spent_bytes: int) -> None:
        """Say what it did cost."""
        self._held_bytes -= held_bytes
        self.spent_bytes += spent_bytes

    def record(self, spent_bytes: int) -> Record:
        """Return what to keep, with ``spent_bytes`` as what this day has cost by the next start."""
        return Record(self._day, spent_bytes, self._wall_ms, self._elapsed_s, self._even)

    def _begin(self, day: int, *, even: bool) -> None:
        self._day, self.spent_bytes, self._elapsed_s, self._even = day, 0, 0.0, even
