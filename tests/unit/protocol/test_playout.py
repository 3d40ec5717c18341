"""What a player that tells nothing can have played, and how far ahead it is served."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.playout import FAST_LEAD_MS, LAST_MS, LEAD_MS, START_MS, Playout

SEGMENT_MS = 2_000


def serve(playout: Playout, seconds: float, *, at_ms: int = 0) -> int:
    """Serve a player that asks for all it can get; returns how far it was served."""
    for _ in range(round(seconds * 10)):
        for track in ("video", "audio"):
            while not playout.wait_ms(track, at_ms):
                for name in ("video", "audio"):
                    playout.fill(name, at_ms, SEGMENT_MS)
                at_ms += SEGMENT_MS
        playout.advance(100)
    return at_ms


def test_a_greedy_player_is_served_30_seconds_ahead_of_normal_speed() -> None:
    playout = Playout()
    served_ms = serve(playout, 15)
    assert LEAD_MS - 100 <= served_ms - 14_000 <= LEAD_MS + SEGMENT_MS
    assert playout.position_ms == 15_000 - START_MS


@pytest.mark.parametrize("rate", [1.0, 1.5, 2.0])
def test_a_player_at_up_to_double_speed_never_runs_dry(rate: float) -> None:
    playout = Playout()
    at_ms, played_ms = 0, 0.0
    for _ in range(3_000):
        at_ms = serve(playout, 0.1, at_ms=at_ms)
        played_ms += 100 * rate
        assert at_ms - played_ms >= FAST_LEAD_MS - 200, "its buffer is what was served and not played"


def test_pacing_holds_back_what_is_beyond_double_speed() -> None:
    playout = Playout()
    assert serve(playout, 60) <= FAST_LEAD_MS + 2 * 60_000 + 2 * SEGMENT_MS


def test_counting_goes_on_until_what_was_delivered_is_played() -> None:
    playout = Playout()
    served_ms = serve(playout, 60)
    assert playout.advance(1e9) == served_ms - (60_000 - START_MS)
    assert not playout.playing


def test_playback_stands_while_one_track_is_dry_and_goes_on_without_one_given_up() -> None:
    playout = Playout()
    playout.fill("video", 0, 10_000)
    playout.fill("audio", 0, 2_000)
    assert playout.advance(5_000) == 2_000
    assert playout.lead_ms("video") == 8_000
    assert playout.advance(5_000) == 0
    for start_ms in range(10_000, 60_000, 10_000):
        playout.fill("video", start_ms, 10_000)
    assert playout.advance(6_000) == 6_000 - START_MS, "nobody waits a minute for a track"


@pytest.mark.parametrize("target_ms", [600_000, 10_000, 36_000])
def test_a_seek_throws_away_the_buffer_and_waits_for_nothing(target_ms: int) -> None:
    playout = Playout()
    for start_ms in range(20_000, 80_000, SEGMENT_MS):
        playout.fill("video", start_ms, SEGMENT_MS)
        playout.fill("audio", start_ms, SEGMENT_MS)
    playout.advance(START_MS + 4_000)
    assert playout.wait_ms("video", 80_000) > 0
    assert playout.wait_ms("video", target_ms) == 0
    playout.fill("video", target_ms, SEGMENT_MS)
    playout.fill("audio", target_ms, SEGMENT_MS)
    assert playout.advance(60_000) == SEGMENT_MS
    assert playout.position_ms == target_ms + SEGMENT_MS


def test_a_late_segment_of_before_a_seek_costs_nothing() -> None:
    playout = Playout()
    for start_ms in range(0, 20_000, SEGMENT_MS):
        playout.fill("video", start_ms, SEGMENT_MS)
        playout.fill("audio", start_ms, SEGMENT_MS)
    playout.fill("video", 600_000, SEGMENT_MS)
    playout.fill("audio", 600_000, SEGMENT_MS)
    playout.fill("video", 602_000, SEGMENT_MS)
    playout.fill("audio", 602_000, SEGMENT_MS)
    assert playout.advance(60_000) == 2 * SEGMENT_MS


def test_another_rendition_or_a_second_try_of_a_segment_adds_nothing() -> None:
    playout = Playout()
    for start_ms in range(0, 10_000, SEGMENT_MS):
        playout.fill("video", start_ms, SEGMENT_MS)
    playout.fill("video", 8_000, SEGMENT_MS)
    playout.fill("video", 6_000, SEGMENT_MS, rendition=1)
    playout.fill("video", 8_000, SEGMENT_MS, rendition=1)
    assert playout.advance(60_000) == 10_000


FILLS = st.tuples(
    st.sampled_from(["video", "audio"]), st.integers(0, 10**6), st.integers(1, 10**4), st.integers(0, 2)
)


@given(st.lists(FILLS | st.floats(0, 1e5), max_size=80))
def test_never_more_than_wall_and_never_more_than_was_delivered(
    steps: list[tuple[str, int, int, int] | float],
) -> None:
    playout = Playout()
    wall_ms = played_ms = 0.0
    delivered_ms = 0
    for step in steps:
        if isinstance(step, tuple):
            playout.fill(*step)
            delivered_ms += step[2]
        else:
            wall_ms += step
            got_ms = playout.advance(step)
            assert 0 <= got_ms <= step
            played_ms += got_ms
        assert playout.wait_ms("video", 0) >= 0
    assert played_ms <= wall_ms + 1e-3
    assert played_ms <= delivered_ms


def test_the_last_of_a_file_waits_until_little_is_ahead_at_either_speed() -> None:
    playout = Playout()
    for start_ms in range(0, 20_000, 2_000):
        playout.fill("video", start_ms, 2_000)
    playout.advance(1_000)
    assert playout.wait_ms("video", 20_000) == 0, "any other may go"
    waits_ms = playout.wait_ms("video", 20_000, last=True)
    assert waits_ms == (20_000 - 2_000 - LAST_MS) / 2, "it may be played at double speed"
    playout.advance(waits_ms)
    assert playout.wait_ms("video", 20_000, last=True) == 0
    assert playout.wait_ms("video", 90_000, last=True) == 0, "none after a seek waits"
