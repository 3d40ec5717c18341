"""Partners in one swarm: what each holds and is bringing, what was asked of it, and how fast it is."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import NamedTuple

ASKED_LEAST_BYTES, ASKED_MOST_BYTES, ASKED_S = 512 << 10, 4 << 20, 0.15
"""Awaited of one partner at a time: what keeps its link busy for a moment, and no more than one can lose."""
ASKED_LIMIT_BLOCKS = 64
OWED_LIMIT_UNITS = 512
CLAIMS_LIMIT = 64
FIRST_PACE_S = 1.0
RATE_S = 0.2
_WEIGHT = 0.3


class Unit(NamedTuple):
    """One part of 256 KiB, the last one shorter, of one block; both count from 0."""

    block: int
    part: int


@dataclass(slots=True, eq=False)
class Partner:
    """A neighbour that holds or wants the same title, as far as its word goes.

    ``held`` has one byte a block. ``claims`` are the blocks it is bringing, each with when it said so;
    ``owed`` the units to send it, and ``waits`` those it asked for that are not here yet; ``referred`` the
    blocks for which it was sent to another, and ``refers`` those for which it sent this box to another;
    ``named`` are the claims that another said it has, with who said so. A ``seed`` had everything when it
    came. It may send ``credit_units`` more: those it was ever asked for, wanted still or not.
    """

    key: bytes
    held: bytearray
    lacks: int
    claims: OrderedDict[int, float] = field(default_factory=OrderedDict[int, float])
    offers: deque[int] = field(default_factory=deque[int])
    asked: dict[int, int] = field(default_factory=dict[int, int])
    asked_bytes: int = 0
    owed: deque[Unit] = field(default_factory=deque[Unit])
    waits: dict[Unit, bool] = field(default_factory=dict[Unit, bool])
    seed: bool = False
    referred: set[int] = field(default_factory=set[int])
    refers: set[int] = field(default_factory=set[int])
    named: dict[int, bytes] = field(default_factory=dict[int, bytes])
    heard_at: float = float("-inf")
    shun_until: float = float("-inf")
    pace_s: float = FIRST_PACE_S
    rate_bytes_s: float = 0.0
    broken_claims: int = 0
    broken_refers: int = 0
    suspicions: int = 0
    stalls: int = 0
    unasked: int = 0
    credit_units: int = 0
    sending: bool = False
    _came_bytes: int = 0
    _came_since: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether it says that it has everything."""
        return not self.lacks

    @property
    def has_room(self) -> bool:
        """Whether more may be asked of it."""
        window_bytes = min(max(ASKED_LEAST_BYTES, int(self.rate_bytes_s * ASKED_S)), ASKED_MOST_BYTES)
        return not self.asked or (self.asked_bytes < window_bytes and len(self.asked) < ASKED_LIMIT_BLOCKS)

    def brings(self, block: int) -> bool:
        """Whether it has the block or says that it is bringing it."""
        return bool(self.held[block]) or block in self.claims

    def ask(self, block: int, units: int, size_bytes: int, now: float) -> None:
        """Note that a block, or what is missing of it, is asked of it."""
        self.credit_units += units
        if not self.asked:
            self._came_bytes, self._came_since = 0, now
        self.asked[block] = size_bytes
        self.asked_bytes += size_bytes

    def came(self, block: int, size_bytes: int, now: float) -> None:
        """Note that a part of a block came from it."""
        self.heard_at, self.stalls = now, 0
        taken_bytes = min(size_bytes, self.asked.get(block, 0))
        if block in self.asked:
            self.asked[block] -= taken_bytes
        self.asked_bytes -= taken_bytes
        self._came_bytes += size_bytes
        passed_s = now - self._came_since
        if passed_s >= RATE_S:
            rate_bytes_s = self._came_bytes / passed_s
            known = self.rate_bytes_s or rate_bytes_s
            self.rate_bytes_s = known + _WEIGHT * (rate_bytes_s - known)
            self._came_bytes, self._came_since = 0, now

    def release(self, block: int) -> None:
        """Note that a block is not awaited from it any more."""
        self.asked_bytes -= self.asked.pop(block, 0)

    def took(self, seconds: float) -> None:
        """Learn how long a block that it claimed took to arrive there."""
        self.pace_s += _WEIGHT * (seconds - self.pace_s)

    def owe(self, unit: Unit, *, urgent: bool, here: bool) -> bool:
        """Queue a unit it asks for, ``here`` or awaited; False where it asks for more than anybody may."""
        if len(self.owed) + len(self.waits) >= OWED_LIMIT_UNITS:
            return False
        if not here:
            self.waits[unit] = urgent
        elif unit not in self.owed:
            self.owed.appendleft(unit) if urgent else self.owed.append(unit)
        return True

    def here(self, unit: Unit) -> None:
        """Note that a unit it may wait for can be sent now."""
        urgent = self.waits.pop(unit, None)
        if urgent is not None:
            self.owed.appendleft(unit) if urgent else self.owed.append(unit)

    def cancel(self, block: int) -> bool:
        """Forget what it waits for of a block; True where there was any."""
        units = [unit for unit in self.waits if unit.block == block]
        for unit in units:
            del self.waits[unit]
        kept = [unit for unit in self.owed if unit.block != block]
        found = bool(units) or len(kept) < len(self.owed)
        self.owed = deque(kept)
        return found
