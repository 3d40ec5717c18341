"""How soon two boxes on a link see each other, whoever came first, and how soon one that died is gone.

Two namespaces on a bridge, presence alone (mDNS is for links that filter it). ``ours`` is the 95th
percentile of the time from the newcomer's start until each sees the other, over all rounds; then one is
killed while the other plays. There is no peer: what mDNS by itself does is in docs/performance.md.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from statistics import median, quantiles

from farcast.tests.lab.bridge import Switch, why_not
from farcast.tests.lab.street import Voice

FIGURES = ("discovery",)
ROUNDS, DEATHS = 20, 3
SETTLE_S = 0.3


def run(only: Sequence[str] | None = None) -> list[dict[str, object]]:
    """Measure."""
    del only
    if lacks := why_not():
        return [{"name": "discovery", "unit": "ms", "ratio": None, "skipped": lacks}]
    found, gone, left = list[float](), list[float](), list[float]()
    rounds = int(os.environ.get("FARCAST_BENCH_ROUNDS", ROUNDS))
    with Switch(2, rate_bps=0) as switch:
        settled = Voice(switch, 0)
        settled.start()
        newcomer = Voice(switch, 1)
        for _ in range(rounds):
            came = newcomer.start()
            found += [voice.until(bool) - came for voice in (newcomer, settled)]
            time.sleep(SETTLE_S)
            leaving = newcomer.tell("stop")
            left.append(settled.until(lambda known: not known) - leaving)
            newcomer.until(lambda known: not known)
        for _ in range(DEATHS):
            newcomer.start()
            settled.until(bool)
            time.sleep(1.0)
            died = newcomer.kill()
            gone.append(settled.until(lambda known: not known) - died)
            newcomer = Voice(switch, 1)
    p95_ms = quantiles(found, n=20)[-1] * 1_000
    return [
        {
            "name": "discovery",
            "unit": "ms",
            "ours": round(p95_ms, 1),
            "peer": None,
            "peer_name": "",
            "peer_version": "",
            "ratio": None,
            "rounds": rounds,
            "spread": [round(min(found) * 1_000, 1), round(max(found) * 1_000, 1)],
            "extra": {
                "p95_ms": round(p95_ms, 1),
                "p50_ms": round(median(found) * 1_000, 1),
                "crash_gone_ms": round(max(gone) * 1_000, 1),
                "leave_gone_ms": round(max(left) * 1_000, 1),
            },
        }
    ]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(), indent=2) + "\n")
