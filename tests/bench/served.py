"""Servers to measure, each in a process pinned to a core; run as a program, ours: a folder as a title.

``python -m farcast.tests.bench.served FOLDER PORT`` serves every file in FOLDER as a file of one
published title, the way a relay does: store, library, public routes, TCP and UDP.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from prometheus_client import CollectorRegistry

from farcast.node.blocks.store import DiskStore
from farcast.node.catalog.library import Library
from farcast.node.demo.troupe import free_port
from farcast.node.http.exchange import Hosts, Router
from farcast.node.http.governor import Governor, Rules
from farcast.node.http.hotset import HotSet
from farcast.node.http.listener import Listener
from farcast.node.http.tally import HttpMetrics
from farcast.node.http.turnloop import run
from farcast.node.routes import PublicRoutes
from farcast.protocol.catalog import Catalog, Entry
from farcast.protocol.cid import Cid
from farcast.protocol.identity import Identity
from farcast.protocol.keyring import Keyring
from farcast.protocol.manifest import Manifest, Payee, Window, seal_manifest
from farcast.protocol.unixfs import Entry as UnixEntry
from farcast.protocol.unixfs import FileWriter, directory

RAM_BYTES = 256 << 20
LIMITS = Rules(connections=4_096, client_connections=256, client_requests_s=500)
SERVER_CORE = 0
CLIENT_CORE = 1
TITLE = "film"
PUBLISHER = Identity(bytes(32))
"""Whose title it is, and whose box."""
_START_S = 20.0


class Server(NamedTuple):
    """A running server: its port, its process, and the path before a file's name."""

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


@contextmanager
def relay(files: Path) -> Generator[Server, None, None]:
    """Run this program on ``files``."""
    port = free_port()
    command = [sys.executable, "-m", "farcast.tests.bench.served", str(files), str(port)]
    with running(command, port, f"/watch/{TITLE}") as server:
        yield server


@contextmanager
def running(
    command: Sequence[str], port: int, folder: str = "", *, env: dict[str, str] | None = None
) -> Generator[Server, None, None]:
    """Run a server until its TCP ``port`` answers, and end it afterwards."""
    process = subprocess.Popen(pinned(SERVER_CORE, command), env=env)
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
        yield Server(port, process.pid, folder)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def pinned(core: int, command: Sequence[str]) -> list[str]:
    """Return ``command`` as it runs on one core, where there are several."""
    usable = sorted(os.sched_getaffinity(0))
    if shutil.which("taskset") is None or len(usable) < 2:
        return list(command)
    return ["taskset", "-c", str(usable[core]), *command]


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


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
    """Serve the files as a published title, the way a relay does: store, hot set, governor, routes."""
    store = DiskStore(folder.parent / "home", 1 << 30, CollectorRegistry())
    entries: dict[str, UnixEntry] = {}
    names = sorted(path.name for path in folder.iterdir())  # noqa: ASYNC240 - before anybody asks
    for name in names:
        writer = FileWriter()
        blocks = writer.push((folder / name).read_bytes())
        rest, entries[name] = writer.finish()
        for cid, data in (*blocks, *rest):
            store.put(cid, data)
    root, data, _ = directory(entries)
    store.put(root, data)
    key = PUBLISHER.key
    manifest = Manifest(
        v=1, title=TITLE, version=1, publisher=key, name=TITLE, description="", language="en",
        duration_ms=0, root=root.encode(), size_bytes=0, renditions=[], tracks=[], window=Window(0, 0),
        territories=[], payees=[Payee("ada", 10_000)], access="open", protection=None, created_ms=0,
        supersedes=b"",
    )  # fmt: skip
    cid, data = seal_manifest(manifest, PUBLISHER)
    store.put(cid, data)
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
        router, routes.lookup, PUBLISHER, metrics, host="127.0.0.1", port=port,
        epoch=routes.epoch, governor=Governor(LIMITS), hot=hot,
    )  # fmt: skip
    async with listener:
        await asyncio.Event().wait()


if __name__ == "__main__":
    run(_serve(Path(sys.argv[1]), int(sys.argv[2])))
