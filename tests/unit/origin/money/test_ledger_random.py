from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farcast.origin.money import bookings
from farcast.origin.money.ledger import Ledger
from farcast.protocol.errors import UsageError
from farcast.tests.unit.origin.mint import CLOSE_MS, FIRST_MS, MONTH, account
from farcast.tests.unit.origin.money.months import outcome

Move = Callable[[Ledger], object]
NEXT_CLOSE_MS = CLOSE_MS + 31 * 86_400_000
PAYEES = st.sampled_from(["ann", "bob", "cy"])


@st.composite
def bookings_of(draw: st.DrawFn) -> Move:
    """Draw one booking."""
    cents = draw(st.integers(1, 10**12))
    payer = account(draw(st.integers(1, 3)))
    booking = draw(
        st.sampled_from(
            [
                bookings.revenue(cents, account=payer),
                bookings.cost(cents % 1_000, "hub"),
                bookings.tip(cents, draw(PAYEES), "ünïcode", payer),
                bookings.patron(cents, draw(PAYEES), MONTH, fee_points=draw(st.integers(0, 10_000))),
                bookings.collaboration(cents, {"ann": 3_333, "bob": 3_333, "cy": 3_334}),
            ]
        )
    )
    at_ms, key = FIRST_MS + draw(st.integers(0, 10**9)), bytes([draw(st.integers(0, 20))])
    return lambda ledger: ledger.book(booking, at_ms, key)


@st.composite
def moves(draw: st.DrawFn) -> Move:
    """Draw a booking, a refund, or a month's settlement."""
    months = [(MONTH, CLOSE_MS), ("2026-12", NEXT_CLOSE_MS)]

    def settle(month: tuple[str, int], ms: int, ledger: Ledger) -> object:
        return ledger.post_settlement(outcome(ledger, *month, ms=ms, served=5_000_000))

    def refund(number: int, ledger: Ledger) -> object:
        return ledger.refund(number, FIRST_MS + 10**9)

    chosen = draw(st.integers(0, 4))
    if chosen == 0:
        return partial(refund, draw(st.integers(1, 12)))
    if chosen == 1:
        return partial(settle, draw(st.sampled_from(months)), draw(st.sampled_from([0, 60_000])))
    return draw(bookings_of())


def done(move: Move, ledger: Ledger) -> str:
    """Make a move; returns what came of it, for both databases alike."""
    try:
        return repr(move(ledger))
    except UsageError as error:
        return error.reason


@given(st.lists(moves(), max_size=14))
@settings(max_examples=20)
def test_the_books_stay_sound_whatever_is_booked(
    tmp_path_factory: pytest.TempPathFactory, sequence: list[Move]
) -> None:
    with closing(Ledger(tmp_path_factory.mktemp("ledger") / "ledger.db")) as ledger:
        for move in sequence:
            done(move, ledger)
        assert ledger.trial_balance() == 0
        assert ledger.verify_chain() == ledger.head()[0]


@given(st.lists(bookings_of(), max_size=6), bookings_of())
@settings(max_examples=15)
def test_a_refund_brings_every_balance_back(
    tmp_path_factory: pytest.TempPathFactory, before: list[Move], move: Move
) -> None:
    with closing(Ledger(tmp_path_factory.mktemp("ledger") / "ledger.db")) as ledger:
        for earlier in before:
            done(earlier, ledger)
        known, (count, head) = ledger.balances(), ledger.head()
        if done(move, ledger) != "True":
            assert ledger.head() == (count, head)
            return
        assert done(move, ledger) == "False"  # the same posting twice is a no-op
        assert ledger.head()[0] == count + 1
        ledger.refund(count + 1, FIRST_MS)
        assert {name: cents for name, cents in ledger.balances().items() if cents} == {
            name: cents for name, cents in known.items() if cents
        }
        assert done(lambda same: same.refund(count + 1, FIRST_MS), ledger) == "refunded"
        ledger.verify_chain()


@given(st.lists(moves(), max_size=12))
@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
def test_both_databases_end_with_the_same_digest(
    tmp_path_factory: pytest.TempPathFactory, fresh_postgres: Callable[[], str], sequence: list[Move]
) -> None:
    file: Path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    with ExitStack() as opened:
        one, other = (
            opened.enter_context(closing(Ledger(place, "EUR"))) for place in (file, fresh_postgres())
        )
        for move in sequence:
            assert done(move, one) == done(move, other)
        assert one.head() == other.head()
        assert one.balances() == other.balances()
        assert one.check() == other.check()
        assert other.verify_chain() == one.head()[0]
        assert one.settlements() == other.settlements()


@pytest.fixture(scope="module")
def fresh_postgres(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Return a maker of new books in PostgreSQL."""
    fresh: Callable[[], str] = request.getfixturevalue("postgres").fresh
    return fresh
