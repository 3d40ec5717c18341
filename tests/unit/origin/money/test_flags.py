from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from farcast.origin.money.flags import MEDIAN, NEAR_CAP, Flag, flagged
from farcast.origin.money.settlement import Books, Log, Outcome, settle
from farcast.origin.money.viewing import Sum, Viewing, bounded
from farcast.protocol.rules import HOUR_MS, Rules, relay_day_kbytes
from farcast.tests.unit.origin.mint import FIRST_DAY, MONTH, RELAY, Shelf, account

SHELF = Shelf()
TITLES = [SHELF.add("one", {"ann": 10_000}), SHELF.add("two", {"ann": 5_000, "bob": 5_000})]
RULES = Rules(median_accounts=3)


def days(hours: dict[int, list[int]]) -> dict[int, dict[bytes, Sum]]:
    found: dict[int, dict[bytes, Sum]] = {}
    for number, row in hours.items():
        for day, h in enumerate(row):
            if h:
                found.setdefault(FIRST_DAY + day, {})[account(number)] = Sum(h * HOUR_MS, h)
    return found


def test_the_median_rule_says_what_it_saw() -> None:
    found = flagged(days({1: [1], 2: [1, 1], 3: [3, 4]}), RULES)
    assert found == {
        account(3): Flag(
            MEDIAN, {"viewed_ms": 7 * HOUR_MS, "median_ms": 2 * HOUR_MS, "factor": 3, "accounts": 3}
        )
    }
    assert flagged(days({1: [1], 2: [1, 1], 3: [3, 3]}), RULES) == {}
    assert flagged(days({1: [1], 3: [9, 9]}), RULES) == {}


def test_three_near_maximum_days_in_a_row_are_named_the_longest_run_of_them() -> None:
    found = flagged(days({1: [15, 15, 15, 0, 16, 16, 16, 16, 2]}), Rules())
    evidence = {"first_day": FIRST_DAY + 4, "days": 4, "at_least_ms": 15 * HOUR_MS}
    assert found == {account(1): Flag(NEAR_CAP, evidence)}
    assert flagged(days({1: [15, 15, 0, 15, 15, 14, 15]}), Rules()) == {}


def test_an_account_that_two_rules_flag_is_held_once_with_what_both_saw() -> None:
    found = flagged(days({1: [1], 2: [1], 3: [16, 16, 16]}), RULES)
    (flag,) = found.values()
    assert flag.rule == MEDIAN
    assert {"viewed_ms", "median_ms", "first_day", "days"} <= flag.evidence.keys()


HOURS = st.dictionaries(
    st.integers(1, 12), st.lists(st.integers(0, 16), min_size=1, max_size=6), min_size=1, max_size=12
)


