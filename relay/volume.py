"""The month's volume: what of it is used, and whether the relay is awake or hibernates (sans-IO).

The idea is Tor's (tor manual, "AccountingMax"): used up, the relay sleeps until the next month; and
because it then knows how long a month's volume lasts, it wakes at a random moment that still leaves
it long enough, so that an origin's relays are not all awake on the first day and all asleep on the
twentieth. The caller keeps ``usage``, so that a restart neither forgets bytes nor draws again.
"""

from __future__ import annotations

from datetime import tzinfo
from typing import Literal, NamedTuple

import msgspec

from .period import Period, period_at

Counts = Literal["both", "up", "down", "larger"]
State = Literal["awake", "waiting", "spent"]

FINISH_SHARE, FINISH_BYTES = 20, 500_000_000
"""Transfers under way may take the last twentieth, 500 MB at most; new ones are refused from there on."""
LEARN_MS = 3_600_000
"""Awake for less than this, a month teaches nothing about how fast volume goes."""
STEP_MS = 60_000
"""The most that one tick adds to the time awake: a machine that was suspended was not."""


class Terms(NamedTuple):
    """What the operator allows: ``limit_bytes`` 0 is no limit; a month begins on ``billing_day``."""

    limit_bytes: int
    counts: Counts
    billing_day: int
    zone: tzinfo


class Usage(msgspec.Struct, forbid_unknown_fields=True):
    """What a month has used, kept across restarts.

    ``awake_ms`` is how long the relay served in it, ``wake_ms`` when it began or will begin to;
    ``speed_bytes_s`` is what earlier months used per second awake, 0 while unknown.
    """

    start_ms: int
    end_ms: int
    up_bytes: int = 0
    down_bytes: int = 0
    awake_ms: int = 0
    wake_ms: int = 0
    speed_bytes_s: float = 0.0


class Volume:
    """Counts a month's bytes and says whether they are spent; ``chance`` is fresh, in [0, 1)."""

    def __init__(self, terms: Terms, now_ms: int, usage: Usage | None = None) -> None:
        """Begin with ``usage`` of an earlier run, or awake in a month of which nothing is known."""
        period = period_at(now_ms, terms.billing_day, terms.zone)
        self.terms = terms
        self.usage = usage or Usage(*period, wake_ms=period.start_ms)
        self._ticked_ms = now_ms

    def count(self, up_bytes: int, down_bytes: int) -> None:
        """Count bytes that went to and came from the Internet."""
        self.usage.up_bytes += up_bytes
        self.usage.down_bytes += down_bytes

    def tick(self, now_ms: int, chance: float, *, serving: bool = True) -> None:
        """Let time pass; ``serving`` is false while the operator has paused the relay."""
        usage, period = self.usage, period_at(now_ms, self.terms.billing_day, self.terms.zone)
        if serving and self.state(self._ticked_ms) == "awake":
            usage.awake_ms += min(max(0, now_ms - self._ticked_ms), STEP_MS)
        self._ticked_ms = now_ms
        if now_ms >= usage.end_ms:
            self._begin(period, chance)
        elif (usage.start_ms, usage.end_ms) != period:
            # another billing day or zone, or a clock set back: what was used stays used
            usage.start_ms, usage.end_ms = period
            usage.wake_ms = min(usage.wake_ms, now_ms)

    @property
    def used_bytes(self) -> int:
        """What counts against the limit so far this month."""
        usage = self.usage
        match self.terms.counts:
            case "both":
                return usage.up_bytes + usage.down_bytes
            case "up":
                return usage.up_bytes
            case "down":
                return usage.down_bytes
            case "larger":
                return max(usage.up_bytes, usage.down_bytes)

    @property
    def remaining_bytes(self) -> int | None:
        """What is left of the month's volume, None without a limit."""
        return max(0, self.terms.limit_bytes - self.used_bytes) if self.terms.limit_bytes else None

    @property
    def exhausted(self) -> bool:
        """Whether even what transfers under way may take is gone."""
        return self.remaining_bytes == 0

    def state(self, now_ms: int) -> State:
        """Say whether the relay may serve: not once the volume is spent, nor before it wakes."""
        limit = self.terms.limit_bytes
        if not limit:
            return "awake"
        if self.used_bytes >= limit - min(limit // FINISH_SHARE, FINISH_BYTES):
            return "spent"
        return "waiting" if now_ms < self.usage.wake_ms else "awake"

    def wakes_ms(self, now_ms: int) -> int:
        """Return when a relay that hibernates wakes, at the earliest: the next month is not drawn yet."""
        return self.usage.wake_ms if self.state(now_ms) == "waiting" else self.usage.end_ms

    def _begin(self, period: Period, chance: float) -> None:
        """Begin a month: learn from the last one, and draw when to wake in this one."""
        speed = self.usage.speed_bytes_s
        if self.usage.awake_ms >= LEARN_MS:
            speed = self.used_bytes * 1_000 / self.usage.awake_ms
        wake_ms = period.start_ms + int(chance * self._slack_ms(period, speed))
        self.usage = Usage(*period, wake_ms=wake_ms, speed_bytes_s=speed)

    def _slack_ms(self, period: Period, speed_bytes_s: float) -> float:
        """Return how long it may sleep and still use its volume at last month's speed less a tenth."""
        limit = self.terms.limit_bytes
        if not limit or speed_bytes_s <= 0:
            return 0.0
        return max(0.0, period.length_ms - limit * 1_100 / speed_bytes_s)
