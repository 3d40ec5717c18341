"""What a carousel says of itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.errors import RemoteError
from farcast.protocol.timetable import (
    TIMETABLE_LIMIT_BYTES,
    TURNS_LIMIT,
    Timetable,
    Turn,
    pack_timetable,
    read_timetable,
)

SECONDS = st.integers(0, 2**32 - 1)
TURNS = st.builds(Turn, st.sampled_from(["a", "coast", "t" * 63]), SECONDS, SECONDS)


@given(
    st.builds(
        Timetable, st.just(1), st.integers(0, 2**53 - 1), SECONDS, st.lists(TURNS, max_size=TURNS_LIMIT)
    )
)
def test_what_is_packed_is_read_and_the_longest_fits(timetable: Timetable) -> None:
    data = pack_timetable(timetable)
    assert len(data) <= TIMETABLE_LIMIT_BYTES
    assert read_timetable(data) == timetable


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(RemoteError):
        read_timetable(noise)
