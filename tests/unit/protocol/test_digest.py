"""Digests: one form for a set of numbers, and what is missing of it."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.codec import encode
from farcast.protocol.digest import (
    DIGEST_LIMIT_BYTES,
    Digest,
    Held,
    Lacking,
    Span,
    held,
    missing,
    open_digest,
    open_lacking,
)
from farcast.protocol.errors import RemoteError
from farcast.protocol.ticket import MAX_SEQ

TID = b"t" * 16
_NUMBERS = st.sets(st.integers(1, MAX_SEQ), max_size=200)


@given(_NUMBERS, _NUMBERS)
def test_a_set_of_numbers_comes_back_as_it_was_in_its_one_form(numbers: set[int], some: set[int]) -> None:
    twins = numbers & some
    item = held(TID, numbers, twins)
    assert (set(item.numbers()), set(item.twins)) == (numbers, twins)
    assert all(second.first > first.last + 1 for first, second in pairwise(item.spans))
    data = encode(Digest(1, [item]))
    assert open_digest(data).held == [item]
    assert open_lacking(encode(Lacking(1, [item], [b"ack"]))).acks == [b"ack"]


@given(_NUMBERS, _NUMBERS, _NUMBERS, st.integers(0, 300))
def test_what_is_missing_is_offered_not_here_and_bounded(
    offered: set[int], here: set[int], twins: set[int], room: int
) -> None:
    found = missing(held(TID, offered, offered & twins), dict.fromkeys(here, 1), room)
    wanted = set(found.numbers()) if found else set[int]()
    whole = {number for number in offered if number not in here or number in twins}
    assert wanted <= whole
    assert wanted == set(sorted(whole)[:room])
    assert missing(held(TID, offered, offered & twins), dict.fromkeys(offered, 2), room) is None


@pytest.mark.parametrize(
    "items",
    [
        [Held(TID, [Span(2, 1)], [])],
        [Held(TID, [Span(1, 2), Span(3, 4)], [])],
        [Held(TID, [Span(3, 4), Span(1, 1)], [])],
        [Held(TID, [Span(1, 3), Span(2, 5)], [])],
        [Held(TID, [Span(1, 2)], [3])],
        [Held(TID, [Span(1, 2)], [2, 1])],
        [Held(TID, [Span(1, 2)], [1, 1])],
        [Held(TID, [], []), Held(TID, [], [])],
    ],
)
def test_another_form_of_the_same_is_refused(items: list[Held]) -> None:
    for data, read in (
        (encode(Digest(1, items)), open_digest),
        (encode(Lacking(1, items, [])), open_lacking),
    ):
        with pytest.raises(RemoteError) as caught:
            read(data)
        assert caught.value.reason == "bad_digest"


def test_what_is_too_large_or_out_of_range_is_refused() -> None:
    for data, reason in (
        (bytes(DIGEST_LIMIT_BYTES + 1), "too_large"),
        (encode([1, [[TID, [[0, 1]], []]]]), "malformed"),
        (encode([1, [[TID, [[1, MAX_SEQ + 1]], []]]]), "malformed"),
        (b"\x92\x02\x90", "malformed"),
    ):
        with pytest.raises(RemoteError) as caught:
            open_digest(data)
        assert caught.value.reason == reason


@given(st.binary(max_size=200))
def test_any_bytes_raise_a_remote_error_or_are_a_digest(data: bytes) -> None:
    with suppress(RemoteError):
        assert encode(open_digest(data)) == data
