from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from farcast.origin.money.bookings import COSTS, RECEIVED, REVENUE
from farcast.origin.money.credit import Credit, Fact
from farcast.origin.money.ledger import CARRIED, DEFICIT, RESERVE, Ledger
from farcast.origin.money.settlement import Log, Outcome, settle
from farcast.origin.money.viewing import sum_up
from farcast.protocol.errors import LocalError, UsageError
from farcast.protocol.rules import Rules
from farcast.tests.unit.origin.mint import CLOSE_MS, FIRST_DAY, FIRST_MS, MONTH, Shelf, account

SHELF = Shelf()
FILM = SHELF.add("film", {"ann": 5_000, "bob": 5_000})
NEXT_CLOSE_MS = CLOSE_MS + 31 * 86_400_000


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.db")


def outcome(ledger: Ledger, month: str = MONTH, as_of_ms: int = CLOSE_MS, ms: int = 60_000) -> Outcome:
    item = Fact(account(1), 0, account(1), FIRST_DAY, 1, b"n", 0, 0, 0, ms, 2, FILM, (), "")
    viewing = sum_up([Credit(item, ms, ())] if ms else [], [], [], [], SHELF.manifests, Rules())
    log = Log(1, bytes(32), bytes(32))
    books = ledger.books(month, as_of_ms)
    return settle(month, as_of_ms, viewing, SHELF.manifests, books, {}, log, Rules())


def test_a_booking_is_two_lines_that_sum_to_zero(ledger: Ledger) -> None:
    assert ledger.book_revenue(10_000, FIRST_MS, b"1")
    assert ledger.book_cost(2_500, FIRST_MS, b"2", memo="hub")
    assert ledger.balances() == {RECEIVED: 7_500, COSTS: 2_500, REVENUE: -10_000}
    assert ledger.trial_balance() == 0
    assert ledger.verify_chain() == 2


def test_a_key_books_once(ledger: Ledger) -> None:
    assert ledger.book_revenue(10_000, FIRST_MS, b"1")
    assert not ledger.book_revenue(10_000, FIRST_MS + 5, b"1")
    assert ledger.book_cost(10_000, FIRST_MS, b"1")
    with pytest.raises(UsageError, match="another revenue is booked under this key"):
        ledger.book_revenue(10_001, FIRST_MS, b"1")
    assert ledger.balances()[REVENUE] == -10_000


@pytest.mark.parametrize("cents", [-1, 2**53])
def test_a_sum_that_is_none_is_refused(ledger: Ledger, cents: int) -> None:
    with pytest.raises(UsageError, match="no sum to book"):
        ledger.book_revenue(cents, FIRST_MS, b"1")
    assert ledger.verify_chain() == 0


def test_a_settlement_turns_the_open_pool_into_what_is_owed(ledger: Ledger) -> None:
    ledger.book_revenue(10_000, FIRST_MS, b"1")
    ledger.book_cost(1_000, FIRST_MS, b"2")
    assert ledger.post_settlement(outcome(ledger))
    assert ledger.balances() == {
        RECEIVED: 9_000,
        REVENUE: 0,
        COSTS: 0,
        RESERVE: -500,
        "payable:ann": -4_250,
        "payable:bob": -4_250,
    }
    assert ledger.trial_balance() == 0


def test_a_deficit_and_a_carried_pool_have_their_own_accounts(ledger: Ledger) -> None:
    ledger.book_revenue(1_000, FIRST_MS, b"1")
    ledger.post_settlement(outcome(ledger, ms=0))
    assert ledger.balances()[CARRIED] == -950
    ledger.book_revenue(0, CLOSE_MS + 1, b"2")
    ledger.book_cost(300, CLOSE_MS + 1, b"3")
    ledger.post_settlement(outcome(ledger, "2026-12", NEXT_CLOSE_MS))
    balances = ledger.balances()
    assert (balances[CARRIED], balances[DEFICIT], balances["payable:ann"]) == (0, 300, -475)
    assert ledger.trial_balance() == 0


def test_the_same_settlement_twice_is_one_and_another_result_is_refused(ledger: Ledger) -> None:
    ledger.book_revenue(10_000, FIRST_MS, b"1")
    found = outcome(ledger)
    assert ledger.post_settlement(found)
    assert not ledger.post_settlement(found)
    other = replace(found.statement, as_of_ms=CLOSE_MS - 1)
    with pytest.raises(UsageError, match="2026-11 is settled already with another result"):
        ledger.post_settlement(Outcome(other, found.lines))
    assert ledger.verify_chain() == 2
    assert [item.digest for item in ledger.settlements()] == [found.digest]


def test_a_month_before_a_settled_one_is_refused(ledger: Ledger) -> None:
    ledger.book_revenue(10_000, FIRST_MS, b"1")
    early = outcome(ledger)
    ledger.post_settlement(outcome(ledger, "2026-12", NEXT_CLOSE_MS))
    with pytest.raises(UsageError, match="2026-12 is settled already"):
        ledger.post_settlement(early)


