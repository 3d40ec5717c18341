from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.origin.money.credit import Credit, Fact
from farcast.origin.money.settlement import Books, Log, Outcome, settle
from farcast.origin.money.viewing import sum_up
from farcast.protocol.audit import audit
from farcast.protocol.identity import Identity
from farcast.protocol.leaves import Leaves
from farcast.protocol.rules import HOUR_MS, Rules
from farcast.protocol.statement import DayLine, FlagLine, Line, RelayLine
from farcast.protocol.tables import TABLES, settlement_json
from farcast.tests.unit.origin.mint import FIRST_DAY, MONTH, PUBLISHER, RELAY, Shelf, account

OTHER = Identity(b"\x31" * 32)
SHELF = Shelf()
SOLO = SHELF.add("solo", {"ann": 10_000})
DUET = SHELF.add("duet", {"ann": 6_667, "bob": 3_333})
ELSEWHERE = SHELF.add("elsewhere", {"cat": 10_000}, publisher=OTHER)
SMALL = SHELF.add("small", {"ann": 10_000}, size_bytes=5_000_000)
TITLES = [SOLO, DUET, ELSEWHERE]
LOG = Log(7, bytes(32), bytes(32))
RELAYS = {RELAY.key[:16]: RELAY.key}
A, B = sorted([PUBLISHER.key, OTHER.key])


def viewed(
    number: int, ms: int, manifest: bytes = SOLO, *, day: int = FIRST_DAY, seq: int = 1, kbytes: int = 0
) -> Credit:
    name = f"{number} {day} {seq} {manifest.hex()}".encode()
    served = ((RELAY.key[:16], kbytes),) if kbytes else ()
    item = Fact(account(number), 0, account(number), day, seq, name, 0, 0, 0, ms, 2, manifest, served, "")
    return Credit(item, ms, ())


def books(
    revenue: int, costs: int = 0, contributions: dict[bytes, int] | None = None, brought: int = 0
) -> Books:
    return Books(revenue, costs, contributions or {}, brought, bytes(32))


def run(
    credits_: list[Credit],
    money: Books,
    rules: Rules | None = None,
    carried_in: tuple[Credit, ...] = (),
    late: tuple[Fact, ...] = (),
    settled: tuple[Fact, ...] = (),
) -> Outcome:
    rules = rules or Rules()
    viewing = sum_up(credits_, carried_in, late, settled, SHELF.manifests, rules)
    return settle(MONTH, 0, viewing, SHELF.manifests, money, RELAYS, LOG, rules)


def test_a_small_month_worked_out_by_hand() -> None:
    """Revenue 100.00, costs 20.01, relay pay 3 GB at 2 cents = 0.06, reserve 5.00: the pool is 74.93.

    Weights in seconds x 10,000: solo 600, duet 300 (ann 6667, bob 3333), elsewhere 100 of 1,000 s.
    Platforms: 74.93 x 900/1000 = 67.437, x 100/1000 = 7.493: 67.44 and 7.49 by largest remainder.
    Within the first, of 9,000,000 points: ann 8,000,100 = 59.9488..., bob 999,900 = 7.4912...:
    59.94 + 7.49 leave one cent, which goes to ann (remainder .88 before .12): 59.95 and 7.49.
    """
    found = run(
        [
            viewed(1, 600_000, SOLO, kbytes=2_000_000 - 1_000_000),
            viewed(2, 300_000, DUET, kbytes=1_000_000),
            viewed(3, 100_000, ELSEWHERE, kbytes=1_000_000),
        ],
        books(10_000, 2_001),
    )
    s = found.statement
    assert settlement_json(s, found.lines) == {
        "revenue_cents": 10_000,
        "costs_cents": 2_007,
        "relay_pay_cents": 6,
        "reserve_cents": 500,
        "pool_cents": 7_493,
        "held_cents": 0,
        "carried_cents": 0,
        "payouts": [
            {"payee": "ann", "cents": 5_995},
            {"payee": "bob", "cents": 749},
            {"payee": "cat", "cents": 749},
        ],
    }
    assert s.relays == [RelayLine(RELAY.key, 3_000_000, 6)]
    assert {line.payee: line.platform for line in found.lines} == {
        "ann": PUBLISHER.key,
        "bob": PUBLISHER.key,
        "cat": OTHER.key,
    }
    assert (s.accounts, s.pulses, s.viewed_ms, s.payers_known) == (3, 3, 1_000_000, False)


