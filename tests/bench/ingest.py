"""A folder hashed, made a DAG and stored durably, against ``ipfs add`` offline of Kubo, interleaved.

Both work on the same files on the same disk, pinned to the same one core, into an empty store that
was made for the round before the clock starts, and must come to the same CID; both pin what they
added. Ours is what ``publish`` does: every block, every folder and the index are synced before the
clock stops. Kubo by default syncs no block (``flatfs`` with ``"sync": false``): ``ratio`` is against
that, and ``extra.synced_ratio`` against Kubo told to sync its blocks too. Both clocks run without
the start of the program: ours in a process already warm, Kubo's less the time it takes to add one
empty file. ``extra.cpu_ratio`` is our CPU seconds / Kubo's, start-up again left out.
Run alone: ``python -m farcast.tests.bench.ingest``; ``FARCAST_BENCH_ROUNDS`` sets the rounds.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from prometheus_client import CollectorRegistry

from farcast.node.blocks.store import DiskStore
from farcast.origin.studio.package import package
from farcast.tests.bench.figure import Peer, compared
from farcast.tests.conftest import PEERS

FIGURES = ("ingest",)
ROUNDS = 9
CORE = 0
MIB = 1 << 20
SEGMENTS = 128
"""Each with 1 to 4 MiB of picture and 64 KiB of sound: about 330 MiB, the shape of an encoded film."""
TIMEOUT_S = 120


class Cost(NamedTuple):
    """What one round took."""

    wall_s: float
    cpu_s: float


def run(only: Sequence[str] | None = None) -> list[dict[str, object]]:
    """Measure ``ingest`` unless ``only`` names other figures; ``ratio`` is ours / Kubo in bytes/s."""
    if only and "ingest" not in only:
        return []
    kubo = shutil.which("ipfs", path=os.pathsep.join((str(PEERS), os.environ.get("PATH", ""))))
    if kubo is None:
        return [
            {
                "name": "ingest",
                "unit": "bytes/s",
                "ratio": None,
                "skipped": "ipfs is not installed: .ci/peers.sh kubo",
            }
        ]
    with tempfile.TemporaryDirectory(prefix="farcast-bench-") as folder:
        return [_measure(Path(folder), kubo)]


def _measure(root: Path, kubo: str) -> dict[str, object]:
    rounds = int(os.environ.get("FARCAST_BENCH_ROUNDS", ROUNDS))
    film, empty = root / "film", root / "empty"
    size_bytes = _make_film(film)
    empty.mkdir()
    (empty / "nothing").touch()
    worker = _Worker(film)
    costs: dict[str, list[Cost]] = {"ours": [], "peer": [], "synced": []}
    try:
        cid, _ = worker.add(root / "warm")
        for number in range(rounds):
            order = [*costs][number % 3 :] + [*costs][: number % 3]  # nobody always follows the same one
            for who in order:
                place = root / f"{who}-{number}"
                if who == "ours":
                    named, cost = worker.add(place)
                else:
                    named, cost = _kubo(kubo, place, film, empty, sync=who == "synced")
                _leave(place)
                assert named == cid, "Kubo gives the folder another name than we do"
                costs[who].append(cost)
    finally:
        worker.close()
    ours, peer, synced = costs["ours"], costs["peer"], costs["synced"]
    return compared(
        "ingest",
        "bytes/s",
        [size_bytes / mine.wall_s for mine in ours],
        [size_bytes / its.wall_s for its in peer],
        Peer("ipfs add", _version(kubo)),
        greater_is_better=True,
        extra={
            "folder_bytes": size_bytes,
            "synced_ratio": round(
                median(its.wall_s / mine.wall_s for mine, its in zip(ours, synced, strict=True)), 3
            ),
            "cpu_ratio": round(
                median(mine.cpu_s / its.cpu_s for mine, its in zip(ours, peer, strict=True)), 3
            ),
        },
    )


class _Worker:
    """Our side: a process of its own, on the core, that adds the folder once for every line it is sent."""

    def __init__(self, film: Path) -> None:
        command = [sys.executable, __file__, "--worker", str(film)]
        self._process = subprocess.Popen(
            _pinned(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def add(self, home: Path) -> tuple[str, Cost]:
        """Add the folder into a store in ``home``."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        home.mkdir()
        self._process.stdin.write(f"{home}\n")
        self._process.stdin.flush()
        cid, wall_s, cpu_s = self._process.stdout.readline().split()
        return cid, Cost(float(wall_s), float(cpu_s))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(TIMEOUT_S)