@given(HOURS, st.integers(1, 6), st.integers(1, 5), st.integers(1, 4))
@settings(deadline=None)
def test_flags_agree_with_the_rules_in_plain_words(
    hours: dict[int, list[int]], factor: int, accounts: int, in_a_row: int
) -> None:
    rules = Rules(median_factor=factor, median_accounts=accounts, near_cap_days=in_a_row)
    sums = {number: sum(row) for number, row in hours.items() if any(row)}
    ranked = sorted(sums.values())
    above: set[int] = set()
    if len(ranked) >= accounts and ranked:
        median = Fraction(ranked[(len(ranked) - 1) // 2] + ranked[len(ranked) // 2], 2)
        above = {number for number, total in sums.items() if total > factor * median}
    near = {
        number
        for number, row in hours.items()
        if any(all(h >= 15 for h in row[at : at + in_a_row]) for at in range(len(row) - in_a_row + 1))
    }
    assert set(flagged(days(hours), rules)) == {account(number) for number in above | near}


def run(hours: dict[int, list[int]], rules: Rules, paid: dict[int, int], kbytes: int = 0) -> Outcome:
    sums = days(hours)
    ms: dict[tuple[bytes, str], dict[bytes, int]] = {}
    for accounts in sums.values():
        for who, sum_ in accounts.items():
            watched = ms.setdefault((TITLES[who[-1] % 2], MONTH), {})
            watched[who] = watched.get(who, 0) + sum_.ms
    served, over = bounded({(RELAY.key[:16], FIRST_DAY): kbytes} if kbytes else {}, rules)
    viewing = Viewing(ms, sums, {}, {}, served, {}, {}, over)
    contributions = {account(number): cents for number, cents in paid.items()}
    books = Books(sum(paid.values()), 0, contributions, 0, bytes(32))
    relays = {RELAY.key[:16]: RELAY.key}
    return settle(MONTH, 0, viewing, SHELF.manifests, books, relays, Log(0, bytes(32), bytes(32)), rules)


PAID = st.dictionaries(st.integers(1, 12), st.integers(0, 10**6), min_size=1, max_size=12)
NEVER = Rules(median_accounts=10**6, near_cap_days=10**3)


@given(HOURS, PAID, st.integers(1, 4))
@settings(deadline=None)
def test_flagging_somebody_changes_nobody_elses_cents_but_through_escrow(
    hours: dict[int, list[int]], paid: dict[int, int], factor: int
) -> None:
    held = run(hours, Rules(median_factor=factor, median_accounts=2, near_cap_days=2), paid)
    free = run(hours, replace(NEVER, median_factor=factor), paid)
    assert [(x.payee, x.share_cents, x.capped_cents) for x in held.lines] == [
        (x.payee, x.share_cents, x.capped_cents) for x in free.lines
    ]
    for with_flags, without in zip(held.lines, free.lines, strict=True):
        assert with_flags.paid_cents + with_flags.held_cents == without.paid_cents
        assert without.held_cents == 0


@given(HOURS, PAID)
@settings(deadline=None)
def test_holds_are_what_the_statement_holds_to_the_cent(
    hours: dict[int, list[int]], paid: dict[int, int]
) -> None:
    found = run(hours, Rules(median_accounts=2, near_cap_days=2), paid)
    by_payee: dict[str, int] = {}
    for line in found.lines:
        by_payee[line.payee] = by_payee.get(line.payee, 0) + line.held_cents
    held: dict[str, int] = {}
    for hold in found.holds:
        assert min(hold.cents.values()) > 0
        for payee, cents in hold.cents.items():
            held[payee] = held.get(payee, 0) + cents
    assert held == {payee: cents for payee, cents in by_payee.items() if cents}
    accounts = [hold.account for hold in found.holds]
    assert accounts == sorted(set(accounts))
    assert sum(flag.held_cents for flag in found.statement.flags) == found.statement.held_cents


@given(HOURS, PAID, st.integers(1, 5))
@settings(deadline=None)
def test_a_higher_payer_cap_never_pays_less(
    hours: dict[int, list[int]], paid: dict[int, int], factor: int
) -> None:
    low = run(hours, replace(NEVER, payer_factor=factor), paid)
    high = run(hours, replace(NEVER, payer_factor=factor + 1), paid)
    for less, more in zip(low.lines, high.lines, strict=True):
        # largest remainder may move a cent of an account between its payees, not more
        assert less.paid_cents <= more.paid_cents + len(hours)
    assert low.statement.paid_cents <= high.statement.paid_cents
    assert low.statement.capped_cents >= high.statement.capped_cents


@given(
    st.dictionaries(
        st.tuples(st.sampled_from([b"r1", b"r2"]), st.integers(0, 3)), st.integers(0, 10**7), max_size=8
    ),
    st.integers(1_000, 10**5),
)
def test_a_relays_day_is_bounded_and_what_exceeds_is_listed(
    served: dict[tuple[bytes, int], int], rate: int
) -> None:
    rules = Rules(relay_bytes_s=rate)
    paid, over = bounded(served, rules)
    for relay in (b"r1", b"r2"):
        claimed = [kbytes for (one, _), kbytes in served.items() if one == relay]
        assert paid.get(relay, 0) + over.get(relay, 0) == sum(claimed)
        assert paid.get(relay, 0) == sum(min(kbytes, relay_day_kbytes(rules)) for kbytes in claimed)
    more, _ = bounded(served, replace(rules, relay_bytes_s=2 * rate))
    assert all(paid[relay] <= more[relay] for relay in paid)


def test_a_relay_cannot_have_served_more_in_a_day_than_its_line_carries() -> None:
    rules = Rules(relay_bytes_s=1_000_000, relay_cents_per_gb=2)
    assert relay_day_kbytes(rules) == 86_400_000
    (line,) = run({1: [1]}, rules, {1: 0}, kbytes=100_000_000).statement.relays
    assert (line.kbytes, line.over_kbytes, line.cents) == (86_400_000, 13_600_000, 172)