def test_two_daemons_at_once_settle_once(tmp_path: Path) -> None:
    ledgers = [Ledger(tmp_path / "ledger.db") for _ in range(4)]
    ledgers[0].book_revenue(10_000, FIRST_MS, b"1")
    posted: list[bool] = []

    def settle_with(one: Ledger) -> None:
        posted.append(one.post_settlement(outcome(one)))

    work = [threading.Thread(target=settle_with, args=(one,)) for one in ledgers]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert sorted(posted) == [False, False, False, True]
    assert ledgers[3].verify_chain() == 2


def test_what_is_booked_after_a_close_belongs_to_the_next_month(ledger: Ledger) -> None:
    ledger.book_revenue(10_000, FIRST_MS, b"1")
    ledger.post_settlement(outcome(ledger))
    ledger.book_revenue(700, FIRST_MS + 5, b"2")  # the clock was set back
    assert ledger.books("2026-12", NEXT_CLOSE_MS).revenue_cents == 700
    assert ledger.books(MONTH, CLOSE_MS).revenue_cents == 10_000


def test_a_booking_that_names_its_month_counts_there_alone(ledger: Ledger) -> None:
    ledger.book_revenue(10_000, FIRST_MS, b"1")
    ledger.book_revenue(700, CLOSE_MS + 5, b"2", month=MONTH)
    ledger.book_cost(30, CLOSE_MS + 6, b"3", month=MONTH)
    ledger.book_revenue(1, CLOSE_MS + 7, b"4")
    found = ledger.books(MONTH, CLOSE_MS)
    assert (found.revenue_cents, found.costs_cents) == (10_700, 30)
    ledger.post_settlement(outcome(ledger))
    assert ledger.books("2026-12", NEXT_CLOSE_MS).revenue_cents == 1
    with pytest.raises(UsageError, match="2026-11 is settled already"):
        ledger.book_revenue(5, CLOSE_MS + 8, b"5", month=MONTH)
    assert ledger.verify_chain() == 5


def test_an_unbooked_revenue_is_named_and_zero_is_a_booking(ledger: Ledger) -> None:
    with pytest.raises(UsageError, match="no revenue is booked for 2026-11"):
        ledger.books(MONTH, CLOSE_MS)
    ledger.book_revenue(0, FIRST_MS, b"1")
    assert ledger.books(MONTH, CLOSE_MS).revenue_cents == 0


def test_contributions_are_known_only_where_every_income_names_its_account(ledger: Ledger) -> None:
    ledger.book_revenue(100, FIRST_MS, b"1", account=account(1))
    ledger.book_revenue(200, FIRST_MS, b"2", account=account(1))
    assert ledger.books(MONTH, CLOSE_MS).contributions == {account(1): 300}
    ledger.book_revenue(1, FIRST_MS, b"3")
    assert ledger.books(MONTH, CLOSE_MS).contributions == {}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE tx SET memo = 'x'",
        "DELETE FROM tx",
        "UPDATE posting SET cents = 1",
        "DELETE FROM posting",
        "UPDATE settlement SET digest = x'00'",
        "DELETE FROM settlement",
        "DELETE FROM account",
        "INSERT OR REPLACE INTO posting VALUES (1, 0, 'reserve', 5)",
    ],
)
def test_the_database_refuses_every_change(ledger: Ledger, tmp_path: Path, statement: str) -> None:
    ledger.book_revenue(10_000, FIRST_MS, b"1")
    ledger.post_settlement(outcome(ledger))
    with sqlite3.connect(tmp_path / "ledger.db") as conn:
        conn.execute("PRAGMA recursive_triggers = ON")
        with pytest.raises(sqlite3.IntegrityError, match=r"append-only|FOREIGN KEY|UNIQUE"):
            conn.execute(statement)
    conn.close()


def test_a_cent_changed_behind_its_back_breaks_the_chain(ledger: Ledger, tmp_path: Path) -> None:
    ledger.book_revenue(10_000, FIRST_MS, b"1")
    ledger.book_revenue(20_000, FIRST_MS, b"2")
    conn = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    conn.execute("DROP TRIGGER posting_no_update")
    conn.execute("UPDATE posting SET cents = cents * 2 WHERE tx = 1")
    conn.close()
    with pytest.raises(LocalError, match="transaction 1 "):
        ledger.verify_chain()


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 10**9), st.integers(1, 5)), max_size=15))
@settings(max_examples=25, deadline=None)
def test_the_books_sum_to_zero_whatever_is_booked(
    tmp_path_factory: pytest.TempPathFactory, bookings: list[tuple[bool, int, int]]
) -> None:
    ledger = Ledger(tmp_path_factory.mktemp("ledger") / "ledger.db")
    ledger.book_revenue(5, FIRST_MS, b"first")
    for number, (income, cents, day) in enumerate(bookings):
        book = ledger.book_revenue if income else ledger.book_cost
        book(cents, FIRST_MS + day, str(number).encode())
    ledger.post_settlement(outcome(ledger))
    assert ledger.trial_balance() == 0
    assert ledger.verify_chain() == len(bookings) + 2
    ledger.close()