def _work(film: Path) -> None:
    for line in sys.stdin:
        home = Path(line.strip())
        DiskStore(home, 64 << 30, CollectorRegistry()).close()  # as `ipfs init` does for the other
        started_s, cpu_s = time.perf_counter(), time.process_time()
        store = DiskStore(home, 64 << 30, CollectorRegistry())
        packaged = package(film, store, _quiet)
        store.sync()
        store.pin("bench", packaged.cids)
        store.close()
        cost = time.perf_counter() - started_s, time.process_time() - cpu_s
        sys.stdout.write(f"{packaged.root} {cost[0]} {cost[1]}\n")
        sys.stdout.flush()


def _quiet(stage: str, done: float, total: float) -> None:
    """Show nothing."""


def _kubo(kubo: str, repo: Path, film: Path, empty: Path, *, sync: bool) -> tuple[str, Cost]:
    """Add the folder into a repository made for it, less what adding an empty file takes."""
    environ = {**os.environ, "IPFS_PATH": str(repo), "IPFS_TELEMETRY": "off"}
    init = [kubo, "init", "--profile=test,unixfs-v1-2025"]
    subprocess.run(init, env=environ, check=True, capture_output=True, timeout=TIMEOUT_S)
    if sync:
        _sync_blocks(repo)
    start = _add(kubo, empty, environ)[1]
    added, cost = _add(kubo, film, environ)
    return added, Cost(cost.wall_s - start.wall_s, cost.cpu_s - start.cpu_s)


def _leave(place: Path) -> None:
    """Write out what lies in ``place`` and give its memory back; its files stay to the end.

    Nobody's sync pays for what another left unwritten, and nobody's new files for those that went: an
    ext4 without a journal looks at every inode that was deleted in the last minute.
    """
    os.sync()
    for path in place.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _add(kubo: str, folder: Path, environ: dict[str, str]) -> tuple[str, Cost]:
    command = _pinned([kubo, "add", "--recursive", "--offline", "--quieter", str(folder)])
    before, started_s = os.times(), time.perf_counter()
    done = subprocess.run(command, env=environ, check=True, capture_output=True, text=True, timeout=TIMEOUT_S)
    wall_s, after = time.perf_counter() - started_s, os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return done.stdout.strip(), Cost(wall_s, cpu_s)


def _sync_blocks(repo: Path) -> None:
    path = repo / "config"
    config = json.loads(path.read_text())
    mounts = config["Datastore"]["Spec"]["mounts"]
    [blocks] = [mount for mount in mounts if mount["type"] == "flatfs"]
    blocks["sync"] = True
    path.write_text(json.dumps(config))


def _pinned(command: list[str]) -> list[str]:
    if shutil.which("taskset") is None:
        return command
    return ["taskset", "-c", str(sorted(os.sched_getaffinity(0))[CORE]), *command]


def _version(kubo: str) -> str:
    done = subprocess.run([kubo, "--version"], check=True, capture_output=True, text=True, timeout=TIMEOUT_S)
    return done.stdout.strip().rpartition(" ")[2]


def _make_film(folder: Path) -> int:
    """Write a folder of two renditions; returns its bytes."""
    dice, size_bytes = random.Random(1), 0
    for name, sizes in (
        ("video", [dice.randrange(MIB, 4 * MIB) for _ in range(SEGMENTS)]),
        ("audio", [64 << 10] * SEGMENTS),
    ):
        (folder / name).mkdir(parents=True)
        for number, size in enumerate(sizes):
            (folder / name / f"seg-{number:05}.m4s").write_bytes(dice.randbytes(size))
            size_bytes += size
    return size_bytes


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        _work(Path(sys.argv[2]))
    else:
        sys.stdout.write(json.dumps(run(sys.argv[1:] or None), indent=1) + "\n")
