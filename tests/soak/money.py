"""Money: an origin's month killed 15 times a seed between the first pulse and the last payout.

After every life the report is byte for byte that of a month nobody disturbed, each balance and payment
is the same, and the bank has paid each key once.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from random import Random

from farcast.tests.wire.payhouse import bank_process
from farcast.tests.wire.till import lives

KILLS_A_SEED = 15


def run(seeds: int, keep: Path | None) -> bool:
    """Live through so many seeds; a month that ends otherwise raises ``AssertionError``."""
    with tempfile.TemporaryDirectory(prefix="farcast-soak-") as made, bank_process() as bank:
        for seed in range(1, seeds + 1):
            folder = (keep or Path(made)) / f"money-{seed}"
            folder.mkdir(parents=True)
            for line in lives(folder, bank, Random(seed), KILLS_A_SEED):
                sys.stdout.write(f"seed {seed:2}  {line}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{seeds * KILLS_A_SEED} kills; every month ended as if there had been none\n")
    return True
