"""A player's events on our clock: late, repeated, from a clock that was set, and made up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.playerclock import LATE_EVENT_S, PlayerClock, PlayerEvent

EPOCH_MS = 1_790_000_000_000


def at(clock: PlayerClock, ts_s: float, now: float) -> float:
    return clock.when(PlayerEvent(ts_ms=EPOCH_MS + round(ts_s * 1000)), now)


def test_a_late_event_stands_where_it_happened() -> None:
    clock = PlayerClock()
    assert at(clock, 10, 110) == 110
    assert at(clock, 12, 115) == 112
    assert at(clock, 16, 116) == 116


@pytest.mark.parametrize("set_by_s", [-3_600, 3_600])
def test_a_clock_that_was_set_costs_no_time_for_long(set_by_s: float) -> None:
    clock = PlayerClock()
    at(clock, 10, 110)
    for second in range(20, 60, 10):
        assert at(clock, set_by_s + second, 100 + second) == 100 + second


def test_what_cannot_be_true_is_counted_by_reason() -> None:
    clock = PlayerClock()
    at(clock, 100, 100)
    at(clock, 10, 101)
    clock.when(PlayerEvent(ts_ms=-1), 102)
    clock.position_ms(PlayerEvent(position_ms=-1))
    assert clock.rate(PlayerEvent(rate=-3.0), 1.0) == 0.25
    assert clock.rate(PlayerEvent(rate=1e9), 1.0) == 16
    assert clock.rate(PlayerEvent(rate=0.0), 2.0) == 2.0
    assert clock.rate(PlayerEvent(), 2.0) == 1.0, "players leave out a speed of 1"
    assert clock.lies == {"backward_ts": 1, "bad_ts": 1, "bad_position": 1, "bad_rate": 2}


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(-(2**60), 2**60) | st.integers(0, 10**6))))
def test_no_event_is_placed_ahead_or_further_back_than_five_seconds(
    steps: list[tuple[float, int]],
) -> None:
    clock, now = PlayerClock(), 0.0
    for gap, ts_ms in steps:
        now += gap
        assert now - LATE_EVENT_S <= clock.when(PlayerEvent(ts_ms=ts_ms), now) <= now
