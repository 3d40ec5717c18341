"""A child that dies is started again, ever later, and never more often than its limits say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farcast.mesh.child.restarts import Limits, Restarts

LIMITS = Limits()


def live(policy: Restarts, spans: list[float]) -> list[float]:
    """Let the child live so long each time; returns when it was started."""
    now, starts = 0.0, list[float]()
    for span in spans:
        due = policy.start_at
        assert due is not None
        now = max(now, due)
        starts.append(now)
        policy.started(now)
        assert policy.start_at is None
        now += span
        policy.ended(now)
    return starts


def test_a_child_that_dies_at_once_is_off_after_its_starts() -> None:
    policy = Restarts()
    assert live(policy, [0.0] * LIMITS.starts) == [0.0, 1.0, 3.0, 7.0, 15.0]
    assert policy.state == "off"
    assert policy.start_at == 15.0 + LIMITS.off_s


def test_after_a_long_rest_it_is_tried_as_at_first() -> None:
    policy = Restarts()
    starts = live(policy, [0.0] * (LIMITS.starts + 2))
    assert starts[LIMITS.starts :] == [15.0 + LIMITS.off_s, 16.0 + LIMITS.off_s]


def test_the_operator_begins_it_anew() -> None:
    policy = Restarts()
    live(policy, [0.0] * LIMITS.starts)
    policy.again()
    assert policy.start_at is not None
    assert policy.start_at < 15.0
    policy.started(20.0)
    policy.again()
    assert policy.start_at is None


def test_what_cannot_start_at_all_is_tried_only_when_told() -> None:
    policy = Restarts()
    policy.started(0.0)
    policy.impossible(0.0)
    assert policy.state == "off"
    assert policy.start_at == float("inf")
    policy.again()
    assert policy.start_at == float("-inf")
    patient = Restarts(Limits(impossible_s=3_600.0))
    patient.started(5.0)
    patient.impossible(10.0)
    assert (patient.state, patient.start_at) == ("off", 3_610.0)


def test_one_that_lived_long_comes_back_soon() -> None:
    policy = Restarts()
    starts = live(policy, [0.0, 0.0, 1_000.0, 0.0])
    assert starts[3] - (starts[2] + 1_000.0) == LIMITS.first_s


@given(st.lists(st.one_of(st.just(0.0), st.floats(0, 2_000)), min_size=1, max_size=60))
def test_in_no_window_are_there_more_starts_than_allowed(spans: list[float]) -> None:
    policy = Restarts()
    starts = live(policy, spans)
    for first in starts:
        assert sum(first <= at < first + LIMITS.window_s for at in starts) <= LIMITS.starts
    if spans == [0.0] * len(spans):
        assert len(starts) <= LIMITS.starts * (1 + (starts[-1] + 1) // LIMITS.off_s)
