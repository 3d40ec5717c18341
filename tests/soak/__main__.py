"""``make soak``: the proofs that take minutes.

``python -m tests.soak --only name,... [--keep DIR]``; ``FARCAST_SOAK_SEEDS`` says how many seeds, 20 else.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import FrameType

SOAKS = ("kill", "idle", "takedown", "failover", "fraud", "money", "settle", "village")
SEEDS = 20

Run = Callable[[int, Path | None], bool]
"""Runs a soak over so many seeds, leaving what it made in a folder if one is named; True where all held."""


def main() -> int:
    """Run the soaks named, or all; returns 1 where one does not hold or a name is unknown."""
    parser = argparse.ArgumentParser(description="Prove Farcast against time, kills and chance.")
    parser.add_argument("--only", default="", help="soaks, separated by commas")
    parser.add_argument("--keep", type=Path, help="leave homes and logs there")
    arguments = parser.parse_args()
    only = [name for name in arguments.only.split(",") if name] or SOAKS
    if unknown := set(only) - set(SOAKS):
        sys.stderr.write(f"no such soak: {', '.join(sorted(unknown))}; known: {', '.join(SOAKS)}\n")
        return 1
    seeds = int(os.environ.get("FARCAST_SOAK_SEEDS") or SEEDS)
    signal.signal(signal.SIGTERM, _interrupted)  # processes and folders are cleaned up on the way out
    held = True
    for name in only:
        run: Run = import_module(f"tests.soak.{name}").run
        held &= run(seeds, arguments.keep)
    return 0 if held else 1


def _interrupted(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
