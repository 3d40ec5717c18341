from __future__ import annotations

import random
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.protocol.shares import apportion, portions

_WEIGHTS = st.dictionaries(st.text(max_size=3), st.integers(0, 2**80), max_size=30)


@given(st.integers(0, 10**12), _WEIGHTS)
def test_parts_sum_to_the_cent_and_each_is_within_one_of_its_exact_share(
    total: int, weights: dict[str, int]
) -> None:
    parts = apportion(total, weights)
    whole = sum(weights.values())
    assert parts.keys() == weights.keys()
    assert sum(parts.values()) == (total if whole else 0)
    for key, cents in parts.items():
        assert abs(cents - Fraction(total * weights[key], whole or 1)) < 1


@given(st.integers(0, 10**6), _WEIGHTS)
def test_the_order_of_weights_changes_nothing(total: int, weights: dict[str, int]) -> None:
    assert apportion(total, dict(reversed(weights.items()))) == apportion(total, weights)


def test_ties_go_to_the_smaller_key() -> None:
    assert apportion(2, {"c": 1, "b": 1, "a": 1}) == {"a": 1, "b": 1, "c": 0}


def test_the_largest_remainders_get_the_cents_left() -> None:
    assert apportion(10, {"a": 5, "b": 3, "c": 1}) == {"a": 6, "b": 3, "c": 1}


@given(st.integers(0, 10**12), st.integers(0, 2**32), st.sampled_from([1, 7, 10**6, 2**62]))
@settings(max_examples=20)
def test_thousands_are_split_as_a_few_are(total: int, seed: int, most: int) -> None:
    rng = random.Random(seed)
    weights = [rng.randrange(most + 1) for _ in range(1_500)]
    whole = sum(weights)
    parts = portions(total, weights)
    if not whole:
        assert parts == [0] * len(weights)
        return
    order = sorted(range(len(weights)), key=lambda place: (-(total * weights[place] % whole), place))
    expected = [total * weight // whole for weight in weights]
    for place in order[: total - sum(expected)]:
        expected[place] += 1
    assert parts == expected
