from __future__ import annotations

from collections import Counter

import pytest

from farcast.origin.pulses.admission import Verify
from farcast.tests.sim.counting import counting
from farcast.tests.sim.day import FILM, MANIFEST, TODAY, Day, Plan

NODES = 120
SIGNATURES: list[Verify] = ["eager", "chained"]


@pytest.mark.parametrize("verify", SIGNATURES)
def test_a_day_over_failing_tiers_counts_every_pulse_once(verify: Verify) -> None:
    with counting() as signatures:
        day = Day(Plan(NODES, seed=1, verify=verify))
        day.run()
        sealed = day.seal()
    signed = sum(node.signed for node in day.nodes)
    assert day.till.taken == signed > NODES * 50
    assert day.till.verdicts["duplicate"] > signed // 20  # the way was bad enough
    assert set(day.till.verdicts) <= {"stored", "pending", "duplicate"}
    for node in day.nodes:
        records = sorted(sealed[node.tid], key=lambda record: record.first)
        numbers = [seq for record in records for seq in range(record.first, record.last + 1)]
        assert numbers == list(range(1, node.signed + 1))
        played_ms = node.played_ms
        assert abs(sum(record.counted_ms for record in records) - played_ms) <= played_ms / 1_000
    assert [node.number for node in day.nodes if node.spool.count] == []
    assert sum(len(relay.shelf.open) + len(relay.shelf.fresh) for relay in day.relays) == 0
    assert signatures["real"] > 0


def test_the_log_of_the_day_read_again_tells_the_same() -> None:
    with counting():
        day = Day(Plan(40, seed=2, verify="eager"))
        day.run()
        sealed = day.seal()
        credits_ = day.till.counted(range(TODAY, TODAY + 1), {FILM: MANIFEST}.get)
    seen = Counter((item.fact.tid, item.fact.seq) for item in credits_)
    assert set(seen.values()) == {1}
    assert len(seen) == sum(node.signed for node in day.nodes)
    by_ticket: Counter[bytes] = Counter()
    for item in credits_:
        by_ticket[item.fact.tid] += item.ms
    assert by_ticket == {
        tid: sum(record.counted_ms for record in records) for tid, records in sealed.items() if records
    }


def test_the_same_seed_is_the_same_day() -> None:
    logs: list[list[bytes]] = []
    for _ in range(2):
        with counting():
            day = Day(Plan(10, seed=7))
            day.run()
        logs.append(day.till.log)
    assert logs[0] == logs[1]
