from __future__ import annotations

import pytest

from farcast.origin.fraud.catalogue import SCENARIOS, find
from farcast.origin.fraud.trial import Result, play
from farcast.protocol.errors import UsageError

THREATS = {
    "replay", "back-dating", "future-dating", "clock-skew", "sybil-viewers", "relay-forgery", "collusion",
    "two-relays", "key-theft", "origin-cheats", "relay-drops", "signature-corners",
}  # fmt: skip
SEAMS = {
    "cap-splitting", "no-pause", "session-seam", "gap-seam", "day-boundary", "late-replay", "equivocation",
    "delayed-pulses", "click-farm", "bribery", "kbytes-inflation",
}  # fmt: skip


def honest_lose_nothing(result: Result) -> bool:
    return result.viewed_ms > 0 and result.lost_ms * 1_000 <= result.viewed_ms


def test_every_threat_and_every_seam_has_a_scenario() -> None:
    assert set(SCENARIOS) >= THREATS | SEAMS
    assert all(scenario.rule and scenario.story for scenario in SCENARIOS.values())


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_rule_keeps_its_bound_and_without_it_the_attack_pays(name: str) -> None:
    scenario = find(name)
    with_rule, without = play(scenario, 1), play(scenario, 1, with_rule=False)
    assert with_rule.received_cents <= with_rule.bound_cents
    assert honest_lose_nothing(with_rule)
    assert without.return_cents > max(0, with_rule.return_cents)
    assert without.received_cents > with_rule.bound_cents


@pytest.mark.parametrize("name", SCENARIOS)
def test_another_seed_is_another_world_with_the_same_bound(name: str) -> None:
    seed = 100 + len(name)
    result = play(find(name), seed)
    assert result.received_cents <= result.bound_cents
    assert honest_lose_nothing(result)


def test_a_seed_gives_the_same_world_again_and_another_seed_another_one() -> None:
    first, again, other = (play(find("replay"), seed) for seed in (3, 3, 4))
    assert first == again
    assert (first.viewed_ms, first.received_cents) != (other.viewed_ms, other.received_cents)


def test_what_stands_out_is_held_and_not_paid() -> None:
    for name, rule in (("greedy-farm", "median"), ("round-the-clock", "near_cap")):
        result = play(find(name), 2)
        assert result.flags.keys() == {rule}
        assert result.received_cents == 0 < result.held_cents


def test_nothing_is_credited_for_what_was_never_watched() -> None:
    for name in ("equivocation", "back-dating", "relay-forgery", "gap-seam"):
        assert play(find(name), 5).received_cents == 0


def test_split_by_payer_no_crowd_gets_out_more_than_it_brought() -> None:
    for name in ("click-farm", "sybil-viewers"):
        result = play(find(name)._replace(rules={"mode": "per_payer"}), 1)
        assert result.return_cents <= 0


def test_an_unknown_scenario_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="--list"):
        find("robbery")
