"""Bulk over a lossy path: our relay to our node, against Caddy's HTTP/3 and nginx with the kernel's cubic.

The same path for all: 100 Mbit/s, 20 ms each way, random loss both ways (``tests/lab/path.py``). A
round has one seed; the three take turns in it. A slow peer is cut at ``LIMIT_S`` and its goodput is what
came until then.

Run alone: ``python -m farcast.tests.bench.loss [name,...]``; ``FARCAST_BENCH_ROUNDS`` sets the rounds.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from prometheus_client import CollectorRegistry
from qh3.asyncio.client import connect  # pyright: ignore[reportUnknownVariableType] - partly untyped
from qh3.asyncio.protocol import QuicConnectionProtocol
from qh3.h3.connection import H3Connection
from qh3.h3.events import DataReceived, H3Event, HeadersReceived
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.events import ConnectionTerminated, QuicEvent

from farcast.node.blocks.store import DiskStore
from farcast.node.catalog.library import Library
from farcast.node.http.dial import HttpDialer
from farcast.node.http.exchange import Hosts, Router
from farcast.node.http.listener import Listener
from farcast.node.http.tally import HttpMetrics
from farcast.node.ladder.fetch import Fetcher
from farcast.node.ladder.tiers import WebTier
from farcast.node.playback.keep import AT_ONCE
from farcast.node.routes import PublicRoutes
from farcast.protocol.catalog import Catalog
from farcast.protocol.cid import Cid
from farcast.protocol.identity import Identity
from farcast.protocol.ports import Source, TierName
from farcast.protocol.unixfs import FileWriter
from farcast.tests.bench.figure import Peer, compared
from farcast.tests.lab.path import ADDRESSES, ImpairedPath, senders, why_not

CASES: Mapping[str, float] = {"loss_1": 0.01, "loss_3": 0.03}
FIGURES = tuple(CASES)
ROUNDS = 3
SIZE_BYTES = 32 << 20
LIMIT_S = 15.0
RATE_BPS, DELAY_S, QUEUE_BYTES = 100e6, 0.02, 500_000
SERVER, CLIENT = 0, 1
HOST = ADDRESSES[SERVER]
OURS_PORT, CADDY_PORT, NGINX_PORT = 7433, 8443, 8080
FILE = "film"
RELAY = Identity(b"r" * 32)
PEERS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "farcast-peers"
_START_S = 15.0


class Got(NamedTuple):
    """What one client received, and in which time."""

    size_bytes: int
    seconds: float

    @property
    def megabits(self) -> float:
        """Goodput in Mbit/s."""
        return self.size_bytes * 8 / 1e6 / max(self.seconds, 1e-9)


class Round(NamedTuple):
    """Goodput of each in one round, in Mbit/s."""

    ours: float
    caddy: float
    nginx: float


def run(only: Sequence[str] | None = None) -> list[dict[str, object]]:
    """Measure the figures named in ``only``, or all (``ratio``: ours / Caddy)."""
    names = [name for name in CASES if not only or name in only]
    lacks = why_not() or _absent()
    if lacks or not names:
        return [{"name": name, "unit": "Mbit/s", "ratio": None, "skipped": lacks} for name in names]
    with tempfile.TemporaryDirectory(prefix="farcast-bench-") as folder:
        root = Path(folder)
        root.chmod(0o755)  # nginx started by root reads the file as nobody
        _prepare(root)
        return [_measure(name, root) for name in names]


def _measure(name: str, root: Path) -> dict[str, object]:
    count = int(os.environ.get("FARCAST_BENCH_ROUNDS", ROUNDS))
    rounds = [_round(CASES[name], seed, root) for seed in range(1, count + 1)]
    return compared(
        name,
        "Mbit/s",
        [each.ours for each in rounds],
        [each.caddy for each in rounds],
        Peer("Caddy HTTP/3", _caddy_version()),
        greater_is_better=True,
        digits=2,
        extra={
            "nginx_cubic_ratio": round(median(each.ours / each.nginx for each in rounds), 2),
            "nginx_cubic_mbit_s": round(median(each.nginx for each in rounds), 2),
        },
    )


def _round(loss: float, seed: int, root: Path) -> Round:
    """Let the three take their turn on one path."""
    described = ImpairedPath(
        rate_bps=RATE_BPS, delay_s=DELAY_S, loss=loss, queue_bytes=QUEUE_BYTES, seed=seed
    )
    with described as path:
        path.congestion(SERVER, "cubic")  # what a sender gets that asks for nothing
        path.start(SERVER, *_pinned(SERVER, sys.executable, __file__, "--serve", str(root)))
        path.start(SERVER, *_pinned(SERVER, _caddy(), "run", "--config", str(root / "Caddyfile")))
        nginx = ("nginx", "-e", str(root / "nginx.log"), "-c", str(root / "nginx.conf"), "-p", str(root))
        server = path.start(SERVER, *_pinned(SERVER, *nginx))
        for port in (OURS_PORT, CADDY_PORT, NGINX_PORT):
            _await_listener(path, port)
        try:
            got = [
                _client(path, "--fetch", root, controller="bbr"),
                _client(path, "--http3", root),
                _client(path, "--tcp", root, controller="cubic"),
            ]
        finally:
            server.terminate()  # a master that is killed leaves its worker behind
            server.wait(10)
    return Round(*(each.megabits for each in got))


def _client(path: ImpairedPath, what: str, root: Path, controller: str = "") -> Got:
    """Run one client to its end; checks meanwhile that the sender uses ``controller``."""
    client = path.start(CLIENT, *_pinned(CLIENT, sys.executable, __file__, what, str(root)))
    seen = set[str]()
    while client.poll() is None and controller:
        bulk = [name for name, size in senders(path.run(SERVER, "ss", "-Htin")) if size > 100_000]
        seen.update(bulk)
        time.sleep(0.3)
    out = client.communicate(timeout=LIMIT_S + 60)[0]
    if client.returncode:
        message = f"the client {what} failed"
        raise RuntimeError(message)
    if controller and seen != {controller}:
        message = f"{what}: the sender used {', '.join(sorted(seen)) or 'no TCP'}, not {controller}"
        raise RuntimeError(message)
    return Got(**json.loads(out))


def _await_listener(path: ImpairedPath, port: int) -> None:
    deadline = time.monotonic() + _START_S
    while f":{port} " not in path.run(SERVER, "ss", "-Htln"):
        if time.monotonic() > deadline:
            message = f"nobody listens on port {port}"
            raise RuntimeError(message)
        time.sleep(0.1)


def _pinned(end: int, *command: str) -> list[str]:
    usable = sorted(os.sched_getaffinity(0))
    if shutil.which("taskset") is None or len(usable) < 2:
        return list(command)
    return ["taskset", "-c", str(usable[end]), *command]


def _prepare(root: Path) -> None:
    """Write the film for all three, and the peers' configurations."""
    (root / "files").mkdir(mode=0o755)
    content = os.urandom(SIZE_BYTES)
    (root / "files" / FILE).write_bytes(content)
    store = DiskStore(root / "relay", 1 << 30, CollectorRegistry())
    writer = FileWriter()
    blocks = writer.push(content)
    rest, _ = writer.finish()
    for cid, data in (*blocks, *rest):
        store.put(cid, data)
    store.close()
    (root / "cids").write_text("\n".join(str(cid) for cid, _ in blocks))
    _write_certificate(root)
    here = Path(__file__)
    for source, name, port in (
        ("loss.Caddyfile.in", "Caddyfile", CADDY_PORT),
        ("loss.nginx.conf.in", "nginx.conf", NGINX_PORT),
    ):
        text = here.with_name(source).read_text()
        text = text.replace("@ROOT@", str(root)).replace("@HOST@", HOST).replace("@PORT@", str(port))
        (root / name).write_text(text)


