"""The HTTP/3 server against Caddy: the same files, one core each, our client on the other, interleaved.

Run alone: ``python -m farcast.tests.bench.http3 [name,...]``; ``FARCAST_BENCH_ROUNDS`` sets the rounds.
"""

from __future__ import annotations

import asyncio
import json
import os
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

from farcast.node.demo.troupe import free_port
from farcast.node.http.quic.datagram import Endpoint
from farcast.node.http.quic.link import Link
from farcast.node.http.quic.qh3_engine import Qh3Session
from farcast.node.http.quic.session import NO_ERROR, Address, Data, Event, Head, Opened, Reset
from farcast.node.http.tls import make_certificate

from .figure import Peer, compared
from .served import CLIENT_CORE, PUBLISHER, Server, pinned, relay, running

ROUNDS = 9
FETCHES = 2
"""What one round asks for, in a row: more CPU time than the kernel's clock tick blurs."""
MIB = 1 << 20
CASES: Mapping[str, tuple[int, int]] = {"http3_64m": (1, 64 * MIB), "http3_32x1m": (32, MIB)}
"""Name to (files asked for at once, bytes of each)."""
FIGURES = tuple(CASES)
PEERS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "farcast-peers"


class Sample(NamedTuple):
    """One round against one server."""

    mb_s: float
    cpu_s_per_gb: float


