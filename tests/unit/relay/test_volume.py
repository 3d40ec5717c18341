from __future__ import annotations

import random
from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.relay.period import period_at
from farcast.relay.volume import FINISH_BYTES, Counts, Terms, Usage, Volume

GB = 10**9
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
JANUARY = round(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1_000)
BERLIN = ZoneInfo("Europe/Berlin")


def terms(limit: int = 100 * GB, counts: Counts = "both", day: int = 1) -> Terms:
    return Terms(limit, counts, day, UTC)


def test_without_a_limit_it_counts_and_never_sleeps() -> None:
    volume = Volume(terms(0), JANUARY)
    volume.count(5 * GB, GB)
    volume.tick(JANUARY + DAY_MS, 0.9)
    assert (volume.used_bytes, volume.remaining_bytes, volume.exhausted) == (6 * GB, None, False)
    assert volume.state(JANUARY + DAY_MS) == "awake"


@pytest.mark.parametrize(("counts", "used"), [("both", 7), ("up", 5), ("down", 2), ("larger", 5)])
def test_it_counts_what_the_provider_counts(counts: Counts, used: int) -> None:
    volume = Volume(terms(counts=counts), JANUARY)
    volume.count(5, 2)
    assert volume.used_bytes == used


def test_new_transfers_stop_while_there_is_room_for_those_under_way() -> None:
    volume = Volume(terms(100 * GB), JANUARY)
    volume.count(100 * GB - FINISH_BYTES - 1, 0)
    assert volume.state(JANUARY) == "awake"
    volume.count(1, 0)
    assert (volume.state(JANUARY), volume.exhausted) == ("spent", False)
    volume.count(0, FINISH_BYTES)
    assert volume.exhausted


