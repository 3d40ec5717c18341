from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.origin.money.closing import close_ms
from farcast.origin.money.schedule import (
    DISTRUST_MS,
    JUMP_MS,
    RETRY_LAST_MS,
    Schedule,
    Standing,
    Task,
    close_of,
    due,
    last_closed,
)
from farcast.origin.pulses.admission import month_of
from farcast.protocol.ticket import DAY_MS

DEC_1 = 20_788 * DAY_MS
FIVE_PAST = DEC_1 + 300_000
MONTHS = ["2026-09", "2026-10", "2026-11", "2026-12", "2027-01"]


def test_a_month_is_due_at_five_past_midnight_of_the_first_and_not_a_millisecond_earlier() -> None:
    standing = Standing("2026-10", ("2026-11",), "2026-10", "2026-10")
    assert due(FIVE_PAST - 1, standing) == []
    assert due(FIVE_PAST, standing) == [
        Task("settle", "2026-11"),
        Task("report", "2026-11"),
        Task("payout", "2026-11"),
    ]


def test_what_was_missed_is_made_up_in_order_and_an_empty_month_is_left_out() -> None:
    found = due(close_of("2027-01"), Standing("2026-09", ("2027-01", "2026-10", "2026-12"), "2026-09", ""))
    assert found[0] == Task("payout", "2026-09")
    assert [task.month for task in found if task.kind == "settle"] == ["2026-10", "2026-12", "2027-01"]


def test_a_report_and_payouts_that_a_crash_left_undone_come_first() -> None:
    assert due(FIVE_PAST, Standing("2026-11", (), "2026-10", "2026-10")) == [
        Task("report", "2026-11"),
        Task("payout", "2026-11"),
    ]


@given(st.integers(0, 4_000_000_000_000))
@settings(deadline=None)
def test_the_last_closed_month_is_closed_and_the_next_is_not(now_ms: int) -> None:
    month = last_closed(now_ms)
    assert close_ms(month) == close_of(month) <= now_ms or now_ms < close_of("1970-01")
    assert close_of(month_of(close_of(month) // DAY_MS)) > now_ms


@given(
    st.lists(st.integers(close_of("2026-08"), close_of("2027-03")), max_size=40),
    st.sets(st.sampled_from(MONTHS)),
    st.integers(0, 3),
)
@settings(deadline=None)
def test_over_any_clock_each_month_is_settled_once_in_order_and_never_early(
    clock: list[int], watched: set[str], crash: int
) -> None:
    """The clock may jump both ways; a crash may come behind any task and forgets all but the books."""
    standing = Standing()
    done: list[tuple[Task, int]] = []
    for now_ms in clock:
        open_ = tuple(month for month in watched if month > standing.settled)
        for task in due(now_ms, standing._replace(open=open_))[: crash or None]:
            done.append((task, now_ms))
            if task.kind == "settle":
                standing = standing._replace(settled=task.month)
            elif task.kind == "report":
                standing = standing._replace(reported=task.month)
            else:
                standing = standing._replace(paid_out=task.month)
    for kind in ("settle", "report", "payout"):
        months = [task.month for task, _ in done if task.kind == kind]
        assert months == sorted(set(months))
    assert all(now_ms >= close_of(task.month) for task, now_ms in done if task.kind == "settle")
    settled = {task.month for task, _ in done if task.kind == "settle"}
    if not crash and clock:
        assert settled == {month for month in watched if close_of(month) <= max(clock)}


def test_a_clock_that_jumps_ahead_is_believed_after_an_hour_only() -> None:
    schedule = Schedule()
    assert schedule.ready(FIVE_PAST - DAY_MS, 0)
    assert not schedule.ready(FIVE_PAST, 60_000)
    assert schedule.jumped
    assert not schedule.ready(FIVE_PAST + 60_000, 120_000)
    assert schedule.ready(FIVE_PAST + DISTRUST_MS, 60_000 + DISTRUST_MS)
    assert not schedule.jumped


def test_a_jump_that_is_taken_back_costs_nothing() -> None:
    schedule = Schedule()
    assert schedule.ready(FIVE_PAST, 0)
    assert not schedule.ready(FIVE_PAST + 40 * DAY_MS, 60_000)
    assert schedule.ready(FIVE_PAST + 120_000, 120_000)
    assert schedule.ready(FIVE_PAST - DAY_MS, 180_000)


def test_a_clock_that_is_trimmed_is_believed() -> None:
    schedule = Schedule()
    assert schedule.ready(FIVE_PAST, 0)
    assert schedule.ready(FIVE_PAST + JUMP_MS, 0)


def test_a_failure_is_tried_again_ever_later_up_to_an_hour() -> None:
    schedule = Schedule()
    steady_ms, waits = 0, list[int]()
    for _ in range(9):
        schedule.failed(steady_ms)
        begin = steady_ms
        while not schedule.ready(FIVE_PAST + steady_ms, steady_ms):
            steady_ms += 60_000
        waits.append(steady_ms - begin)
    assert waits[:3] == [60_000, 120_000, 240_000]
    assert waits[-1] == RETRY_LAST_MS
    schedule.done()
    schedule.failed(steady_ms)
    assert schedule.ready(FIVE_PAST + steady_ms + 60_000, steady_ms + 60_000)


@pytest.mark.parametrize(("month", "closes"), [("2026-11", FIVE_PAST)])
def test_the_schedule_closes_a_month_when_the_closing_does(month: str, closes: int) -> None:
    assert close_of(month) == close_ms(month) == closes
