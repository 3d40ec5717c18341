"""Settling a month of pulses against DuckDB's bare dedup and sum over the same Parquet, round by round.

Ours applies every rule and ends with the viewing that ``settle`` takes; the peer removes second
copies and adds up per title, in one query, with two threads as well and no bound on its memory. Each
round is a fresh process. The first of ours finds no rollup of a day and makes them, the others find
them, as a month that earnings were asked of does: ``extra.first_ratio`` is the first one's.
``extra.statement_s`` is what the statement itself takes after it, ``rss_mib`` the most memory our process
ever held. ``settle_100m`` runs only where it is named.
Run alone: ``python -m farcast.tests.bench.settle [NAME]``; ``FARCAST_BENCH_ROUNDS`` sets the rounds.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from farcast.origin.money.settlement import Books, Log, settle
from farcast.origin.money.tally import Tally
from farcast.origin.money.titles import Titles
from farcast.origin.pulses.columns import Columns
from farcast.origin.pulses.duck import THREADS, duck, parquet
from farcast.protocol.identity import Identity
from farcast.protocol.rules import Rules
from farcast.protocol.ticket import TicketOffice
from farcast.tests.bench.figure import Peer, compared
from farcast.tests.bench.month import DAYS, FIRST_DAY, MONTH, manifests, parts, write_month

FIGURES = ("settle_10m", "settle_100m")
GOALS = {"settle_10m": 1 / 4, "settle_100m": 1 / 3}
MOST_RSS_MIB = 1_536
ROWS = {"settle_10m": 10_000_000, "settle_100m": 100_000_000}
ROUNDS = {"settle_10m": 5, "settle_100m": 3}
ROUND_TIMEOUT_S = 1_800
BARE = "bare"
OURS = "ours"


def run(only: Sequence[str] | None = None) -> list[dict[str, object]]:
    """Measure what ``only`` names, else ``settle_10m`` alone; ``ratio`` is peer / ours."""
    return [_measure(name) for name in FIGURES if (name in only if only else name == "settle_10m")]


def _measure(name: str) -> dict[str, object]:
    import duckdb

    rounds = int(os.environ.get("FARCAST_BENCH_ROUNDS", ROUNDS[name]))
    with tempfile.TemporaryDirectory(
        prefix="farcast-bench-", dir=os.environ.get("FARCAST_BENCH_DIR")
    ) as folder:
        month = Path(folder) / "columns"
        write_month(month, ROWS[name])
        size_bytes = sum(path.stat().st_size for path in month.rglob("pulses.parquet"))
        ours: list[dict[str, float]] = []
        bare: list[dict[str, float]] = []
        first = _process(OURS, month)
        for _ in range(rounds):
            ours.append(_process(OURS, month))
            bare.append(_process(BARE, month))
    assert len({found["viewed_ms"] for found in (first, *ours)}) == 1
    rows = int(ours[0]["rows"])
    return compared(
        name,
        "s",
        [found["seconds"] for found in ours],
        [found["seconds"] for found in bare],
        Peer("DuckDB dedup + sum", duckdb.__version__),
        greater_is_better=False,
        digits=2,
        extra={
            "first_ratio": round(median(found["seconds"] for found in bare) / first["seconds"], 3),
            "rss_mib": max(found["rss_mib"] for found in (first, *ours)),
            "bare_rss_mib": max(found["rss_mib"] for found in bare),
            "statement_s": round(median(found["statement_s"] for found in ours), 2),
            "rows": rows,
            "bytes_per_row": round(size_bytes / rows, 2),
        },
    )


def _process(what: str, month: Path) -> dict[str, float]:
    """Run one side in a process of its own."""
    command = [sys.executable, "-m", "farcast.tests.bench.settle", what, str(month)]
    done = subprocess.run(command, check=True, timeout=ROUND_TIMEOUT_S, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _ours(month: Path) -> dict[str, float]:
    found = parts(month)
    titles = Titles(manifests().get)
    columns = Columns(month / "seg", month, TicketOffice(Identity(bytes(32)), bytes(32)), titles.find)
    size, rules = found[-1].head.end, Rules()
    started = time.perf_counter()
    with duck(month) as db:
        tally = Tally(columns, found, db, titles, None)
        viewing = tally.viewing(range(FIRST_DAY, FIRST_DAY + DAYS), size, [], 0, rules)
        seconds = time.perf_counter() - started
    started = time.perf_counter()
    books, log = Books(100_000_000, 10_000_000, {}, 0, bytes(32)), Log(size, bytes(32), bytes(32))
    statement = settle(MONTH, 0, viewing, titles.found, books, {}, log, rules).statement
    return {
        "seconds": seconds,
        "statement_s": time.perf_counter() - started,
        "viewed_ms": statement.viewed_ms,
        "rows": sum(part.head.rows for part in found),
        **{f"cut_{line.code}": line.ms for line in statement.uncounted},
    }


def _bare(month: Path) -> dict[str, float]:
    pulses = parquet(part.pulses for part in parts(month))
    started = time.perf_counter()
    with duck(month, threads=THREADS, memory_mib=16_000) as db:
        sums = db.execute(
            f"""
            SELECT manifest, sum(delta) FROM (
                SELECT ticket, seq, any_value(manifest) AS manifest, any_value(delta_ms) AS delta
                FROM {pulses} GROUP BY ticket, seq
            ) GROUP BY manifest
            """
        ).fetchall()
    return {"seconds": time.perf_counter() - started, "viewed_ms": float(sum(int(ms) for _, ms in sums))}


def main(arguments: Sequence[str]) -> None:
    """Measure, or be one round of one side."""
    if arguments[:1] in ([OURS], [BARE]):
        found = (_ours if arguments[0] == OURS else _bare)(Path(arguments[1]))
        found["rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        sys.stdout.write(json.dumps(found))
    else:
        sys.stdout.write(json.dumps(run(list(arguments) or None), indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
