"""The ladder in a simulated living room: whatever befalls the tiers, the player never waits.

``FARCAST_SIM_SEEDS`` sets how many evenings are drawn for each kind of line.
"""

from __future__ import annotations

import os

import pytest

from farcast.node.ladder.budget import Budget
from farcast.protocol.ports import Cost, TierName
from farcast.protocol.viewing import LEAD_MS
from farcast.tests.sim.cinema import AHEAD_S, SEGMENT_S, Cinema
from farcast.tests.sim.edges import FAULTS, Change, Script
from farcast.tests.sim.fate import FAR, NEAR, SEGMENTS, TIERS, Fate, Line, draw, edge
from farcast.tests.sim.world import World

SEEDS = int(os.environ.get("FARCAST_SIM_SEEDS", "60"))
SERVED_S = 0.4
BACK_S = 15.0
RESUMED_S = 6.0
QUICK = Line((0.006, 0.006), (5e7, 5e7))
DISTANT = Line((0.12, 0.12), (4e6, 4e6))


@pytest.fixture(scope="module", params=[NEAR, FAR], ids=["near", "far"])
def evenings(request: pytest.FixtureRequest) -> list[Fate]:
    """Play all evenings of one kind of line to their end."""
    fates = [draw(seed, request.param) for seed in range(SEEDS)]
    for fate in fates:
        fate.cinema.run(SEGMENTS * SEGMENT_S * 2)
    return fates


def test_no_buffer_ever_empties_while_one_tier_is_well(evenings: list[Fate]) -> None:
    stalls = {fate.seed: fate.cinema.stall_s for fate in evenings if fate.cinema.stall_s > 0}
    assert not stalls
    assert not [fate.seed for fate in evenings if not fate.cinema.finished or fate.cinema.given_up]


def test_every_rule_of_asking_is_kept(evenings: list[Fate]) -> None:
    """No copy on a tier that costs, nobody asked twice within its back-off, no liar believed twice."""
    assert not {fate.seed: fate.cinema.broken for fate in evenings if fate.cinema.broken}
    assert any(fate.cinema.lied for fate in evenings)
    assert any(fate.cinema.refusals for fate in evenings)


def test_copies_stay_within_the_films_budget(evenings: list[Fate]) -> None:
    for fate in evenings:
        allowed = max(Budget.FREE_BYTES, fate.cinema.delivered_bytes * 3 // 100)
        assert fate.cinema.doubled_bytes() <= allowed, fate.seed
        if not fate.cinema.unseen:  # what nobody sees is booked as if all of it had come
            assert fate.cinema.ladder.wasted_bytes <= allowed, fate.seed
    most = max(fate.cinema.doubled_bytes() for fate in evenings)
    assert most > Budget.FREE_BYTES // 4, "hardly anything came twice"


def test_the_weather_was_bad_enough_to_mean_something(evenings: list[Fate]) -> None:
    causes = {switch.cause for fate in evenings for _, switch in fate.cinema.switches}
    assert {"recovered", "silent", "slow", "unreachable", "truncated", "corrupt"} <= causes
    tiers = {one.tier for fate in evenings for one in fate.cinema.requests}
    assert tiers >= set(TIERS)


def test_a_player_that_does_not_tell_is_paced(evenings: list[Fate]) -> None:
    leads = [fate.cinema.most_ahead_s for fate in evenings]
    assert max(leads) <= LEAD_MS / 1000 + 3 * SEGMENT_S
    assert max(leads) > 2 * AHEAD_S, "nobody was let so far ahead"


@pytest.mark.parametrize("seeds", [range(SEEDS)])
def test_a_missing_block_is_here_400_ms_after_it_was_asked_for(seeds: range) -> None:
    """Or after the latest fault began, where that struck while the block was on its way."""
    counted = 0
    for seed in seeds:
        fate = draw(seed, NEAR)
        fate.cinema.run(SEGMENTS * SEGMENT_S * 2)
        for one in fate.cinema.requests:
            if fate.settled(one.asked_at, one.served_at):
                counted += 1
                began = fate.last_onset(one.asked_at, one.served_at)
                assert one.served_at - max(began, one.asked_at) <= SERVED_S, (seed, one)
    assert counted > 20 * len(seeds)


def _three_tiers(
    scripts: dict[TierName, Script], lines: dict[TierName, Line], costs: dict[TierName, Cost] | None = None
) -> Cinema:
    world = World(5)
    edges = [edge(world, tier, n, scripts[tier], lines[tier]) for tier in scripts for n in range(2)]
    return Cinema(world, edges, segments=40, costs=costs)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "corrupt"])
