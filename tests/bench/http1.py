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

from farcast.node.blocks.store import DiskStore
from farcast.node.catalog.library import Library
from farcast.node.http.exchange import Hosts, Router
from farcast.node.http.governor import Governor, Rules
from farcast.node.http.hotset import HotSet
from farcast.node.http.listener import Listener
from farcast.node.http.tally import HttpMetrics
from farcast.node.routes import PublicRoutes
from farcast.protocol.catalog import Catalog, Entry
from farcast.protocol.cid import Cid
from farcast.protocol.identity import Identity
from farcast.protocol.keyring import Keyring
from farcast.protocol.manifest import Manifest, Payee, Window, seal_manifest
from farcast.protocol.unixfs import Entry as UnixEntry
from farcast.protocol.unixfs import FileWriter, directory

ROUNDS = 9
ROUND_S = 1
CONNECTIONS = 16
SERVER_CORE = 0
CLIENT_CORE = 1
MIB = 1 << 20
RAM_BYTES = 256 * MIB
LIMITS = Rules(connections=4_096, client_connections=256, client_requests_s=500)


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
TITLE = "film"
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
        make_files(root / "files")
        mine = stack.enter_context(ours(root))
        peer = stack.enter_context(_nginx(root))
        return [_compare(name, mine, peer) for name in names]


class _Server(NamedTuple):
    port: int
    pid: int
    folder: str

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
        wrk(server, name)
    pairs = [(wrk(ours, name), wrk(peer, name)) for _ in range(rounds)]
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


def wrk(server: _Server, name: str) -> Sample:
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
def ours(root: Path) -> Generator[_Server, None, None]:
    """Serve the files under ``root`` as a published title."""
    port = _free_port()
    command = [sys.executable, __file__, "--serve", str(root / "files"), str(port)]
    yield from _running(command, port, f"/watch/{TITLE}")


@contextmanager
def _nginx(root: Path) -> Generator[_Server, None, None]:
    port = _free_port()
    template = Path(__file__).with_name("nginx.conf.in").read_text()
    config = root / "nginx.conf"
    config.write_text(template.replace("@ROOT@", str(root)).replace("@PORT@", str(port)))
    command = ["nginx", "-e", str(root / "nginx.log"), "-c", str(config), "-p", str(root)]
    yield from _running(command, port)


def _running(command: list[str], port: int, folder: str = "") -> Generator[_Server, None, None]:
    process = subprocess.Popen(pinned(SERVER_CORE, command))
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
        yield _Server(port, process.pid, folder)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def pinned(core: int, command: list[str]) -> list[str]:
    """Return ``command``, bound to one of the usable cores."""
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


class _OneTitle:
    """Heads of a catalog with one title, for a library that knows nothing else."""

    def __init__(self, manifest: Cid) -> None:
        self.catalog = Catalog()
        self.catalog.append(Entry(1, "publish", TITLE, manifest.encode(), 0))

    def checkpoint(self) -> bytes | None:
        return None

    def directory(self) -> bytes | None:
        return None

    def beacons(self) -> list[bytes]:
        return []


async def _serve(folder: Path, port: int) -> None:
    """Serve the files as a published title, the way a relay does: store, library, public routes."""
    store = DiskStore(folder.parent / "home", 1 << 30, CollectorRegistry())
    entries: dict[str, UnixEntry] = {}
    names = {case.file for case in CASES.values()}
    for name in names:
        writer = FileWriter()
        blocks = writer.push((folder / name).read_bytes())
        rest, entries[name] = writer.finish()
        for cid, data in (*blocks, *rest):
            store.put(cid, data)
    root, data, _ = directory(entries)
    store.put(root, data)
    publisher = Identity(bytes(32))
    manifest = Manifest(
        v=1, title=TITLE, version=1, publisher=publisher.key, name=TITLE, description="", language="en",
        duration_ms=0, root=root.encode(), size_bytes=0, renditions=[], tracks=[], window=Window(0, 0),
        territories=[], payees=[Payee("ada", 10_000)], access="open", protection=None, created_ms=0,
        supersedes=b"",
    )  # fmt: skip
    cid, data = seal_manifest(manifest, publisher)
    store.put(cid, data)
    key = publisher.key
    keyring = Keyring(1, "bench", key, [key], [key], [key], [key], [key], [], [])
    heads = _OneTitle(cid)
    library = Library(heads, store, lambda: keyring)

    async def held(wanted: Cid, title: str | None = None) -> bytes:
        del title
        return store.get(wanted) or b""

    for name in names:
        await library.plan(TITLE, name, held)
    routes = PublicRoutes(store, library, heads, held, dict, lambda _: [], cors=True)
    metrics, router = HttpMetrics(CollectorRegistry()), Router(Hosts())
    routes.add_to(router)
    ram_bytes = int(os.environ.get("FARCAST_STORE_RAM_BYTES", RAM_BYTES))
    hot = HotSet(ram_bytes) if ram_bytes else None
    listener = Listener(
        router, routes.lookup, publisher, metrics, host="127.0.0.1", port=port,
        epoch=routes.epoch, governor=Governor(LIMITS), hot=hot,
    )  # fmt: skip
    async with listener:
        await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(_serve(Path(sys.argv[2]), int(sys.argv[3])))
    else:
        chosen = sys.argv[1].split(",") if sys.argv[1:] else None
        sys.stdout.write(json.dumps(run(chosen), indent=2) + "\n")
