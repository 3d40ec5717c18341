from __future__ import annotations

from collections import Counter

import pytest

from farcast.protocol.rules import DAY_MS
from farcast.tests.sim.counting import counting
from farcast.tests.sim.day import FILM, MANIFEST, TODAY, Day, Plan

NODES = 120


@pytest.mark.parametrize("seed", [1, 2])
def test_a_day_over_failing_tiers_counts_every_pulse_once(seed: int) -> None:
    with counting() as signatures:
        day = Day(Plan(NODES, seed))
        day.run()
        credits_ = day.till.counted(range(TODAY, TODAY + 1), {FILM: MANIFEST}.get)
    signed = sum(node.signed for node in day.nodes)
    assert day.till.verdicts["stored"] == signed > NODES * 50
    seen = Counter((item.fact.tid, item.fact.seq) for item in credits_)
    assert len(seen) == signed
    assert set(seen.values()) == {1}
    assert day.till.verdicts["duplicate"] > 0  # the way was bad enough
    assert set(day.till.verdicts) == {"stored", "duplicate"}
    played_ms = sum(node.played_ms for node in day.nodes)
    assert abs(sum(item.ms for item in credits_) - played_ms) <= played_ms / 1_000
    assert all(item.fact.day * DAY_MS == TODAY * DAY_MS for item in credits_)
    assert [node.number for node in day.nodes if node.spool.count] == []
    assert sum(len(relay.shelf.open) + len(relay.shelf.fresh) for relay in day.relays) == 0
    assert 0.002 < signatures["real"] / signatures.total() < 0.03


def test_the_same_seed_is_the_same_day() -> None:
    logs: list[list[bytes]] = []
    for _ in range(2):
        with counting():
            day = Day(Plan(10, 7))
            day.run()
        logs.append(day.till.log)
    assert logs[0] == logs[1]
