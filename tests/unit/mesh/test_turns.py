from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farcast.mesh.turns import Turns


def listed(turns: Turns) -> list[int]:
    """Return a box's turns, its own first."""
    order = list[int]()
    for own in (True, False):
        while (block := turns.next(lambda _: True, own=own)) is not None:
            order.append(block)
    return order


@given(st.integers(1, 40), st.integers(1, 5))
def test_each_block_is_one_receivers_turn_and_all_are_listed_once(count: int, boxes: int) -> None:
    keys = [bytes([65 + index]) * 4 for index in range(boxes)]
    owners: dict[int, int] = dict.fromkeys(range(count), 0)
    for key in keys:
        turns = Turns(key, count)
        turns.renew(keys, lambda _: True)
        order = listed(turns)
        assert sorted(order) == list(range(count))
        own = [block for block in range(count) if turns.has(block, keys)]
        assert set(order[: len(own)]) == set(own)
        for block in own:
            owners[block] += 1
    assert set(owners.values()) == {1}


def test_those_who_have_done_their_turns_begin_with_different_ones_of_the_last_of_a_slow_box() -> None:
    keys, count = [bytes([65 + index]) * 8 for index in range(4)], 64
    slow = Turns(keys[0], count)
    slow.renew(keys, lambda _: True)
    order = [block for block in listed(slow) if slow.has(block, keys)]
    taken = list[int]()
    for key in keys[1:]:
        thief = Turns(key, count)
        thief.renew(keys, lambda block: slow.has(block, keys))
        taken += listed(thief)[:4]
    assert sorted(taken) == sorted(order[-12:])


def test_a_block_given_back_comes_next_and_a_list_never_grows_past_twice_its_title() -> None:
    turns = Turns(b"a", 4)
    turns.renew([b"a", b"b"], lambda _: True)
    for block, own in ((2, True), (1, False)):
        turns.again(block, [b"a", b"b"])
        assert turns.next(lambda _: True, own=own) == block
    for _ in range(1_000):
        turns.again(1, [b"a", b"b"])
        assert len(turns) <= 8
