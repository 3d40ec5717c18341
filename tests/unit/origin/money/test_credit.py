from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.origin.money.credit import Credit, Fact, carry_in, credit
from farcast.protocol.pulse import ACTIVE, RETURN, START, SWITCH
from farcast.protocol.rules import DAY_MS, HOUR_MS, Rules

RULES = Rules()
DAY = 20_760
MINUTE = 60_000


def fact(
    seq: int,
    at_ms: int,
    delta_ms: int = MINUTE,
    *,
    cum_ms: int | None = None,
    late_ms: int = 0,
    state: int = ACTIVE,
    day: int = DAY,
    tid: int = 1,
    device: int = 0,
    account: int = 1,
    manifest: bytes = b"film",
    code: str = "",
) -> Fact:
    at = day * DAY_MS + at_ms
    name = f"{account} {tid} {seq} {at} {state}".encode()
    return Fact(
        account.to_bytes(16, "big"), device, tid.to_bytes(16, "big"), day, seq, name, at, at + late_ms,
        seq * MINUTE if cum_ms is None else cum_ms, delta_ms, state, manifest, (), code,
    )  # fmt: skip


def evening(
    minutes: int, *, start_ms: int = 10 * HOUR_MS, late_ms: int = 0, tid: int = 1, device: int = 0
) -> list[Fact]:
    """Return a start and one pulse a minute."""
    return [
        fact(
            minute + 1,
            start_ms + minute * MINUTE,
            MINUTE if minute else 0,
            state=ACTIVE if minute else START,
            late_ms=late_ms,
            tid=tid,
            device=device,
        )
        for minute in range(minutes + 1)
    ]


def counted(facts: list[Fact], rules: Rules = RULES) -> int:
    return sum(item.ms for item in credit(facts, rules))


def cuts(credits_: list[Credit]) -> dict[str, int]:
    found: dict[str, int] = {}
    for item in credits_:
        for code, ms in item.cuts:
            found[code] = found.get(code, 0) + ms
    return found


def test_an_honest_hour_counts_whole() -> None:
    assert counted(evening(60)) == 60 * MINUTE


def test_a_queue_that_leaves_the_box_at_once_loses_nothing() -> None:
    facts = evening(3)
    last = facts[-1].at_ms
    assert counted([item._replace(received_ms=last) for item in facts]) == 3 * MINUTE


def test_days_behind_a_one_way_link_lose_nothing() -> None:
    assert counted(evening(200, late_ms=7 * DAY_MS)) == 200 * MINUTE


def test_a_clock_off_by_55_seconds_loses_nothing() -> None:
    for off in (-55_000, 55_000):
        assert counted([f._replace(at_ms=f.at_ms + off) for f in evening(30)]) == 30 * MINUTE


def test_a_pulse_ahead_of_its_receive_time_by_more_than_the_window_earns_nothing() -> None:
    assert counted(evening(10, late_ms=-120_000)) == 10 * MINUTE
    facts = evening(10, late_ms=-120_001)
    assert (counted(facts), cuts(credit(facts, RULES))) == (0, {"future": 10 * MINUTE})


def test_a_gap_over_five_minutes_earns_nothing_and_ends_the_session() -> None:
    facts = [
        fact(1, 0, 0, state=START),
        fact(2, MINUTE),
        fact(3, 361_000, 121_000, cum_ms=9 * MINUTE),
        fact(4, 421_000, cum_ms=10 * MINUTE),
    ]
    found = credit(facts, RULES)
    assert [item.ms for item in found] == [0, MINUTE, 0, MINUTE]
    assert cuts(found) == {"gap": 121_000}
    at_the_seam = [*facts[:2], fact(3, 360_000, 121_000, cum_ms=9 * MINUTE)]
    assert counted(at_the_seam) == MINUTE + 121_000


def test_a_gap_is_relay_time_where_live_and_own_time_where_delayed() -> None:
    own = [fact(1, 0, 0, state=START), fact(2, 290_000, late_ms=100_000)]
    assert credit(own, RULES)[1].ms == 0
    delayed = [f._replace(received_ms=f.at_ms + HOUR_MS) for f in own]
    assert credit(delayed, RULES)[1].ms == MINUTE


def test_playback_cannot_outrun_the_wall_clock_by_more_than_two_seconds_a_stretch() -> None:
    facts = [fact(1, 0, 0, state=START, cum_ms=0)]
    facts += [fact(n + 1, n * MINUTE, 121_000, cum_ms=n * 121_000) for n in range(1, 31)]
    found = credit(facts, RULES)
    assert sum(item.ms for item in found) == 30 * MINUTE + 2_000
    assert cuts(found) == {"wall": 30 * 121_000 - 30 * MINUTE - 2_000}


