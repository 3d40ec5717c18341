"""A simulated day of a thousand nodes: CPU of this process per pulse, from the player to what it counts.

``ours`` is microseconds a pulse, all of it: viewing session, signer, spools, digests, batches, admission,
the log read again, credit (``credit_us`` are the last two). Signatures and boxes count, one in a hundred
is real. There is no peer. ``pulses`` is how many there were: people watch 2.8 hours on average.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from statistics import median
from time import process_time

from farcast.tests.sim.counting import counting
from farcast.tests.sim.day import FILM, MANIFEST, TODAY, Day, Plan

FIGURES = ("sim_day",)
NODES = 1_000
ROUNDS = 3


def run(only: Sequence[str] | None = None) -> list[dict[str, object]]:
    """Measure ``sim_day`` unless ``only`` names other figures."""
    if only and FIGURES[0] not in only:
        return []
    rounds = [_day(seed) for seed in range(ROUNDS)]
    costs = [round(way_us + credit_us, 2) for way_us, credit_us, _ in rounds]
    return [
        {
            "name": FIGURES[0],
            "unit": "us of CPU a pulse",
            "ours": median(costs),
            "peer": None,
            "peer_name": "",
            "peer_version": "",
            "ratio": None,
            "rounds": ROUNDS,
            "spread": [min(costs), max(costs)],
            "extra": {
                "us_per_pulse": median(costs),
                "credit_us": round(median(credit_us for _, credit_us, _ in rounds), 2),
                "pulses": rounds[0][2],
                "nodes": NODES,
            },
        }
    ]


def _day(seed: int) -> tuple[float, float, int]:
    """Play one day; returns microseconds a pulse until the last ack, and from there to its credit."""
    with counting():
        began = process_time()
        day = Day(Plan(NODES, seed))
        day.run()
        home = process_time()
        credits_ = day.till.counted(range(TODAY, TODAY + 1), {FILM: MANIFEST}.get)
        done = process_time()
    pulses = sum(node.signed for node in day.nodes)
    if len(credits_) != pulses:
        message = f"{pulses} pulses were signed, {len(credits_)} counted"
        raise RuntimeError(message)
    return (home - began) / pulses * 1e6, (done - home) / pulses * 1e6, pulses


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(sys.argv[1:] or None), indent=1) + "\n")
