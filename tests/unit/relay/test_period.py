from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.relay.period import QuietHours, period_at

MS = 1_000
BERLIN = ZoneInfo("Europe/Berlin")
ZONES = st.sampled_from([UTC, BERLIN, ZoneInfo("America/Sao_Paulo"), ZoneInfo("Asia/Kathmandu")])
TIMES = st.integers(1_704_067_200, 1_956_528_000).map(lambda at_s: datetime.fromtimestamp(at_s, UTC))


def at(text: str, zone: ZoneInfo | None = None) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=zone or UTC).timestamp() * MS)


@pytest.mark.parametrize(
    ("now", "day", "start", "end"),
    [
        ("2026-11-26T21:00", 1, "2026-11-01", "2026-12-01"),
        ("2026-12-31T23:59", 1, "2026-12-01", "2027-01-01"),
        ("2026-02-27T23:59", 31, "2026-01-31", "2026-02-28"),
        ("2026-02-28T00:00", 31, "2026-02-28", "2026-03-31"),
        ("2028-02-29T12:00", 30, "2028-02-29", "2028-03-30"),
        ("2026-01-14T23:59", 15, "2025-12-15", "2026-01-15"),
    ],
)
def test_a_month_begins_on_the_billing_day_or_the_last_there_is(
    now: str, day: int, start: str, end: str
) -> None:
    assert period_at(at(now), day, UTC) == (at(start), at(end))


def test_a_month_begins_at_the_operators_midnight() -> None:
    found = period_at(at("2026-03-31T23:00"), 1, BERLIN)
    assert found == (at("2026-04-01", BERLIN), at("2026-05-01", BERLIN))
    march = period_at(at("2026-03-15"), 1, BERLIN)
    assert march.length_ms == (31 * 24 - 1) * 3_600_000  # the clocks went forward


@given(now=TIMES, day=st.integers(1, 31), zone=ZONES)
def test_months_hold_their_time_and_touch_without_gap_or_overlap(
    now: datetime, day: int, zone: ZoneInfo
) -> None:
    now_ms = round(now.timestamp() * MS)
    period = period_at(now_ms, day, zone)
    assert period.start_ms <= now_ms < period.end_ms
    assert 27.9 < period.length_ms / 86_400_000 < 31.1
    assert period_at(period.start_ms, day, zone) == period
    assert period_at(period.end_ms - 1, day, zone) == period
    assert period_at(period.end_ms, day, zone).start_ms == period.end_ms
    assert period_at(period.start_ms - 1, day, zone).end_ms == period.start_ms


@pytest.mark.parametrize(
    ("hours", "time", "quiet"),
    [
        (["23:00-07:00"], "22:59", False),
        (["23:00-07:00"], "23:00", True),
        (["23:00-07:00"], "06:59", True),
        (["23:00-07:00"], "07:00", False),
        (["01:00-02:00", "12:00 - 13:00"], "12:30", True),
        (["18:00-24:00"], "23:59", True),
        (["00:00-24:00"], "00:00", True),
        (["09:00-09:00"], "08:59", True),
        ([], "00:00", False),
    ],
)
def test_quiet_hours(hours: list[str], time: str, quiet: bool) -> None:  # noqa: FBT001 - a table
    assert QuietHours(hours, BERLIN).covers(at(f"2026-06-01T{time}", BERLIN)) is quiet


@given(now=TIMES, begin=st.integers(0, 1_439), length=st.integers(1, 1_439), zone=ZONES)
def test_quiet_hours_change_exactly_when_they_say(
    now: datetime, begin: int, length: int, zone: ZoneInfo
) -> None:
    end = (begin + length) % 1_440
    hours = QuietHours([f"{begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02}"], zone)
    now_ms = round(now.timestamp() * MS)
    changes_ms = hours.changes_ms(now_ms)
    assert changes_ms is not None
    assert timedelta(0) < timedelta(milliseconds=changes_ms - now_ms) <= timedelta(hours=25)
    assert hours.covers(changes_ms) is not hours.covers(now_ms)
    assert hours.covers(changes_ms - 1) is hours.covers(now_ms)


def test_hours_that_never_change_say_so() -> None:
    assert QuietHours(["00:00-24:00"], UTC).changes_ms(0) is None
    assert QuietHours([], UTC).changes_ms(0) is None
