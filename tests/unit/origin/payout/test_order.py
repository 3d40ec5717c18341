"""The order's state machine, alone and against a provider that forgets keys after a day."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from farcast.origin.payout.order import (
    HOUR_MS,
    KEY_LIFE_MS,
    LEASE_MS,
    RESEND_MS,
    Order,
    Outcome,
    Verdict,
    order_key,
)
from farcast.protocol.errors import UsageError

T0 = 1_780_000_000_000
PAID, SILENT, ABSENT = Verdict("paid", "r1"), Verdict("silent"), Verdict("absent")
REFUSED, UNSENT, PENDING = Verdict("refused", "", "no such account"), Verdict("unsent"), Verdict("pending")


def order(**changes: int | str) -> Order:
    fields: dict[str, object] = {
        "key": order_key(b"o", "ada", 1), "payee": "ada", "method": "http", "region": "DE",
        "gross_cents": 10_000, "tax_cents": 1_500, "net_cents": 8_500,
        "created_ms": T0, "changed_ms": T0, "due_ms": T0,
    }  # fmt: skip
    return Order(**{**fields, **changes})  # type: ignore[arg-type]


def test_the_straight_way_is_reserved_sent_paid() -> None:
    sent = order().begun(T0 + 1)
    assert (sent.state, sent.attempt, sent.sends, sent.sent_ms) == ("sent", 1, 1, T0 + 1)
    paid = sent.answered(1, PAID, T0 + 2)
    assert (paid.state, paid.reference, paid.open) == ("paid", "r1", False)


def test_what_is_sent_is_not_sent_again_while_its_sender_may_answer() -> None:
    sent = order().begun(T0)
    assert sent.task(T0 + LEASE_MS - 1, looks_up=True) == "wait"
    assert sent.task(T0 + LEASE_MS - 1, looks_up=True, hurry=True) == "wait"
    assert sent.task(T0 + LEASE_MS, looks_up=True) == "lapse"
    with pytest.raises(ValueError, match="sent"):
        sent.begun(T0 + LEASE_MS)


def test_a_sender_that_died_leaves_an_unknown_order() -> None:
    sent = order().begun(T0)
    assert sent.lapsed(T0 + 1) is sent
    unknown = sent.lapsed(T0 + LEASE_MS)
    assert unknown.state == "unknown"
    assert unknown.answered(1, PAID, T0 + LEASE_MS + 1) is unknown, "only a look-up ends it"
    assert unknown.looked_up(1, PAID, T0 + LEASE_MS + 2).state == "paid"


@pytest.mark.parametrize(
    ("verdict", "state"),
    [(SILENT, "unknown"), (ABSENT, "unknown"), (REFUSED, "failed"), (UNSENT, "reserved")],
)
def test_what_an_answer_makes_of_a_first_request(verdict: Verdict, state: str) -> None:
    assert order().begun(T0).answered(1, verdict, T0 + 1).state == state


def test_a_refusal_of_a_repeated_key_is_no_refusal_of_the_payment() -> None:
    back = order().begun(T0).answered(1, SILENT, T0).looked_up(1, ABSENT, T0 + HOUR_MS)
    assert (back.state, back.sends) == ("reserved", 1)
    assert back.begun(T0 + HOUR_MS).answered(2, REFUSED, T0 + HOUR_MS).state == "unknown"


def test_a_request_that_surely_never_arrived_does_not_age_its_key() -> None:
    back = order().begun(T0).answered(1, UNSENT, T0)
    assert (back.sends, back.sent_ms, back.attempt) == (0, 0, 1)
    assert back.may_be_sent(T0 + 100 * HOUR_MS)
    assert back.begun(T0 + 100 * HOUR_MS).answered(2, REFUSED, T0 + 100 * HOUR_MS).state == "failed"


def test_pauses_double_up_to_six_hours() -> None:
    one, pauses = order().begun(T0).answered(1, SILENT, T0), list[int]()
    for _ in range(16):
        one = one.looked_up(1, SILENT, T0)
        pauses.append((one.due_ms - T0) // 1_000)
    assert pauses[:4] == [60, 120, 240, 480]
    assert pauses[-1] == 6 * 3_600


def test_a_key_goes_again_only_after_a_look_up_and_never_when_it_is_old() -> None:
    unknown = order().begun(T0).answered(1, SILENT, T0)
    assert not unknown.may_be_sent(T0 + 1)
    young = unknown.looked_up(1, ABSENT, T0 + RESEND_MS - 1)
    assert young.state == "reserved"
    assert young.may_be_sent(T0 + RESEND_MS - 1)
    assert young.task(T0 + RESEND_MS, looks_up=True) == "lapse"
    assert young.lapsed(T0 + RESEND_MS).state == "unknown"
    old = unknown.looked_up(1, ABSENT, T0 + RESEND_MS)
    assert old.state == "unknown"


def test_a_clock_that_went_back_sends_nothing_again() -> None:
    back = order().begun(T0).answered(1, SILENT, T0).looked_up(1, ABSENT, T0 + HOUR_MS)
    assert not back.may_be_sent(T0 + HOUR_MS - 1)


def test_a_look_up_of_an_earlier_request_changes_nothing() -> None:
    back = order().begun(T0).answered(1, SILENT, T0).looked_up(1, ABSENT, T0 + 1)
    again = back.begun(T0 + 1).answered(2, SILENT, T0 + 2)
    assert again.looked_up(1, ABSENT, T0 + 3) is again


def test_a_payment_that_these_books_forgot_is_recognised_before_it_is_sent() -> None:
    assert order().recognised(PAID, T0).state == "paid"
    assert order().recognised(ABSENT, T0).state == "reserved"
    assert order().recognised(SILENT, T0).due_ms > T0
    known = order().recognised(PENDING, T0)
    assert (known.state, known.sends, known.sent_ms) == ("sent", 1, T0)
    sent = order().begun(T0)
    assert sent.recognised(PAID, T0) is sent


def test_a_person_decides_where_nobody_can_be_asked() -> None:
    by_hand = order(method="manual").begun(T0, "by hand")
    assert by_hand.task(T0 + 1_000 * HOUR_MS, looks_up=False) == "wait"
    paid = by_hand.decided(paid=True, now_ms=T0, looks_up=False)
    assert paid.state == "paid"
    assert paid.decided(paid=True, now_ms=T0 + 1, looks_up=False) is paid
    with pytest.raises(UsageError, match="is paid; that stands"):
        paid.decided(paid=False, now_ms=T0 + 1, looks_up=False)
    with pytest.raises(UsageError, match="was not sent yet"):
        order().decided(paid=True, now_ms=T0, looks_up=False)
    assert order().decided(paid=False, now_ms=T0, looks_up=True).state == "failed"


def test_a_person_decides_for_a_provider_only_when_it_forgot_the_key_for_good() -> None:
    unknown = order().begun(T0).answered(1, SILENT, T0)
    for one in (unknown, unknown.looked_up(1, ABSENT, T0 + 1), unknown.looked_up(1, ABSENT, T0 + RESEND_MS)):
        with pytest.raises(UsageError, match="asked a day after"):
            one.decided(paid=False, now_ms=T0 + 10 * KEY_LIFE_MS, looks_up=True)
    forgotten = unknown.looked_up(1, ABSENT, T0 + KEY_LIFE_MS)
    assert forgotten.decided(paid=False, now_ms=T0 + KEY_LIFE_MS, looks_up=True).state == "failed"


OUTCOMES: tuple[Outcome, ...] = ("paid", "pending", "refused", "unsent", "silent", "absent")


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.sampled_from(OUTCOMES), st.integers(0, 3), st.integers(-1, 30)))
)
def test_no_order_of_events_leaves_an_end_or_splits_the_sum(
    events: list[tuple[int, Outcome, int, int]],
) -> None:
    one, now_ms = order(), T0
    for what, outcome, attempt, hours in events:
        now_ms += hours * HOUR_MS
        before, verdict = one, Verdict(outcome)
        if what == 0 and one.may_be_sent(now_ms):
            one = one.begun(now_ms)
        elif what == 1:
            one = one.answered(attempt, verdict, now_ms)
        elif what == 2:
            one = one.looked_up(attempt, verdict, now_ms)
        elif what == 3:
            one = one.lapsed(now_ms)
        elif what == 4:
            one = one.recognised(verdict, now_ms)
        elif what == 5:
            one = one.dropped("blocked", now_ms)
        assert before.open or one is before
        assert one.changed_ms >= before.changed_ms
        assert one.net_cents + one.tax_cents == one.gross_cents
        assert (one.sends == 0) == (one.sent_ms == 0)
        if before.state == "unknown" and one.state != "unknown":
            assert what == 2, "only a look-up ends an unknown order"
        if one.attempt > before.attempt and before.sends:
            assert now_ms - before.sent_ms < KEY_LIFE_MS


@dataclass
class Bank:
    """A provider that does what it is told when it likes to, and knows a key for 24 h."""

    now_ms: int = T0
    books: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    under_way: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    refuses: bool = False

    def take(self, key: str) -> Outcome:
        """Book a request that arrives."""
        if self.knows(key):
            return "paid"
        if self.refuses:
            return "refused"
        self.books.append((key, self.now_ms))
        return "paid"

    def knows(self, key: str) -> bool:
        """Say whether the key was seen within a day."""
        return any(seen == key and self.now_ms - at_ms < KEY_LIFE_MS for seen, at_ms in self.books)


class Payments(RuleBasedStateMachine):
    """One order against that bank: requests are lost, late, answered or not; processes die in between."""

    @initialize()
    def begin(self) -> None:
        """Start with one order."""
        self.bank = Bank()
        self.order = order()

    @rule(fate=st.sampled_from(["answered", "answer lost", "late", "lost", "no connection"]))
    def send(self, fate: str) -> None:
        """Send if that is the task."""
        if self.order.task(self.bank.now_ms, looks_up=True, hurry=True) != "send":
            return
        self.order = self.order.begun(self.bank.now_ms)
        key, attempt = self.order.key, self.order.attempt
        if fate in ("answered", "answer lost"):
            outcome = self.bank.take(key)
            if fate == "answered":
                self.order = self.order.answered(attempt, Verdict(outcome), self.bank.now_ms)
        elif fate == "late":  # on its way for up to an hour, as networks and queues are
            self.bank.under_way.append((key, self.bank.now_ms + HOUR_MS - 1))
        elif fate == "no connection":
            self.order = self.order.answered(attempt, UNSENT, self.bank.now_ms)

    @rule()
    def arrive(self) -> None:
        """Let what is under way arrive."""
        self._arrivals(self.bank.now_ms + HOUR_MS)

    @rule()
    def time_out(self) -> None:
        """Let the sender give up."""
        self.order = self.order.answered(self.order.attempt, SILENT, self.bank.now_ms)

    @rule()
    def lapse(self) -> None:
        """Let somebody else find it given up."""
        self.order = self.order.lapsed(self.bank.now_ms)

    @rule(answers=st.booleans())
    def look(self, answers: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
        """Ask for the key."""
        if self.order.task(self.bank.now_ms, looks_up=True, hurry=True) != "look":
            return
        known = Verdict("paid") if self.bank.knows(self.order.key) else ABSENT
        verdict = known if answers else SILENT
        self.order = self.order.looked_up(self.order.attempt, verdict, self.bank.now_ms)

    @rule(minutes=st.sampled_from([1, 5, 90, 600, 1_500]))
    def wait(self, minutes: int) -> None:
        """Let time pass; what is under way arrives within its hour."""
        self.bank.now_ms += minutes * 60_000
        self._arrivals(self.bank.now_ms)

    @rule(refuses=st.booleans())
    def change_mind(self, refuses: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
        """Let the bank refuse what is new, or not."""
        self.bank.refuses = refuses

    @invariant()
    def pays_once_and_says_so(self) -> None:
        """Check the bank's books against the order."""
        if not hasattr(self, "bank"):
            return
        assert len(self.bank.books) <= 1, "paid twice"
        if self.order.state == "failed":
            assert not self.bank.books, "owed again, and paid"
            assert not self.bank.under_way
        if self.order.state == "paid":
            assert self.bank.books

    def _arrivals(self, until_ms: int) -> None:
        for key, at_ms in [one for one in self.bank.under_way if one[1] <= until_ms]:
            self.bank.under_way.remove((key, at_ms))
            now_ms, self.bank.now_ms = self.bank.now_ms, min(at_ms, self.bank.now_ms)
            self.bank.take(key)
            self.bank.now_ms = now_ms


Payments.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestPayments = Payments.TestCase


def test_a_key_follows_from_the_books_and_fits_a_bank() -> None:
    assert order_key(b"o", "ada", 1) == order_key(b"o", "ada", 1)
    keys = {order_key(o, p, n) for o in (b"o", b"p") for p in ("ada", "ben") for n in range(1, 40)}
    assert len(keys) == 2 * 2 * 39
    assert all(len(key) <= 35 and key.isalnum() for key in keys)