@pytest.mark.parametrize("cdn", [QUICK, DISTANT], ids=["quick", "distant"])
def test_a_better_tier_that_has_recovered_serves_again_within_15_s(fault: str, cdn: Line) -> None:
    """Also one twelve times farther away than what serves meanwhile, whose connections are all gone."""
    back = 31.0
    scripts = {TierName.CDN: Script([Change(3.0, fault), Change(back, "")]), TierName.RELAY: Script([])}
    cinema = _three_tiers(scripts, {TierName.CDN: cdn, TierName.RELAY: QUICK})
    cinema.run(75.0)
    assert cinema.stall_s == 0.0
    later = [one for one in cinema.requests if one.asked_at >= back]
    again = next(one for one in later if one.tier is TierName.CDN)
    assert again.served_at - back <= BACK_S
    settled = [one.tier for one in later if one.asked_at >= back + BACK_S]
    share = 0.9 if cdn is QUICK else 0.3  # connections closed by cancelling are far to open again
    assert settled.count(TierName.CDN) >= share * len(settled), "it does not stay"


@pytest.mark.parametrize("first", ["hang", "stall", "refuse", "dark", "trickle"])
@pytest.mark.parametrize("second", ["hang", "stall", "refuse", "dark", "trickle"])
def test_two_tiers_that_die_300_ms_apart_cost_400_ms(first: str, second: str) -> None:
    for offset in range(8):
        died = 10.0 + offset * 0.05
        scripts = {
            TierName.CDN: Script([Change(died, first)]),
            TierName.RELAY: Script([Change(died + 0.3, second)]),
            TierName.MESH: Script([]),
        }
        cinema = _three_tiers(scripts, dict.fromkeys(TIERS, QUICK))
        cinema.run(80.0)
        assert cinema.stall_s == 0.0
        for one in cinema.requests:
            struck = [at for at in (died, died + 0.3) if one.asked_at <= at <= one.served_at]
            assert one.served_at - max([one.asked_at, *struck]) <= SERVED_S, (offset, one)


@pytest.mark.parametrize("fault", ["hang", "dark", "refuse"])
def test_all_relays_behind_one_dead_uplink_are_one_failure(fault: str) -> None:
    """The CDN is long gone, and all relays go together."""
    scripts = {
        TierName.CDN: Script([Change(0.0, fault)]),
        TierName.RELAY: Script([Change(20.0, fault)]),
        TierName.MESH: Script([]),
    }
    world = World(6)
    edges = [edge(world, TierName.RELAY, n, scripts[TierName.RELAY], QUICK) for n in range(6)]
    edges += [edge(world, tier, 0, scripts[tier], QUICK) for tier in (TierName.CDN, TierName.MESH)]
    cinema = Cinema(world, edges, segments=SEGMENTS)
    cinema.run(100.0)
    assert cinema.stall_s == 0.0
    assert max(one.served_at - one.asked_at for one in cinema.requests) <= SERVED_S


@pytest.mark.parametrize("fault", ["refuse", "hang", "dark", "busy", "stall"])
def test_all_tiers_gone_and_back_and_the_film_goes_on_by_itself(fault: str) -> None:
    gone, back = 12.0, 40.0
    script = Script([Change(gone, fault), Change(back, "")])
    cinema = _three_tiers(dict.fromkeys(TIERS, script), dict.fromkeys(TIERS, QUICK))
    cinema.run(200.0)
    assert cinema.finished
    waited = [one for one in cinema.requests if one.asked_at < back < one.served_at]
    assert waited or fault == "stall", "small blocks may pass"
    assert all(one.served_at - back <= RESUMED_S for one in waited)
    assert cinema.stall_s <= back - gone + RESUMED_S


@pytest.mark.parametrize("fault", ["refuse", "hang", "dark", "stall", "trickle"])
def test_where_only_a_tier_that_costs_is_left_it_plays_on_and_pays_for_no_copy(fault: str) -> None:
    scripts = {
        TierName.CDN: Script([Change(5.0, fault)]),
        TierName.RELAY: Script([Change(5.0, fault)]),
        TierName.MESH: Script([]),
    }
    lines = {TierName.CDN: QUICK, TierName.RELAY: QUICK, TierName.MESH: DISTANT}
    cinema = _three_tiers(scripts, lines, {TierName.MESH: Cost.METERED})
    cinema.run(120.0)
    assert cinema.stall_s == 0.0
    assert cinema.finished
    assert not cinema.broken
    early = [one for one in cinema.requests if one.asked_at < 4.0]
    assert {one.tier for one in early} == {TierName.CDN}, "what costs is not asked while others serve"
