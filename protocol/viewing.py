"""Viewing: from what a player does to the milliseconds that count, one player session at a time.

Counted is wall time in which playback advanced: min(time in state *playing*, media advanced / rate,
wall), and media may advance only through what was delivered. A player that reports its states (CMCD
v2 events) is believed up to its last sign of life; any other is taken to play what was delivered to
it, in real time. IDLE -> ACTIVE -> CLOSED; a pulse is due at the start, each interval, at a return
after CLOSED and at a change of title. Times are seconds on the caller's monotonic clock.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import NamedTuple

from .cmcd import STATES
from .pulse import ACTIVE, MAX_DELTA_MS, RETURN, START, SWITCH

INTERVAL_S = 60.0
CLOSE_S = 300.0
"""Five minutes without a pulse end a session, here and in the origin's rules."""
SILENCE_S = 65.0
"""A player said to be playing is believed this long without another sign of life."""
GRACE_S = 5.0
"""How long a due pulse waits for the player's next sign of life, so that it is up to date."""
LATE_EVENT_S = 5.0
LEAD_MS = 30_000
SLACK_MS = 4_000
"""Media may play this much before its delivery is noted: two segments on their way."""
RATE_MIN, RATE_MAX = 0.25, 16.0
_POSITION_LIMIT_MS = 2**32 - 1
_SEGMENTS_LIMIT = 100_000
_JUMP_MS = 2_000
_RESTART_MS = 1_000


class Phase(Enum):
    """Where a player session is in its life."""

    IDLE = "idle"
    ACTIVE = "active"
    CLOSED = "closed"


class PlayerEvent(NamedTuple):
    """One event of a player: its state from now on, and what it says of itself, all unproven.

    ``state`` is a CMCD letter, empty for no change; ``ts_ms`` the player's own clock.
    """

    state: str = ""
    rate: float | None = None
    position_ms: int | None = None
    sn: int | None = None
    ts_ms: int | None = None


class PulseDue(NamedTuple):
    """A pulse to sign: ``state`` as in ``pulse.Viewing``, ``delta_ms`` counted since the last one."""

    state: int
    content: str
    delta_ms: int
    position_ms: int
    at: float


@dataclass(slots=True)
class _Stretch:
    """Playback between two seeks: what each of the three bounds allows so far, in wall ms."""

    wall_ms: float = 0.0
    media_wall_ms: float = 0.0
    media_ms: float = 0.0
    counted_ms: float = 0.0
    seen: dict[str, set[int]] = field(default_factory=dict[str, set[int]])
    newest: dict[str, int] = field(default_factory=dict[str, int])


