"""The clerk: does what the schedule says is due, in the running origin, and says what waits for people."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge

from ...protocol.errors import FarcastError, LocalError
from .holds import Waiting
from .schedule import Kind, Schedule, Standing, Task, due, last_closed

log = logging.getLogger(__name__)


class Ways(Protocol):
    """How the clerk does each kind of thing; all of them block and may be done twice (``Treasury``)."""

    def last_settled(self) -> str:
        """Return the newest settled month, empty where there is none."""
        ...

    def transactions(self) -> int:
        """Return how many transactions the ledger has."""
        ...

    def open_months(self) -> tuple[str, ...]:
        """Return the months behind it that have pulses or bookings."""
        ...

    def has_report(self, month: str) -> bool:
        """Say whether a month's report is written."""
        ...

    def close_month(self, month: str, now_ms: int) -> bool:
        """Settle a closed month; False where it was settled already."""
        ...

    def write_report(self, month: str) -> None:
        """Write a settled month's report."""
        ...

    def waiting(self, now_ms: int) -> Waiting:
        """Say which holds wait for somebody to decide."""
        ...


Payout = Callable[[str, int], object]
"""Makes the payouts that are due behind a settled month; again, it makes none twice."""


class Clerk:
    """Works through the schedule whenever it is asked to; ``tick`` blocks, and one at a time calls it."""

    def __init__(self, ways: Ways, registry: CollectorRegistry, payout: Payout | None = None) -> None:
        """Do what is due by ``ways``, and ``payout`` behind each settlement, where there is one."""
        self._ways = ways
        self._payout = payout
        self._schedule = Schedule()
        self._paid_out = ""
        self._booked = 0
        self.trouble = ""
        """What hinders the clerk, with the mend; empty where nothing does."""
        self._done = Counter(
            "farcast_origin_settlement_tasks",
            "Tasks of the settlement schedule, by kind and how they ended.",
            ["kind", "result"],
            registry=registry,
        )
        self._overdue = Gauge(
            "farcast_origin_settlement_overdue",
            "1 while a closed month waits to be settled.",
            registry=registry,
        )
        self._holds = Gauge(
            "farcast_origin_holds_waiting",
            "Holds that nobody has decided, by state.",
            ["state"],
            registry=registry,
        )
        self._escrow = Gauge(
            "farcast_origin_escrow_cents", "Cents held until somebody decides.", registry=registry
        )

    def tick(self, now_ms: int, steady_ms: int) -> list[Task]:
        """Do what is due now and return it; ``steady_ms`` is a clock that never jumps."""
        waiting = self._ways.waiting(now_ms)
        self._holds.labels("held").set(waiting.holds - waiting.appealed - waiting.expired)
        self._holds.labels("appealed").set(waiting.appealed)
        self._holds.labels("expired").set(waiting.expired)
        self._escrow.set(waiting.cents)
        done: list[Task] = []
        booked = self._ways.transactions()
        if booked != self._booked:
            self._schedule.news()  # perhaps the revenue that was waited for
            self._booked = booked
        if not self._schedule.ready(now_ms, steady_ms):
            if self._schedule.jumped:
                self.trouble = (
                    "this machine's clock jumped ahead; nothing is settled until it has held an hour"
                )
            return done
        self.trouble = ""
        for task in due(now_ms, self._standing(now_ms)):
            try:
                self._do(task, now_ms)
            except (FarcastError, OSError) as error:
                log.warning("%s", error)
                self.trouble = self.trouble or str(error)
                if task.kind == "settle":
                    break  # months are settled in order
            else:
                done.append(task)
        if self.trouble:
            self._schedule.failed(steady_ms)
        else:
            self._schedule.done()
            self._overdue.set(0)
        return done

    def _standing(self, now_ms: int) -> Standing:
        settled = self._ways.last_settled()
        reported = settled if settled and self._ways.has_report(settled) else ""
        paid_out = settled if self._payout is None else self._paid_out
        open_ = self._ways.open_months() if settled < last_closed(now_ms) else ()
        return Standing(settled, open_, reported, paid_out)

    def _do(self, task: Task, now_ms: int) -> None:
        try:
            if task.kind == "settle":
                self._overdue.set(1)
                posted = self._settle(task.month, now_ms)
                self._count(task.kind, "done" if posted else "standing")
                log.info("%s is settled%s", task.month, "" if posted else " already")
                return
            if task.kind == "report":
                self._ways.write_report(task.month)
            elif self._payout is not None:
                self._payout(task.month, now_ms)
                self._paid_out = task.month
            else:
                return
        except (FarcastError, OSError) as error:
            self._count(task.kind, getattr(error, "reason", "disk"))
            raise
        self._count(task.kind, "done")

    def _settle(self, month: str, now_ms: int) -> bool:
        try:
            return self._ways.close_month(month, now_ms)
        except LocalError as error:
            if error.reason != "out_of_order":
                raise
            return self._ways.close_month(month, now_ms)  # another process posted or booked in between

    def _count(self, kind: Kind, result: str) -> None:
        self._done.labels(kind, result).inc()