def run(only: Sequence[str] | None = None) -> list[dict[str, object]]:
    """Measure the cases named in ``only``, or all, and return their figures (``ratio``: ours / Caddy)."""
    names = [name for name in CASES if not only or name in only]
    program = shutil.which("caddy", path=f"{PEERS}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        return [_skipped(name, "caddy is not here: .ci/peers.sh caddy") for name in names]
    with tempfile.TemporaryDirectory(prefix="farcast-bench-") as folder, ExitStack() as stack:
        root = Path(folder)
        (root / "files").mkdir()
        for name in names:
            count, size = CASES[name]
            for at in range(count):
                (root / "files" / f"{name}-{at}").write_bytes(os.urandom(size))
        ours = stack.enter_context(relay(root / "files"))
        peer = stack.enter_context(caddy(program, root))
        return [_compare(name, ours, peer, program) for name in names]


def _compare(name: str, ours: Server, peer: Server, program: str) -> dict[str, object]:
    rounds = int(os.environ.get("FARCAST_BENCH_ROUNDS", ROUNDS))
    for server in (ours, peer):  # fill page and descriptor caches
        _fetch(server, name)
    pairs = [(_fetch(ours, name), _fetch(peer, name)) for _ in range(rounds)]
    return compared(
        name,
        "MB/s",
        [mine.mb_s for mine, _ in pairs],
        [its.mb_s for _, its in pairs],
        Peer("Caddy", _version(program)),
        greater_is_better=True,
        extra={
            "cpu_ratio": round(median(mine.cpu_s_per_gb / its.cpu_s_per_gb for mine, its in pairs), 3),
            "cpu_s_per_gb": round(median(mine.cpu_s_per_gb for mine, _ in pairs), 3),
            "peer_cpu_s_per_gb": round(median(its.cpu_s_per_gb for _, its in pairs), 3),
        },
    )


def _fetch(server: Server, name: str) -> Sample:
    count, size = CASES[name]
    paths = [f"{server.folder}/{name}-{at}" for at in range(count)]
    before = server.cpu_s()
    command = [sys.executable, "-m", "farcast.tests.bench.http3", "--fetch", str(server.port), *paths]
    done = subprocess.run(
        pinned(CLIENT_CORE, command), capture_output=True, text=True, check=False, timeout=60
    )
    cpu_s = server.cpu_s() - before
    if done.returncode:
        message = f"the client failed at port {server.port}: {done.stderr}"
        raise RuntimeError(message)
    found: dict[str, float] = json.loads(done.stdout)
    wanted = FETCHES * count * size
    if found["bytes"] != wanted:
        message = f"{found['bytes']} bytes came of {wanted} from port {server.port}"
        raise RuntimeError(message)
    return Sample(wanted / 1e6 / found["seconds"], max(cpu_s, 0.001) / (wanted / 1e9))


class _Client:
    """A connection that asks and counts what comes, and keeps none of it: the product's own link below it."""

    def __init__(self, port: int) -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.connect(("127.0.0.1", port))
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.received_bytes = 0
        self._calls: dict[int, asyncio.Future[None]] = {}
        self._endpoint = Endpoint(sock, self._received)
        session = Qh3Session.client(sock.getpeername(), loop.time())
        self._link = Link(session, self._endpoint, self._event)
        self._link.connected = True
        self._link.flush()

    async def fetch(self, authority: str, path: str) -> None:
        """Ask for ``path`` and wait for its end."""
        fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", authority.encode())]
        stream = await self._link.open([*fields, (b":path", path.encode())], end=True)
        call = self._calls[stream] = asyncio.get_running_loop().create_future()
        await call

    def close(self) -> None:
        """End the connection."""
        self._link.close(NO_ERROR)
        self._endpoint.close()

    def _received(self, datagrams: list[bytes], address: Address, local: bytes) -> None:
        self._link.receive(datagrams, address, local)

    def _event(self, event: Event) -> None:
        if isinstance(event, Data):
            self.received_bytes += len(event.data)
            if event.ended:
                self._calls.pop(event.stream).set_result(None)
        elif isinstance(event, Opened):
            self.opened.set_result(None)
        elif isinstance(event, Head) and dict(event.headers)[b":status"] != b"200":
            self._calls.pop(event.stream).set_exception(RuntimeError(str(event.headers)))
        elif isinstance(event, Reset):
            self._calls.pop(event.stream).set_exception(RuntimeError(f"reset {event.code:#x}"))


async def _fetch_all(port: int, paths: Sequence[str]) -> dict[str, float]:
    """Fetch ``paths`` side by side, ``FETCHES`` times; the handshake is not timed."""
    client = _Client(port)
    async with asyncio.timeout(50):
        await client.opened
        start = time.perf_counter()
        for _ in range(FETCHES):
            await asyncio.gather(*(client.fetch(f"127.0.0.1:{port}", path) for path in paths))
        seconds = time.perf_counter() - start
    client.close()
    return {"bytes": client.received_bytes, "seconds": seconds}


@contextmanager
def caddy(program: str, root: Path) -> Generator[Server, None, None]:
    """Run Caddy on ``root/files`` with our certificate, so that the client checks both servers in one way."""
    port = free_port()
    certificate = make_certificate(PUBLISHER, time.time())
    (root / "certificate.pem").write_bytes(certificate.certificate_pem)
    key = root / "key.pem"
    key.touch(mode=0o600)
    key.write_bytes(certificate.key_pem)
    filled = Path(__file__).with_name("Caddyfile.in").read_text()
    for mark, value in (("ROOT", str(root)), ("PORT", str(port)), ("NAME", PUBLISHER.peer_id)):
        filled = filled.replace(f"@{mark}@", value)
    (root / "Caddyfile").write_text(filled)
    command = [program, "run", "--config", str(root / "Caddyfile"), "--adapter", "caddyfile"]
    env = {"HOME": str(root), "PATH": os.environ.get("PATH", "")}
    with running(command, port, env=env) as server:
        yield server


def _version(program: str) -> str:
    done = subprocess.run([program, "build-info"], capture_output=True, text=True, check=True, timeout=10)
    for line in done.stdout.splitlines():
        if line.startswith("mod"):
            return line.split()[2].removeprefix("v")
    return "unknown"


def _skipped(name: str, reason: str) -> dict[str, object]:
    return {"name": name, "unit": "MB/s", "ratio": None, "skipped": reason}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--fetch"]:
        sys.stdout.write(json.dumps(asyncio.run(_fetch_all(int(sys.argv[2]), sys.argv[3:]))) + "\n")
    else:
        chosen = sys.argv[1].split(",") if sys.argv[1:] else None
        sys.stdout.write(json.dumps(run(chosen), indent=2) + "\n")
