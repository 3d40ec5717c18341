"""The words of sharing: their bytes, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.codec import decode, encode
from farcast.protocol.errors import RemoteError
from farcast.protocol.sharing import (
    Hello,
    News,
    OneBlock,
    Referral,
    Refusal,
    Welcome,
    Wish,
    from_marks,
    to_marks,
)

GOLDEN = [
    (News([1, 300], [2], []), "939201cd012c910290"),
    (Wish(5, [0, 3], urgent=True, sake=1), "9405920003c301"),
    (OneBlock(70_000), "91ce00011170"),
    (Referral(5, b"k" * 32), "9205c420" + "6b" * 32),
    (Refusal("twice"), "91a57477696365"),
    (Welcome(1, b"\x80", [7]), "9301c401809107"),
    (Hello(1, "Farcast x", b"t" * 32, b"", []), "9501a9466172636173742078c420" + "74" * 32 + "c40090"),
]


@pytest.mark.parametrize(("message", "text"), GOLDEN, ids=[type(message).__name__ for message, _ in GOLDEN])
def test_a_word_has_these_bytes_and_no_others(message: object, text: str) -> None:
    data = bytes.fromhex(text)
    assert encode(message) == data
    assert decode(type(message), data) == message
    with pytest.raises(RemoteError):
        decode(type(message), data + b"\0")


@pytest.mark.parametrize(
    "wrong",
    [
        [400_000, [0], True, 0],
        [0, [8], True, 0],
        [0, [0] * 9, False, 0],
        [-1, [0], True, 0],
        [0, [0], 1, 0],
        [0, [0], True, 3],
    ],
)
def test_places_and_parts_outside_their_range_are_refused(wrong: object) -> None:
    with pytest.raises(RemoteError):
        decode(Wish, encode(wrong))


@given(st.sets(st.integers(0, 99)), st.integers(0, 100))
def test_marks_say_which_places_are_held(held: set[int], count: int) -> None:
    held = {place for place in held if place < count}
    marks = to_marks(held, count)
    assert len(marks) == -(-count // 8)
    assert set(from_marks(marks, count)) == held


@given(st.binary(max_size=30), st.integers(0, 100))
def test_marks_of_anybody_name_only_places_there_are(marks: bytes, count: int) -> None:
    assert all(0 <= place < count for place in from_marks(marks, count))
