"""What was seen of one playback: how it began, where the picture stood still, and whose fault that was."""

from __future__ import annotations

from typing import NamedTuple, Protocol

DRY_S = 1.0
"""A picture that stands still with less than this buffered waits for data; players stop a little early."""


class Gap(NamedTuple):
    """A picture that stood still for ``ms`` at ``at_s``, with ``ahead_s`` buffered as it stopped.

    ``late_ms`` is how late the watcher itself was woken meanwhile.
    """

    at_s: float
    ms: int
    ahead_s: float
    late_ms: float

    @property
    def is_stall(self) -> bool:
        """Whether the film ran dry; else the machine had no time to show what was there."""
        return self.ahead_s < DRY_S and self.late_ms < self.ms / 2


class Seen(NamedTuple):
    """One playback so far."""

    startup_ms: int | None
    gaps: list[Gap]
    errors: list[str]
    samples: int
    late_ms: float

    @property
    def stall_ms(self) -> int:
        """How long the film stood still for want of data."""
        return sum(gap.ms for gap in self.gaps if gap.is_stall)

    @property
    def starved_ms(self) -> int:
        """How long it stood still because the machine was busy."""
        return sum(gap.ms for gap in self.gaps if not gap.is_stall)


class Moment(NamedTuple):
    """Where a player is."""

    position_s: float
    ahead_s: float
    started: bool


class Player(Protocol):
    """A real player that is watched."""

    async def play(self, url: str) -> None:
        """Open a film's address and play it."""
        ...

    async def now(self) -> Moment:
        """Return where it is."""
        ...

    async def seen(self) -> Seen:
        """Return what was seen of it so far."""
        ...
