"""Memory of a relay that has joined a real origin: idle, with 10,000 connections, over a large working set.

MiB of resident memory (VmRSS) of the relay's process, no peer. Run alone:
``python -m farcast.tests.bench.memory [name,...]``; ``FARCAST_BENCH_SET_BYTES`` sets the working set.
"""

from __future__ import annotations

import json
import os
import random
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry

from farcast.node.blocks.store import DiskStore
from farcast.node.demo.troupe import free_port
from farcast.node.http.tls import client_context
from farcast.protocol.cid import RAW, Cid
from farcast.tests.wire.street import Box, Street, until

FIGURES = ("rss_idle", "rss_10k", "rss_working_set")
CONNECTIONS = 10_000
SET_BYTES = 10_000_000_000
BLOCK_BYTES = 1 << 20
SETTLE_S = 15.0
SERVE_S = 60.0
HOT_SHARE = 0.05
"""So much of the working set gets half of the requests, as a popular film does."""
RAM_BYTES = 256 << 20


def run(only: Sequence[str] | None = None) -> list[dict[str, object]]:
    """Measure the figures named in ``only``, or all."""
    names = [name for name in FIGURES if not only or name in only]
    if not names:
        return []
    size_bytes = (
        int(os.environ.get("FARCAST_BENCH_SET_BYTES", SET_BYTES)) if "rss_working_set" in names else 0
    )
    figures: dict[str, dict[str, object]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="farcast-bench-") as folder,
        _relay(Path(folder), size_bytes) as (
            relay,
            cids,
        ),
    ):
        time.sleep(SETTLE_S)
        idle = _mib(relay)
        figures["rss_idle"] = _figure("rss_idle", idle, {"goal_mib": 76.3})
        if "rss_10k" in names:
            figures["rss_10k"] = _with_connections(relay, cids[0])
        if "rss_working_set" in names:
            figures["rss_working_set"] = _over_working_set(relay, cids, idle)
    return [figures[name] for name in names]


def _figure(name: str, mib: float, extra: dict[str, object]) -> dict[str, object]:
    return {
        "name": name,
        "unit": "MiB",
        "ours": round(mib, 1),
        "peer": None,
        "peer_name": "",
        "peer_version": "",
        "ratio": None,
        "rounds": 1,
        "spread": [round(mib, 1), round(mib, 1)],
        "extra": extra,
    }


def _mib(box: Box) -> float:
    return box.rss_kib / 1024


@contextmanager
def _relay(folder: Path, size_bytes: int) -> Generator[tuple[Box, list[Cid]], None, None]:
    """Start an origin and a relay that joined it and holds ``size_bytes`` of blocks, one at least."""
    street = Street(folder)
    street.settings |= {
        "FARCAST_LOG_LEVEL": "info",
        "FARCAST_CATALOG_POLL_S": "30",
        "FARCAST_STORE_QUOTA_BYTES": "40 GB",
        "FARCAST_STORE_RAM_BYTES": str(RAM_BYTES),
        "FARCAST_CONTRACT_CONNECTIONS": str(CONNECTIONS + 100),
    }
    try:
        origin, relay = street.home("origin"), street.home("relay")
        port, own = free_port(), free_port()
        street.must("origin", "init", "--endpoint", f"127.0.0.1:{port}", "--home", origin)
        street.start("origin", "origin", "run", settings={"FARCAST_LISTEN_PORT": str(port)})
        link = street.must("origin", "invite", "--relay", "--home", origin)["link"]
        settings = {
            "FARCAST_LISTEN_PORT": str(own), "FARCAST_NETWORK_ANNOUNCE": f"127.0.0.1:{own}",
            "FARCAST_NETWORK_INTERFACES": "",
        }  # fmt: skip
        ran = street.run("relay", "join", link, "--home", relay, settings=settings)
        if ran.code:
            raise RuntimeError(ran.err)
        cids = _fill(relay, max(size_bytes, BLOCK_BYTES))
        box = street.start("relay", "relay", "run", settings=settings)
        until(lambda: box.api("/api/status")["verdict"] == "Serving", 30)
        yield box, cids
    finally:
        street.close()


