from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from msgspec.structs import replace

from farcast.origin.money import bookings
from farcast.origin.money.bookings import COSTS, RECEIVED, REVENUE
from farcast.origin.money.database import Place, Schema, Step
from farcast.origin.money.ledger import CARRIED, DEFICIT, RESERVE, Entry, Ledger
from farcast.origin.money.settlement import Outcome
from farcast.origin.money.transaction import Posting
from farcast.protocol.errors import LocalError, UsageError
from farcast.tests.unit.origin.mint import CLOSE_MS, FIRST_MS, MONTH, RELAY, account
from farcast.tests.unit.origin.money.months import behind_its_back, outcome, without_guards

VERSION_1 = Path(__file__).parents[3] / "vectors" / "ledger-v1.sql"
NEXT_CLOSE_MS = CLOSE_MS + 31 * 86_400_000


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


def test_two_daemons_at_once_settle_once(place: Place) -> None:
    ledgers = [Ledger(place) for _ in range(4)]
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
    for one in ledgers:
        one.close()


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
        "UPDATE settlement SET month = '2026-10'",
        "DELETE FROM settlement",
        "DELETE FROM account",
        "UPDATE ledger SET currency = 'USD'",
        "INSERT INTO posting VALUES (1, 0, 'reserve', 5)",
    ],
)
def test_the_database_refuses_every_change(place: Place, statement: str) -> None:
    ledger = Ledger(place, "EUR")
    ledger.book_revenue(10_000, FIRST_MS, b"1")
    ledger.post_settlement(outcome(ledger))
    with pytest.raises(
        (sqlite3.IntegrityError, psycopg.Error), match=r"append-only|foreign key|FOREIGN KEY|UNIQUE|duplicate"
    ):
        behind_its_back(place, statement)
    ledger.verify_chain()
    ledger.close()


def test_a_cent_changed_behind_its_back_breaks_the_chain(ledger: Ledger, place: Place) -> None:
    ledger.book_revenue(10_000, FIRST_MS, b"1")
    ledger.book_revenue(20_000, FIRST_MS, b"2")
    without_guards(place)
    behind_its_back(place, "UPDATE posting SET cents = cents * 2 WHERE tx = 1")
    with pytest.raises(LocalError, match="transaction 1 "):
        ledger.verify_chain()


def test_another_currency_is_refused(place: Place) -> None:
    Ledger(place, "EUR").close()
    Ledger(place).close()
    Ledger(place, "EUR").close()
    with pytest.raises(UsageError, match=r"kept in EUR, so .* cannot be USD"):
        Ledger(place, "USD")


def test_a_settlement_computed_before_a_booking_is_computed_again(ledger: Ledger) -> None:
    ledger.book_revenue(10_000, FIRST_MS, b"1")
    found = outcome(ledger)
    ledger.book_revenue(50, FIRST_MS, b"2")
    with pytest.raises(LocalError, match="something was booked in between"):
        ledger.post_settlement(found)
    assert ledger.post_settlement(outcome(ledger))
    assert ledger.verify_chain() == 3


def test_relay_pay_is_owed_to_the_payee_a_relay_names_or_to_itself(ledger: Ledger) -> None:
    ledger.book_revenue(10_000, FIRST_MS, b"1")
    found = outcome(ledger, served=3_000_000)
    assert ledger.post_settlement(found, {}, lambda _: "ann")
    pay = found.statement.relay_pay_cents
    assert pay == 6
    kinds = [(entry.kind, entry.cents) for entry in ledger.entries("payable:ann")]
    assert kinds == [("relay", -pay), ("view", -found.lines[0].paid_cents)]
    ledger.book_revenue(10_000, CLOSE_MS + 1, b"2")
    ledger.post_settlement(outcome(ledger, "2026-12", NEXT_CLOSE_MS, served=1_000_000))
    assert ledger.balances("relay:") == {f"relay:{RELAY.peer_id}": -2}
    assert ledger.balances("pool:") == {COSTS: 0, REVENUE: 0}
    assert ledger.verify_chain() == 6


# -- generic transactions, as other rooms use them

PAYOUTS = Schema(
    "payouts",
    (
        Step(
            "0001_payouts",
            (
                """CREATE TABLE payout (
                     id INTEGER PRIMARY KEY, payee TEXT NOT NULL, body BLOB NOT NULL) STRICT""",
                "CREATE UNIQUE INDEX idx_payout_payee ON payout (payee)",
            ),
        ),
        Step(
            "0002_done", ("CREATE TABLE done (id INTEGER NOT NULL REFERENCES payout(id)) STRICT",), ("done",)
        ),
    ),
)


