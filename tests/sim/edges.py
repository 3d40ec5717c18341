"""Simulated sources: connections that have to be opened, windows that grow, and every way to fail.

A connection costs two round trips before the request leaves (TCP and TLS), is kept for reuse where a
block came whole, and is closed where a flight was cancelled. Its window doubles each round trip until
the line is full (RFC 5681). A fault strikes flights under way as it would real ones: a hang never
answers again, even after the source has recovered; a refusal resets what is open.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from farcast.node.ladder.flight import Start
from farcast.protocol.ports import Source
from farcast.tests.sim.world import World

FAULTS = ("refuse", "hang", "dark", "stall", "trickle", "truncate", "corrupt", "flap", "busy")
FIRST_STEP_S, STEP_S = 0.001, 0.01
"""How much of the line's time one piece is: the first is small, as the first segments of an answer are."""
KEEP_ALIVE_S = 25.0
FIRST_WINDOW_BYTES = 14_600
TRICKLE_BYTES_S = 10_000
STALL_AT, TRUNCATE_AT = 0.9, 0.6
FLAP_S = 3.0
SYN_AGAIN_S = 1.0


class Change(NamedTuple):
    """From ``since`` on a source has ``fault``; empty: it is well."""

    since: float
    fault: str


class Script:
    """How one source, or a whole tier, behaves over time."""

    def __init__(self, changes: list[Change]) -> None:
        self.changes = sorted(changes)
        self._times = [change.since for change in self.changes]

    def at(self, now: float) -> str:
        """Return the fault at a moment; a flap is a hang every other three seconds."""
        place = bisect_right(self._times, now)
        if not place:
            return ""
        since, fault = self.changes[place - 1]
        if fault == "flap":
            return "" if int((now - since) / FLAP_S) % 2 else "hang"
        return fault

    def well(self, since: float, until: float) -> bool:
        """Say whether it is well all the time."""
        moments = [since, *(time for time in self._times if since < time <= until)]
        return all(self._named(moment) == "" for moment in moments)

    def _named(self, now: float) -> str:
        place = bisect_right(self._times, now)
        return self.changes[place - 1].fault if place else ""


class Listener(Protocol):
    """Who hears what becomes of a flight."""

    def progressed(self, flight: int, total_bytes: int) -> None:
        """Hear of bytes."""
        ...

    def came(self, flight: int, *, wrong: bool) -> None:
        """Hear that the block is whole."""
        ...

    def failed(self, flight: int, reason: str, status: int, retry_after_s: float) -> None:
        """Hear that it will not come."""
        ...


@dataclass
class Edge:
    """One source on its line."""

    world: World
    source: Source
    scripts: list[Script]
    rtt_s: float
    rate_bytes_s: float
    kept_until: list[float] = field(default_factory=list[float])
    active: int = 0

    @property
    def fault(self) -> str:
        """What is wrong with it now: its own fault, or its tier's."""
        return next((fault for one in self.scripts if (fault := one.at(self.world.now))), "")

    def fly(self, start: Start, size_bytes: int, listener: Listener) -> Transfer:
        """Begin to answer a request."""
        return Transfer(self, start, size_bytes, listener)

    def has_connection(self) -> bool:
        """Take a kept connection, if there is one."""
        while self.kept_until:
            if self.kept_until.pop() > self.world.now:
                return True
        return False


class Transfer:
    """One request and its answer; ``cancel`` closes its connection."""

    def __init__(self, edge: Edge, start: Start, size_bytes: int, listener: Listener) -> None:
        self.start, self.bytes = start, 0
        self._edge, self._size, self._listener = edge, size_bytes, listener
        self._over = False
        self._window = float("inf")
        self._arrived = 0.0
        edge.active += 1
        if edge.has_connection():
            self._later(edge.rtt_s / 2, self._ask)
        else:
            self._window = FIRST_WINDOW_BYTES
            self._later(edge.rtt_s, self._connect)

    def cancel(self) -> None:
        """Nobody listens any more."""
        if not self._over:
            self._over = True
            self._edge.active -= 1

    def _later(self, delay_s: float, act: Callable[[], None]) -> None:
        self._edge.world.after(delay_s, lambda: None if self._over else act())

    def _connect(self) -> None:
        match self._edge.fault:
            case "refuse":
                self._fail("unreachable")
            case "dark":
                self._later(SYN_AGAIN_S, self._connect)
            case _:
                self._later(1.5 * self._edge.rtt_s, self._ask)

    def _ask(self) -> None:
        half_s = self._edge.rtt_s / 2 * self._edge.world.random.uniform(0.9, 1.2)
        match self._edge.fault:
            case "refuse":
                self._later(half_s, lambda: self._fail("unreachable"))
            case "busy":
                self._later(half_s, lambda: self._fail("refused", 503, 2.0))
            case "hang" | "dark":
                pass
            case _:
                self._later(half_s, self._send)

    def _send(self) -> None:
        edge = self._edge
        fault, step_s = edge.fault, STEP_S if self.bytes else FIRST_STEP_S
        if fault == "refuse":
            self._fail("unreachable")
            return
        if fault in ("hang", "dark") or (fault == "stall" and self.bytes >= STALL_AT * self._size):
            return
        if fault == "truncate" and self.bytes >= TRUNCATE_AT * self._size:
            self._fail("truncated")
            return
        rate = edge.rate_bytes_s / edge.active
        if fault == "trickle":
            rate, step_s = TRICKLE_BYTES_S, 10 * STEP_S
        elif self._window < rate * edge.rtt_s:
            rate = self._window / edge.rtt_s
            self._window *= 2 ** (step_s / edge.rtt_s)
        self._arrived = min(self._arrived + rate * step_s, self._size)
        self.bytes = int(self._arrived)
        self._listener.progressed(self.start.flight, self.bytes)
        if self._over:
            return
        if self.bytes < self._size:
            self._later(step_s, self._send)
            return
        self.cancel()
        edge.kept_until.append(edge.world.now + KEEP_ALIVE_S)
        self._listener.came(self.start.flight, wrong=fault == "corrupt")

    def _fail(self, reason: str, status: int = 0, retry_after_s: float = 0.0) -> None:
        self.cancel()
        self._listener.failed(self.start.flight, reason, status, retry_after_s)