def test_a_month_used_up_ends_with_the_month_and_its_bytes_are_forgotten() -> None:
    volume = Volume(terms(), JANUARY)
    for minute in range(1, 49):
        volume.count(2 * GB, 200_000_000)
        volume.tick(JANUARY + minute * HOUR_MS // 60, 0.5)
    assert volume.state(JANUARY + HOUR_MS) == "spent"
    assert volume.wakes_ms(JANUARY + HOUR_MS) == volume.usage.end_ms == JANUARY + 31 * DAY_MS
    volume.tick(JANUARY + 31 * DAY_MS, 0.5)
    assert volume.used_bytes == 0
    assert volume.state(JANUARY + 31 * DAY_MS) == "awake"  # 48 minutes awake teach nothing


def spent_in(days: int) -> Volume:
    """Return a volume of January that lasted so many days."""
    volume = Volume(terms(), JANUARY)
    for hour in range(31 * 24):
        if volume.state(JANUARY + hour * HOUR_MS) == "awake":
            volume.count(100 * GB // (days * 24), 0)
        for minute in range(1, 61):
            volume.tick(JANUARY + hour * HOUR_MS + minute * 60_000, 0.0)
            if volume.usage.start_ms > JANUARY:
                return volume
    return volume


@pytest.mark.parametrize("chance", [0.0, 0.25, 0.999])
def test_it_wakes_by_chance_and_early_enough_to_use_its_volume(chance: float) -> None:
    volume = spent_in(10)
    usage = msgspec.structs.replace(volume.usage, start_ms=0, end_ms=0)
    usage.speed_bytes_s = volume.usage.speed_bytes_s
    usage.awake_ms = 0
    february = JANUARY + 31 * DAY_MS
    again = Volume(terms(), february, usage)
    again.tick(february, chance)
    slack_ms = 28 * DAY_MS - 11 * DAY_MS
    assert abs(again.usage.wake_ms - february - chance * slack_ms) < DAY_MS / 4
    assert again.state(again.usage.wake_ms - 1) == "waiting"
    assert again.wakes_ms(february) == (again.usage.wake_ms if chance else again.usage.end_ms)
    assert again.state(again.usage.wake_ms) == "awake"


def test_raising_the_limit_wakes_it_and_lowering_it_sends_it_to_sleep() -> None:
    volume = Volume(terms(100 * GB), JANUARY)
    volume.count(100 * GB, 0)
    volume.terms = terms(200 * GB)
    assert volume.state(JANUARY) == "awake"
    volume.terms = terms(50 * GB)
    assert volume.state(JANUARY) == "spent"


def test_another_billing_day_keeps_what_was_used() -> None:
    now_ms = JANUARY + 20 * DAY_MS
    volume = Volume(terms(), now_ms)
    volume.count(7, 0)
    volume.terms = terms(day=15)
    volume.tick(now_ms, 0.5)
    assert volume.used_bytes == 7
    assert (volume.usage.start_ms, volume.usage.end_ms) == period_at(now_ms, 15, UTC)
    assert volume.state(now_ms) == "awake"


def test_a_restart_in_the_middle_changes_nothing() -> None:
    volume = Volume(terms(), JANUARY)
    volume.count(3, 4)
    volume.tick(JANUARY + HOUR_MS, 0.5)
    kept = msgspec.json.decode(msgspec.json.encode(volume.usage), type=Usage)
    again = Volume(terms(), JANUARY + 2 * HOUR_MS, kept)
    again.tick(JANUARY + 3 * HOUR_MS, 0.7)
    assert again.used_bytes == 7
    assert again.usage.awake_ms == 120_000  # neither a sleeping machine nor the time between runs counts


@given(
    limit=st.integers(1_000, 10**12),
    steps=st.lists(
        st.tuples(st.integers(0, 10**10), st.integers(0, 10**10), st.integers(0, 40 * DAY_MS)), max_size=40
    ),
    day=st.integers(1, 31),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_whatever_happens_a_month_is_the_one_it_is_in_and_nothing_is_counted_twice(
    limit: int, steps: list[tuple[int, int, int]], day: int, chance: float
) -> None:
    volume, now_ms, counted = Volume(Terms(limit, "both", day, BERLIN), JANUARY), JANUARY, 0
    for up, down, wait_ms in steps:
        volume.count(up, down)
        counted += up + down
        now_ms += wait_ms
        before = volume.usage.start_ms
        volume.tick(now_ms, chance)
        if volume.usage.start_ms != before:
            counted = 0
        usage = volume.usage
        assert usage.start_ms <= now_ms < usage.end_ms
        assert usage.start_ms <= usage.wake_ms < usage.end_ms
        assert volume.used_bytes == counted
        assert (volume.state(now_ms) == "spent") >= volume.exhausted
        assert volume.wakes_ms(now_ms) > now_ms or volume.state(now_ms) == "awake"


def test_a_year_of_relays_is_spread_over_its_months_and_each_uses_what_it_has() -> None:
    """Relays whose volume lasts a third of a month: awake in turn from the second month on, all year."""
    dice, count, step_ms = random.Random(7), 40, HOUR_MS
    limit, speed = 100 * GB, 100 * GB / (10 * 86_400)
    relays = [Volume(Terms(limit, "both", 1, BERLIN), JANUARY) for _ in range(count)]
    starts = [period_at(JANUARY, 1, BERLIN).start_ms]
    while len(starts) < 14:
        starts.append(period_at(starts[-1], 1, BERLIN).end_ms)
    awake: dict[int, list[int]] = {}
    used: dict[int, list[float]] = {}
    now_ms = starts[1]
    for relay in relays:
        relay.tick(now_ms, dice.random())
    for month, (start, end) in enumerate(pairwise(starts[1:])):
        while now_ms < end:
            awake.setdefault(month, []).append(sum(relay.state(now_ms) == "awake" for relay in relays))
            for relay in relays:
                if relay.state(now_ms) == "awake":
                    demand = speed * dice.uniform(0.7, 1.3)
                    relay.count(int(demand * step_ms / 1_000), 0)
                    relay.usage.awake_ms += step_ms - 60_000  # one step of an hour is 60 of a minute
            used[month] = [relay.used_bytes / limit for relay in relays]
            now_ms += step_ms
            for relay in relays:
                relay.tick(now_ms, dice.random())
        assert 27.9 < (end - start) / DAY_MS < 31.1
    assert max(awake[0]) == count  # nothing is known yet: all begin on the first day
    assert min(awake[0]) == 0  # and all are asleep at its end
    for month in range(1, 12):
        assert sum(used[month]) / count > 0.97
        assert min(used[month]) > 0.8
        hours = awake[month]
        first, middle, last = hours[: 5 * 24], hours[10 * 24 : 20 * 24], hours[-5 * 24 :]
        assert max(first) < count * 0.6, "they do not all burn out at the start"
        assert sum(middle) / len(middle) > count * 0.25
        assert max(last) > 0