def _fill(home: Path, size_bytes: int) -> list[Cid]:
    """Put distinct blocks into the store of a home that is not in use."""
    store = DiskStore(home, 40_000_000_000, CollectorRegistry())
    body = os.urandom(BLOCK_BYTES - 8)
    cids: list[Cid] = []
    try:
        for number in range(size_bytes // BLOCK_BYTES):
            data = number.to_bytes(8, "big") + body
            cid = Cid.of(RAW, data)
            store.put(cid, data, hashed=True)
            cids.append(cid)
    finally:
        store.close()
    return cids


def _with_connections(relay: Box, cid: Cid) -> dict[str, object]:
    """Open ``CONNECTIONS``, use each once, and look while all of them are idle."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, CONNECTIONS + 1_000), hard))
    request = f"HEAD /ipfs/{cid}?format=raw HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    open_ones: list[socket.socket] = []
    try:
        for _ in range(CONNECTIONS):
            sock = socket.create_connection(("127.0.0.1", relay.port), timeout=10)
            open_ones.append(sock)
            sock.sendall(request)
            if not sock.recv(4_096).startswith(b"HTTP/1.1 200"):
                message = "a connection was refused"
                raise RuntimeError(message)
        counted = relay.metric("farcast_node_http_connections", carrier="tcp")
        return _figure("rss_10k", _mib(relay), {"goal_mib": 286.1, "connections": counted})
    finally:
        for sock in open_ones:
            sock.close()


def _over_working_set(relay: Box, cids: list[Cid], idle: float) -> dict[str, object]:
    """Fetch blocks for ``SERVE_S`` and look for the most memory used meanwhile."""
    chance = random.Random(4)
    hot = cids[: max(1, int(len(cids) * HOT_SHARE))]
    most, received, asked = idle, 0, 0
    deadline = time.monotonic() + SERVE_S
    buffer = bytearray(1 << 20)
    with (
        socket.create_connection(("127.0.0.1", relay.port), timeout=30) as plain,
        socket.create_connection(("127.0.0.1", relay.port), timeout=30) as below,
        client_context().wrap_socket(below) as tls,  # what is hot comes from memory there
    ):
        once = iter(cids)  # every block of the set once, and a hot one between
        for cid in once:
            for sock, wanted in ((plain, cid), (tls, chance.choice(hot))):
                sock.sendall(f"GET /ipfs/{wanted}?format=raw HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
                received += _take(sock, buffer)
                asked += 1
            if not asked % 256:
                most = max(most, _mib(relay))
            if time.monotonic() > deadline:
                break
    most = max(most, _mib(relay))
    extra: dict[str, object] = {
        "goal_mib": round(idle + RAM_BYTES / (1 << 20), 1),
        "set_gb": round(len(cids) * BLOCK_BYTES / 1e9, 2),
        "served_gb": round(received / 1e9, 2),
        "ram_mib": round(relay.metric("farcast_node_ram_bytes") / (1 << 20), 1),
    }
    return _figure("rss_working_set", most, extra)


def _take(sock: socket.socket, buffer: bytearray) -> int:
    """Read one answer and return the size of its body."""
    head = b""
    while b"\r\n\r\n" not in head:
        data = sock.recv(65_536)
        if not data:
            raise EOFError
        head += data
    head, _, body = head.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(head.decode())
    left = BLOCK_BYTES - len(body)
    while left:
        left -= sock.recv_into(buffer, min(left, len(buffer)))
    return BLOCK_BYTES


if __name__ == "__main__":
    chosen = sys.argv[1].split(",") if sys.argv[1:] else None
    sys.stdout.write(json.dumps(run(chosen), indent=2) + "\n")
