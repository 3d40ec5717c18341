"""The rota: which generation of which title is next on air.

A title's generations go out one after the other, one cycle each: a turn. How often a title has its
turn follows the square-root rule of broadcast scheduling (Ammar and Wong 1985; Vaidya and Hameed
1999): the least mean wait over all viewers has a title come round every sqrt(size / weight), in one
unit for all. Each title has a time at which its next turn is due, on a clock that runs with the bytes
sent, so that nobody is forgotten, however many titles come and whatever they weigh.

Titles that were never sent go first, and may even break another's turn between two generations; those
that come meanwhile wait until at least one more generation of an older title is out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from math import sqrt
from typing import NamedTuple

WEIGHT_MIN, WEIGHT_MAX = 0.01, 100.0


class Planned(NamedTuple):
    """One generation to send: ``symbols`` of ``symbol_bytes`` hold its ``length`` bytes."""

    number: int
    label: str
    length: int
    symbols: int
    symbol_bytes: int


class Feature(NamedTuple):
    """A title on air: its generations in order; with weight 4 it has its turn twice as often as with 1."""

    label: str
    plans: tuple[Planned, ...]
    weight: float = 1.0


class _Row:
    """One title's place: ``at`` is its next generation, ``due`` its next turn on the rota's clock.

    ``interval`` is the time between two turns, ``bytes_per_tick`` what that takes of the air.
    """

    def __init__(self, feature: Feature, due: float) -> None:
        self.at = 0
        self.due = due
        self.is_new = True
        self.size_bytes = sum(plan.length for plan in feature.plans)
        self.weigh(feature)

    def weigh(self, feature: Feature) -> None:
        """Take the same generations with another weight."""
        self.feature = feature
        weight = min(max(feature.weight, WEIGHT_MIN), WEIGHT_MAX)
        self.interval = sqrt(self.size_bytes / weight)
        self.bytes_per_tick = self.size_bytes / self.interval

    @property
    def plan(self) -> Planned:
        """The generation that goes out when the title is chosen."""
        return self.feature.plans[self.at]


class Rota:
    """``current`` is on air; ``advance`` says that its cycle is through."""

    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}
        self._clock = 0.0
        self._on: str | None = None
        self._broken: str | None = None
        self._first: set[str] = set()
        self._newcomers = 0
        self._bytes_per_tick = 1.0
        self._next: Planned | None = None

    @property
    def plans(self) -> list[Planned]:
        """Every generation, by title."""
        return [plan for row in self._rows.values() for plan in row.feature.plans]

    @property
    def current(self) -> Planned | None:
        """What is on air, None where there is nothing."""
        return self._rows[self._on].plan if self._on is not None else None

    @property
    def following(self) -> Planned | None:
        """What is on air after ``current`` if nothing changes; maybe the same again."""
        if self._next is None and self._on is not None:
            self._next = next(self.forecast())
        return self._next

    def replace(self, features: Sequence[Feature]) -> None:
        """Change what is on air; a title whose generations stay goes on where it was.

        Titles without generations, and a second title of a name, are left out.
        """
        before, self._rows = self._rows, {}
        for feature in features:
            if feature.label in self._rows or not feature.plans:
                continue
            old = before.get(feature.label)
            if old is not None and old.feature.plans == feature.plans:
                old.weigh(feature)
                self._rows[feature.label] = old
            else:
                self._rows[feature.label] = _Row(feature, self._clock)
        kept = {label for label, row in self._rows.items() if row is before.get(label)}
        self._on = self._on if self._on in kept else None
        self._broken = self._broken if self._broken in kept else None
        self._next = None
        self._newcomers = sum(row.is_new for row in self._rows.values())
        self._bytes_per_tick = sum(row.bytes_per_tick for row in self._rows.values()) or 1.0
        if self._newcomers == len(self._rows):
            self._first = {*self._rows}
        if self._on is None:
            self._choose()

    def advance(self) -> None:
        """Go on to the next generation."""
        self._next = None
        if self._on is None:
            return
        row = self._rows[self._on]
        self._clock += row.plan.length / self._bytes_per_tick
        row.at += 1
        if self._newcomers and not row.is_new:
            self._first = {label for label, one in self._rows.items() if one.is_new}
        if row.at == len(row.feature.plans):
            self._newcomers -= row.is_new
            row.at, row.is_new = 0, False
            row.due = max(row.due, self._clock - row.interval) + row.interval
            self._on = None
        self._choose()

    def forecast(self) -> Iterator[Planned]:
        """Tell what follows ``current``, for ever, if nothing changes."""
        ahead = copy(self)
        ahead._rows = {label: copy(row) for label, row in self._rows.items()}  # noqa: SLF001 - a copy of itself
        while ahead._on is not None:  # noqa: SLF001 - as above
            ahead.advance()
            plan = ahead.current
            if plan is not None:
                yield plan

    def _choose(self) -> None:
        """Say whose generation is next: a new title's, the turn's under way, or the one due first."""
        under_way = self._rows.get(self._on) if self._on is not None else None
        if under_way is not None and (under_way.is_new or not self._newcomers):
            return
        old = [row for row in self._rows.values() if not row.is_new]
        new = [label for label, row in self._rows.items() if row.is_new and (label in self._first or not old)]
        if new:
            self._broken = self._on or self._broken
            self._on = new[0]
        elif under_way is None and self._broken is not None:
            self._on, self._broken = self._broken, None
        elif under_way is None:
            first = min(old, key=lambda row: row.due, default=None)
            self._on = first.feature.label if first is not None else None
