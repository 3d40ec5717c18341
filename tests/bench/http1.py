"""The byte server against nginx: the same files, one core each, wrk on the other, interleaved rounds.

Run alone: ``python -m farcast.tests.bench.http1 [name,...]``; ``FARCAST_BENCH_ROUNDS`` sets the rounds.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from farcast.node.demo.troupe import free_port

from .figure import Peer, compared
from .served import CLIENT_CORE, Server, pinned, relay, running

ROUNDS = 25
"""What a round costs wavers by a tenth and more, and with it medians of few rounds."""
ROUND_S = 1
CONNECTIONS = 16
MIB = 1 << 20


class Case(NamedTuple):
    """A file of so many blocks of so many bytes, and the Range asked for; nginx has it as one file."""

    file: str
    blocks: int
    block_bytes: int
    wanted: str = ""
    sent_bytes: int = 0

    @property
    def body_bytes(self) -> int:
        """How many bytes an answer carries."""
        return self.sent_bytes or self.blocks * self.block_bytes


CASES: Mapping[str, Case] = {
    "http1_64k": Case("64k", 1, 64 << 10),
    "http1_1m": Case("1m", 1, MIB),
    "http1_4m": Case("4m", 4, MIB),
    "http1_range": Case("4m", 4, MIB, f"bytes={3 * MIB // 2}-{5 * MIB // 2 - 1}", MIB),
}
"""The range crosses from one block into the next, as a player's does."""

FIGURES = tuple(CASES)
GOALS: Mapping[str, float] = {"http1_64k": 1.0, "http1_1m": 1.0, "http1_4m": 0.9, "http1_range": 0.9}
"""What the ratio should be at least; CI fails under 0.8 of it (``--gate``)."""


class Sample(NamedTuple):
    """One round against one server."""

    requests_s: float
    p99_ms: float
    cpu_s_per_gb: float


def run(only: Sequence[str] | None = None) -> list[dict[str, object]]:
    """Measure the cases named in ``only``, or all, and return their figures (``ratio``: ours / nginx)."""
    names = [name for name in CASES if not only or name in only]
    missing = [program for program in ("nginx", "wrk") if shutil.which(program) is None]
    if missing or not names:
        return [_skipped(name, f"{' and '.join(missing)} not found on PATH") for name in names]
    with tempfile.TemporaryDirectory(prefix="farcast-bench-") as folder, ExitStack() as stack:
        root = Path(folder)
        root.chmod(0o755)  # nginx started by root reads the files as nobody
        make_files(root / "files")
        ours = stack.enter_context(relay(root / "files"))
        peer = stack.enter_context(_nginx(root))
        return [_compare(name, ours, peer) for name in names]


def _compare(name: str, ours: Server, peer: Server) -> dict[str, object]:
    rounds = int(os.environ.get("FARCAST_BENCH_ROUNDS", ROUNDS))
    for server in (ours, peer):  # fill page and descriptor caches
        wrk(server, name)
    pairs = [_pair(name, ours, peer, first=index % 2 == 0) for index in range(rounds)]
    return compared(
        name,
        "requests/s",
        [mine.requests_s for mine, _ in pairs],
        [its.requests_s for _, its in pairs],
        Peer("nginx", _nginx_version()),
        greater_is_better=True,
        extra={
            "cpu_ratio": round(median(mine.cpu_s_per_gb / its.cpu_s_per_gb for mine, its in pairs), 3),
            "p99_ratio": round(median(mine.p99_ms / its.p99_ms for mine, its in pairs), 3),
        },
    )


def _pair(name: str, ours: Server, peer: Server, *, first: bool) -> tuple[Sample, Sample]:
    """Load both for one round, ours ``first`` or last: who comes second finds the caches of the other."""
    if first:
        mine = wrk(ours, name)
        return mine, wrk(peer, name)
    its = wrk(peer, name)
    return wrk(ours, name), its


def wrk(server: Server, name: str) -> Sample:
    """Load ``server`` for one round with the case ``name``."""
    case = CASES[name]
    url = f"http://127.0.0.1:{server.port}{server.folder}/{case.file}"
    before = server.cpu_s()
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{ROUND_S}", "--latency", url]
    command += ["-H", f"Range: {case.wanted}"] if case.wanted else []
    done = subprocess.run(
        pinned(CLIENT_CORE, command), capture_output=True, text=True, check=True, timeout=ROUND_S + 30
    )
    cpu_s = server.cpu_s() - before
    requests, seconds = _match(r"([0-9]+) requests in ([0-9.]+)s", done.stdout)
    # a late answer ("timeout") is a slow round of a busy machine and counts as such; others are faults
    broken = re.search(r"Non-2xx|Socket errors: (?!connect 0, read 0, write 0,)", done.stdout)
    if broken or not int(requests):
        message = f"wrk met errors at {url}: {done.stdout}"
        raise RuntimeError(message)
    p99, unit = _match(r"99%\s+([0-9.]+)(us|ms|s)", done.stdout)
    gigabytes = max(1, int(requests)) * case.body_bytes / 1e9
    return Sample(
        int(requests) / float(seconds),
        float(p99) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit],
        max(cpu_s, 0.001) / gigabytes,
    )


def _match(pattern: str, text: str) -> tuple[str, str]:
    found = re.search(pattern, text)
    if found is None:
        message = f"wrk's output has no {pattern}: {text}"
        raise RuntimeError(message)
    return found[1], found[2]


@contextmanager
def _nginx(root: Path) -> Generator[Server, None, None]:
    port = free_port()
    template = Path(__file__).with_name("nginx.conf.in").read_text()
    config = root / "nginx.conf"
    config.write_text(template.replace("@ROOT@", str(root)).replace("@PORT@", str(port)))
    command = ["nginx", "-e", str(root / "nginx.log"), "-c", str(config), "-p", str(root)]
    with running(command, port) as server:
        yield server


def make_files(folder: Path) -> None:
    """Write the files of every case."""
    folder.mkdir()
    for case in CASES.values():
        blocks = [os.urandom(case.block_bytes) for _ in range(case.blocks)]
        (folder / case.file).write_bytes(b"".join(blocks))


def _nginx_version() -> str:
    done = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True, timeout=10)
    return done.stderr.strip().rpartition("/")[2]


def _skipped(name: str, reason: str) -> dict[str, object]:
    return {"name": name, "unit": "requests/s", "ratio": None, "skipped": reason}


if __name__ == "__main__":
    chosen = sys.argv[1].split(",") if sys.argv[1:] else None
    sys.stdout.write(json.dumps(run(chosen), indent=2) + "\n")
