"""Swarms on a LAN in virtual time: how long, how much from the source, and who may die meanwhile."""

from __future__ import annotations

from functools import partial
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.mesh.swarm import UNIT_BYTES
from farcast.tests.sim.lan import RATE_BYTES_S, Lan, Node, Pauses

MIB = 1 << 20
SOURCE = b"source"


def names(count: int) -> list[bytes]:
    return [bytes([65 + index]) * 4 for index in range(count)]


def spread(lan: Lan, count: int, slow: float = RATE_BYTES_S) -> tuple[Node, list[Node]]:
    """Put a source and receivers on a LAN, the first of them with a link of its own rate."""
    source = lan.add(SOURCE, range(len(lan.sizes)))
    return source, [
        lan.add(name, rate_bytes_s=RATE_BYTES_S if index else slow) for index, name in enumerate(names(count))
    ]


@pytest.mark.parametrize(("count", "times"), [(1, 1.02), (4, 1.06), (8, 1.10)])
def test_everybody_has_it_in_little_more_than_one_copy_takes_and_the_source_sends_one(
    count: int, times: float
) -> None:
    lan = Lan([MIB] * 64)
    source, receivers = spread(lan, count)
    assert lan.run(lan.whole, 60)
    assert lan.now <= times * lan.size_bytes / RATE_BYTES_S
    assert source.sent_bytes <= 1.06 * lan.size_bytes
    for node in receivers:
        asked_again = sum(times - 1 for times in node.asks.values())
        assert asked_again <= 4 * (node.swarm.stolen + node.swarm.yielded)


@pytest.mark.parametrize(("count", "pause_s", "times"), [(4, 0.02, 1.15), (4, 0.05, 1.35), (8, 0.05, 1.35)])
def test_boxes_that_wait_for_a_processor_still_cost_the_source_one_copy(
    count: int, pause_s: float, times: float
) -> None:
    """Each has one for 20 ms and waits for it then, words and parts come late, and nobody is to blame."""
    lan = Lan([MIB] * 64)
    source, receivers = spread(lan, count)
    for seed, node in enumerate((source, *receivers)):
        node.pauses = Pauses(Random(seed), 0.02, pause_s)
    assert lan.run(lan.whole, 60)
    assert source.sent_bytes <= 1.01 * lan.size_bytes
    assert lan.now <= times * lan.size_bytes / RATE_BYTES_S


def test_one_slow_box_holds_nobody_and_is_fed_as_fast_as_it_takes() -> None:
    lan = Lan([MIB] * 64)
    _, (slow, *others) = spread(lan, 4, RATE_BYTES_S / 10)
    bound_s = lan.size_bytes / RATE_BYTES_S
    assert lan.run(lambda: lan.whole(wanted=others), 60)
    assert lan.now <= 1.10 * bound_s
    assert lan.run(lan.whole, 120)
    assert lan.now <= 1.05 * 10 * bound_s
    assert sum(slow.repeats.values()) <= 8


def test_a_late_joiner_catches_up_from_those_who_have_more_and_costs_the_source_no_second_copy() -> None:
    lan = Lan([MIB] * 64)
    source, receivers = spread(lan, 3)
    assert lan.run(lambda: receivers[0].swarm.lacks <= 32, 60)
    joined_at = lan.now
    late = lan.add(b"late")
    assert lan.run(lan.whole, 60)
    assert lan.now - joined_at <= 1.15 * lan.size_bytes / RATE_BYTES_S
    assert late.done_at is not None
    assert source.sent_bytes <= 1.25 * lan.size_bytes


def test_two_sources_do_not_send_it_twice() -> None:
    lan = Lan([MIB] * 64)
    sources = [lan.add(name, range(64)) for name in (b"s1", b"s2")]
    for name in names(4):
        lan.add(name)
    assert lan.run(lan.whole, 60)
    assert sum(one.sent_bytes for one in sources) <= 1.10 * lan.size_bytes


