"""The schedule: what the treasury has to do now, each thing once, whatever the clock does (sans-IO).

What was done stands in the books, so a clock set back, a restart or a second process finds it there
and repeats nothing. A clock that jumps ahead is not believed at once: a month settled too early
would make its last days' viewing late.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from ...protocol.ticket import DAY_GRACE_MS, DAY_MS
from ..pulses.admission import month_bounds_ms, month_of

JUMP_MS = 600_000
"""Wall clock and steady clock may part by so much between two looks."""
DISTRUST_MS = 3_600_000
RETRY_FIRST_MS, RETRY_LAST_MS = 60_000, 3_600_000

Kind = Literal["settle", "report", "payout"]


class Task(NamedTuple):
    """One thing to do for one month."""

    kind: Kind
    month: str


class Standing(NamedTuple):
    """What the books say: the newest settled month, the open ones with pulses or bookings, and the rest.

    ``reported`` and ``paid_out`` are the newest months whose report is written and whose payouts
    were made; empty where there is none.
    """

    settled: str = ""
    open: tuple[str, ...] = ()
    reported: str = ""
    paid_out: str = ""


def close_of(month: str) -> int:
    """Return when a month may be settled: five minutes after its end, when its tickets are over."""
    return month_bounds_ms(month)[1] + DAY_GRACE_MS


def last_closed(now_ms: int) -> str:
    """Return the newest month that may be settled at ``now_ms``."""
    month = month_of((now_ms - DAY_GRACE_MS) // DAY_MS)
    return month_of(month_bounds_ms(month)[0] // DAY_MS - 1)


def month_at(now_ms: int) -> str:
    """Return the month of a time."""
    return month_of(now_ms // DAY_MS)


def due(now_ms: int, standing: Standing) -> list[Task]:
    """Return what is to be done at ``now_ms``, in order; nothing of it depends on earlier calls."""
    tasks: list[Task] = []
    if standing.settled and standing.reported < standing.settled:
        tasks.append(Task("report", standing.settled))
    if standing.settled and standing.paid_out < standing.settled:
        tasks.append(Task("payout", standing.settled))
    for month in sorted(set(standing.open)):
        if standing.settled < month <= last_closed(now_ms):
            tasks += [Task("settle", month), Task("report", month), Task("payout", month)]
    return tasks


class Schedule:
    """Says when to look and whether the clock is to be believed; ``steady_ms`` never jumps."""

    def __init__(self) -> None:
        self._ahead_ms: int | None = None
        self._believe_at_ms = 0
        self._retry_ms = RETRY_FIRST_MS
        self._retry_at_ms = 0
        self.jumped = False
        """Whether the wall clock is waited for, because it jumped ahead."""

    def ready(self, now_ms: int, steady_ms: int) -> bool:
        """Say whether to look at the books now."""
        ahead_ms = now_ms - steady_ms
        if self._ahead_ms is not None and ahead_ms - self._ahead_ms > JUMP_MS:
            self._believe_at_ms, self.jumped = steady_ms + DISTRUST_MS, True
        elif self._ahead_ms is not None and self._ahead_ms - ahead_ms > JUMP_MS:
            self._believe_at_ms = steady_ms  # back again: what is past by it is past
        self._ahead_ms = ahead_ms
        self.jumped = self.jumped and steady_ms < self._believe_at_ms
        return steady_ms >= max(self._believe_at_ms, self._retry_at_ms)

    def failed(self, steady_ms: int) -> None:
        """Note that a task failed: it is tried again, at most an hour later."""
        self._retry_at_ms = steady_ms + self._retry_ms
        self._retry_ms = min(self._retry_ms * 2, RETRY_LAST_MS)

    def news(self) -> None:
        """Note that something changed, so that what failed may be tried at once."""
        self._retry_at_ms = 0

    def done(self) -> None:
        """Note that nothing is left to do."""
        self._retry_ms = RETRY_FIRST_MS