class ViewingSession:
    """One player's session: feed it events and deliveries, call ``tick`` at ``wake_at``, ``take`` pulses."""

    def __init__(self, content: str, *, interval_s: float = INTERVAL_S) -> None:
        """Begin IDLE with the title ``content``; pulses come each ``interval_s`` while it plays."""
        self.content = content
        self.phase = Phase.IDLE
        self.reports = False
        self.lies: Counter[str] = Counter()
        self.counted_ms = 0.0
        self.state = ""
        self._interval_s = interval_s
        self._rate = 1.0
        self._position_ms = 0.0
        self._placed = False
        self._positioned = False
        self._folded_at = -inf
        self._sign_at = -inf
        self._pulse_at = -inf
        self._pending_ms = 0.0
        self._unclaimed_ms = 0.0
        self._stretch = _Stretch()
        self._level_ms: dict[str, float] = {}
        self._delivered: set[tuple[str, int]] = set()
        self._delivered_ms: Counter[str] = Counter()
        self._sn = -1
        self._ts_ms = 0
        self._offset_ms = inf
        self._due: list[PulseDue] = []

    # -- what happens

    def receive(self, event: PlayerEvent, now: float) -> None:
        """Fold one player event; an old or repeated one is counted as a lie and changes nothing."""
        if not self._in_order(event):
            return
        if not self.reports:
            self._fold_delivery(now)
            self.reports = True
            self._level_ms.clear()
            self._folded_at = now
        at = self._when(event, now)
        position = self._checked_position(event)
        self._fold_state(at, position)
        self._positioned = position is not None
        if position is not None:
            self._position_ms, self._placed = position, True
        self._set_rate(event.rate)
        if event.state:
            self._set_state(event.state, now)
        self._sign_at = now
        self._emit_if_due(now)

    def delivered(self, track: str, start_ms: int, duration_ms: int, now: float) -> None:
        """Hear that a media segment went out whole; ``track`` is ``video`` or ``audio``."""
        if duration_ms <= 0 or start_ms < 0:
            return
        if self.reports:
            if not self._positioned:  # a player that tells its playhead is believed by that alone
                self._fold_state(now, None)
                self._sign_at = now
            self._note_delivery(track, start_ms, duration_ms)
        else:
            self._fold_delivery(now)
            self._note_delivery(track, start_ms, duration_ms)
            self._fill(track, start_ms, duration_ms, now)
        self._emit_if_due(now)

    def switch(self, content: str, now: float) -> None:
        """The same player turns to another title."""
        if content == self.content:
            return
        self._fold(now)
        self._flush(now, last=True)
        self.content = content
        self._position_ms, self._placed = 0.0, False
        self._delivered.clear()
        self._delivered_ms.clear()
        self._level_ms.clear()
        self._stretch = _Stretch()
        if self.phase is Phase.ACTIVE:
            self._emit(SWITCH, now)

    def tick(self, now: float) -> None:
        """Let time pass."""
        if not self.reports:
            self._fold_delivery(now)
        if self.phase is not Phase.ACTIVE:
            return
        if now - self._pulse_at >= CLOSE_S:
            self._flush(now, last=True)
            self.phase = Phase.CLOSED
            return
        self._emit_if_due(now)

    def flush(self, now: float) -> None:
        """Make a pulse due for what has been counted, ahead of its time."""
        self._fold(now)
        self._flush(now)

    def close(self, now: float) -> None:
        """End the session: count what is proven and make the last pulse due."""
        self._fold(now)
        if self.phase is Phase.ACTIVE:
            self._flush(now, last=True)
            self.phase = Phase.CLOSED

    # -- what is asked

    @property
    def wake_at(self) -> float | None:
        """When ``tick`` is due; None while nothing plays."""
        if self.phase is not Phase.ACTIVE:
            return None
        due_at = self._pulse_at + self._interval_s
        if self._pending_ms >= 1:
            return due_at + (self._grace_s if self._unconfirmed else 0.0)
        return due_at if not self.reports and self.playing else self._pulse_at + CLOSE_S

    @property
    def playing(self) -> bool:
        """Whether playback advances, as far as anybody can tell."""
        return self.state == "p" if self.reports else max(self._level_ms.values(), default=0.0) > 0

    @property
    def position_ms(self) -> int:
        """The playhead, reported or worked out, in media ms."""
        return min(max(int(self._position_ms), 0), _POSITION_LIMIT_MS)

    def lead_ms(self, track: str, now: float) -> float:
        """Return how much of ``track`` went out and cannot have been played yet; 0 for reporting players."""
        self._fold(now)
        return 0.0 if self.reports else self._level_ms.get(track, 0.0)

    def take(self) -> list[PulseDue]:
        """Return the pulses due since the last call, in order."""
        due, self._due = self._due, []
        return due

    # -- reporting players

    def _in_order(self, event: PlayerEvent) -> bool:
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

    def _when(self, event: PlayerEvent, now: float) -> float:
        """Place an event on our clock: by the player's own, at most 5 s back and never ahead."""
        if event.ts_ms is None or not 0 <= event.ts_ms < 2**53:
            return now
        self._ts_ms = event.ts_ms
        self._offset_ms = min(self._offset_ms, now * 1000 - event.ts_ms)
        at = (event.ts_ms + self._offset_ms) / 1000
        return min(max(at, now - LATE_EVENT_S, self._folded_at), now)

    def _checked_position(self, event: PlayerEvent) -> float | None:
        if event.position_ms is None:
            return None
        if not 0 <= event.position_ms <= _POSITION_LIMIT_MS:
            self.lies["bad_position"] += 1
            return None
        return float(event.position_ms)

    def _set_rate(self, rate: float | None) -> None:
        if rate is None or rate == 0:  # 0: stands still, which the state says as well
            return
        if not RATE_MIN <= rate <= RATE_MAX:
            self.lies["bad_rate"] += 1
            rate = min(max(rate, RATE_MIN), RATE_MAX)
        self._rate = rate

    def _set_state(self, state: str, now: float) -> None:
        if state == "k":
            self._stretch = _Stretch()
        self.state = state
        if state == "p":
            self._begin(now)
        elif state in "eqf":
            self._flush(now, last=True)

    def _fold_state(self, at: float, position: float | None) -> None:
        """Count from the last fold to ``at`` in the present state; ``position`` is the playhead there."""
        wall_ms = min(at - self._folded_at, SILENCE_S) * 1000
        if wall_ms <= 0:
            return
        if at - self._folded_at > SILENCE_S and self.state == "p":
            self.lies["silence"] += 1
        self._folded_at = at
        if self.state != "p":
            return
        media_ms = wall_ms * self._rate
        if position is not None and self._placed:
            moved_ms = position - self._position_ms
            if moved_ms < 0 or moved_ms > media_ms + _JUMP_MS:  # a seek nobody told of
                self._stretch = _Stretch()
                media_ms = min(media_ms, max(moved_ms, 0.0))
            else:
                media_ms = moved_ms
        stretch = self._stretch
        room_ms = max(self._delivered_ms.values(), default=0) + SLACK_MS - stretch.media_ms
        media_ms = max(min(media_ms, room_ms), 0.0) if self._delivered else 0.0
        self._position_ms += media_ms
        stretch.wall_ms += wall_ms
        stretch.media_ms += media_ms
        stretch.media_wall_ms += media_ms / self._rate
        counted_ms = min(stretch.wall_ms, stretch.media_wall_ms)
        if counted_ms > stretch.counted_ms:
            self._count(counted_ms - stretch.counted_ms)
            stretch.counted_ms = counted_ms

    # -- players that only fetch

    def _fill(self, track: str, start_ms: int, duration_ms: int, now: float) -> None:
        stretch = self._stretch
        newest = stretch.newest.get(track, start_ms)
        if abs(start_ms - newest) > LEAD_MS:  # a seek: what was buffered is thrown away
            self._level_ms.clear()
            self._stretch = stretch = _Stretch()
            self._placed = False
        if not self._placed:
            self._position_ms, self._placed = float(start_ms), True
        stretch.newest[track] = start_ms
        seen = stretch.seen.setdefault(track, set())
        if start_ms not in seen and len(seen) < _SEGMENTS_LIMIT:
            seen.add(start_ms)
            level = self._level_ms.get(track, 0.0) + duration_ms
            self._level_ms[track] = min(level, LEAD_MS + duration_ms)
        self._begin(now)

    def _fold_delivery(self, now: float) -> None:
        wall_ms = (now - self._folded_at) * 1000
        if wall_ms <= 0:
            return
        self._folded_at = now
        played_ms = min(wall_ms, max(self._level_ms.values(), default=0.0))
        for track, level in self._level_ms.items():
            self._level_ms[track] = max(level - wall_ms, 0.0)
        if played_ms > 0:
            self._position_ms += played_ms
            self._count(played_ms)

    # -- both

    def _note_delivery(self, track: str, start_ms: int, duration_ms: int) -> None:
        key = (track, start_ms)
        if key not in self._delivered and len(self._delivered) < _SEGMENTS_LIMIT:
            self._delivered.add(key)
            self._delivered_ms[track] += duration_ms
        if not self._placed:
            self._position_ms, self._placed = float(start_ms), True

    def _fold(self, now: float) -> None:
        if self.reports:
            return  # what the player has not confirmed yet does not count
        self._fold_delivery(now)

    def _count(self, wall_ms: float) -> None:
        self._pending_ms += wall_ms
        self.counted_ms += wall_ms

    def _begin(self, now: float) -> None:
        """Playback runs: open the session, or show that it is back after a long pause."""
        since_s = now - self._pulse_at
        if self.phase is Phase.ACTIVE and since_s < CLOSE_S:
            if since_s >= self._interval_s:
                self._emit(ACTIVE, now)
            return
        self._flush(now, last=True)
        state = START if self.phase is Phase.IDLE else RETURN
        self.phase = Phase.ACTIVE
        self._emit(state, now)

    @property
    def _grace_s(self) -> float:
        return min(GRACE_S, self._interval_s / 2)

    @property
    def _unconfirmed(self) -> bool:
        """Whether playback may have advanced past what the player has confirmed."""
        return self.reports and self.state == "p"

    def _emit_if_due(self, now: float) -> None:
        since_s = now - self._pulse_at
        if self.phase is not Phase.ACTIVE or since_s < self._interval_s:
            return
        if not self._unconfirmed or self._sign_at >= now or since_s >= self._interval_s + self._grace_s:
            self._flush(now)

    def _flush(self, now: float, *, last: bool = False) -> None:
        if self._pending_ms >= 1 and self.phase is Phase.ACTIVE:
            self._emit(ACTIVE, now, last=last)

    def _emit(self, state: int, now: float, *, last: bool = False) -> None:
        """Make a pulse due; only a ``last`` one may claim wall time that earlier pulses left unclaimed."""
        since_ms = (now - self._pulse_at) * 1000
        delta_ms = 0
        if state == ACTIVE:
            room_ms = since_ms + (self._unclaimed_ms if last else 0.0)
            delta_ms = int(min(self._pending_ms, room_ms, MAX_DELTA_MS))
            self._pending_ms -= delta_ms
            self._unclaimed_ms += since_ms - delta_ms
        self._pulse_at = now
        self._due.append(PulseDue(state, self.content, delta_ms, self.position_ms, now))
