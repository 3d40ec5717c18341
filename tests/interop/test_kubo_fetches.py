"""A real Kubo daemon fetches from a relay over plain HTTP, block by block, as its HTTP retrieval does."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from farcast.protocol import car
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.unixfs import Entry, FileWriter, folder
from farcast.relay.standalone import make_standalone
from farcast.tests.interop.trustless import made, running

Need = Callable[..., str]


@pytest.fixture
def kubo(need: Need, vector_script: Callable[[str], ModuleType], tmp_path: Path) -> Any:  # noqa: ANN401 - a class of a script
    return vector_script("make_cids").Kubo(need("ipfs"), tmp_path)


@contextmanager
def router(provider: str, port: int) -> Generator[str]:
    """Serve delegated routing: whatever is asked for, the relay on ``port`` has it."""
    record = {
        "Schema": "peer",
        "ID": provider,
        "Addrs": [f"/ip4/127.0.0.1/tcp/{port}/http"],
        "Protocols": ["transport-ipfs-gateway-http"],
    }

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"Providers": [record] if "/providers/" in self.path else []}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its signature
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def daemon(kubo: Any, routers: str) -> Generator[Callable[..., bytes]]:  # noqa: ANN401
    """Run Kubo's daemon with these routers; yields a way to run commands through it."""
    environment = {**kubo._env, "IPFS_HTTP_ROUTERS": routers}
    process = subprocess.Popen(
        [kubo._program, "daemon"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None

    def run(*arguments: str, timeout_s: float = 60.0) -> bytes:
        done = subprocess.run(
            [kubo._program, *arguments], env=environment, capture_output=True, timeout=timeout_s, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    drain = threading.Thread(target=process.stdout.read)
    try:
        assert any(b"Daemon is ready" in line for line in iter(process.stdout.readline, b""))
        drain.start()
        yield run
    finally:
        process.terminate()
        process.wait(timeout=30)
        if drain.ident is not None:
            drain.join()
        process.stdout.close()


def test_kubo_fetches_a_film_a_sharded_folder_and_an_old_file(kubo: Any, tmp_path: Path) -> None:  # noqa: ANN401
    writer = FileWriter()
    film_bytes = bytes(range(256)) * 20_000
    blocks = writer.push(film_bytes)
    rest, film = writer.finish()
    note = Cid.of(RAW, b"note")
    shards, names = folder({f"{n:0230}": Entry(note, 4, 4) for n in range(1_000)})
    assert len(shards) > 100
    top, root = folder({"film.m4s": film, "names": names})
    path = tmp_path / "shelf.car"
    every = [*top, *blocks, *rest, *shards, (note, b"note")]
    path.write_bytes(car.header([root.cid]) + b"".join(car.section(*block) for block in every))
    old_bytes = bytes(range(256)) * 40
    layout = ("--cid-version=0", "--raw-leaves=false", "--chunker=size-1000", "--max-file-links=3")
    old = kubo.add(old_bytes, *layout)
    old_path = tmp_path / "old.car"
    old_path.write_bytes(kubo.run("dag", "export", old))
    kubo.run("pin", "rm", old)
    kubo.run("repo", "gc")
    made(tmp_path / "relay", [path, old_path])
    provider = make_standalone(tmp_path / "provider")  # a record must name some peer
    with (
        running(tmp_path / "relay") as relay,
        router(provider, relay.port) as routers,
        daemon(kubo, routers) as run,
    ):
        assert run("cat", f"/ipfs/{root.cid}/film.m4s") == film_bytes
        assert run("cat", f"/ipfs/{root.cid}/names/{40:0230}") == b"note"
        assert (
            len(run("ls", "--size=false", "--resolve-type=false", f"/ipfs/{names.cid}").splitlines()) == 1_000
        )
        assert run("cat", f"/ipfs/{old}") == old_bytes
        assert run("cat", "--offset=9000", "--length=10", f"/ipfs/{old}") == old_bytes[9_000:9_010]
        run("pin", "add", str(old))
