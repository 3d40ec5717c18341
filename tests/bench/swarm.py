"""A film to 4 and 8 neighbours over 100 Mbit/s links, against the bound, udpcast and libtorrent.

The bound is size / link rate: no box can have it sooner. All run in the same namespaces
(``tests/lab/bridge.py``), in turn, every process on the machine's cores together. Ours is the time until the
last box has verified and stored it, over TLS; udpcast's that of its commands, at its best settings for a
switch (full duplex, 95 Mbit/s); libtorrent's from the sessions' start, every peer told of all others, tuned
(``swarm_torrent.py``). ``source_copies`` counts the bytes that left the source's link, frames included.

``plain_ratio`` is the same run without encryption, and ``cpu_s`` what ours took of the processors: where a
machine has too few of them for so many boxes, these say so.

Run alone: ``python -m farcast.tests.bench.swarm [name,...]``; ``FARCAST_BENCH_ROUNDS`` sets the rounds.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

from farcast.tests.bench.figure import Peer, compared
from farcast.tests.lab.bridge import Switch, ready, why_not
from farcast.tests.lab.village import Outcome, Village

CASES: Mapping[str, int] = {"swarm_4": 4, "swarm_8": 8}
FIGURES = tuple(CASES)
GOALS = {"swarm_4": 0.87, "swarm_8": 0.83}
ROUNDS = 3
MIB = 96
"""About 100 MB, the size the goals were set with: joining takes part of a second however long a film is."""
RATE_BPS = 100e6
BOUND_S = (MIB << 20) * 8 / RATE_BPS
LIMIT_S = 60.0
RENDEZVOUS = "224.0.0.1"
SYSTEM_PYTHON = "/usr/bin/python3"
TORRENT = Path(__file__).with_name("swarm_torrent.py")


def run(only: Sequence[str] | None = None) -> list[dict[str, object]]:
    """Measure the figures named in ``only``, or all (``ratio``: the bound / our time)."""
    names = [name for name in CASES if not only or name in only]
    lacks = why_not()
    if lacks:
        return [{"name": name, "unit": "s", "ratio": None, "skipped": lacks} for name in names]
    return [_measure(name) for name in names]


def _measure(name: str) -> dict[str, object]:
    boxes = CASES[name]
    peers: dict[str, Callable[[int, Path], float]] = {}
    if shutil.which("udp-sender"):
        peers["udpcast"] = _udpcast
    if _has_libtorrent():
        peers["libtorrent"] = _libtorrent
    ours: list[Outcome] = []
    theirs: dict[str, list[float]] = {peer: [] for peer in peers}
    for _ in range(int(os.environ.get("FARCAST_BENCH_ROUNDS", ROUNDS))):
        ours.append(_ours(boxes))
        for peer, measure in peers.items():
            with tempfile.TemporaryDirectory(prefix="farcast-bench-") as folder:
                theirs[peer].append(measure(boxes, Path(folder)))
    plain = _ours(boxes, {"SHAREBOX_PLAIN": "1"})
    extra: dict[str, object] = {
        "source_copies": round(median(one.copies for one in ours), 3),
        "cpu_s": round(median(one.cpu_s for one in ours), 2),
        "cores": len(os.sched_getaffinity(0)),
        "plain_ratio": round(BOUND_S / plain.seconds, 3),
        "plain_cpu_s": round(plain.cpu_s, 2),
    }
    for peer, seconds in theirs.items():
        ratios = [its / mine.seconds for its, mine in zip(seconds, ours, strict=True)]
        extra[f"{peer}_ratio"] = round(median(ratios), 2)
    for absent in {"udpcast", "libtorrent"} - set(peers):
        extra[f"{absent}_skipped"] = f"{absent} is not installed"
    return compared(
        name,
        "s",
        [one.seconds for one in ours],
        [BOUND_S] * len(ours),
        Peer("size / link rate"),
        greater_is_better=False,
        digits=2,
        extra=extra,
    )


def _ours(boxes: int, env: Mapping[str, str] | None = None) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="farcast-bench-") as folder:
        hosts = list(range(1, boxes + 1))
        with Village(boxes, MIB, Path(folder), env=env) as village:
            village.go(hosts)
            outcome = village.outcome(hosts)
    if not all(box["whole"] for box in outcome.boxes):
        message = "a box ended with less than the film"
        raise RuntimeError(message)
    return outcome


def _udpcast(boxes: int, folder: Path) -> float:
    """Return how long udpcast's commands take, the sender waiting for all receivers."""
    film = folder / "film"
    film.write_bytes(os.urandom(MIB << 20))
    with Switch(boxes + 1, rate_bps=RATE_BPS) as switch:
        common = ("--interface", "eth0", "--mcast-rdv-address", RENDEZVOUS, "--nokbd")
        started = time.monotonic()
        receivers = [
            switch.start(host, "udp-receiver", "--file", str(folder / str(host)), *common, quiet=True)
            for host in range(1, boxes + 1)
        ]
        options = ("--full-duplex", "--max-bitrate", "95m", "--min-receivers", str(boxes))
        sender = switch.start(0, "udp-sender", "--file", str(film), *options, *common, quiet=True)
        for program in [*receivers, sender]:
            program.wait(LIMIT_S)
        seconds = time.monotonic() - started
        content = film.read_bytes()
        if any((folder / str(host)).read_bytes() != content for host in range(1, boxes + 1)):
            message = "udpcast did not bring the film"
            raise RuntimeError(message)
    return seconds


def _libtorrent(boxes: int, folder: Path) -> float:
    """Return how long after their sessions' start the last of libtorrent's peers had it all."""
    (folder / "0").mkdir()
    (folder / "0" / "film").write_bytes(os.urandom(MIB << 20))
    with Switch(boxes + 1, rate_bps=RATE_BPS) as switch:
        programs: list[subprocess.Popen[str]] = []
        for host in range(boxes + 1):
            (folder / str(host)).mkdir(exist_ok=True)
            words = (str(TORRENT), str(folder), str(host), *switch.addresses)
            programs.append(switch.start(host, SYSTEM_PYTHON, *words))
            if host == 0:
                ready(programs)  # it makes the torrent
        ready(programs[1:])
        for program in programs:
            assert program.stdin is not None
            program.stdin.write("go\n")
            program.stdin.flush()
        return max(float(json.loads(line)) for line in ready(programs[1:]))


def _has_libtorrent() -> bool:
    words = [SYSTEM_PYTHON, "-c", "import libtorrent"]
    return (
        Path(SYSTEM_PYTHON).exists()
        and subprocess.run(words, check=False, capture_output=True, timeout=20).returncode == 0
    )


if __name__ == "__main__":
    for figure in run(sys.argv[1].split(",") if len(sys.argv) > 1 else None):
        sys.stdout.write(json.dumps(figure, indent=2) + "\n")