def test_boxes_that_each_hold_a_part_complete_each_other_without_a_source() -> None:
    lan = Lan([300_000] * 30)
    for index, name in enumerate(names(3)):
        lan.add(name, range(index, 30, 3))
    assert lan.run(lan.whole, 30)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 5 * UNIT_BYTES), min_size=1, max_size=24),
    st.lists(st.tuples(st.integers(0, 4), st.floats(0, 2)), max_size=6),
    st.lists(st.sampled_from([1.0, 0.5, 0.1]), min_size=5, max_size=5),
    st.booleans(),
)
def test_whoever_dies_all_that_live_come_to_hold_what_any_of_them_holds(
    sizes: list[int],
    deaths: list[tuple[int, float]],
    links: list[float],
    source_dies: bool,  # noqa: FBT001
) -> None:
    lan = Lan(sizes)
    source = lan.add(SOURCE, range(len(sizes)))
    nodes = [
        lan.add(name, rate_bytes_s=RATE_BYTES_S * link) for name, link in zip(names(5), links, strict=True)
    ]
    for index, when in deaths:
        lan.at(when, partial(lan.kill, nodes[index]))
    if source_dies:
        lan.at(max((when for _, when in deaths), default=1.0), lambda: lan.kill(source))

    def settled() -> bool:
        living = [node for node in lan.nodes.values() if node.alive]
        union = bytes(max(marks) for marks in zip(*(node.swarm.held for node in living), strict=True))
        return lan.now > 2.5 and all(node.swarm.held == union for node in living)

    lan.at(3.0, lambda: None)
    assert lan.run(settled, 60), [node.swarm.lacks for node in lan.nodes.values()]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 5 * UNIT_BYTES), min_size=4, max_size=24), st.sets(st.integers(0, 40)))
def test_one_who_sends_wrong_bytes_is_cut_and_the_others_lose_little(sizes: list[int], bad: set[int]) -> None:
    lan = Lan(sizes)
    lan.add(SOURCE, range(len(sizes)))
    liar = lan.add(b"liar", range(0, len(sizes), 2))
    liar.spoils = lambda unit: unit.block + unit.part in bad or unit.block % 2 == 0
    honest = [lan.add(name) for name in names(3)]
    assert lan.run(lambda: lan.whole(wanted=honest), 60)
    for node in honest:
        assert all(key == b"liar" for key, _ in node.cut)


@pytest.mark.parametrize("complete", [True, False])
def test_one_who_promises_and_never_sends_delays_but_does_not_stop_the_others(complete: bool) -> None:  # noqa: FBT001
    lan = Lan([MIB] * 16)
    lan.add(SOURCE, range(16))
    mute = lan.add(b"mute", range(16 if complete else 0))
    mute.mute = True
    receivers = [lan.add(name) for name in names(3)]
    assert lan.run(lambda: lan.whole(wanted=receivers), 30)
    assert lan.now < 8


def test_what_a_player_needs_comes_first_while_the_swarm_fills() -> None:
    lan = Lan([MIB] * 64)
    _, (viewer, *_) = spread(lan, 4)
    wanted = [50, 51, 52, 53]
    viewer.swarm.need(wanted, viewer.now)
    viewer.pump()
    assert lan.run(lan.whole, 60)
    assert max(viewer.arrivals[block] for block in wanted) < 0.25 * lan.now
    assert lan.now <= 1.12 * lan.size_bytes / RATE_BYTES_S


@pytest.mark.parametrize("apart_s", [0.0, 0.02, 0.2, 1.0])
@pytest.mark.parametrize("pause_s", [0.0, 0.1, 0.3])
def test_three_who_watch_one_film_cost_their_uplink_one_copy(apart_s: float, pause_s: float) -> None:
    """However late their words come: each plays on when what it watches is here."""
    lan = Lan([MIB] * 24)
    viewers = [lan.add(name, wan=2_500_000, watches=True) for name in names(3)]

    def watch(node: Node, place: int) -> None:
        if place < 24:
            node.swarm.need(range(place, min(24, place + 3)), node.now)
            node.pump()
            here = node.swarm.has(place)
            lan.run_at(node, lan.now + (0.5 if here else 0.05), lambda: watch(node, place + here))

    for index, node in enumerate(viewers):
        if pause_s:
            node.pauses = Pauses(Random(index), 0.02, pause_s)
        lan.at(index * apart_s, partial(watch, node, 0))
    assert lan.run(lan.whole, 90)
    assert sum(node.wan_bytes for node in viewers) <= 1.05 * lan.size_bytes


def test_one_who_watches_behind_two_that_never_answer_waits_a_second_for_each_and_no_longer() -> None:
    lan = Lan([MIB] * 3)
    viewer, *others = [lan.add(name, wan=2_500_000, watches=True) for name in (b"c", b"a", b"b")]
    for other in others:
        other.pauses = Pauses(Random(1), 0.001, 1_000.0)
    viewer.swarm.need([0], viewer.now)
    viewer.pump()
    assert lan.run(lambda: viewer.swarm.has(0), 10)
    assert 2.0 <= lan.now <= 2.0 + 1.0