def test_a_transaction_posts_and_writes_its_rooms_tables_or_nothing(ledger: Ledger, place: Place) -> None:
    ledger.prepare(PAYOUTS)
    ledger.prepare(PAYOUTS)
    with ledger.transaction() as tx:
        assert tx.post("payout", b"1", 5, [Posting("payable:ann", 100), Posting("clearing:sepa", -100)], "a")
        tx.execute("INSERT INTO payout VALUES (?, ?, ?)", (2**62, "ann", b"\0\xff?%"))
    with pytest.raises(UsageError), ledger.transaction() as tx:  # noqa: PT012 - all of it is one transaction
        tx.execute("INSERT INTO payout VALUES (?, ?, ?)", (7, "bob", b""))
        assert not tx.post(
            "payout", b"1", 9, [Posting("payable:ann", 100), Posting("clearing:sepa", -100)], "a"
        )
        assert tx.post("payout", b"2", 5, [Posting("payable:ann", 1), Posting("clearing:sepa", -1)])
        tx.post("payout", b"1", 9, [Posting("payable:ann", 101), Posting("clearing:sepa", -101)], "a")
    with ledger.transaction() as tx:
        found = tx.execute("SELECT * FROM payout WHERE payee = ?", ("ann",)).fetchall()
        assert found == [(2**62, "ann", b"\0\xff?%")]
        assert tx.execute("SELECT count(*), sum(id) FROM payout").fetchone() == (1, 2**62)
        assert tx.execute("SELECT 1 FROM payout WHERE payee = ?", ("bob",)).fetchone() is None
        changed = tx.execute("INSERT INTO payout VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (8, "ann", b""))
        assert changed.rowcount == 0
        assert [row[0] for row in tx.execute("SELECT payee FROM payout")] == ["ann"]
    assert ledger.balances("payable:") == {"payable:ann": 100}
    assert ledger.balances("clearing") == {"clearing:sepa": -100}
    assert ledger.entries("payable:ann") == [Entry(1, 5, "payout", 100, "a")]
    assert ledger.verify_chain() == 1
    again = Ledger(place)
    assert again.balances() == ledger.balances()
    again.close()


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        ("payout", [Posting("reserve", 5), Posting("fees", -4)]),
        ("payout", [Posting("Reserve", 5), Posting("fees", -5)]),
        ("payout", [Posting("held:a'b", 5), Posting("fees", -5)]),
        ("payout", [Posting("reserve", 2**53), Posting("fees", -(2**53))]),
        ("pay out", [Posting("reserve", 5), Posting("fees", -5)]),
    ],
)
def test_what_cannot_be_posted_is_refused_and_nothing_stays(
    ledger: Ledger, kind: str, lines: list[Posting]
) -> None:
    with (
        pytest.raises(LocalError, match=r"cannot post|cannot be posted|do not sum to zero"),
        ledger.transaction() as tx,
    ):
        tx.post(kind, b"1", 5, lines)
    assert (ledger.balances(), ledger.verify_chain()) == ({}, 0)


def test_a_reader_sees_one_state_and_writes_nothing(place: Place) -> None:
    ledger, other = Ledger(place), Ledger(place)
    ledger.book_revenue(5, FIRST_MS, b"1")
    with ledger.reading() as tx:
        before = tx.balances()
        other.book_revenue(6, FIRST_MS, b"2")
        assert tx.balances() == before
    assert ledger.balances()[REVENUE] == -11
    ledger.close()
    other.close()


def test_balances_sort_by_bytes_and_take_a_prefix(ledger: Ledger) -> None:
    names = ["payable:z", "payable:Z", "payable:a-b", "payable:a.b", "payable:ab", "held:a", "reserve"]
    with ledger.transaction() as tx:
        tx.post("test", b"", 0, [Posting(name, 1) for name in names] + [Posting("fees", -len(names))])
    assert list(ledger.balances()) == sorted([*names, "fees"])
    assert list(ledger.balances("payable:")) == sorted(names[:5])
    assert list(ledger.balances("payable:a")) == ["payable:a-b", "payable:a.b", "payable:ab"]


def test_entries_come_in_order_and_in_pages(ledger: Ledger) -> None:
    for number in range(5):
        ledger.book_revenue(number + 1, FIRST_MS, bytes([number]), memo=f"é{number}")
    assert [entry.cents for entry in ledger.entries(REVENUE, limit=2)] == [-1, -2]
    assert [entry.number for entry in ledger.entries(REVENUE, after=2)] == [3, 4, 5]
    assert ledger.entries("reserve") == []


# -- other sources


def test_a_tip_a_patron_and_a_collaboration_are_owed_to_payees(ledger: Ledger) -> None:
    ledger.book(bookings.tip(109, "ann"), FIRST_MS, b"1")
    assert ledger.balances() == {"assets:received": 109, "fees": -10, "payable:ann": -99}
    ledger.book(bookings.patron(1_000, "bob", MONTH, fee_points=500), FIRST_MS, b"2")
    ledger.book(bookings.collaboration(101, {"ann": 5_000, "bob": 5_000}), FIRST_MS, b"3")
    assert ledger.balances() == {
        "assets:received": 1_210, "fees": -60, "payable:ann": -150, "payable:bob": -1_000,
    }  # fmt: skip
    with pytest.raises(UsageError, match="no revenue is booked"):
        ledger.books(MONTH, CLOSE_MS)  # none of it is the pool's


