"""Viewing: from what a player does to the milliseconds that count, one player session at a time.

Counted is wall time in which playback advanced: min(time in state *playing*, media advanced / rate,
wall), and media may advance only through what was delivered. Three kinds of evidence, the best one
that a player gives: its events (CMCD v2, event mode) are believed up to its last sign of life; the
buffer it names in its requests (CMCD v1 and v2) places its playhead, and what lies between two such
places counts; a player that tells nothing is taken to play what was delivered to it, in real time.
IDLE -> ACTIVE -> CLOSED; a pulse is due at the start, each interval, at a return after CLOSED and at
a change of title. Times are seconds on the caller's monotonic clock.

Over 400 lines because one session's three kinds of evidence feed one count and one row of pulses.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum
from math import inf
from typing import NamedTuple

from .playerclock import POSITION_LIMIT_MS, PlayerClock, PlayerEvent
from .playout import LEAD_MS, Playout
from .pulse import ACTIVE, MAX_DELTA_MS, RETURN, START, SWITCH
from .stretch import Stretch
from .wall import Wall

__all__ = ["INTERVAL_S", "LEAD_MS", "Basis", "Phase", "PlayerEvent", "PulseDue", "ViewingSession"]

INTERVAL_S = 60.0
CLOSE_S = 300.0
"""Five minutes without a pulse end a session, here and in the origin's rules."""
SILENCE_S = 65.0
"""A player said to be playing is believed this long without another sign of life."""
GRACE_S = 5.0
"""How long a due pulse waits for the player's next sign of life, so that it is up to date."""
SLACK_MS = 4_000
"""Media may play this much before its delivery is noted: two segments on their way."""
_SEGMENTS_LIMIT = 100_000
_JUMP_MS = 2_000
_ROUNDING_MS = 250
"""Players round their buffer to tenths of a second."""


class Phase(Enum):
    """Where a player session is in its life."""

    IDLE = "idle"
    ACTIVE = "active"
    CLOSED = "closed"


class Basis(Enum):
    """What a session is counted by."""

    DELIVERY = "delivery"
    REQUESTS = "requests"
    EVENTS = "events"


class PulseDue(NamedTuple):
    """A pulse to sign: ``state`` as in ``pulse.Viewing``, ``delta_ms`` counted since the last one."""

    state: int
    content: str
    delta_ms: int
    position_ms: int
    at: float


