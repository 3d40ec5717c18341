"""The rollup of a part: what its tickets come to under some rules, beside its pulses.

A ticket of one day is a few sums instead of its pulses. They hold as long as the part has all of the
ticket's pulses; ``walk.mixed`` says where it has not. Made when a day is over and a month is first
asked for; nothing is lost with it, since it is made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...protocol.rules import Rules
from ..pulses.duck import parquet
from ..pulses.part import Part, add_table
from . import walk

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def rollup_of(part: Part, rules: Rules) -> Path:
    """Return where the rollup lies; two of the rules decide what is in it."""
    return part.folder / f"rollup-{rules.gap_ms}-{rules.live_window_ms}.parquet"


def roll_up(db: DuckDBPyConnection, parts: Sequence[Part], rules: Rules) -> None:
    """Make the rollups that are missing."""
    for part in parts:
        if not (path := rollup_of(part, rules)).exists():
            add_table(db, walk.rollup(parquet([part.pulses]), rules), path)