def test_zero_viewing_carries_the_pool_over() -> None:
    s = run([], books(1_000, 100)).statement
    assert (s.pool_cents, s.carried_cents, s.paid_cents) == (850, 850, 0)


def test_what_was_carried_over_joins_the_next_pool() -> None:
    s = run([viewed(1, 1)], books(1_000, 100, brought=77)).statement
    assert (s.pool_cents, s.paid_cents, s.carried_cents) == (927, 927, 0)


def test_a_deficit_is_its_own_line_and_pays_nobody() -> None:
    found = run([viewed(1, 60_000)], books(1_000, 1_200))
    s = found.statement
    assert (s.deficit_cents, s.pool_cents, s.paid_cents) == (250, 0, 0)
    assert [line.share_cents for line in found.lines] == [0]


@pytest.mark.parametrize(("base", "reserve"), [("revenue", 50), ("surplus", 44)])
def test_the_reserve_is_a_share_of_the_base_the_rules_name_rounded_down(base: str, reserve: int) -> None:
    rules = Rules(reserve_base="surplus" if base == "surplus" else "revenue")
    assert run([], books(1_019, 120), rules).statement.reserve_cents == reserve


def test_late_lines_are_marked_with_the_month_they_were_watched_in() -> None:
    late = viewed(1, 60_000, day=FIRST_DAY - 3)
    found = run([viewed(1, 60_000)], books(1_000), carried_in=(late,))
    assert [(x.payee, x.month, x.paid_cents) for x in found.lines] == [
        ("ann", "2026-10", 475),
        ("ann", "2026-11", 475),
    ]


def test_a_relay_is_paid_no_more_of_a_title_than_it_has_bytes() -> None:
    credits_ = [viewed(1, 1, SMALL, seq=seq, kbytes=4_000) for seq in range(1, 10)]
    again = [viewed(2, 1, SMALL, kbytes=4_000), viewed(1, 1, SMALL, day=FIRST_DAY + 1, kbytes=4_000)]
    found = run([*credits_, *again], books(0))
    assert found.statement.relays == [RelayLine(RELAY.key, 5_000 + 4_000 + 4_000, 0)]


def test_late_pulses_bring_a_relay_only_what_was_not_paid_before() -> None:
    old = [viewed(1, 1, day=FIRST_DAY - 1, seq=seq, kbytes=1_000_000).fact for seq in (1, 2, 3)]
    found = run([], books(0), late=tuple(old), settled=tuple(old[:2]))
    assert found.statement.relays == []
    smaller = [item._replace(served=((RELAY.key[:16], 300_000),)) for item in old]
    found = run([], books(0), late=tuple(smaller), settled=tuple(smaller[:2]))
    assert found.statement.relays == [RelayLine(RELAY.key, 300_000, 0)]


def test_an_unknown_relay_is_paid_nothing() -> None:
    item = viewed(1, 1, kbytes=9_000_000)
    stranger = Credit(item.fact._replace(served=((bytes(16), 9_000_000),)), 1, ())
    assert run([stranger], books(0)).statement.relay_pay_cents == 0


def crowd(heavy_ms: int, count: int = 29) -> list[Credit]:
    return [viewed(n, 60_000) for n in range(1, count + 1)] + [viewed(99, heavy_ms)]


def test_three_times_the_median_is_held_once_there_are_thirty_accounts() -> None:
    found = run(crowd(180_001), books(10_000))
    assert found.statement.flags == [FlagLine("median", 1, found.statement.held_cents)]
    assert found.statement.held_cents == 890
    assert run(crowd(180_000), books(10_000)).statement.flags == []
    assert run(crowd(10**9, count=28), books(10_000)).statement.flags == []


def test_holding_one_account_changes_nobody_elses_cents() -> None:
    rules = Rules(median_accounts=10**6)
    held, paid = run(crowd(180_001), books(10_000)), run(crowd(180_001), books(10_000), rules)
    assert [x.share_cents for x in held.lines] == [x.share_cents for x in paid.lines]
    assert held.statement.paid_cents + held.statement.held_cents == paid.statement.paid_cents


def test_three_near_maximum_days_in_a_row_are_held() -> None:
    def days(*numbers: int) -> Outcome:
        return run([viewed(1, 15 * HOUR_MS, day=FIRST_DAY + n) for n in numbers], books(1_000))

    assert days(3, 4, 5).statement.flags == [FlagLine("near_cap", 1, 950)]
    assert days(3, 4, 6, 7).statement.flags == []


