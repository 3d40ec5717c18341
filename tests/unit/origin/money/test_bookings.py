from __future__ import annotations

import json
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.origin.money import bookings
from farcast.protocol.errors import UsageError

SUMS = st.integers(1, 2**53 - 1)
PAYEES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,8}", fullmatch=True)


@st.composite
def splits(draw: st.DrawFn) -> dict[str, int]:
    names = draw(st.lists(PAYEES, min_size=1, max_size=8, unique=True))
    cuts = draw(
        st.lists(st.integers(1, 9_999), min_size=len(names) - 1, max_size=len(names) - 1, unique=True)
    )
    edges = [0, *sorted(cuts), 10_000]
    return dict(zip(names, (after - before for before, after in pairwise(edges)), strict=True))


@given(SUMS, PAYEES)
def test_the_odd_cent_of_a_tip_is_the_payees(cents: int, payee: str) -> None:
    booking = bookings.tip(cents, payee)
    received, owed, fee = (line.cents for line in booking.lines)
    assert received == cents
    assert received + owed + fee == 0
    assert Fraction(cents, 10) - 1 < -fee <= Fraction(cents, 10)


@given(SUMS, PAYEES, st.integers(0, 10_000))
def test_a_patrons_fee_is_rounded_down(cents: int, payee: str, points: int) -> None:
    booking = bookings.patron(cents, payee, "2026-11", fee_points=points)
    assert sum(line.cents for line in booking.lines) == 0
    assert booking.more["fee_cents"] == cents * points // 10_000
    assert json.loads(booking.memo())["for"] == "2026-11"


@given(SUMS, splits())
def test_a_collaboration_is_split_within_a_cent_of_each_share(cents: int, split: dict[str, int]) -> None:
    booking = bookings.collaboration(cents, split)
    assert sum(line.cents for line in booking.lines) == 0
    parts = {line.account.partition(":")[2]: -line.cents for line in booking.lines[1:]}
    assert parts.keys() == split.keys()
    for payee, part in parts.items():
        assert abs(Fraction(part) - Fraction(cents * split[payee], 10_000)) < 1
    turned = bookings.collaboration(cents, dict(reversed(split.items())))
    assert (turned.lines, turned.memo()) == (booking.lines, booking.memo())


@given(SUMS, splits())
def test_a_refund_takes_back_every_line(cents: int, split: dict[str, int]) -> None:
    booking = bookings.collaboration(cents, split, account=b"\1" * 16)
    back = bookings.refund(7, booking.kind, booking.memo(), booking.lines, is_open=False)
    assert back.cents == -cents
    assert back.account == b"\1" * 16
    for line, other in zip(booking.lines, back.lines, strict=True):
        assert (line.account, line.cents + other.cents) == (other.account, 0)


@pytest.mark.parametrize(
    "text", ["", "ann", "ann=", "ann=x", "ann=5000,ann=5000", "ann=-1", "ann=1 0", "Ann=1", "=5"]
)
def test_what_is_no_split_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"is no split|a payee id is"):
        bookings.parse_split(text)


@pytest.mark.parametrize("text", ["ann=6000,ben=3999", "ann=6000,ben=4001", "ann=10000,ben=0"])
def test_shares_that_are_not_the_whole_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="the shares sum to"):
        bookings.collaboration(100, bookings.parse_split(text))


@pytest.mark.parametrize("cents", [0, -1, 2**53])
def test_a_gift_is_a_sum(cents: int) -> None:
    with pytest.raises(UsageError, match="no sum to book"):
        bookings.tip(cents, "ann")


def test_split_text_reads() -> None:
    assert bookings.parse_split("ada=6000, ben=4000") == {"ada": 6_000, "ben": 4_000}
