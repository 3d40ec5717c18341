"""Failover: the whole matrix, every player with every fault and every loss, on one house.

A line each; then each player once with all tiers gone and back. ``FARCAST_SOAK_PLAYERS`` names those to
play, separated by commas; all otherwise.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from farcast.node.demo.troupe import Troupe, clean_environment
from farcast.protocol.errors import FarcastError
from farcast.tests.browser.house import House
from farcast.tests.browser.matrix import MATRIX, PLAYERS
from farcast.tests.browser.patchbay import PatchBay
from farcast.tests.browser.trial import Outcome, attempt, come_back, why_not


class Tally:
    """What became of the cases."""

    def __init__(self) -> None:
        self.run = self.failed = 0
        self.skipped: dict[str, int] = {}

    def skip(self, reason: str) -> None:
        """Count a case that cannot be tried here."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1

    def add(self, outcome: Outcome) -> None:
        """Count a case and print its line."""
        self.run += 1
        self.failed += bool(outcome.broken)
        _say(str(outcome))

    def __str__(self) -> str:
        reasons = "".join(f" ({count}: {reason})" for reason, count in self.skipped.items())
        return f"{self.run} cases run, {sum(self.skipped.values())} skipped{reasons}, {self.failed} failed"


def run(seeds: int, keep: Path | None) -> bool:
    """Play the matrix once, whatever ``seeds``; True where nothing failed."""
    del seeds
    wanted = [name for name in os.environ.get("FARCAST_SOAK_PLAYERS", "").split(",") if name] or PLAYERS
    folder = Path(tempfile.mkdtemp(prefix="farcast-soak-")) if keep is None else keep.resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    troupe, began, tally = (
        Troupe(folder, clean_environment({"PYTHONUNBUFFERED": "1"})),
        time.monotonic(),
        Tally(),
    )
    try:
        with PatchBay() as bay:
            house = House(troupe, folder, bay)
            house.assemble()
            _say(f"the house is up after {time.monotonic() - began:.1f} s")
            _play(house, wanted, tally)
    except FarcastError as error:
        tally.failed += 1
        _say(f"ended early: {error}")
    finally:
        troupe.close()
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    verdict = "FAILED" if tally.failed else "held"
    whole = f"the matrix has {len(MATRIX)} and a return for each player"
    _say(f"failover: {verdict}: {tally}; {whole}; {time.monotonic() - began:.0f} s")
    return not tally.failed


def _play(house: House, wanted: list[str] | tuple[str, ...], tally: Tally) -> None:
    for player in (name for name in PLAYERS if name in wanted):
        cases = [case for case in MATRIX if case.player == player]
        reason = why_not(player, house)
        if reason:
            for _ in (*cases, "the return"):
                tally.skip(reason)
            continue
        for case in cases:
            tally.add(asyncio.run(attempt(house, case)))
        tally.add(asyncio.run(come_back(house, player)))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
