"""Pulses run downhill: every box says how far it is from a way home, and nobody leads in a circle."""

from __future__ import annotations

from collections import deque
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.mesh.slope import HOLD_S, Slope
from farcast.protocol.presence import NO_WAY

STEP_S = 0.5


class Hills:
    """Boxes that hear each other's numbers every half second."""

    def __init__(self, edges: dict[int, set[int]]) -> None:
        self.edges = edges
        self.slopes = {box: Slope() for box in edges}
        self.said = dict.fromkeys(edges, NO_WAY)
        self.up: set[int] = set()
        self.now = 0.0

    def step(self) -> None:
        """Let everybody look once at what was said before."""
        self.now += STEP_S
        self.said = {
            box: self.slopes[box].look(
                [self.said[other] for other in others], reaches=box in self.up, now=self.now
            )
            for box, others in self.edges.items()
        }

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(int(seconds / STEP_S)):
            self.step()

    def truth(self) -> dict[int, int]:
        """Return the shortest ways, by a search that sees all."""
        found, todo = dict.fromkeys(self.up, 0), deque(self.up)
        while todo:
            box = todo.popleft()
            for other in self.edges[box]:
                if other not in found:
                    found[other] = found[box] + 1
                    todo.append(other)
        return {box: min(found.get(box, NO_WAY), NO_WAY) for box in self.edges}

    def leads_home(self, box: int) -> bool:
        """Say whether going to a neighbour with a smaller number each time ends at somebody who is up."""
        for _ in range(len(self.edges)):
            if self.said[box] == 0:
                return True
            nearer = [other for other in self.edges[box] if self.said[other] < self.said[box]]
            if not nearer:
                return False
            box = min(nearer, key=self.said.__getitem__)
        return False


def hills(seed: int, boxes: int) -> Hills:
    """Draw a connected net."""
    random = Random(seed)
    edges: dict[int, set[int]] = {box: set() for box in range(boxes)}
    for box in range(1, boxes):
        near = {random.randrange(max(0, box - 6), box) for _ in range(random.choice((1, 2, 3)))}
        for other in near:
            edges[box].add(other)
            edges[other].add(box)
    return Hills(edges)


@given(st.integers(0, 10_000), st.integers(2, 40), st.data())
def test_numbers_become_the_shortest_ways_and_after_every_change_again(
    seed: int, boxes: int, data: st.DataObject
) -> None:
    world = hills(seed, boxes)
    for _ in range(3):
        world.up = data.draw(st.sets(st.integers(0, boxes - 1), max_size=3))
        world.wait(2 * HOLD_S + NO_WAY * STEP_S * 2)
        assert world.said == world.truth()
        assert all(world.leads_home(box) for box, hops in world.said.items() if hops < NO_WAY)


def test_a_way_that_ends_is_forgotten_before_anybody_is_led_in_a_circle() -> None:
    world = Hills({box: {box - 1, box + 1} & set(range(14)) for box in range(14)})
    world.up = {0}
    world.wait(10)
    assert world.said == {box: box for box in range(14)}
    world.up = set()
    world.wait(14 * STEP_S)
    assert set(world.said.values()) == {NO_WAY}
    world.wait(100)
    assert set(world.said.values()) == {NO_WAY}
    world.up = {13}
    world.wait(10)
    assert world.said == {box: 13 - box for box in range(14)}


@pytest.mark.parametrize("lie", [0, 3, NO_WAY])
def test_a_liar_spoils_no_more_than_the_numbers_around_it(lie: int) -> None:
    slope = Slope()
    assert slope.look([lie], reaches=False, now=0.0) == min(lie + 1, NO_WAY)
    assert slope.look([lie], reaches=True, now=1.0) == 0
    assert slope.look([], reaches=False, now=2.0) == NO_WAY
    assert slope.look([1], reaches=False, now=2.0 + HOLD_S / 2) == NO_WAY
    assert slope.look([1], reaches=True, now=2.0 + HOLD_S / 2) == 0, "who needs none waits for nobody"
    assert slope.look([1], reaches=False, now=3.0 + HOLD_S * 2) == NO_WAY
    assert slope.look([1], reaches=False, now=4.0 + HOLD_S * 3) == 2