def test_a_refund_is_the_inverse_once(ledger: Ledger) -> None:
    ledger.book(bookings.collaboration(101, {"ann": 5_000, "bob": 5_000}), FIRST_MS, b"1")
    ledger.book_revenue(500, FIRST_MS, b"2")
    before = ledger.balances()
    ledger.book(bookings.tip(109, "ann"), FIRST_MS, b"3")
    booking, key = ledger.refund(3, FIRST_MS + 1, note="by mistake")
    assert (booking.cents, ledger.number("refund", key)) == (-109, 4)
    assert ledger.balances() == {**before, "fees": 0}
    with pytest.raises(UsageError, match="transaction 3 is refunded already"):
        ledger.refund(3, FIRST_MS + 2)
    with pytest.raises(UsageError, match="transaction 4 is a refund"):
        ledger.refund(4, FIRST_MS + 2)
    with pytest.raises(UsageError, match="there is no transaction 9"):
        ledger.refund(9, FIRST_MS + 2)
    assert ledger.verify_chain() == 4


def test_a_refund_of_what_is_not_settled_counts_with_it(ledger: Ledger) -> None:
    ledger.book_revenue(10_000, FIRST_MS, b"1", account=account(1))
    ledger.book_revenue(700, FIRST_MS, b"2", account=account(2))
    ledger.refund(2, CLOSE_MS + 9)  # the month is over, but not settled
    found = ledger.books(MONTH, CLOSE_MS)
    assert found.revenue_cents == 10_000
    assert found.contributions == {account(1): 10_000, account(2): 0}
    ledger.post_settlement(outcome(ledger))
    assert ledger.balances(REVENUE) == {REVENUE: 0}
    ledger.book_revenue(3, CLOSE_MS + 10, b"3")
    assert ledger.books("2026-12", NEXT_CLOSE_MS).revenue_cents == 3
    assert ledger.books(MONTH, CLOSE_MS).revenue_cents == 10_000


def test_a_refund_of_what_is_settled_counts_against_the_next_month(ledger: Ledger) -> None:
    ledger.book_revenue(10_000, FIRST_MS, b"1")
    ledger.post_settlement(outcome(ledger))
    ledger.refund(1, FIRST_MS + 5)
    assert ledger.books(MONTH, CLOSE_MS).revenue_cents == 10_000
    ledger.book_revenue(4_000, CLOSE_MS + 10, b"2")
    found = ledger.books("2026-12", NEXT_CLOSE_MS)
    assert (found.revenue_cents, found.costs_cents) == (0, 6_000)
    ledger.post_settlement(outcome(ledger, "2026-12", NEXT_CLOSE_MS))
    assert ledger.balances("pool:") == {REVENUE: 0}
    assert ledger.balances()[DEFICIT] == 6_000
    assert ledger.trial_balance() == 0
    with pytest.raises(UsageError, match="transaction 2 is a view"):
        ledger.refund(2, CLOSE_MS)


def test_a_month_that_was_named_and_never_settled_counts_in_the_next_settlement(ledger: Ledger) -> None:
    ledger.book_revenue(10_000, CLOSE_MS + 5, b"1", month=MONTH)
    ledger.book_revenue(1, CLOSE_MS + 6, b"2")
    assert ledger.books("2026-12", NEXT_CLOSE_MS).revenue_cents == 10_001
    ledger.post_settlement(outcome(ledger, "2026-12", NEXT_CLOSE_MS))
    ledger.book_revenue(2, NEXT_CLOSE_MS + 6, b"3")
    assert ledger.books("2027-01", NEXT_CLOSE_MS + 31 * 86_400_000).revenue_cents == 2


def test_a_ledger_made_by_the_first_version_opens_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as conn:
        conn.executescript(VERSION_1.read_text("utf-8"))
    ledger = Ledger(path, "EUR")
    relay = f"relay:{RELAY.peer_id}"
    balances = {
        RECEIVED: 9_701, "payable:ann": -4_206, "payable:bob": -4_205, "payee:ann": 0, "payee:bob": 0,
        COSTS: 0, REVENUE: -700, relay: -90, RESERVE: -500,
    }  # fmt: skip
    assert ledger.balances() == balances
    assert ledger.verify_chain() == 5
    assert [item.month for item in ledger.settlements()] == [MONTH]
    assert ledger.books("2026-12", NEXT_CLOSE_MS).revenue_cents == 700
    assert ledger.post_settlement(outcome(ledger, "2026-12", NEXT_CLOSE_MS))
    ledger.close()
    again = Ledger(path, "EUR")
    assert again.verify_chain() == 6  # the renaming was posted once
    assert again.balances("payable:") == {"payable:ann": -4_539, "payable:bob": -4_537}
    again.close()