def test_turning_the_clock_back_and_forth_or_starting_anew_earns_no_second_twice() -> None:
    facts: list[Fact] = []
    for lap in range(50):
        base = lap * 2_000
        facts.append(fact(2 * lap + 1, base, 0, state=START, cum_ms=lap * 100_000))
        facts.append(fact(2 * lap + 2, base + 100_000, 100_000, cum_ms=(lap + 1) * 100_000))
    assert counted(facts) <= facts[-1].at_ms - facts[0].at_ms + RULES.slack_ms


def test_two_players_of_one_device_share_the_wall_clock() -> None:
    facts: list[Fact] = []
    for n in range(1, 21):
        facts.append(fact(2 * n - 1, n * MINUTE, cum_ms=(2 * n - 1) * MINUTE, manifest=b"one"))
        facts.append(fact(2 * n, n * MINUTE + 1, cum_ms=2 * n * MINUTE, manifest=b"two"))
    assert counted(facts) <= 19 * MINUTE + 1 + 2 * RULES.slack_ms


def test_the_first_pulse_may_claim_no_more_than_the_slack() -> None:
    found = credit([fact(1, 0)], RULES)
    assert (found[0].ms, cuts(found)) == (2_000, {"start": 58_000})


def test_a_session_goes_on_under_the_next_days_ticket() -> None:
    before = [fact(1, DAY_MS - MINUTE, 0, state=START), fact(2, DAY_MS - 30_000, 30_000)]
    after = [fact(1, 30_000, tid=2, day=DAY + 1)]
    assert counted([*after, *before]) == 90_000
    other_device = [item._replace(device=1) for item in after]
    assert counted([*other_device, *before]) == 32_000


def test_the_running_sum_bounds_what_a_pulse_may_claim() -> None:
    facts = [fact(1, 0, 0, state=START, cum_ms=0), fact(2, MINUTE, cum_ms=10_000)]
    assert (counted(facts), cuts(credit(facts, RULES))) == (10_000, {"sum": 50_000})


@pytest.mark.parametrize("state", [START, RETURN, SWITCH])
def test_no_button_begins_another_session_while_the_title_plays_on(state: int) -> None:
    facts = evening(400)
    assert counted(facts) == 6 * HOUR_MS
    for pressed in (200, 362, 399):
        facts[pressed] = facts[pressed]._replace(state=state)
    found = credit(facts, RULES)
    assert (sum(item.ms for item in found), cuts(found)) == (6 * HOUR_MS, {"session_cap": 40 * MINUTE})
    # months that were settled by the rules of before are settled by them again
    first = facts[:300]
    assert counted([*first, *facts[300:]], Rules(v=2)) == 400 * MINUTE


@pytest.mark.parametrize(("break_ms", "capped_min"), [(300_000, 40), (300_001, 0)])
def test_a_session_of_a_title_begins_after_a_break_whatever_else_plays_meanwhile(
    break_ms: int, capped_min: int
) -> None:
    film = evening(200)
    meanwhile = [
        fact(201 + n, film[-1].at_ms % DAY_MS + n * MINUTE, cum_ms=(200 + n) * MINUTE, manifest=b"other")
        for n in range(1, 5)
    ]
    back_ms, seq = film[-1].at_ms % DAY_MS + break_ms, 206
    again = [fact(seq, back_ms, 0, cum_ms=204 * MINUTE, state=RETURN)]
    again += [fact(seq + n, back_ms + n * MINUTE, cum_ms=(204 + n) * MINUTE) for n in range(1, 201)]
    assert cuts(credit([*film, *meanwhile, *again], RULES)).get("session_cap", 0) == capped_min * MINUTE


def test_sixteen_hours_are_a_day_over_all_devices_and_the_latest_are_cut() -> None:
    rules = Rules(session_cap_ms=DAY_MS)
    first = evening(600, start_ms=0)
    second = evening(600, start_ms=5 * HOUR_MS, tid=2, device=1)
    found = credit([*second, *first], rules)
    assert sum(item.ms for item in found) == 16 * HOUR_MS
    whole = [item for item in found if item.ms == MINUTE]
    cut = [item for item in found if item.fact.delta_ms and not item.ms]
    assert max(i.fact.at_ms for i in whole) <= min(i.fact.at_ms for i in cut)
    assert cuts(found) == {"day_cap": 4 * HOUR_MS}
    other = [item._replace(account=bytes(15) + b"\2") for item in second]
    assert counted([*first, *other], rules) == 20 * HOUR_MS


