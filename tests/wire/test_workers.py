"""Worker processes of the public port: real processes, spoken to by bare sockets."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.http import workers
from farcast.node.http.exchange import Answer, Exchange, FilePart, Hosts, Router
from farcast.node.http.governor import Governor, Lan, Rules, State
from farcast.node.http.head import Head
from farcast.node.http.listener import Listener
from farcast.node.http.tally import HttpMetrics
from farcast.node.http.tls import client_context
from farcast.node.http.workerlink import Link, pair
from farcast.protocol.errors import RefusedError
from farcast.protocol.identity import Identity

ROOT = Path(__file__).resolve().parents[2]
BOX = Identity(b"w" * 32)
CONNECTIONS = 24
"""So many that both processes get some, but for one time in eight million."""
GET = b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s\r\n"

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Served:
    """A listener with one worker beside the main process, and one block."""

    def __init__(self, folder: Path) -> None:
        """Write the block."""
        self.block = os.urandom(200_000)
        self.path = folder / "block"
        self.path.write_bytes(self.block)
        self.held = True
        self.epochs = 0
        self.lookups = 0
        self.metrics = HttpMetrics(CollectorRegistry())
        self.governor = Governor(processes=2, local=Lan(()))
        self.router = Router(Hosts())
        self.router.route("GET", "/slow", self._slow)
        self.router.route("GET", "/ipfs/block", self._block)
        self.router.route("POST", "/echo", self._echo)
        self.port = 0
        self.workers: workers.Workers | None = None

    def lookup(self, head: Head) -> Answer | None:
        """Answer the block while it is held."""
        self.lookups += 1
        if head.path != "/ipfs/block" or not self.held:
            return None
        return Answer(200, {"etag": '"b"'}, [FilePart(str(self.path), 0, len(self.block))])

    async def _slow(self, exchange: Exchange) -> Answer:
        return Answer.json({"secure": exchange.secure, "pid": os.getpid()})

    async def _block(self, _: Exchange) -> Answer:
        if not self.held:
            raise RefusedError("gone", status=404, reason="denied")
        return Answer(200, {}, [FilePart(str(self.path), 0, len(self.block))])

    async def _echo(self, exchange: Exchange) -> Answer:
        return Answer(200, {}, await exchange.read(1_000))

    def count(self, name: str, **labels: str) -> float:
        """Return the sum of a metric."""
        return sum(
            sample.value
            for family in self.metrics.collect()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


@asynccontextmanager
async def _serving(tmp_path: Path) -> AsyncGenerator[tuple[Served, list[Stream]], None]:
    """Serve, with connections open that both processes have their part of."""
    served = Served(tmp_path)
    listener = Listener(
        served.router, served.lookup, BOX, served.metrics, host="127.0.0.1", port=0,
        epoch=lambda: served.epochs, governor=served.governor, workers=2,
    )  # fmt: skip
    async with listener:
        served.port = listener.port
        served.workers = listener.workers
        streams = await _open(served)
        try:
            yield served, streams
        finally:
            await _close(streams)
    assert not _pids()


async def _close(streams: list[Stream]) -> None:
    for _, writer in streams:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def _open(served: Served) -> list[Stream]:
    streams = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(CONNECTIONS)]
    for stream in streams:
        assert await _get(stream) == (200, served.block)
    workers = served.workers
    assert workers is not None
    await _until(lambda: 0 < workers.connections < CONNECTIONS)
    return streams


async def _get(stream: Stream, path: bytes = b"/ipfs/block", fields: bytes = b"") -> tuple[int, bytes]:
    reader, writer = stream
    writer.write(GET % (path, fields))
    return await _answer(reader)


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    async with asyncio.timeout(20):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        sizes = [int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length")]
        size = sizes[0] if sizes else 0
        return int(head.split()[1]), await reader.readexactly(size)


async def _until(condition: Callable[[], object], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - another process's state has no event
            await asyncio.sleep(0.02)


def _pids() -> list[int]:
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    pids: list[int] = []
    for pid in children:
        with suppress(OSError):
            if b"farcast.node.http.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                pids.append(int(pid))
    return pids


async def test_both_processes_send_and_the_main_one_counts_for_both(tmp_path: Path) -> None:
    async with _serving(tmp_path) as (served, streams):
        for stream in streams:
            assert await _get(stream) == (200, served.block)
            assert await _get(stream, fields=b"Range: bytes=5-9\r\n") == (206, served.block[5:10])
            assert await _get(stream, fields=b'If-None-Match: "b"\r\nRange: bytes=1-2\r\n') == (304, b"")
        total = CONNECTIONS * (2 * len(served.block) + 5)
        await _until(lambda: served.count("farcast_node_http_sent_bytes_total") == total)
        assert served.count("farcast_node_http_requests_total", status_class="2xx") == 3 * CONNECTIONS
        assert served.count("farcast_node_upload_bytes_total", side="wan") == total
        assert served.count("farcast_node_http_connections") == CONNECTIONS
        assert served.lookups < 20  # each process asks once and remembers


async def test_what_a_worker_cannot_answer_goes_to_the_main_process_with_its_connection(
    tmp_path: Path,
) -> None:
    async with _serving(tmp_path) as (served, streams):
        pids: set[bytes] = set()
        for stream in streams:
            status, body = await _get(stream, b"/slow")
            assert status == 200
            pids.add(body)
            stream[1].write(b"POST /echo HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 5\r\n\r\nhello")
            assert (await _answer(stream[0]))[0] == 421  # the Host check is the main process's
        assert len(pids) == 1
        assert b"%d" % os.getpid() in pids.pop()
        for _ in range(CONNECTIONS):
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(GET % (b"/slow", b"") + GET % (b"/ipfs/block", b""))
            assert (await _answer(reader))[0] == 200
            assert await _answer(reader) == (200, served.block)
            await _close([(reader, writer)])


async def test_tls_reaches_the_main_process_whoever_accepted_it(tmp_path: Path) -> None:
    async with _serving(tmp_path) as (served, _):
        for _ in range(CONNECTIONS):
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=client_context())
            assert isinstance(writer.get_extra_info("ssl_object"), ssl.SSLObject)
            writer.write(GET % (b"/slow", b""))
            status, body = await _answer(reader)
            assert (status, b'"secure":true' in body) == (200, True)
            await _close([(reader, writer)])


async def test_what_was_taken_down_is_gone_from_every_process_within_five_seconds(tmp_path: Path) -> None:
    async with _serving(tmp_path) as (served, streams):
        served.held = False
        served.epochs += 1
        await asyncio.sleep(2.5)
        for stream in streams:
            assert (await _get(stream))[0] == 404


async def test_a_worker_that_crashes_is_started_again_and_no_new_connection_is_refused(
    tmp_path: Path,
) -> None:
    async with _serving(tmp_path) as (served, streams):
        (pid,) = _pids()
        os.kill(pid, signal.SIGKILL)
        await _until(lambda: pid not in _pids())
        await _close(streams)
        others = await _open(served)
        assert _pids() not in ([], [pid])
        assert served.count("farcast_node_http_refusals_total", reason="worker_ended") == 1
        await _close(others)


async def test_a_worker_that_cannot_be_started_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever keeps its listener must not give up: the kernel goes on giving it connections."""
    refused: list[object] = []

    def no_memory() -> tuple[Link, socket.socket]:
        monkeypatch.setattr(workers, "pair", pair)
        refused.append(None)
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    async with _serving(tmp_path) as (served, streams):
        monkeypatch.setattr(workers, "pair", no_memory)
        (pid,) = _pids()
        os.kill(pid, signal.SIGKILL)
        await _until(lambda: refused and _pids() not in ([], [pid]))
        await _close(streams)
        await _close(await _open(served))


