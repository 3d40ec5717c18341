from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.origin.money import holds as holds_
from farcast.origin.money.flags import Hold
from farcast.origin.money.holds import DENIED, Holds, hold_id
from farcast.origin.money.ledger import Ledger
from farcast.origin.money.transaction import Posting
from farcast.protocol.errors import LocalError, UsageError
from farcast.protocol.rules import DAY_MS
from farcast.tests.unit.origin.mint import MONTH, account
from farcast.tests.unit.origin.money.conftest import NewPlace

NOW_MS = 1_800_000_000_000
WINDOW_MS = 30 * DAY_MS
FLAGS = (
    Hold(account(1), "median", {"viewed_ms": 9, "median_ms": 2}, {"ann": 70, "bob": 30}),
    Hold(account(2), "near_cap", {"days": 3}, {"ann": 5}),
)
FIRST, SECOND = (hold_id(MONTH, hold.account) for hold in FLAGS)


@pytest.fixture
def holds(ledger: Ledger) -> Holds:
    return filled(ledger)


def filled(ledger: Ledger) -> Holds:
    """Post what a settlement holds, and its records, in one transaction."""
    holds = Holds(ledger)
    lines = [Posting("pool:revenue", 105), Posting("held:ann", -75), Posting("held:bob", -30)]
    with ledger.transaction() as tx:
        tx.post("view", MONTH.encode(), NOW_MS, lines)
        holds_.record(tx, MONTH, FLAGS, NOW_MS, WINDOW_MS)
    return holds


def test_a_hold_says_of_whom_why_how_much_and_until_when_one_may_appeal(holds: Holds) -> None:
    one = next(hold for hold in holds.list() if hold.id == FIRST)
    assert (one.month, one.account, one.rule, one.cents) == (
        MONTH,
        account(1),
        "median",
        {"ann": 70, "bob": 30},
    )
    assert one.evidence == {"viewed_ms": 9, "median_ms": 2}
    assert (one.held_ms, one.until_ms, one.state) == (NOW_MS, NOW_MS + WINDOW_MS, "held")
    assert holds.list("2026-10") == []
    assert holds.waiting(NOW_MS) == (2, 0, 0, 105)


def test_a_release_pays_the_payees_once(holds: Holds, ledger: Ledger) -> None:
    released = holds.release(FIRST, NOW_MS + 1)
    assert holds.release(FIRST, NOW_MS + 99) == released
    assert (released.state, released.decided_ms) == ("released", NOW_MS + 1)
    assert ledger.balances("payable:") == {"payable:ann": -70, "payable:bob": -30}
    assert ledger.balances("held:") == {"held:ann": -5, "held:bob": 0}
    assert holds.waiting(NOW_MS) == (1, 0, 0, 5)
    assert ledger.trial_balance() == 0


def test_a_denial_waits_for_an_appeal_or_the_window_and_goes_to_nobody(holds: Holds, ledger: Ledger) -> None:
    with pytest.raises(UsageError, match="may still be appealed against"):
        holds.deny(FIRST, NOW_MS + WINDOW_MS - 1)
    denied = holds.deny(FIRST, NOW_MS + WINDOW_MS)
    assert holds.deny(FIRST, NOW_MS + WINDOW_MS + 7) == denied
    holds.appeal(SECOND, "a ward", NOW_MS + 5)
    holds.deny(SECOND, NOW_MS + 6)
    assert ledger.balances("payable:") == {}
    assert ledger.balances(DENIED) == {DENIED: -105}
    assert ledger.balances("held:") == {"held:ann": 0, "held:bob": 0}


def test_what_a_denial_carries_is_in_no_later_pool(holds: Holds, ledger: Ledger) -> None:
    holds.deny(FIRST, NOW_MS + WINDOW_MS)
    ledger.book_revenue(10, NOW_MS, b"r")
    assert ledger.books("2027-01", NOW_MS + WINDOW_MS).brought_cents == 0


def test_an_appeal_is_noted_once_and_within_its_window(holds: Holds) -> None:
    appealed = holds.appeal(FIRST, "a ward of 40 beds", NOW_MS + 1)
    assert (appealed.state, appealed.note) == ("appealed", "a ward of 40 beds")
    assert holds.appeal(FIRST, "a ward of 40 beds", NOW_MS + 2) == appealed
    with pytest.raises(UsageError, match="is appealed already"):
        holds.appeal(FIRST, "other words", NOW_MS + 2)
    with pytest.raises(UsageError, match=r"window of hold .* is over"):
        holds.appeal(SECOND, "late", NOW_MS + WINDOW_MS)
    with pytest.raises(UsageError, match="--note says"):
        holds.appeal(SECOND, "  ", NOW_MS)
    assert holds.waiting(NOW_MS + WINDOW_MS) == (2, 1, 1, 105)


def test_a_decision_stands(holds: Holds) -> None:
    holds.release(FIRST, NOW_MS)
    with pytest.raises(UsageError, match="is released already, which stands"):
        holds.deny(FIRST, NOW_MS + WINDOW_MS)
    with pytest.raises(UsageError, match="is released already"):
        holds.appeal(FIRST, "why", NOW_MS)
    holds.deny(SECOND, NOW_MS + WINDOW_MS)
    with pytest.raises(UsageError, match="is denied already, which stands"):
        holds.release(SECOND, NOW_MS + WINDOW_MS)


def test_a_hold_is_found_by_its_unique_beginning(holds: Holds) -> None:
    assert holds.release(FIRST[:12], NOW_MS).id == FIRST
    with pytest.raises(UsageError, match="no hold fits 'x'"):
        holds.release("x", NOW_MS)
    with pytest.raises(UsageError, match="no hold fits ''"):
        holds.release("", NOW_MS)


def test_records_are_never_changed(holds: Holds, ledger: Ledger) -> None:
    holds.appeal(FIRST, "a ward", NOW_MS)
    for change in ("UPDATE hold_step SET note = ''", "DELETE FROM hold", "UPDATE hold_part SET cents = 1"):
        with pytest.raises(LocalError), ledger.transaction() as tx:
            tx.execute(change)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["appeal", "release", "deny"]), st.sampled_from([FIRST, SECOND]), st.integers(0, 60)
    ),
    max_size=12,
)


@given(STEPS)
@settings(max_examples=10, deadline=None)
def test_whatever_is_done_in_whatever_order_no_cent_is_lost_or_paid_twice(
    new_place: NewPlace, steps: list[tuple[str, str, int]]
) -> None:
    ledger = Ledger(new_place())
    holds = filled(ledger)
    for what, name, day in steps:
        now_ms = NOW_MS + day * DAY_MS
        try:
            if what == "appeal":
                holds.appeal(name, "words", now_ms)
            else:
                (holds.release if what == "release" else holds.deny)(name, now_ms)
        except UsageError:
            continue
    sums = {"held": 0, "appealed": 0, "released": 0, "denied": 0}
    for hold in holds.list():
        sums[hold.state] += sum(hold.cents.values())
    assert -sum(ledger.balances("payable:").values()) == sums["released"]
    assert -sum(ledger.balances(DENIED).values()) == sums["denied"]
    assert -sum(ledger.balances("held:").values()) == sums["held"] + sums["appealed"]
    assert sum(sums.values()) == 105
    assert ledger.trial_balance() == 0
    ledger.verify_chain()
    ledger.close()