def test_what_cannot_count_takes_nobodys_place() -> None:
    facts = evening(10)
    facts[5] = facts[5]._replace(code="equivocation")
    found = credit(facts, RULES)
    assert (sum(item.ms for item in found), cuts(found)) == (9 * MINUTE, {"equivocation": MINUTE})


def test_late_pulses_add_what_they_bring_and_the_whole_is_as_if_all_had_come() -> None:
    facts = evening(60)
    prefix = facts[:20] + facts[25:]
    then, now = credit(prefix, RULES), credit(facts, RULES)
    gained = carry_in(then, now)
    assert sum(i.ms for i in then) + sum(i.ms for i in gained) == 60 * MINUTE


def test_delaying_pulses_evades_no_cap() -> None:
    rules = Rules(session_cap_ms=DAY_MS)
    early, late = evening(600, start_ms=0), evening(600, start_ms=11 * HOUR_MS, tid=2)
    then, now = credit(late, rules), credit([*early, *late], rules)
    gained = carry_in(then, now)
    assert sum(item.ms for item in gained) == 6 * HOUR_MS
    assert max(item.fact.at_ms for item in gained) < early[-1].at_ms


_FACTS = st.lists(
    st.builds(
        fact,
        seq=st.integers(1, 30),
        at_ms=st.integers(0, 4 * HOUR_MS),
        delta_ms=st.integers(0, 121_000),
        cum_ms=st.integers(0, 4 * HOUR_MS),
        late_ms=st.integers(-200_000, 400_000),
        state=st.integers(1, 4),
        tid=st.integers(1, 3),
        device=st.integers(0, 1),
        account=st.integers(1, 2),
        day=st.integers(DAY, DAY + 1),
    ),
    max_size=40,
    unique_by=lambda item: item.name,
)


@given(_FACTS, st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_order_changes_nothing_and_no_bound_is_ever_passed(facts: list[Fact], random: Random) -> None:
    found = credit(facts, RULES)
    shuffled = list(facts)
    random.shuffle(shuffled)
    assert credit(shuffled, RULES) == found
    days: dict[tuple[bytes, int], int] = {}
    for item in found:
        assert 0 <= item.ms <= item.fact.delta_ms
        assert item.ms + sum(ms for _, ms in item.cuts) == item.fact.delta_ms
        key = (item.fact.account, item.fact.day)
        days[key] = days.get(key, 0) + item.ms
    assert all(ms <= RULES.day_cap_ms for ms in days.values())


@given(_FACTS, st.data())
@settings(max_examples=100, deadline=None)
def test_a_carry_in_never_takes_back_and_never_exceeds_the_whole(
    facts: list[Fact], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(facts)))
    then, now = credit(facts[:cut], RULES), credit(facts, RULES)
    gained = carry_in(then, now)
    assert all(item.ms > 0 for item in gained)
    settled, whole = sum(i.ms for i in then), sum(i.ms for i in now)
    assert settled + sum(i.ms for i in gained) <= max(settled, whole) + sum(
        max(0, sum(i.ms for i in then if _day(i) == day) - sum(i.ms for i in now if _day(i) == day))
        for day in {_day(i) for i in then}
    )


def _day(item: Credit) -> tuple[bytes, int]:
    return item.fact.account, item.fact.day


def test_one_device_has_one_wall_clock_under_however_many_tickets() -> None:
    four = [item for tid in range(1, 5) for item in evening(60, tid=tid, start_ms=10 * HOUR_MS + tid * 1_000)]
    found = credit(four, RULES)
    assert sum(item.ms for item in found) == pytest.approx(60 * MINUTE, abs=5_000)
    assert cuts(found)["other_ticket"] == pytest.approx(180 * MINUTE, abs=10_000)
    assert counted([item for device in range(4) for item in evening(60, tid=device, device=device)]) == (
        4 * 60 * MINUTE
    )


@given(st.permutations(range(3)), st.integers(0, 90), st.integers(0, 90))
def test_tickets_beside_one_another_never_count_a_minute_twice(order: list[int], one: int, two: int) -> None:
    starts = (0, one * MINUTE, two * MINUTE)
    parts = [evening(30, tid=tid, start_ms=10 * HOUR_MS + starts[tid]) for tid in order]
    minutes = {start // MINUTE + minute for start in starts for minute in range(30)}
    assert counted([item for part in parts for item in part]) <= len(minutes) * MINUTE + 2 * RULES.slack_ms


def test_tickets_one_after_the_other_lose_nothing() -> None:
    parts = [evening(30, tid=tid, start_ms=10 * HOUR_MS + tid * 30 * MINUTE) for tid in range(3)]
    assert counted([item for part in parts for item in part]) == 90 * MINUTE
