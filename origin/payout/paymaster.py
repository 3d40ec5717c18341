"""The paymaster: turns what is owed into orders, sends each once, and finds out how each ended.

What it does next is read from the books alone, so it may be killed anywhere and be run by several
processes at once. Nothing waits for a provider inside a transaction.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from ...protocol.errors import FarcastError, LocalError
from .method import Errand, Method, Methods
from .order import Order, Verdict
from .orderbook import Event, OrderBook
from .payouttally import PayoutTally
from .terms import Standing, Terms, standing, tax_points, withheld

DRAIN_LIMIT = 10_000
DRAIN_S = 300.0
"""A drain begins nothing new after so long; the next one goes on."""
BUSY_S = 60.0
PATIENCE_DAYS, LATEST_DAY = 10, 28

log = logging.getLogger(__name__)


class PayRules(NamedTuple):
    """What the settings say of payouts; ``day`` is the day of the month (UTC) of the origin's own run."""

    least_cents: int
    rates: Mapping[str, int]
    day: int


class Planned(NamedTuple):
    """What a run would order, or has ordered: ``key`` is empty where it only would."""

    payee: str
    method: str
    region: str
    gross_cents: int
    tax_cents: int
    net_cents: int
    key: str = ""


class Paymaster:
    """Pays the payees of one origin. Every method blocks and may be called from any thread."""

    def __init__(
        self,
        book: OrderBook,
        terms: Callable[[], Mapping[str, Terms]],
        methods: Methods,
        rules: PayRules,
        tally: PayoutTally,
    ) -> None:
        self.book = book
        self._terms = terms
        self._methods = methods
        self._rules = rules
        self._tally = tally
        self._draining = threading.Lock()
        self._tidy = False  # whether nothing broken off may be left
        self._counted = -1  # the newest transaction that the metrics know

    def standings(self) -> list[Standing]:
        """Return what is owed to whom, and whether the next run pays it."""
        terms = self._terms()
        return [self._standing(payee, cents, terms.get(payee)) for payee, cents in self.book.owed().items()]

    def plan(self) -> list[Planned]:
        """Return what a run would order now."""
        terms = self._terms()
        return [
            _planned(terms[one.payee], one.owed_cents, self._rules.rates)
            for one in self.standings()
            if one.due == "eligible"
        ]

    def run(self, clock_ms: Callable[[], int]) -> list[Planned]:
        """Order all that is due and send it; raises ``LocalError`` where another run is at it."""
        with self._alone(BUSY_S):
            terms, ordered = self._terms(), list[Planned]()
            for one in self.standings():
                if one.due == "eligible":
                    order = self.book.reserve(
                        terms[one.payee], self._rules.least_cents, self._rules.rates, clock_ms()
                    )
                    ordered += [_of(order)] if order else []
            self._drain(clock_ms, hurry=True)
        return ordered

    def monthly(self, clock_ms: Callable[[], int]) -> list[Planned] | None:
        """Do the run of this month unless it is done or its day is to come: then None.

        Until the month before is settled it waits, but not past ``LATEST_DAY`` or ten days.
        """
        now = datetime.fromtimestamp(clock_ms() // 1_000, UTC)
        month, day = f"{now:%Y-%m}", self._rules.day
        before = f"{now.replace(day=1) - timedelta(days=1):%Y-%m}"
        if now.day < day or self.book.ran(month):
            return None
        if now.day < min(day + PATIENCE_DAYS, LATEST_DAY) and not self.book.is_settled(before):
            return None
        ordered = self.run(clock_ms)
        self.book.note_run(month, clock_ms())
        return ordered

    def drain(self, clock_ms: Callable[[], int]) -> None:
        """Send what waits, and look after what was sent; nothing where another thread is at it."""
        if not self._draining.acquire(blocking=False):
            return
        try:
            self._drain(clock_ms, hurry=False)
        finally:
            self._draining.release()

    def decide(self, name: str, now_ms: int, *, paid: bool, reason: str = "") -> Order:
        """Take a person's word for how an order ended; raises as ``Order.decided``."""
        key = self.book.find(name).key
        order = self.book.change(
            key,
            lambda one: one.decided(paid=paid, now_ms=now_ms, looks_up=self._looks_up(one), reason=reason),
            now_ms,
        )
        self.count()
        return order

    def show(self, name: str) -> tuple[Order, list[Event]]:
        """Return an order and what happened to it; raises ``UsageError``."""
        order = self.book.find(name)
        return order, self.book.events(order.key)

    def count(self) -> None:
        """Tell the metrics how things stand."""
        self._counted = self.book.newest()
        standings = self.standings()
        eligible = sum(one.due == "eligible" for one in standings)
        counts = {"accrued": len(standings) - eligible, "eligible": eligible}
        self._tally.show(self.book.sums(), counts, sum(one.owed_cents for one in standings))

    def _standing(self, payee: str, owed_cents: int, terms: Terms | None) -> Standing:
        fault = self._fault(terms) if terms is not None and terms.method else ""
        return standing(payee, owed_cents, self._rules.least_cents, terms, fault)

    def _fault(self, terms: Terms) -> str:
        method = self._methods.get(terms.method)
        if method is None:
            return f"no method {terms.method!r}: farcast origin payee set {terms.payee} --method ..."
        return method.fault(terms) or method.trouble()

    def _looks_up(self, order: Order) -> bool:
        method = self._methods.get(order.method)
        return method is not None and method.looks_up

    @contextmanager
    def _alone(self, wait_s: float) -> Generator[None]:
        if not self._draining.acquire(timeout=wait_s):
            raise LocalError("a payout run is under way; try again when it is done", reason="busy")
        try:
            yield
        finally:
            self._draining.release()

    def _drain(self, clock_ms: Callable[[], int], *, hurry: bool) -> None:
        end = time.monotonic() + DRAIN_S
        terms = self._terms()
        orders = self.book.due(clock_ms(), DRAIN_LIMIT, hurry=hurry)
        if not orders and self._tidy and not hurry:
            if self.book.newest() != self._counted:
                self.count()
            return
        self._tidy = True
        for name, method in self._methods.items():
            try:
                method.recover(self.book.was_sent)
                self._tend(method, [one for one in orders if one.method == name], terms, clock_ms, end, hurry)
            except FarcastError as error:  # one method's trouble is not the others'
                self._tidy = False
                log.warning("payouts by %s wait: %s", name, error)
        self.count()

    def _tend(
        self, method: Method, orders: Sequence[Order], terms: Mapping[str, Terms],
        clock_ms: Callable[[], int], end: float, hurry: bool,  # noqa: FBT001
    ) -> None:  # fmt: skip
        """Take each order of a method as far as it goes now."""
        leaving: list[Errand] = []
        for order in orders:
            if time.monotonic() >= end:
                return
            now_ms = clock_ms()
            task = order.task(now_ms, looks_up=method.looks_up, hurry=hurry)
            if task == "lapse":
                self.book.change(order.key, _lapse(now_ms), now_ms)
            elif task == "look":
                self._look(method, order, clock_ms)
            elif task == "send":
                errand = self._errand(order, terms.get(order.payee), now_ms)
                leaving += [errand] if errand else []
        if leaving and not method.trouble():
            for start in range(0, len(leaving), method.together):
                if time.monotonic() >= end:
                    return
                self._send(method, leaving[start : start + method.together], clock_ms)

    def _errand(self, order: Order, terms: Terms | None, now_ms: int) -> Errand | None:
        """Return an order ready to go; what can no longer be paid goes back to what is owed."""
        method = self._methods[order.method]
        if terms is None:
            why = "nobody knows the payee"
        elif terms.method != order.method:
            why = "the payee's method changed"
        else:
            why = f"blocked: {terms.blocked}" if terms.blocked else method.fault(terms)
        if terms is not None and not why:
            return Errand(order, terms)
        self.book.change(order.key, lambda one: one.dropped(why, now_ms), now_ms)
        return None

    def _send(self, method: Method, errands: Sequence[Errand], clock_ms: Callable[[], int]) -> None:
        """Let orders leave: first the books say that they have, then they do."""
        if method.looks_up:
            errands = [errand for errand in errands if self._is_new(method, errand.order, clock_ms)]
            if not errands:
                return
        with method.prepare(errands, clock_ms()) as delivery:
            begun = self.book.begin([errand.order.key for errand in errands], delivery.reference, clock_ms())
            if not begun:  # another process was faster with one of them
                delivery.drop()
                return
            verdict = delivery.go()
        now_ms = clock_ms()
        for order in begun:
            self._settle(order, _answer(order.attempt, verdict, now_ms), verdict, now_ms)

    def _is_new(self, method: Method, order: Order, clock_ms: Callable[[], int]) -> bool:
        """Ask for a key that never left before it does: books from a backup forget what they paid."""
        if order.sends:
            return True
        verdict = method.find(order)
        if verdict.outcome != "absent":
            now_ms = clock_ms()
            self._settle(order, lambda one: one.recognised(verdict, now_ms), verdict, now_ms)
        return verdict.outcome == "absent"

    def _look(self, method: Method, order: Order, clock_ms: Callable[[], int]) -> None:
        verdict = method.find(order)
        now_ms = clock_ms()
        self._settle(order, lambda one: one.looked_up(order.attempt, verdict, now_ms), verdict, now_ms)

    def _settle(self, order: Order, step: Callable[[Order], Order], verdict: Verdict, now_ms: int) -> None:
        after = self.book.change(order.key, step, now_ms)
        if verdict.outcome in ("refused", "silent", "unsent", "absent"):
            log.warning("payout %s is %s: %s", order.key[:12], after.state, verdict.reason)


def _lapse(now_ms: int) -> Callable[[Order], Order]:
    return lambda one: one.lapsed(now_ms)


def _answer(attempt: int, verdict: Verdict, now_ms: int) -> Callable[[Order], Order]:
    return lambda one: one.answered(attempt, verdict, now_ms)


def _planned(terms: Terms, gross_cents: int, rates: Mapping[str, int]) -> Planned:
    net_cents, tax_cents = withheld(gross_cents, tax_points(terms, rates))
    return Planned(terms.payee, terms.method, terms.region, gross_cents, tax_cents, net_cents)


def _of(order: Order) -> Planned:
    return Planned(
        order.payee,
        order.method,
        order.region,
        order.gross_cents,
        order.tax_cents,
        order.net_cents,
        order.key,
    )
