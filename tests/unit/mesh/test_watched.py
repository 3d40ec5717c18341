"""Who brings a block that several are about to watch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farcast.mesh.watched import ANSWER_S, ASKED_LIMIT, LEFT_LIMIT, WATCHED_LIMIT, Watched

_KEYS = st.lists(st.binary(min_size=1, max_size=4), min_size=1, max_size=6, unique=True).map(sorted)


@given(_KEYS, st.integers(0, 30))
def test_a_block_has_its_turn_with_one_and_every_other_asks_only_those_before_it(
    receivers: list[bytes], block: int
) -> None:
    """So answers never wait for each other in a circle."""
    first = block % len(receivers)
    order = receivers[first:] + receivers[:first]
    for place, key in enumerate(order):
        watched = Watched(key)
        watched.need([block])
        asked = watched.before(block, receivers)
        assert asked == order[max(0, place - ASKED_LIMIT) : place]
        for one in asked:
            watched.refused(one, block)
        assert watched.before(block, receivers) == []


@given(st.lists(st.lists(st.integers(0, 40), max_size=30), max_size=5))
def test_what_is_needed_now_takes_the_place_of_what_was(rounds: list[list[int]]) -> None:
    watched, before = Watched(b"m"), set[int]()
    for blocks in rounds:
        left = watched.need(blocks)
        assert [*watched] == [*dict.fromkeys(blocks[:WATCHED_LIMIT])]
        assert {*left} == before - {*watched}
        before = {*watched}


def test_who_refused_is_asked_again_only_when_the_block_is_needed_anew() -> None:
    watched = Watched(b"b")
    watched.need([0])
    watched.refused(b"a", 0)
    watched.need([0, 2])
    assert watched.before(0, [b"a", b"b"]) == []
    watched.need([2])
    watched.refused(b"a", 0)
    watched.need([0])
    assert watched.before(0, [b"a", b"b"]) == [b"a"]


def test_a_block_is_left_to_who_heard_no_for_a_while_and_few_are_remembered() -> None:
    watched = Watched(b"m")
    watched.leave(3, b"x", 1.0)
    assert watched.left_to(3, 1.0 + ANSWER_S - 0.01) == b"x"
    assert watched.left_to(3, 1.0 + ANSWER_S) == b""
    watched.leave(3, b"y", 5.0)
    watched.came(3)
    assert watched.left_to(3, 5.0) == b""
    for block in range(LEFT_LIMIT + 1):
        watched.leave(block, b"x", 6.0)
    assert watched.left_to(0, 6.0) == b""
    assert watched.left_to(LEFT_LIMIT, 6.0) == b"x"
