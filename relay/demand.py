"""How much each title is asked for, and which new ones to bring before anybody asks. Pure.

Counts are of requests, halved each day; nothing is known of who asked.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

HALF_LIFE_MS = 86_400_000
NEW_MS = 14 * 86_400_000
"""A title is new for so long; what is older is brought when it is asked for."""
FADE_MS = 3 * 86_400_000
UNKNOWN_DEMAND = 1.0
"""Requests expected of a new title whose publisher's titles nobody asked for yet."""
TITLES_KEPT = 4_096
HOUR_MS = 3_600_000


class _Asked(NamedTuple):
    requests: float
    at_ms: int


class Demand:
    """Requests by title, fading; the titles asked for longest ago are forgotten first."""

    def __init__(self, *, limit: int = TITLES_KEPT) -> None:
        self._limit = limit
        self._titles: OrderedDict[str, _Asked] = OrderedDict()

    def __len__(self) -> int:
        """How many titles are remembered."""
        return len(self._titles)

    def asked(self, title: str, now_ms: int, requests: int = 1) -> None:
        """Count requests for a title."""
        self._titles[title] = _Asked(self.expected(title, now_ms) + requests, now_ms)
        self._titles.move_to_end(title)
        if len(self._titles) > self._limit:
            self._titles.popitem(last=False)

    def expected(self, title: str, now_ms: int) -> float:
        """Return a title's requests, those of a day ago counted half."""
        known = self._titles.get(title)
        if known is None:
            return 0.0
        return float(known.requests * 0.5 ** (max(0, now_ms - known.at_ms) / HALF_LIFE_MS))

    def last_hour_ms(self, title: str) -> int | None:
        """Return when a title was last asked for, rounded down to the hour; None where it never was."""
        known = self._titles.get(title)
        return None if known is None else known.at_ms // HOUR_MS * HOUR_MS


class Candidate(NamedTuple):
    """A listed title: whose, since when, how large, and how much of it is here."""

    title: str
    publisher: str
    listed_ms: int
    size_bytes: int
    held_bytes: int

    @property
    def missing_bytes(self) -> int:
        """What is not here yet."""
        return max(0, self.size_bytes - self.held_bytes)


class Portion(NamedTuple):
    """So much of a title is to be brought, from its beginning."""

    title: str
    size_bytes: int


def portions(
    candidates: Sequence[Candidate],
    demand: Demand,
    now_ms: int,
    room_bytes: int,
    budget: Callable[[str], int | None],
) -> list[Portion]:
    """Choose which new titles to bring now, most wanted first, into ``room_bytes`` and no further.

    ``budget`` gives the bytes a publisher may still take, None for as much as there is. A title
    nobody asked for yet is worth what its publisher's titles are worth on average, less as it ages.
    """
    usual = _usual(candidates, demand, now_ms)
    wanted: list[tuple[float, str, Candidate]] = []
    for one in candidates:
        age_ms = now_ms - one.listed_ms
        if age_ms > NEW_MS or not one.missing_bytes:
            continue
        guess = usual[one.publisher] * 0.5 ** (max(0, age_ms) / FADE_MS)
        wanted.append((max(demand.expected(one.title, now_ms), guess), one.title, one))
    left: dict[str, int | None] = {one.publisher: budget(one.publisher) for _, _, one in wanted}
    chosen: list[Portion] = []
    for _, _, one in sorted(wanted, key=lambda item: (-item[0], item[1])):
        own = left[one.publisher]
        size = min(one.missing_bytes, room_bytes, one.missing_bytes if own is None else max(0, own))
        if size <= 0:
            continue
        chosen.append(Portion(one.title, size))
        room_bytes -= size
        left[one.publisher] = None if own is None else own - size
    return chosen


def _usual(candidates: Sequence[Candidate], demand: Demand, now_ms: int) -> Mapping[str, float]:
    """Return what a publisher's titles are asked for on average, those nobody knows at least a little."""
    found: dict[str, list[float]] = {}
    for one in candidates:
        found.setdefault(one.publisher, []).append(demand.expected(one.title, now_ms))
    return {name: max(sum(counts) / len(counts), UNKNOWN_DEMAND) for name, counts in found.items()}
