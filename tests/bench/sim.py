"""A simulated day of a thousand nodes: CPU of this process per pulse, from the player to what it counts.

``ours`` is microseconds a pulse, all of it: viewing session and signer (``made_us``), spools, digests,
batches and admission (``carried_us``), sealing and credit (``sealed_us``). Signatures and boxes count, one
in a hundred is real; the collector of cycles rests. There is no peer. ``pulses`` is how many there were:
people watch 2.8 hours on average.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Sequence
from statistics import median
from time import process_time
from typing import NamedTuple

from farcast.tests.sim.counting import counting
from farcast.tests.sim.day import Day, Plan

FIGURES = ("sim_day",)
NODES = 1_000
ROUNDS = 3


def run(only: Sequence[str] | None = None) -> list[dict[str, object]]:
    """Measure ``sim_day`` unless ``only`` names other figures."""
    if only and FIGURES[0] not in only:
        return []
    rounds = [_day(seed) for seed in range(ROUNDS)]
    costs = [round(one.made_us + one.carried_us + one.sealed_us, 2) for one in rounds]
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
                "made_us": round(median(one.made_us for one in rounds), 2),
                "carried_us": round(median(one.carried_us for one in rounds), 2),
                "sealed_us": round(median(one.sealed_us for one in rounds), 2),
                "pulses": rounds[0].pulses,
                "nodes": NODES,
            },
        }
    ]


class Costs(NamedTuple):
    """What one day cost, in microseconds of CPU a pulse, and how many pulses it had."""

    made_us: float
    carried_us: float
    sealed_us: float
    pulses: int


def _day(seed: int) -> Costs:
    """Play one day.

    Raises:
        RuntimeError: where a pulse is lost or doubled.

    """
    gc.collect()
    gc.disable()
    try:
        return _timed(seed)
    finally:
        gc.enable()


def _timed(seed: int) -> Costs:
    with counting():
        began = process_time()
        day = Day(Plan(NODES, seed))
        made = process_time()
        day.run()
        carried = process_time()
        sealed = day.seal()
        done = process_time()
    pulses = sum(node.signed for node in day.nodes)
    counted = sum(record.last - record.first + 1 for records in sealed.values() for record in records)
    if not pulses == day.till.taken == counted:
        message = f"{pulses} pulses were signed, {day.till.taken} taken, {counted} sealed"
        raise RuntimeError(message)
    us = 1e6 / pulses
    return Costs((made - began) * us, (carried - made) * us, (done - carried) * us, pulses)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(sys.argv[1:] or None), indent=1) + "\n")
