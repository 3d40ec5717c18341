"""Until when a cache may keep what it has, by its own headers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from farcast.origin.withdrawal import cached_until

NOW = datetime(2026, 11, 26, 21, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "until"),
    [
        ({"cache-control": "public, max-age=60"}, "2026-11-26T21:01:00Z"),
        ({"cache-control": "public, max-age=60", "age": "45"}, "2026-11-26T21:00:15Z"),
        ({"cache-control": "max-age=60", "age": "90"}, "2026-11-26T21:00:00Z"),
        ({"cache-control": "max-age=60", "age": "soon"}, "2026-11-26T21:01:00Z"),
        ({"cache-control": "s-maxage=600"}, "2026-11-26T21:10:00Z"),
        ({"cache-control": "public, max-age=5, s-maxage=60", "age": "10"}, "2026-11-26T21:00:50Z"),
        ({"cache-control": "s-maxage=60, max-age=5"}, "2026-11-26T21:01:00Z"),
        ({"expires": "Thu, 26 Nov 2026 22:00:00 GMT"}, "2026-11-26T22:00:00Z"),
        ({"expires": "never"}, ""),
        ({"cache-control": "no-store"}, ""),
        ({}, ""),
    ],
)
def test_the_freshness_of_rfc_9111_says_it(headers: dict[str, str], until: str) -> None:
    assert cached_until(headers, NOW) == until
