"""The trail of a player: which tier each of its last segments came from, and what it waits for now."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from ..ladder.supply import Arrival

STEPS_KEPT = 60
FRESH_S = 30.0
"""A block that came longer ago than this was on the disk when it was asked for."""
HERE = "here"


class Step(NamedTuple):
    """One segment that went to a player whole: where in the film it is and which way it came.

    ``tier`` is a tier's label, or ``here`` for what this box held already; ``took_ms`` is the
    longest flight of its blocks, 0 where none was needed.
    """

    start_ms: int
    tier: str
    took_ms: int


class Trail:
    """The last 60 segments of each track, the count of verified blocks, and since when the player waits."""

    def __init__(self) -> None:
        self._tracks: dict[str, deque[Step]] = {}
        self._asked_at: dict[str, float] = {}
        self.blocks = 0

    def asked(self, track: str, now: float) -> None:
        """Note that a segment is to be brought now: the player waits."""
        self._asked_at.setdefault(track, now)

    def came(self, track: str) -> None:
        """Note that one of this track went out, or is not wanted any more."""
        self._asked_at.pop(track, None)

    def waits_s(self, now: float) -> float:
        """Return for how long the player has waited for a segment, 0 where it has all it asked for."""
        return max((now - at for at in self._asked_at.values()), default=0.0)

    def add(self, track: str, start_ms: int, arrivals: Iterable[Arrival | None], now: float) -> None:
        """Note a segment that went out whole; one arrival for each of its blocks, None: held for long."""
        known = [*arrivals]
        self.blocks += len(known)
        fresh = [one for one in known if one is not None and now - one.at <= FRESH_S]
        last = max(fresh, key=lambda one: (one.took_ms, one.tier), default=None)
        step = Step(start_ms, last.tier.label, last.took_ms) if last else Step(start_ms, HERE, 0)
        self._tracks.setdefault(track, deque(maxlen=STEPS_KEPT)).append(step)

    def steps(self) -> list[Step]:
        """Return the last segments, oldest first: of the picture, of the sound where there is none."""
        return list(self._tracks.get("video") or self._tracks.get("audio") or ())
