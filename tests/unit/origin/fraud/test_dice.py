from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farcast.origin.fraud.dice import Dice


@given(st.integers(0, 2**63), st.integers(-(10**6), 10**6), st.integers(0, 10**6))
def test_a_throw_lies_between_its_ends_and_repeats_with_its_seed(seed: int, least: int, width: int) -> None:
    throws = [Dice(seed, "one").between(least, least + width) for _ in range(2)]
    assert throws[0] == throws[1]
    assert least <= throws[0] <= least + width


def test_the_same_seed_under_another_name_is_another_row() -> None:
    assert Dice(1, "one").bytes(32) != Dice(1, "two").bytes(32)


@given(st.lists(st.integers()))
def test_a_shuffle_keeps_every_item(items: list[int]) -> None:
    assert sorted(Dice(1, "shuffle").shuffled(items)) == sorted(items)
