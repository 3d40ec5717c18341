"""A village's timetable: when its uplink is there and where, who falls when, when films come out."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

AWAY_S, THERE_S = (30.0, 90.0), (20.0, 45.0)
LATE = 2
LATE_SHARE = (0.25, 0.45)
"""Those boxes are away from the start until so much of the time has passed."""
DOWN_S = (1.0, 15.0)
FALL_EVERY_S = 400.0
"""Each box falls once in so long, and at least once."""
LAST_FALL = 0.85
FIRST_FILMS, FILM_EVERY_S, LAST_FILM = 2, 180.0, 0.6


class Opening(NamedTuple):
    """The uplink: from when to when, at which box, and whether it ends without a word."""

    at_s: float
    until_s: float
    door: int
    silent: bool


class Fall(NamedTuple):
    """A box's end: when, and for how long."""

    at_s: float
    down_s: float


class Timetable(NamedTuple):
    """All that will happen: ``falls`` by box, ``films`` the moments at which more are published."""

    openings: list[Opening]
    falls: list[list[Fall]]
    films: list[float]
    last_door: int


def draw(random: Random, boxes: int, length_s: float) -> Timetable:
    """Draw the timetable of ``length_s`` seconds."""
    openings = list[Opening]()
    at_s = random.uniform(*AWAY_S)
    while (until_s := at_s + random.uniform(*THERE_S)) < length_s:
        openings.append(Opening(at_s, until_s, random.randrange(boxes), random.random() < 0.5))
        at_s = until_s + random.uniform(*AWAY_S)
    late = set(random.sample(range(boxes), LATE))
    falls = [_falls(random, length_s, late=box in late) for box in range(boxes)]
    count = int(length_s * LAST_FILM // FILM_EVERY_S) or 1
    films = sorted(random.uniform(0.05, LAST_FILM) * length_s for _ in range(count))
    return Timetable(openings, falls, films, random.randrange(boxes))


def _falls(random: Random, length_s: float, *, late: bool) -> list[Fall]:
    first = [Fall(0.0, random.uniform(*LATE_SHARE) * length_s)] if late else []
    count = max(1, round(length_s / FALL_EVERY_S))
    moments = sorted(random.uniform(0.5 if late else 0.05, LAST_FALL) * length_s for _ in range(count))
    return [*first, *(Fall(at_s, random.uniform(*DOWN_S)) for at_s in moments)]
