"""The calendar of a contract: billing months and quiet hours in the operator's time zone (sans-IO)."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import NamedTuple

DAY_MINUTES = 1_440


class Period(NamedTuple):
    """One billing month, milliseconds since 1970: ``start_ms`` belongs to it, ``end_ms`` to the next."""

    start_ms: int
    end_ms: int

    @property
    def length_ms(self) -> int:
        """How long the month is; 28 to 31 days, and an hour more or less where clocks change."""
        return self.end_ms - self.start_ms


def period_at(now_ms: int, billing_day: int, zone: tzinfo) -> Period:
    """Return the billing month that ``now_ms`` is in.

    It begins at midnight of ``billing_day`` in ``zone``, or of the month's last day where the month
    is shorter, as providers do.
    """
    local = datetime.fromtimestamp(now_ms / 1_000, zone)
    start = _start_ms(local.year, local.month, billing_day, zone)
    if now_ms < start:
        year, month = (local.year - 1, 12) if local.month == 1 else (local.year, local.month - 1)
        return Period(_start_ms(year, month, billing_day, zone), start)
    year, month = (local.year + 1, 1) if local.month == 12 else (local.year, local.month + 1)  # noqa: PLR2004
    return Period(start, _start_ms(year, month, billing_day, zone))


def _start_ms(year: int, month: int, billing_day: int, zone: tzinfo) -> int:
    day = min(billing_day, monthrange(year, month)[1])
    return round(datetime(year, month, day, tzinfo=zone).timestamp() * 1_000)


class QuietHours:
    """Ranges of local time; one that ends before it begins goes on past midnight."""

    def __init__(self, texts: Sequence[str], zone: tzinfo) -> None:
        """Read ``HH:MM-HH:MM`` texts, which the settings have checked."""
        self._ranges = [_range(text) for text in texts]
        self._zone = zone

    def covers(self, now_ms: int) -> bool:
        """Say whether ``now_ms`` is in a quiet hour."""
        local = datetime.fromtimestamp(now_ms / 1_000, self._zone)
        minute = local.hour * 60 + local.minute
        return any((minute - begin) % DAY_MINUTES < length for begin, length in self._ranges)

    def changes_ms(self, now_ms: int) -> int | None:
        """Return when that changes next, None where it never does."""
        now = self.covers(now_ms)
        minute = datetime.fromtimestamp(now_ms / 1_000, self._zone).replace(second=0, microsecond=0)
        for _ in range(2 * DAY_MINUTES):
            minute = minute.astimezone(UTC) + timedelta(minutes=1)  # in UTC: the day may have 23 hours
            at_ms = round(minute.timestamp() * 1_000)
            if self.covers(at_ms) != now:
                return at_ms
        return None


def _range(text: str) -> tuple[int, int]:
    """Return the minute a range begins at and its length; one that ends where it begins is all day."""
    begin, end = (_minute(part.strip()) for part in text.split("-"))
    return begin, (end - begin - 1) % DAY_MINUTES + 1


def _minute(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)
