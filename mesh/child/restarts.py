"""When a child process that ended is started again: soon at first, ever later, and then for long not at all.

A pure core. Whoever can end the child from outside can do so again at once, so how often it is started
is bounded over any stretch of time, whatever it dies of.
"""

from __future__ import annotations

from collections import deque
from typing import Literal, NamedTuple

State = Literal["waiting", "running", "off"]


class Limits(NamedTuple):
    """Times in seconds; at most ``starts`` within ``window_s``, then none for ``off_s``.

    After ``impossible_s`` one that cannot be started at all is tried again.
    """

    first_s: float = 1.0
    last_s: float = 60.0
    steady_s: float = 120.0
    starts: int = 5
    window_s: float = 600.0
    off_s: float = 3_600.0
    impossible_s: float = float("inf")


class Restarts:
    """Decides over one child; time in seconds of one clock that never runs backward."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._starts: deque[float] = deque()
        self._pause_s = self._limits.first_s
        self._start_at = float("-inf")
        self._started_at = 0.0
        self.state: State = "waiting"

    @property
    def start_at(self) -> float | None:
        """When the child is to be started, None while it runs."""
        return None if self.state == "running" else self._start_at

    def started(self, now: float) -> None:
        """Note that the child was started."""
        self._starts.append(now)
        self._started_at = now
        self.state = "running"

    def ended(self, now: float) -> None:
        """Note that the child ended, whatever the reason."""
        limits = self._limits
        while self._starts and self._starts[0] <= now - limits.window_s:
            self._starts.popleft()
        if len(self._starts) >= limits.starts:
            self._starts.clear()
            self._pause_s = limits.first_s
            self._start_at = now + limits.off_s
            self.state = "off"
            return
        if now - self._started_at >= limits.steady_s:
            self._pause_s = limits.first_s
        self._start_at = now + self._pause_s
        self._pause_s = min(self._pause_s * 2, limits.last_s)
        self.state = "waiting"

    def impossible(self, now: float) -> None:
        """Note that it cannot be started at all, so for long, or until told, nothing tries again."""
        self._start_at = now + self._limits.impossible_s
        self.state = "off"

    def again(self) -> None:
        """Begin anew, because the operator says so; a child that runs is left alone."""
        self._starts.clear()
        self._pause_s = self._limits.first_s
        if self.state != "running":
            self._start_at = float("-inf")
            self.state = "waiting"