async def test_the_contract_holds_in_every_process(tmp_path: Path) -> None:
    async with _serving(tmp_path) as (served, streams):
        served.governor.set_state(State.PAUSED, 7)
        await asyncio.sleep(1.5)
        for stream in streams:
            assert (await _get(stream))[0] == 503
        served.governor.set_state(State.SERVING)
        served.governor.set_rules(Rules(upload_bytes_s=4_000_000), 0.0)
        await asyncio.sleep(1.5)
        started = asyncio.get_running_loop().time()
        for _ in range(2):
            answers = await asyncio.gather(*(_get(stream) for stream in streams))
            assert {status for status, _ in answers} == {200}
        # 9.6 MB at 4 MB/s, less a second's burst
        assert asyncio.get_running_loop().time() - started > 1.0


def test_a_worker_ends_with_the_main_process(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "from farcast.tests.wire.test_workers import _serving, _pids\n"
        "async def main():\n"
        "    async with _serving(Path(sys.argv[1])):\n"
        "        print(*_pids(), flush=True); await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), str(ROOT / ".src")], stdout=subprocess.PIPE
    ) as main:
        assert main.stdout is not None
        worker = Path("/proc") / main.stdout.readline().decode().strip()
        assert worker.exists()
        main.kill()
        deadline = time.monotonic() + 10
        while worker.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
