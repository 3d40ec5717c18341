"""Every attack of the fraud simulator under many seeds: bounds kept, honest viewers unharmed."""

from __future__ import annotations

import sys
from pathlib import Path

from farcast.origin.fraud.catalogue import SCENARIOS
from farcast.origin.fraud.trial import play

FIRST_SEED = 1_000


def run(seeds: int, keep: Path | None) -> bool:
    """Play every scenario with and without its rule; prints what does not hold."""
    del keep
    faults = 0
    for name, scenario in SCENARIOS.items():
        for seed in range(FIRST_SEED, FIRST_SEED + seeds):
            with_rule, without = play(scenario, seed), play(scenario, seed, with_rule=False)
            wrong = {
                "over its bound": with_rule.received_cents > with_rule.bound_cents,
                "honest viewers lost": with_rule.lost_ms * 1_000 > with_rule.viewed_ms,
                "the rule does no work": without.return_cents <= 0
                or without.received_cents <= with_rule.bound_cents,
            }
            for sentence in [sentence for sentence, is_so in wrong.items() if is_so]:
                faults += 1
                sys.stdout.write(f"fraud: {name}, seed {seed}: {sentence}: {with_rule} {without}\n")
    sys.stdout.write(f"fraud: {len(SCENARIOS)} scenarios, {seeds} seeds, {faults} faults\n")
    return not faults
