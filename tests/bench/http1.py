"""The byte server against nginx: the same files, one core each, wrk on the other, interleaved rounds.

Run alone: ``python -m farcast.tests.bench.http1 [name,...]``; ``FARCAST_BENCH_ROUNDS`` sets the rounds.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from prometheus_client import CollectorRegistry

from farcast.node.http.api import ApiServer
from farcast.node.http.bytes import ByteServer
from farcast.node.http.exchange import Answer, FilePart, Hosts, Router
from farcast.node.http.files import FileCache
from farcast.node.http.tally import HttpMetrics

ROUNDS = 5
ROUND_S = 1
CONNECTIONS = 16
SERVER_CORE = 0
CLIENT_CORE = 1
MIB = 1 << 20
CASES: Mapping[str, tuple[int, int]] = {
    "http1_64k": (1, 64 << 10),
    "http1_1m": (1, MIB),
    "http1_4m": (4, MIB),
}
"""Name to (block files, bytes of each); nginx serves the same bytes as one file."""

FIGURES = tuple(CASES)
_START_S = 10.0


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
        _make_files(root / "files")
        ours = stack.enter_context(_ours(root))
        peer = stack.enter_context(_nginx(root))
        return [_compare(name, ours, peer) for name in names]


class _Server(NamedTuple):
    port: int
    pid: int

    def cpu_s(self) -> float:
        """Return the CPU seconds of this process and its children so far."""
        pids = [self.pid, *_children(self.pid)]
        ticks = 0
        for pid in pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def _compare(name: str, ours: _Server, peer: _Server) -> dict[str, object]:
    rounds = int(os.environ.get("FARCAST_BENCH_ROUNDS", ROUNDS))
    for server in (ours, peer):  # fill page and descriptor caches
        _wrk(server, name)
    pairs = [(_wrk(ours, name), _wrk(peer, name)) for _ in range(rounds)]
    ratios = [mine.requests_s / its.requests_s for mine, its in pairs]
    return {
        "name": name,
        "unit": "requests/s",
        "ours": round(median(mine.requests_s for mine, _ in pairs), 1),
        "peer": round(median(its.requests_s for _, its in pairs), 1),
        "peer_name": "nginx",
        "peer_version": _nginx_version(),
        "ratio": round(median(ratios), 3),
        "rounds": rounds,
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        "extra": {
            "cpu_ratio": round(median(mine.cpu_s_per_gb / its.cpu_s_per_gb for mine, its in pairs), 3),
            "p99_ratio": round(median(mine.p99_ms / its.p99_ms for mine, its in pairs), 3),
        },
    }


def _wrk(server: _Server, name: str) -> Sample:
    url = f"http://127.0.0.1:{server.port}/{name}"
    before = server.cpu_s()
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{ROUND_S}", "--latency", url]
    done = subprocess.run(
        _pinned(CLIENT_CORE, command), capture_output=True, text=True, check=True, timeout=ROUND_S + 30
    )
    cpu_s = server.cpu_s() - before
    requests, seconds = _match(r"([0-9]+) requests in ([0-9.]+)s", done.stdout)
    # a late answer ("timeout") is a slow round of a busy machine and counts as such; others are faults
    broken = re.search(r"Non-2xx|Socket errors: (?!connect 0, read 0, write 0,)", done.stdout)
    if broken or not int(requests):
        message = f"wrk met errors at {url}: {done.stdout}"
        raise RuntimeError(message)
    p99, unit = _match(r"99%\s+([0-9.]+)(us|ms|s)", done.stdout)
    files, size = CASES[name]
    gigabytes = max(1, int(requests)) * files * size / 1e9
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
def _ours(root: Path) -> Generator[_Server, None, None]:
    port = _free_port()
    command = [sys.executable, __file__, "--serve", str(root / "files"), str(port)]
    yield from _running(command, port)


@contextmanager
def _nginx(root: Path) -> Generator[_Server, None, None]:
    port = _free_port()
    template = Path(__file__).with_name("nginx.conf.in").read_text()
    config = root / "nginx.conf"
    config.write_text(template.replace("@ROOT@", str(root)).replace("@PORT@", str(port)))
    command = ["nginx", "-e", str(root / "nginx.log"), "-c", str(config), "-p", str(root)]
    yield from _running(command, port)


def _running(command: list[str], port: int) -> Generator[_Server, None, None]:
    process = subprocess.Popen(_pinned(SERVER_CORE, command))
    try:
        deadline = time.monotonic() + _START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.05)
        yield _Server(port, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _pinned(core: int, command: list[str]) -> list[str]:
    usable = sorted(os.sched_getaffinity(0))
    if shutil.which("taskset") is None or len(usable) < 2:
        return command
    return ["taskset", "-c", str(usable[core]), *command]


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _make_files(folder: Path) -> None:
    folder.mkdir()
    for name, (count, size) in CASES.items():
        blocks = [os.urandom(size) for _ in range(count)]
        for at, block in enumerate(blocks):
            (folder / f"{name}.{at}").write_bytes(block)
        (folder / name).write_bytes(b"".join(blocks))


def _nginx_version() -> str:
    done = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True, timeout=10)
    return done.stderr.strip().rpartition("/")[2]


def _skipped(name: str, reason: str) -> dict[str, object]:
    return {"name": name, "unit": "requests/s", "ratio": None, "skipped": reason}


async def _serve(folder: Path, port: int) -> None:
    answers = {
        f"/{name}": Answer(
            200,
            {"content-type": "application/octet-stream", "etag": f'"{name}"', "cache-control": "max-age=60"},
            [FilePart(str(folder / f"{name}.{at}"), 0, size) for at in range(count)],
        )
        for name, (count, size) in CASES.items()
    }
    metrics, files, router = HttpMetrics(CollectorRegistry()), FileCache(), Router(Hosts())
    tally = metrics.carrier("tcp")
    api = ApiServer(router, files, tally, metrics.carrier("tls"))
    server = ByteServer(router, lambda head: answers.get(head.path), api, files=files, tally=tally)
    listening = socket.create_server(("127.0.0.1", port), backlog=1024)
    listening.setblocking(False)
    server.listen(listening)
    await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(_serve(Path(sys.argv[2]), int(sys.argv[3])))
    else:
        chosen = sys.argv[1].split(",") if sys.argv[1:] else None
        sys.stdout.write(json.dumps(run(chosen), indent=2) + "\n")
