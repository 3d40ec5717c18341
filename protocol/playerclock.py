"""A player's events: what they say, and where they stand in order and on our own clock; all unproven."""

from __future__ import annotations

from collections import Counter
from math import inf
from typing import NamedTuple

from .cmcd import STATES

LATE_EVENT_S = 5.0
RATE_MIN, RATE_MAX = 0.25, 16.0
POSITION_LIMIT_MS = 2**32 - 1
_RESTART_MS = 1_000
_TS_LIMIT_MS = 2**53


class PlayerEvent(NamedTuple):
    """One event of a player: its state from now on, and what it says of itself.

    ``state`` is a CMCD letter, empty for no change; ``rate`` None is 1, which players leave out
    (CTA-5004, ``pr``); ``ts_ms`` the player's own clock.
    """

    state: str = ""
    rate: float | None = None
    position_ms: int | None = None
    sn: int | None = None
    ts_ms: int | None = None


class PlayerClock:
    """Puts one player's events in order; ``lies`` counts what cannot be true, by reason."""

    def __init__(self) -> None:
        """Begin knowing nothing of the player's clock."""
        self.lies: Counter[str] = Counter()
        self._sn = -1
        self._ts_ms = 0
        self._offset_ms = inf

    def in_order(self, event: PlayerEvent) -> bool:
        """Say whether an event is new; an old, repeated or unreadable one is a lie."""
        if event.state and event.state not in STATES:
            self.lies["unknown_state"] += 1
            return False
        if event.sn is None:
            return True
        newer = event.ts_ms is not None and event.ts_ms > self._ts_ms + _RESTART_MS
        if event.sn < 0 or event.sn == self._sn or (event.sn < self._sn and not newer):
            self.lies["repeated_sn" if event.sn == self._sn else "old_sn"] += 1
            return False
        self._sn = event.sn  # a lower number on a later clock is a player that began again
        return True

    def when(self, event: PlayerEvent, now: float) -> float:
        """Place an event on our clock: by the player's own, at most 5 s back and never ahead."""
        ts_ms = event.ts_ms
        if ts_ms is None:
            return now
        if not 0 <= ts_ms < _TS_LIMIT_MS:
            self.lies["bad_ts"] += 1
            return now
        if ts_ms < self._ts_ms - LATE_EVENT_S * 1000:
            self.lies["backward_ts"] += 1
        self._ts_ms = ts_ms
        offset_ms = now * 1000 - ts_ms
        if offset_ms - self._offset_ms > LATE_EVENT_S * 1000:  # its clock was set: no event is so late
            self._offset_ms = inf
        self._offset_ms = min(self._offset_ms, offset_ms)
        return min(max((ts_ms + self._offset_ms) / 1000, now - LATE_EVENT_S), now)

    def position_ms(self, event: PlayerEvent) -> float | None:
        """Return the playhead an event tells, None where it tells none that can be."""
        if event.position_ms is None:
            return None
        if not 0 <= event.position_ms <= POSITION_LIMIT_MS:
            self.lies["bad_position"] += 1
            return None
        return float(event.position_ms)

    def rate(self, event: PlayerEvent, before: float) -> float:
        """Return the speed an event tells, within bounds; ``before`` where it says 0, which is no speed."""
        rate = 1.0 if event.rate is None else event.rate
        if rate == 0:
            return before
        if not RATE_MIN <= rate <= RATE_MAX:
            self.lies["bad_rate"] += 1
        return min(max(rate, RATE_MIN), RATE_MAX)
