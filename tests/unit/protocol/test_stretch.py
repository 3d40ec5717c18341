"""The three bounds of a stretch, whatever is fed to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.stretch import Stretch


def test_rounding_evens_out() -> None:
    stretch = Stretch()
    counted = sum(stretch.advance(1_000, 1_000 + (50 if turn % 2 else -50), 1.0, 250) for turn in range(100))
    assert counted == pytest.approx(100_000, abs=60)


def test_a_pause_saves_up_nothing_for_media_that_jumps_later() -> None:
    stretch = Stretch()
    stretch.advance(60_000, 0, 1.0, 250)
    assert stretch.advance(1_000, 9_000, 1.0, 250) == 1_250


def test_double_speed_counts_wall_and_half_speed_too() -> None:
    assert Stretch().advance(10_000, 20_000, 2.0, 250) == 10_000
    assert Stretch().advance(10_000, 5_000, 0.5, 250) == 10_000


STEPS = st.lists(
    st.tuples(
        st.floats(0, 1e5), st.floats(-1e5, 1e6), st.floats(0.25, 16), st.sampled_from([250.0, 2_000.0])
    ),
    max_size=60,
)


@given(STEPS)
def test_never_over_wall_and_never_over_media_by_rate(
    steps: list[tuple[float, float, float, float]],
) -> None:
    stretch = Stretch()
    wall_ms = media_wall_ms = counted_ms = most_media_ms = 0.0
    for step_wall_ms, media_ms, rate, slack_ms in steps:
        newly_ms = stretch.advance(step_wall_ms, media_ms, rate, slack_ms)
        assert newly_ms >= 0
        wall_ms += step_wall_ms
        media_wall_ms += media_ms / rate
        most_media_ms = max(most_media_ms, media_wall_ms)
        counted_ms += newly_ms
        assert counted_ms <= wall_ms + 1e-3
        assert counted_ms <= most_media_ms + 1e-3
