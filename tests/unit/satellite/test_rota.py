"""In which order titles have their turns."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from math import sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.satellite.rota import Feature, Planned, Rota


def title(label: str, lengths: list[int], weight: float = 1.0) -> Feature:
    plans = [
        Planned(hash((label, at)) & 0xFFFF_FFFF, label, length, -(-length // 1_280), 1_280)
        for at, length in enumerate(lengths)
    ]
    return Feature(label, tuple(plans), weight)


def sent(rota: Rota, count: int) -> list[str]:
    """Send so many generations; what was foretold is what comes."""
    labels: list[str] = []
    for _ in range(count):
        assert rota.current is not None
        labels.append(rota.current.label)
        following = rota.following
        rota.advance()
        assert rota.current == following
    return labels


FEATURES = st.lists(
    st.tuples(st.lists(st.integers(1, 20_000_000), min_size=1, max_size=5), st.floats(0.1, 10.0)),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(FEATURES)
def test_nobody_starves_and_the_order_is_always_the_same(rows: list[tuple[list[int], float]]) -> None:
    features = [title(str(at), lengths, weight) for at, (lengths, weight) in enumerate(rows)]
    first, second = Rota(), Rota()
    first.replace(features)
    second.replace(features)
    intervals = [sqrt(sum(lengths) / weight) for lengths, weight in rows]
    everything = sum(sum(lengths) for lengths, _ in rows)
    per_tick = sum(sum(lengths) / interval for (lengths, _), interval in zip(rows, intervals, strict=True))
    waited = dict.fromkeys((str(at) for at in range(len(rows))), 0)
    for _ in range(300):
        plan = first.current
        assert plan is not None
        assert plan == second.current
        for label in waited:
            waited[label] += plan.length
        waited[plan.label] = 0
        for at, interval in enumerate(intervals):
            assert waited[str(at)] <= interval * per_tick + 2 * everything
        first.advance()
        second.advance()


def test_turns_follow_the_square_root_of_size_and_weight() -> None:
    rota = Rota()
    rota.replace(
        [title("plain", [1_000_000]), title("loved", [1_000_000], 4.0), title("long", [1_000_000] * 16)]
    )
    sent(rota, 18)
    turns = Counter(sent(rota, 6_000))
    assert turns["loved"] / turns["plain"] == pytest.approx(2.0, rel=0.05)
    assert turns["plain"] / (turns["long"] / 16) == pytest.approx(4.0, rel=0.05)


def test_a_new_title_breaks_a_long_turn_which_then_goes_on_where_it_was() -> None:
    rota, long = Rota(), title("long", [1_000] * 10)
    rota.replace([long])
    assert sent(rota, 13) == ["long"] * 13
    rota.replace([title("new", [1_000] * 2), long])
    labels = sent(rota, 10)
    assert labels == ["long", "new", "new", *["long"] * 6, "new"]


def test_new_titles_go_in_the_order_given_and_older_ones_are_never_shut_out() -> None:
    rota = Rota()
    shows = [title("old", [1_000] * 4)]
    rota.replace(shows)
    sent(rota, 4)
    labels: list[str] = []
    for at in range(50):  # somebody publishes without end
        shows = [title(f"a{at}", [1_000]), title(f"b{at}", [1_000]), *shows]
        rota.replace(shows)
        labels += sent(rota, 3)
    assert labels[:6] == ["old", "a0", "b0", "old", "a1", "b1"]
    assert labels.count("old") >= 8  # two turns, though a hundred titles came


def test_a_title_that_changed_begins_anew_and_one_that_left_is_gone() -> None:
    rota = Rota()
    rota.replace([title("a", [5, 5]), title("b", [7])])
    sent(rota, 1)
    rota.replace([title("b", [7])])
    assert sent(rota, 3) == ["b"] * 3
    rota.replace([])
    assert rota.current is None
    assert rota.following is None
    rota.advance()
    rota.replace([title("b", [8]), title("empty", []), title("b", [9])])
    assert [plan.length for plan in rota.plans] == [8]


def test_weights_change_without_losing_ones_place() -> None:
    rota = Rota()
    rota.replace([title("a", [5] * 6)])
    sent(rota, 3)
    before = rota.current
    rota.replace([title("a", [5] * 6, 9.0)])
    assert rota.current == before


def test_a_thousand_titles_are_foretold_in_order_once_each() -> None:
    rota = Rota()
    rota.replace([title(f"t{at}", [16_000_000] * 3) for at in range(1_000)])
    ahead = [plan.label for plan in islice(rota.forecast(), 2_999)]
    assert Counter(ahead) == {f"t{at}": 3 - (at == 0) for at in range(1_000)}
    assert rota.current is not None
    assert rota.current.label == "t0"