def _write_certificate(root: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "peer")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=9))
        .sign(key, SHA256())
    )  # fmt: skip
    (root / "peer.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (root / "peer.key").write_bytes(pem)


def _absent() -> str:
    missing = [program for program in ("nginx", "ss") if shutil.which(program) is None]
    if not Path(_caddy()).exists():
        missing.append("caddy (.ci/peers.sh caddy)")
    return f"{' and '.join(missing)} not found" if missing else ""


def _caddy() -> str:
    return shutil.which("caddy", path=os.pathsep.join([str(PEERS), os.environ.get("PATH", "")])) or "caddy"


def _caddy_version() -> str:
    """Return what Caddy says, or what its folder is named after: built by Go alone it does not know."""
    done = subprocess.run([_caddy(), "version"], capture_output=True, text=True, check=True, timeout=10)
    word = (done.stdout.split() or ["unknown"])[0]
    return word if word.startswith("v") else Path(_caddy()).resolve().parent.name.partition("-")[2]


# -- the programs at the ends


class _NoTitles:
    """Heads of an empty catalog: the blocks asked for lie in the store already."""

    catalog = Catalog()

    def checkpoint(self) -> bytes | None:
        return None

    def directory(self) -> bytes | None:
        return None

    def beacons(self) -> list[bytes]:
        return []


async def _serve(root: Path) -> None:
    """Be the relay: store, public routes and listener as a relay has them."""
    store = DiskStore(root / "relay", 1 << 30, CollectorRegistry())
    heads = _NoTitles()

    async def held(wanted: Cid, title: str | None = None) -> bytes:
        del title
        return store.get(wanted) or b""

    library = Library(heads, store, lambda: None)
    routes = PublicRoutes(store, library, heads, held, dict, lambda _: [], cors=True)
    router = Router(Hosts())
    routes.add_to(router)
    metrics = HttpMetrics(CollectorRegistry())
    async with Listener(router, routes.lookup, RELAY, metrics, host=HOST, port=OURS_PORT):
        await asyncio.Event().wait()


async def _fetch(root: Path) -> Got:
    """Be the node: the fetcher over its relay tier, as many blocks at once as `farcast keep` asks for."""
    source = Source(TierName.RELAY, "relay", f"{HOST}:{OURS_PORT}", RELAY.key)
    todo = iter([Cid.parse(text) for text in (root / "cids").read_text().split()])
    got = 0
    with tempfile.TemporaryDirectory(dir=root) as home:
        store = DiskStore(Path(home), 1 << 30, CollectorRegistry())
        async with HttpDialer(allow_private=True) as dialer:
            tier = WebTier(TierName.RELAY, dialer, lambda: [source])
            fetcher = Fetcher(store, [tier], CollectorRegistry())

            async def worker() -> None:
                nonlocal got
                for cid in todo:
                    block = await fetcher.block(cid)
                    got += len(block)

            started = time.monotonic()
            try:
                async with asyncio.timeout(LIMIT_S):
                    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
            except TimeoutError:
                pass
            seconds = time.monotonic() - started
            await fetcher.close()
        store.close()
    return Got(got, seconds)


class _Http3(QuicConnectionProtocol):
    """One GET over HTTP/3."""

    got = 0
    status = b""

    def ask(self, path: str) -> None:
        """Send the request."""
        self.over = asyncio.Event()
        self._http = H3Connection(self._quic)
        stream = self._quic.get_next_available_stream_id()
        authority = f"{HOST}:{CADDY_PORT}".encode()
        head = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", authority)]
        self._http.send_headers(stream, [*head, (b":path", path.encode())], end_stream=True)
        self.transmit()

    def quic_event_received(self, event: QuicEvent) -> None:
        """Count what came."""
        if isinstance(event, ConnectionTerminated):
            self.over.set()
        for found in self._http.handle_event(event) if hasattr(self, "_http") else list[H3Event]():
            if isinstance(found, HeadersReceived):
                self.status = dict(found.headers).get(b":status", b"")
            elif isinstance(found, DataReceived):
                self.got += len(found.data)
            if getattr(found, "stream_ended", False):
                self.over.set()


async def _http3() -> Got:
    """Fetch the film from Caddy."""
    settings = QuicConfiguration(is_client=True, alpn_protocols=["h3"], verify_mode=ssl.CERT_NONE)
    settings.server_name = HOST
    started = time.monotonic()
    async with connect(HOST, CADDY_PORT, configuration=settings, create_protocol=_Http3) as client:
        assert isinstance(client, _Http3)
        client.ask(f"/{FILE}")
        try:
            async with asyncio.timeout(LIMIT_S):
                await client.over.wait()
        except TimeoutError:
            pass
        got = Got(client.got, time.monotonic() - started)
        if client.status != b"200":
            message = f"Caddy answered {client.status!r}"
            raise RuntimeError(message)
    return got


def _tcp() -> Got:
    """Fetch the film from nginx on one connection."""
    started = time.monotonic()
    with socket.create_connection((HOST, NGINX_PORT), timeout=10) as sock:
        sock.sendall(f"GET /{FILE} HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n".encode())
        got = len(sock.recv(65_536).partition(b"\r\n\r\n")[2])
        while time.monotonic() - started < LIMIT_S and (data := sock.recv(1 << 20)):
            got += len(data)
    return Got(got, time.monotonic() - started)


def _be(what: str, root: Path) -> None:
    if what == "--serve":
        asyncio.run(_serve(root))
        return
    got = _tcp() if what == "--tcp" else asyncio.run(_http3() if what == "--http3" else _fetch(root))
    sys.stdout.write(json.dumps(got._asdict()) + "\n")


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1].startswith("--"):
        _be(sys.argv[1], Path(sys.argv[2]))
    else:
        chosen = sys.argv[1].split(",") if sys.argv[1:] else None
        sys.stdout.write(json.dumps(run(chosen), indent=2) + "\n")
