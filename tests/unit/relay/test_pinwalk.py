from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.cid import IDENTITY, RAW, Cid
from farcast.protocol.errors import RemoteError
from farcast.relay.pinwalk import PinWalk

CIDS = [Cid.of(RAW, bytes((number,))) for number in range(40)]
DAGS = st.lists(st.lists(st.integers(0, 39), max_size=6), min_size=40, max_size=40)


def below(links: list[list[int]]) -> set[int]:
    """Return what 0 reaches in any graph, cycles and all."""
    reached, todo = set[int](), [0]
    while todo:
        if (at := todo.pop()) not in reached:
            reached.add(at)
            todo += links[at]
    return reached


@given(DAGS, st.randoms(use_true_random=False), st.integers(1, 8))
def test_every_block_is_handed_out_once_whatever_the_order_of_answers(
    links: list[list[int]], random: Random, at_once: int
) -> None:
    walk, flying, order = PinWalk(CIDS[0]), list[Cid](), list[Cid]()
    while True:
        while len(flying) < at_once and (cid := walk.take()) is not None:
            flying.append(cid)
            order.append(cid)
        if not flying:
            break
        assert not walk.whole
        cid = flying.pop(random.randrange(len(flying)))
        walk.arrived(10, [CIDS[child] for child in links[CIDS.index(cid)]])
    assert walk.whole
    assert sorted(order) == sorted(CIDS[at] for at in below(links))
    assert (walk.known, walk.held, walk.bytes) == (len(order), len(order), 10 * len(order))


def test_it_goes_depth_first_in_the_order_of_links() -> None:
    walk = PinWalk(CIDS[0])
    links = {0: [1, 4], 1: [2, 3], 4: [5]}
    order: list[int] = []
    while (cid := walk.take()) is not None:
        order.append(CIDS.index(cid))
        fresh = walk.arrived(1, [CIDS[child] for child in links.get(order[-1], [])])
        assert fresh == [CIDS[child] for child in links.get(order[-1], [])]
    assert order == [0, 1, 2, 3, 4, 5]


def test_what_carries_itself_is_not_asked_for_and_links_twice_count_once() -> None:
    walk = PinWalk(CIDS[0])
    walk.take()
    assert walk.arrived(1, [Cid(RAW, b"hello", IDENTITY), CIDS[1], CIDS[1], CIDS[0]]) == [CIDS[1]]


def test_a_dag_of_too_many_blocks_is_refused_before_they_are_remembered() -> None:
    walk = PinWalk(CIDS[0], limit_blocks=3)
    walk.take()
    with pytest.raises(RemoteError, match="more than 3 blocks") as caught:
        walk.arrived(1, CIDS[1:4])
    assert caught.value.reason == "too_large"
    assert walk.known == 1
