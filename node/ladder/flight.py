"""Flights: the requests under way for one wanted block, and what a ladder tells its shell to do."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from ...protocol.cid import Cid
from ...protocol.ports import Source, TierName
from .budget import Budget
from .health import Health

PACE_S = 0.1
"""How long bytes are watched before they say how fast a source is."""


class Start(NamedTuple):
    """Ask ``source`` for ``cid``; report under ``flight``. ``hedge`` marks a second copy."""

    flight: int
    cid: Cid
    source: Source
    title: str
    hedge: bool


class Cancel(NamedTuple):
    """Stop a flight; nothing it reports any more is heard."""

    flight: int


class GiveUp(NamedTuple):
    """The deadline passed: ``missing`` where all who answered lack the block, else ``unreachable``."""

    cid: Cid
    reason: str


class Switched(NamedTuple):
    """Another tier serves now than before; ``took_ms`` is how long the first such block took."""

    before: TierName
    after: TierName
    cause: str
    took_ms: int


Effect = Start | Cancel | GiveUp | Switched


@dataclass(slots=True, eq=False)
class Flight:
    """One request under way; a late one is ``overdue`` until it shows that it is quick.

    A ``bare`` one races for the first byte alone, with nothing set aside for its bytes; one that ``lingers``
    is a probe whose block came from elsewhere meanwhile, and that may still prove its source alive.
    """

    number: int
    want: Want
    source: Source
    health: Health
    started: float
    patience_s: float
    watched: bool
    probe: bool
    bare: bool
    silences: int
    last_at: float
    bytes: int = 0
    first_at: float | None = None
    mark_at: float = 0.0
    mark_bytes: int = 0
    rate_bytes_s: float = 0.0
    gap_s: float = 0.0
    landed_at: float | None = None
    doubled_bytes: int = 0
    overdue: bool = False
    lingers: bool = False

    @property
    def delivers(self) -> bool:
        """Whether its bytes come, or may come unseen."""
        return bool(self.bytes) or not self.watched

    @property
    def wasted_bytes(self) -> int:
        """Return what came while another delivered too: the whole block where nobody sees its bytes come.

        The rest would be lost as well if the flight were simply left: that is its source's doing.
        """
        return self.doubled_bytes if self.watched else self.want.size

    @property
    def lateness(self) -> str:
        """Say in one word how it is late."""
        return "slow" if self.bytes else "silent"

    def pace_bytes_s(self, now: float) -> float:
        """Return the rate of the last moments, the one before while there is too little to tell."""
        window_s = now - self.mark_at
        fresh = self.bytes - self.mark_bytes
        return fresh / window_s if fresh and window_s >= PACE_S / 2 else self.rate_bytes_s


@dataclass(slots=True, eq=False)
class Want:
    """One wanted block: for whom, since when, and every flight that might bring it."""

    cid: Cid
    title: str
    film: Budget
    size: int
    since: float
    deadline: float
    buffer_s: float | None
    urgent: bool
    wake: float = 0.0
    cause: str = ""
    stage: int = 0
    refusals: int = 0
    troubles: int = 0
    held_bytes: int = 0
    lost_bytes: int = 0
    most_bytes: int = 0
    shun: frozenset[TierName] = frozenset()
    failures: Counter[TierName] = field(default_factory=Counter[TierName])
    silences: Counter[TierName] = field(default_factory=Counter[TierName])
    flights: dict[int, Flight] = field(default_factory=dict[int, "Flight"])

    def slack_s(self, now: float) -> float:
        """Return how long the player can still wait; without end where it does not say."""
        return float("inf") if self.buffer_s is None else self.buffer_s - (now - self.since)

    def lose(self, doubled_bytes: int) -> None:
        """Note what a flight that has ended brought beside others."""
        self.lost_bytes += doubled_bytes
        self.most_bytes = max(self.most_bytes, doubled_bytes)

    @property
    def in_vain_bytes(self) -> int:
        """What came more than once so far: all that came while several delivered, but for the most of one."""
        return self.lost_bytes - self.most_bytes

    def asked(self) -> list[Flight]:
        """Return the flights that somebody was asked for: all but the wait for the carousel."""
        return [one for one in self.flights.values() if one.source.tier is not TierName.SATELLITE]

    def busy(self) -> set[Source]:
        """Return the sources that are being asked already."""
        return {one.source for one in self.flights.values()}