def test_no_account_moves_more_than_three_times_what_it_brought() -> None:
    contributions = {account(1): 100, account(2): 900}
    credits_ = [viewed(1, 900_000, SOLO), viewed(2, 100_000, ELSEWHERE)]
    found = run(credits_, books(1_000, 0, contributions))
    s = found.statement
    assert s.payers_known
    # account 1 brought 95 of the pool of 950, may move 285, and would have moved 855
    assert {x.payee: (x.share_cents, x.paid_cents, x.capped_cents) for x in found.lines} == {
        "ann": (855, 285, 570),
        "cat": (95, 95, 0),
    }
    assert (s.capped_cents, s.carried_cents) == (570, 570)


def test_both_ways_to_split_are_computed_and_the_rules_choose() -> None:
    contributions = {account(1): 100, account(2): 800, account(3): 100}
    credits_ = [viewed(1, 900_000, SOLO), viewed(2, 100_000, ELSEWHERE)]
    pooled = run(credits_, books(1_000, 0, contributions))
    assert {x.payee: x.per_payer_cents for x in pooled.lines} == {"ann": 95, "cat": 760}
    by_payer = run(credits_, books(1_000, 0, contributions), Rules(mode="per_payer"))
    assert {x.payee: x.paid_cents for x in by_payer.lines} == {"ann": 95, "cat": 760}
    assert by_payer.statement.carried_cents == 95


def test_days_with_few_viewers_are_merged() -> None:
    big = [viewed(n, 1_000, day=FIRST_DAY) for n in range(10)]
    small = [viewed(n, 1_000, day=FIRST_DAY + 1 + n) for n in range(3)]
    assert run([*big, *small], books(0)).statement.days == [
        DayLine("2026-11-01", 10, 10, 10_000),
        DayLine("other", 0, 3, 3_000),
    ]


_CREDITS = st.lists(
    st.builds(
        viewed,
        st.integers(1, 8),
        st.integers(0, 16 * HOUR_MS),
        st.sampled_from(TITLES),
        day=st.integers(FIRST_DAY, FIRST_DAY + 4),
        seq=st.integers(1, 3),
        kbytes=st.integers(0, 3_000_000),
    ),
    max_size=25,
    unique_by=lambda item: item.fact.name,
)
_BOOKS = st.builds(
    books,
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.dictionaries(st.integers(1, 8).map(account), st.integers(1, 10**8), max_size=4),
    st.integers(0, 10**6),
)
_RULES = st.builds(
    Rules,
    mode=st.sampled_from(["pooled", "per_payer"]),
    median_accounts=st.integers(1, 6),
    reserve_points=st.integers(0, 10_000),
    reserve_base=st.sampled_from(["revenue", "surplus"]),
)


@given(_CREDITS, _BOOKS, _RULES, st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_every_month_sums_to_the_cent_and_order_changes_no_byte(
    credits_: list[Credit], money: Books, rules: Rules, random: Random
) -> None:
    found = run(credits_, money, rules)
    audit(found.statement, found.lines)
    s = found.statement
    spent = s.costs_cents + s.reserve_cents + s.paid_cents + s.held_cents + s.carried_cents
    assert s.revenue_cents + s.brought_cents + s.deficit_cents == spent
    shuffled = list(credits_)
    random.shuffle(shuffled)
    again = run(shuffled, money, rules)
    assert again.digest == found.digest
    ours, theirs = Leaves(again.lines), Leaves(found.lines)
    assert all(list(write(s, ours)) == list(write(s, theirs)) for write in TABLES.values())


def test_lines_are_sorted_by_platform_payee_and_month() -> None:
    found = run([viewed(1, 5, t) for t in TITLES], books(100))
    keys = [(x.platform, x.payee, x.month) for x in found.lines]
    assert keys == sorted(keys)
    assert {key[0] for key in keys} == {A, B}
    assert all(isinstance(x, Line) for x in found.lines)


def test_what_the_cap_cuts_is_kept_apart_and_joins_no_later_pool() -> None:
    contributions = {account(1): 100, account(2): 900}
    credits_ = [viewed(1, 900_000, SOLO), viewed(2, 100_000, ELSEWHERE)]
    s = run(credits_, books(1_000, 0, contributions, brought=3)).statement
    assert s.pool_cents == s.paid_cents + s.held_cents + s.carried_cents
    assert (s.capped_cents, s.carried_cents, s.forward_cents) == (573, 573, 0)
    before = run(credits_, books(1_000, 0, contributions, brought=3), Rules(v=2)).statement
    assert (before.carried_cents, before.forward_cents) == (573, 573)
