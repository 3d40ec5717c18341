"""A village of 200 boxes, five of them online for an hour a day, a fifth of all away at any time."""

from __future__ import annotations

import pytest

from farcast.tests.sim.homeward import Village


@pytest.mark.parametrize("seed", [1])
def test_every_pulse_comes_home_once_for_little_more_than_one_copy_a_hop(seed: int) -> None:
    village = Village(seed)
    village.run()
    assert len(village.made) > 10_000
    assert set(village.origin.came_by) == set(village.made), "every pulse, each once"
    assert village.total_bytes <= 1.3 * village.least_bytes(), village.sent
    assert village.sent["pulses"] >= village.least_bytes() * 0.9, "the bound is near"
