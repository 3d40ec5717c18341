"""A cinema: one title for ticket holders, an origin, CDN, relay and viewers; and who looks for leaks."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import time
from collections.abc import Generator, Iterable
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from farcast.node.demo.troupe import free_port
from farcast.node.ffmpeg import find_ffmpeg
from farcast.protocol.contentkey import prove_ticket
from farcast.protocol.manifest import Manifest, open_manifest
from farcast.tests.wire.pantry import Meter, office
from farcast.tests.wire.street import DAY_S, FILM, Answered, Box, Street, ask, draw, until

WINDOW_BYTES = 32
RECHECK = {"FARCAST_ACCESS_RECHECK_S": "1"}


@dataclass
class Cinema:
    """An origin with one protected title, its CDN, a relay, and a viewer who has an account."""

    street: Street
    meter: Meter
    origin: Box
    relay: Box
    alice: Box
    manifest: Manifest
    clear: dict[str, bytes]

    @property
    def key_id(self) -> bytes:
        """The id of the title's key."""
        assert self.manifest.protection is not None
        return self.manifest.protection.key_ids[0]

    @property
    def segments(self) -> dict[str, bytes]:
        """The clear bytes of every media segment."""
        return {path: data for path, data in self.clear.items() if path.endswith(".m4s")}

    def watch(self, box: Box, path: str) -> Answered:
        """Ask a node's gateway for a file of the title."""
        return ask(box.local, "GET", f"/{box.token}/watch/film/{path}")

    def newcomer(self, name: str, link: str) -> Box:
        """Let a viewer join and run."""
        self.street.must("join", link, "--home", self.street.home(name))
        box = self.street.start(name, "run", settings=RECHECK)
        until(lambda: bool(box.api("/api/titles")), 30)
        return box

    def account(self, name: str) -> str:
        """Return the invite of a new account."""
        return str(self.street.must("origin", "account", "add", name, "--home", self.origin.home)["link"])


def problem(answer: Answered) -> tuple[int, str, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    told = json.loads(answer.body)
    return answer.status, told["reason"], told["detail"]


@contextmanager
def opened(folder: Path) -> Generator[Cinema]:
    """Publish one title for ticket holders, and open."""
    street = Street(folder)
    port, relay_port = free_port(), free_port()
    meter, home = Meter(port), street.home("origin")
    meter.keeps = True
    try:
        film = draw(street.folder / "film.mp4", *FILM)
        (street.folder / "film.toml").write_text('title = "film"\nname = "The Film"\naccess = "ticket"\n')
        street.must("origin", "init", "--endpoint", f"127.0.0.1:{port}", "--cdn", meter.url, "--home", home)
        street.must("origin", "payee", "add", "ada", "--home", home)
        told = street.must("origin", "publish", film, "--preset", "ultrafast", "--home", home)
        assert told["access"] == "ticket"
        folder = Path(told["folder"])
        clear = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.name.startswith(".")
        }
        books = office(home)
        data = books.shelf.store.get(books.log.catalog.titles()["film"].cid)
        books.close()
        assert data is not None
        listen = {"FARCAST_LISTEN_PORT": str(port), "FARCAST_NETWORK_ANNOUNCE": f"127.0.0.1:{port}"}
        origin = street.start("origin", "origin", "run", settings=listen)
        link = street.must("origin", "invite", "--relay", "--home", home)["link"]
        own = {
            "FARCAST_LISTEN_PORT": str(relay_port),
            "FARCAST_NETWORK_ANNOUNCE": f"127.0.0.1:{relay_port}",
        }
        ran = street.run("relay", "join", link, "--home", street.home("relay"), settings=own)
        assert ran.code == 0, ran
        relay = street.start("relay", "relay", "run", settings=own)
        made = Cinema(street, meter, origin, relay, origin, open_manifest(data), clear)
        made.alice = made.newcomer("alice", made.account("alice"))
        until(lambda: made.alice.api("/api/status")["tickets"] == 15, 30)
        yield made
    finally:
        street.close()
        meter.close()


def ticket_of(home: Path) -> tuple[bytes, bytes]:
    """Return today's ticket of a viewer and its ticket key."""
    with closing(sqlite3.connect(f"file:{home}/wallet.db?mode=ro", uri=True)) as conn:
        today = time.time_ns() // 10**9 // DAY_S
        found: Any = conn.execute("SELECT ticket, key FROM day WHERE day = ?", (today,)).fetchone()
    return bytes(found[0]), bytes(found[1])


def fetch_key(cinema: Cinema, grant: tuple[bytes, bytes]) -> bytes:
    """Fetch the title's key as a page does."""
    proof = prove_ticket(*grant, cinema.key_id, time.time_ns() // 1_000_000)
    url = f"http://127.0.0.1:{cinema.origin.port}/v1/keys/{cinema.key_id.hex()}"
    with urlopen(Request(url, headers={"authorization": proof}), timeout=10) as answer:
        key = answer.read()
    assert len(key) == 16
    return bytes(key)


def packets(source: str, *options: str, kind: str = "") -> str:
    """Return a digest of every packet that ffmpeg reads, nothing decoded; of the ``kind`` v or a alone."""
    maps = [part for one in kind or "va" for part in ("-map", f"0:{one}:0")]
    command = [find_ffmpeg(), "-v", "error", *options, "-i", source, *maps]
    ran = subprocess.run(
        [*command, "-c", "copy", "-f", "md5", "-"],
        capture_output=True, timeout=60, check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert ran.stdout.startswith(b"MD5="), ran
    return ran.stdout.decode()


def windows(clear: Iterable[bytes]) -> frozenset[bytes]:
    """Return every 32 bytes in a row of these files that are no mere filling."""
    parts = (data[at : at + WINDOW_BYTES] for data in clear for at in range(len(data) - WINDOW_BYTES + 1))
    return frozenset(part for part in parts if len(set(part)) >= WINDOW_BYTES // 2)


def found(wanted: frozenset[bytes], data: bytes) -> bool:
    """Say whether any of the windows occurs in ``data``, at any place."""
    return any(data[at : at + WINDOW_BYTES] in wanted for at in range(len(data) - WINDOW_BYTES + 1))


def metrics(box: Box) -> str:
    """Return what a box measures."""
    with urlopen(f"http://{box.local}/metrics", timeout=10) as answer:
        return str(answer.read().decode())
