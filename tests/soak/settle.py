"""A month of a hundred million pulses, settled by every rule: in time, in memory, to the same digest.

Some 3 GB of disk while it runs (``FARCAST_BENCH_DIR`` says where), and minutes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

from farcast.tests.bench.__main__ import line
from farcast.tests.bench.settle import GOALS, MOST_RSS_MIB
from farcast.tests.bench.settle import run as measure

FIGURE = "settle_100m"


def run(seeds: int, keep: Path | None) -> bool:
    """Measure it; the month is the same for every seed."""
    del seeds, keep
    (figure,) = measure([FIGURE])
    sys.stdout.write(line(figure) + "\n")
    ratio, extra = cast("float", figure["ratio"]), cast("dict[str, float]", figure["extra"])
    held = ratio >= GOALS[FIGURE] and extra["rss_mib"] <= MOST_RSS_MIB
    if not held:
        sys.stdout.write(
            f"{FIGURE}: at least {GOALS[FIGURE]:.2f} and at most {MOST_RSS_MIB} MiB were wanted\n"
        )
    return held
