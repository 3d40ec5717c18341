from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farcast.mesh.turns import Turns


@given(st.integers(1, 40), st.integers(1, 5))
def test_each_block_is_one_receivers_turn_and_all_are_listed_once(count: int, boxes: int) -> None:
    keys = [bytes([65 + index]) * 4 for index in range(boxes)]
    owners: dict[int, int] = dict.fromkeys(range(count), 0)
    for key in keys:
        turns = Turns(key, count)
        turns.renew(keys, lambda _: True)
        order = list[int]()
        while (block := turns.next(lambda _: True)) is not None:
            order.append(block)
        assert sorted(order) == list(range(count))
        own = [block for block in range(count) if turns.has(block, keys)]
        assert set(order[: len(own)]) == set(own)
        for block in own:
            owners[block] += 1
    assert set(owners.values()) == {1}


def test_a_block_given_back_comes_next_and_a_list_never_grows_past_twice_its_title() -> None:
    turns = Turns(b"a", 4)
    turns.renew([b"a"], lambda _: True)
    turns.again(2)
    assert turns.next(lambda _: True) == 2
    for _ in range(1_000):
        turns.again(1)
        assert len(turns) <= 8
