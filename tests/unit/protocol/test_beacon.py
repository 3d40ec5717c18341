"""The hourly beacon."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.beacon import HOUR_MS, Beacon, open_beacon, seal_beacon
from farcast.protocol.errors import RemoteError
from farcast.protocol.identity import Identity

CATALOG = Identity(b"c" * 32)


@given(st.integers(0, 2**53 - 1), st.binary(min_size=32, max_size=32))
def test_a_beacon_is_numbered_by_its_hour(at_ms: int, value: bytes) -> None:
    data = seal_beacon(at_ms, value, CATALOG)
    if at_ms // HOUR_MS < 2**32:
        assert open_beacon(data, CATALOG.key) == Beacon(1, at_ms // HOUR_MS, value, at_ms)
    else:
        with pytest.raises(RemoteError):
            open_beacon(data, CATALOG.key)


def test_the_number_changes_on_the_hour() -> None:
    numbers = [
        open_beacon(seal_beacon(at_ms, bytes(32), CATALOG), CATALOG.key).number
        for at_ms in (0, HOUR_MS - 1, HOUR_MS, 5 * HOUR_MS)
    ]
    assert numbers == [0, 0, 1, 5]


def test_a_beacon_of_another_key_kind_or_shape_is_refused() -> None:
    beacon = Beacon(1, 1, bytes(32), HOUR_MS)
    for data, reason in (
        (Identity(b"o" * 32).seal("beacon", beacon), "bad_signature"),
        (CATALOG.seal("generation", beacon), "bad_signature"),
        (seal_beacon(1, bytes(31), CATALOG), "malformed"),
        (bytes(513), "too_large"),
    ):
        with pytest.raises(RemoteError) as caught:
            open_beacon(data, CATALOG.key)
        assert caught.value.reason == reason
