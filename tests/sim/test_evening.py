"""One simulated evening: fifty nodes, tiers failing all the time, pulses finding their way home."""

from __future__ import annotations

import pytest

from farcast.node.ladder.budget import Budget
from farcast.protocol.ports import TierName
from farcast.tests.sim.world import BLOCK_BYTES, Evening, Node, Origin, forged, refused


def tids(evening: Evening) -> dict[bytes, Node]:
    return {node.signer.body.tid: node for node in evening.nodes}


@pytest.fixture(scope="module", params=[2, 4])
def evening(request: pytest.FixtureRequest) -> Evening:
    made = Evening(seed=request.param)
    made.run()
    return made


def test_every_block_is_served_and_no_buffer_ever_empties(evening: Evening) -> None:
    for node in evening.nodes:
        assert node.next == len(evening.film)
        assert node.given_up == 0
        assert node.stall_s == 0.0
        assert node.state == "e"


def test_the_weather_was_bad_enough_to_mean_something(evening: Evening) -> None:
    switches = [switch for node in evening.nodes for switch in node.switches]
    causes = {switch.cause for switch in switches}
    assert {"recovered", "silent"} <= causes
    assert causes & {"slow", "unreachable"}
    assert any(node.rejected for node in evening.nodes)
    assert {switch.after for switch in switches} == {TierName.CDN, TierName.RELAY, TierName.MESH}
    assert all(
        sum(node.by_tier[tier] for node in evening.nodes) > 100 for tier in (TierName.CDN, TierName.RELAY)
    )


def test_every_pulse_reaches_the_origin_exactly_once(evening: Evening) -> None:
    assert evening.origin.duplicates > 0, "links did repeat"
    for tid, node in tids(evening).items():
        assert sorted(evening.origin.deltas[tid]) == list(range(1, node.signer.seq + 1))
    assert len(evening.origin.pulses) == sum(node.signer.seq for node in evening.nodes)


def test_what_was_watched_is_what_is_claimed(evening: Evening) -> None:
    for tid, node in tids(evening).items():
        claimed_s = sum(evening.origin.deltas[tid].values()) / 1000
        assert node.played_s == pytest.approx(evening.length_s)
        assert 0.99 * node.played_s <= claimed_s <= node.played_s + 0.01


def test_hedging_stays_within_the_films_budget(evening: Evening) -> None:
    allowed = max(Budget.FREE_BYTES, len(evening.film) * BLOCK_BYTES * 3 // 100)
    assert all(node.ladder.wasted_bytes <= allowed for node in evening.nodes)


def test_acks_come_back_to_everybody_and_empty_every_spool(evening: Evening) -> None:
    assert not any(carrier.spool for carrier in [*evening.nodes, *evening.relays])


def test_when_everything_else_is_gone_the_carousel_plays_on() -> None:
    made = Evening(seed=4, nodes=10, segments=100, blackout=150)
    made.run()
    for node in made.nodes:
        assert node.next == len(made.film)
        assert node.stall_s == 0.0
        assert node.by_tier[TierName.SATELLITE] > 20
        assert node.ladder.in_use is TierName.SATELLITE
    assert len(made.origin.pulses) == sum(node.signer.seq for node in made.nodes)


def test_one_seed_is_one_evening() -> None:
    first, second, other = (Evening(seed, nodes=10, segments=30) for seed in (5, 5, 6))
    for made in (first, second, other):
        made.run()
    assert first.world.digest() == second.world.digest()
    assert first.world.digest() != other.world.digest()


def test_a_pulse_changed_on_the_way_is_refused() -> None:
    small = Evening(seed=3, nodes=5, segments=10)
    small.world.run(30)
    node = next(node for node in small.nodes if node.spool)
    assert refused(Origin(), forged(node))
    assert not refused(small.origin, dict(node.spool))
