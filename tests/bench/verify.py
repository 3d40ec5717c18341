"""Verifying a report of a million payees against hashing its leaves, in interleaved rounds.

Ours reads, checks and derives again every file; the peer is what nobody can do without: hashlib's
SHA-256 over each leaf, once. ``extra`` says what writing such a report took, and the memory of both.
Run alone: ``python -m farcast.tests.bench.verify``; ``FARCAST_BENCH_PAYEES`` sets the size.
"""

from __future__ import annotations

import json
import os
import platform
import random
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from farcast.node.verify import verify
from farcast.origin.money.report import Report, write_report
from farcast.protocol.identity import Identity
from farcast.protocol.leaves import Leaves
from farcast.protocol.merkle import root_over
from farcast.protocol.rules import Rules, reserve_cents
from farcast.protocol.shares import portions
from farcast.protocol.statement import LEAVES, DayLine, Line, Statement, pack_tickets, split_leaves
from farcast.tests.bench.figure import Peer, compared

FIGURES = ("verify_1m",)
GOALS = {"verify_1m": 1 / 15}
ROUNDS = 5
PAYEES = 1_000_000
PLATFORMS = 3
TICKETS, ENTRIES = 100_000, 20_000
SETTLEMENT = Identity(b"\x13" * 32)
MONTH = "2026-11"


def run(only: Sequence[str] | None = None) -> list[dict[str, object]]:
    """Measure ``verify_1m`` unless ``only`` names other figures; ``ratio`` is peer / ours in time."""
    if only and "verify_1m" not in only:
        return []
    with tempfile.TemporaryDirectory(prefix="farcast-bench-") as folder:
        return [_measure(Path(folder))]


def _measure(root: Path) -> dict[str, object]:
    rounds = int(os.environ.get("FARCAST_BENCH_ROUNDS", ROUNDS))
    written = _apart("write", root)
    folder = root / MONTH
    leaves, _ = split_leaves((folder / LEAVES).read_bytes())
    ours: list[float] = []
    peer: list[float] = []
    memory = 0
    for _ in range(rounds):
        started = time.perf_counter()
        for leaf in leaves:
            sha256(b"\0" + leaf).digest()
        peer.append(time.perf_counter() - started)
        done = _apart("verify", folder)
        ours.append(done["seconds"])
        memory = max(memory, int(done["rss_mib"]))
    return compared(
        "verify_1m",
        "s",
        ours,
        peer,
        Peer("hashlib SHA-256 of each leaf", f"Python {platform.python_version()}, {ssl.OPENSSL_VERSION}"),
        greater_is_better=False,
        digits=3,
        extra={
            "payees": len(leaves),
            "report_bytes": sum(path.stat().st_size for path in folder.iterdir()),
            "rss_mib": memory,
            "write_s": round(written["seconds"], 2),
            "write_rss_mib": int(written["rss_mib"]),
        },
    )


def _apart(what: str, folder: Path) -> dict[str, float]:
    """Do one step in a process of its own, whose peak memory is its own too."""
    command = [sys.executable, "-m", "farcast.tests.bench.verify", what, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, timeout=600)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _step(what: str, folder: Path) -> None:
    if what == "write":
        report = _report(int(os.environ.get("FARCAST_BENCH_PAYEES", PAYEES)))
        started = time.perf_counter()
        write_report(folder, report, SETTLEMENT)
    else:
        started = time.perf_counter()
        verdict = verify(folder, [SETTLEMENT.key])
        assert verdict.ok, verdict.sentence
    seconds = time.perf_counter() - started
    peak = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM"))
    sys.stdout.write(json.dumps({"seconds": seconds, "rss_mib": int(peak.split()[1]) / 1_024}))


def _report(payees: int) -> Report:
    """Return the report of a month in which every payee's films were watched for some while."""
    rng = random.Random(payees)
    platforms = sorted(Identity(bytes([number]) * 32).key for number in range(1, PLATFORMS + 1))
    revenue = payees * 700 + 1
    reserve = reserve_cents(Rules(), revenue, 0)
    pool = revenue - reserve
    keys = [
        (platform, f"studio-{number:07}", MONTH)
        for index, platform in enumerate(platforms)
        for number in range(index, payees, PLATFORMS)
    ]
    weights = [rng.randrange(10**7, 10**12) for _ in keys]
    drafts = Leaves(Line(*key, weight, 0, 0, 0, 0, 0) for key, weight in zip(keys, weights, strict=True))
    shares = drafts.pooled(pool)
    other = portions(pool, [weight * rng.randrange(90, 110) for weight in weights])
    lines = Leaves(
        Line(*key, weight, share, share, 0, 0, per_payer)
        for key, weight, share, per_payer in zip(keys, weights, shares, other, strict=True)
    )
    intake = [sha256(number.to_bytes(4, "big")).digest() for number in range(ENTRIES)]
    tickets = pack_tickets({sha256(number.to_bytes(4, "big")).digest()[:16]: 60 for number in range(TICKETS)})
    viewed = sum(weights) // 10_000
    statement = Statement(
        1, MONTH, 1_796_083_500_000, bytes(32), Rules(), revenue, 0, 0, reserve, 0, 0, pool, pool, 0, 0, 0,
        False, 30_000, TICKETS * 60, viewed, [], [DayLine("other", 30_000, TICKETS * 60, viewed)], [], [],
        len(lines), lines.root(), len(intake), root_over(intake), sha256(tickets).digest(),
    )  # fmt: skip
    return Report(statement, lines, b"".join(intake), tickets)


if __name__ == "__main__":
    if sys.argv[1:2] in (["write"], ["verify"]):
        _step(sys.argv[1], Path(sys.argv[2]))
    else:
        sys.stdout.write(json.dumps(run(sys.argv[1:] or None), indent=1) + "\n")
