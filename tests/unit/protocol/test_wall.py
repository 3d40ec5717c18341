"""No second of a box's wall clock is claimed twice, however its players' claims overlap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.wall import STRETCHES_KEPT, Wall


def test_two_players_at_once_are_one_stretch() -> None:
    wall = Wall()
    assert wall.claim(0, 10, 10_000) == pytest.approx(10_000)
    assert wall.claim(5, 15, 10_000) == pytest.approx(5_000)
    assert wall.claim(0, 15, 15_000) == 0


def test_the_latest_free_time_goes_first() -> None:
    wall = Wall()
    assert wall.claim(0, 10, 2_000) == pytest.approx(2_000)
    assert wall.claim(8, 10, 2_000) == 0
    assert wall.claim(0, 8, 9_000) == pytest.approx(8_000)


def test_a_hole_between_two_claims_is_found() -> None:
    wall = Wall()
    wall.claim(0, 2, 2_000)
    wall.claim(6, 8, 2_000)
    assert wall.claim(0, 8, 8_000) == pytest.approx(4_000)


def test_what_is_remembered_is_bounded_and_the_rest_counts_as_claimed() -> None:
    wall = Wall()
    for number in range(2 * STRETCHES_KEPT):
        wall.claim(number * 2, number * 2 + 1, 1_000)
    assert len(wall.claimed) == STRETCHES_KEPT
    assert wall.claim(0, STRETCHES_KEPT * 2, 1e9) == 0


CLAIMS = st.lists(st.tuples(st.floats(0, 1_000), st.floats(0, 50), st.floats(0, 60_000)), max_size=80)


@given(CLAIMS)
def test_all_claims_together_never_exceed_the_wall_they_cover(
    claims: list[tuple[float, float, float]],
) -> None:
    wall = Wall()
    total_ms = 0.0
    for start_s, length_s, most_ms in claims:
        got_ms = wall.claim(start_s, start_s + length_s, most_ms)
        assert 0 <= got_ms <= min(most_ms, length_s * 1000) + 1e-3
        total_ms += got_ms
    covered_s, edge = 0.0, 0.0
    for start_s, length_s, _ in sorted(claims):
        covered_s += max(start_s + length_s - max(edge, start_s), 0.0)
        edge = max(edge, start_s + length_s)
    assert total_ms <= covered_s * 1000 + 1e-2


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30), st.integers(0, 40)), max_size=60))
def test_the_latest_free_seconds_are_claimed_and_no_others(claims: list[tuple[int, int, int]]) -> None:
    wall, taken = Wall(), set[int]()
    for start_s, length_s, most_s in claims:
        free = [second for second in range(start_s, start_s + length_s) if second not in taken]
        latest = free[len(free) - min(most_s, len(free)) :]
        got_ms = wall.claim(start_s, start_s + length_s, most_s * 1_000)
        assert got_ms == pytest.approx(len(latest) * 1_000)
        taken.update(latest)
    held = {second for begin, end in wall.claimed for second in range(round(begin), round(end))}
    assert held == taken