class ViewingSession:
    """One player's session: feed it events and deliveries, call ``tick`` at ``wake_at``, ``take`` pulses."""

    def __init__(self, content: str, *, interval_s: float = INTERVAL_S, wall: Wall | None = None) -> None:
        """Begin IDLE with the title ``content``; pulses come each ``interval_s`` while it plays.

        Sessions that share a ``wall`` never count one second twice.
        """
        self.content = content
        self.phase = Phase.IDLE
        self.basis = Basis.DELIVERY
        self.counted_ms = 0.0
        self.state = ""
        self._wall = wall or Wall()
        self._clock = PlayerClock()
        self._playout = Playout()
        self._interval_s = interval_s
        self._rate = 1.0
        self._position_ms = 0.0
        self._placed = self._positioned = self._advances = self._away = False
        self._voice = ""
        self._folded_at = self._sign_at = self._pulse_at = -inf
        self._pending_ms = self._unclaimed_ms = 0.0
        self._stretch = Stretch()
        self._delivered: set[tuple[str, int]] = set()
        self._delivered_ms: Counter[str] = Counter()
        self._due: list[PulseDue] = []

    # -- what happens

    def receive(self, event: PlayerEvent, now: float) -> None:
        """Fold one player event; an old or repeated one is counted as a lie and changes nothing."""
        if not self._clock.in_order(event):
            return
        self._trust(Basis.EVENTS, now)
        at = max(self._clock.when(event, now), self._folded_at)
        position = self._clock.position_ms(event)
        self._fold_state(at, position)
        self._positioned = position is not None
        if position is not None:
            self._position_ms, self._placed = position, True
        self._rate = self._clock.rate(event, self._rate)
        if event.state:
            self._set_state(event.state, now)
        self._sign_at = now
        self._emit_if_due(now)

    def requested(
        self, event: PlayerEvent, track: str, start_ms: int, buffer_ms: int | None, now: float
    ) -> None:
        """Fold what a player says with its request for the segment of ``track`` at ``start_ms``.

        Its playhead is ``buffer_ms`` (CMCD ``bl``) before that segment, unless it names it; a request
        that tells neither changes nothing.
        """
        position = self._clock.position_ms(event)
        if position is None and buffer_ms is not None:
            if 0 <= buffer_ms <= start_ms + _JUMP_MS:
                position = max(float(start_ms - buffer_ms), 0.0)
            else:
                self.lies["bad_buffer"] += 1
        if position is None:
            return
        if self.basis is Basis.EVENTS:  # they count; this only says where
            if not self._positioned and track == "video":
                self._fold_state(now, None)
                self._position_ms, self._placed, self._sign_at = position, True, now
            return
        self._trust(Basis.REQUESTS, now)
        if track != self._voice:
            if self._voice and track != "video":
                return  # the playheads of two tracks differ by their rounding; one speaks
            self._voice, self._placed = track, False
        self._fold_place(position, self._clock.rate(event, self._rate), now)
        self.state = event.state or self.state
        self._begin(now)
        self._emit_if_due(now)

    def delivered(
        self,
        track: str,
        start_ms: int,
        duration_ms: int,
        now: float,
        *,
        rendition: int = 0,
        again_ms: int = 0,
    ) -> None:
        """Hear that a media segment of ``video`` or ``audio`` went out whole; see ``Playout.fill``."""
        if duration_ms <= 0 or start_ms < 0:
            return
        if self.basis is Basis.DELIVERY:
            self._away = False
            self._fold_delivery(now)
            self._playout.fill(track, start_ms, duration_ms, rendition, again_ms=again_ms)
            self._begin(now)
        elif self.basis is Basis.EVENTS and not self._positioned:
            self._fold_state(now, None)  # one that tells its playhead is believed by that alone
            self._sign_at = now
        self._note_delivery(track, start_ms, duration_ms)
        self._emit_if_due(now)

    def left(self, now: float) -> None:
        """Hear that a player counted by delivery has closed its connections: it plays no more."""
        self._fold(now)
        self._away = True

    def began_again(self, now: float) -> None:
        """Hear that a player which had ``left`` starts from its playlist: what it had buffered is gone."""
        if self._away:
            self._away, self._folded_at = False, now
            self._playout.clear()

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
        self._playout.clear()
        self._stretch = Stretch()
        if self.phase is Phase.ACTIVE:
            self._emit(SWITCH, now)

    def tick(self, now: float) -> None:
        """Let time pass."""
        self._fold(now)
        if now - self._folded_at > SILENCE_S:
            self._advances = False
        if self.phase is not Phase.ACTIVE:
            return
        if now - self._pulse_at >= CLOSE_S:
            self.close(now)
        else:
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
    def lies(self) -> Counter[str]:
        """What this player said that cannot be true, by reason."""
        return self._clock.lies

    @property
    def reports(self) -> bool:
        """Whether the player tells of its playback, by events or with its requests."""
        return self.basis is not Basis.DELIVERY

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
        if self.basis is Basis.EVENTS:
            return self.state == "p"
        if self.basis is Basis.REQUESTS:
            return self._advances
        return self._playout.playing and not self._away

    @property
    def position_ms(self) -> int:
        """The playhead, reported or worked out, in media ms."""
        position_ms = self._position_ms if self.reports else self._playout.position_ms
        return min(max(int(position_ms), 0), POSITION_LIMIT_MS)

    def lead_ms(self, track: str, now: float) -> float:
        """Return how much of ``track`` is out and unplayed at normal speed; 0 for reporting players."""
        self._fold(now)
        return 0.0 if self.reports else self._playout.lead_ms(track)

    def wait_ms(
        self, track: str, start_ms: int, now: float, *, again_ms: int = 0, last: bool = False
    ) -> float:
        """Return how long a segment has to wait until it may go out; 0 for reporting players."""
        self._fold(now)
        return 0.0 if self.reports else self._playout.wait_ms(track, start_ms, again_ms, last=last)

    def take(self) -> list[PulseDue]:
        """Return the pulses due since the last call, in order."""
        due, self._due = self._due, []
        return due

    # -- players that tell of themselves

    def _trust(self, basis: Basis, now: float) -> None:
        """Count by better evidence from now on."""
        if self.basis is basis:
            return
        self._fold(now)
        self.basis = basis
        self._playout.clear()
        self._voice, self._placed, self._advances = "", False, False
        self._folded_at = now
        self._stretch = Stretch()

    def _set_state(self, state: str, now: float) -> None:
        if state == "k":
            self._stretch = Stretch()
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
                self._stretch = Stretch()
                media_ms = min(media_ms, max(moved_ms, 0.0))
            else:
                media_ms = moved_ms
        self._advance(wall_ms, media_ms, self._rate, _JUMP_MS, at)

    def _fold_place(self, position: float, rate: float, now: float) -> None:
        """Count from the last place of the playhead to ``position``; a jump between them counts nothing."""
        wall_ms = (now - self._folded_at) * 1000
        before, self._rate = self._rate, rate
        if self._placed and wall_ms > 0:
            fastest = max(before, rate)
            moved_ms = position - self._position_ms
            if -_ROUNDING_MS <= moved_ms <= wall_ms * fastest + _ROUNDING_MS:
                self._advances = moved_ms > 0
                self._advance(wall_ms, moved_ms, fastest, _ROUNDING_MS, now)
            else:
                self._stretch = Stretch()
        self._position_ms, self._placed = position, True
        self._folded_at = now

    def _advance(self, wall_ms: float, media_ms: float, rate: float, slack_ms: float, at: float) -> None:
        """Let playback advance by ``media_ms``, through what was delivered; count what the bounds allow."""
        if media_ms > 0:
            room_ms = max(self._delivered_ms.values(), default=-SLACK_MS) + SLACK_MS - self._stretch.media_ms
            media_ms = max(min(media_ms, room_ms), 0.0)
        self._position_ms += media_ms
        counted_ms = self._stretch.advance(wall_ms, media_ms, rate, slack_ms)
        began = at - wall_ms / 1000
        self._count(min(counted_ms, wall_ms), began, at)
        if counted_ms > wall_ms:
            self._count(counted_ms - wall_ms, began - slack_ms / 1000, began)

    # -- players that only fetch

    def _fold_delivery(self, now: float) -> None:
        wall_ms = (now - self._folded_at) * 1000
        if wall_ms <= 0 or self._away:
            return
        began, self._folded_at = self._folded_at, now
        played_ms = self._playout.advance(wall_ms)
        self._count(played_ms, began, now)

    # -- both

    def _note_delivery(self, track: str, start_ms: int, duration_ms: int) -> None:
        key = (track, start_ms)
        if key not in self._delivered and len(self._delivered) < _SEGMENTS_LIMIT:
            self._delivered.add(key)
            self._delivered_ms[track] += duration_ms
        if not self._placed and self.basis is Basis.EVENTS:
            self._position_ms, self._placed = float(start_ms), True

    def _fold(self, now: float) -> None:
        if not self.reports:  # what a reporting player has not confirmed yet does not count
            self._fold_delivery(now)

    def _count(self, counted_ms: float, began: float, at: float) -> None:
        if counted_ms <= 0:
            return
        claimed_ms = self._wall.claim(began, at, counted_ms)
        self._pending_ms += claimed_ms
        self.counted_ms += claimed_ms

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
        return self.basis is Basis.EVENTS and self.state == "p"

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
