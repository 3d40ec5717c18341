"""A title that needs a ticket, end to end: real processes, real players, and a search of every store."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import time
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from farcast.node.demo.troupe import free_port
from farcast.node.ffmpeg import find_ffmpeg
from farcast.protocol.contentkey import prove_ticket
from farcast.protocol.manifest import Manifest, open_manifest
from farcast.protocol.protection import open_file
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


@pytest.fixture(scope="module")
def cinema(tmp_path_factory: pytest.TempPathFactory) -> Generator[Cinema]:
    """Publish one title for ticket holders, and open."""
    street = Street(tmp_path_factory.mktemp("cinema"))
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
        data = books.store.get(books.log.catalog.titles()["film"].cid)
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


def test_a_ticket_holders_gateway_gives_the_very_bytes_of_the_clear_encode(cinema: Cinema) -> None:
    assert len(cinema.segments) >= 8
    for path, data in cinema.clear.items():
        answer = cinema.watch(cinema.alice, path)
        assert (answer.status, answer.body) == (200, data), path
        assert answer.headers["content-length"] == str(len(data))
    (row,) = cinema.alice.api("/api/titles")
    assert (row["access"], row["locked"]) == ("ticket", "")


def test_relay_and_cdn_serve_ciphertext_that_only_the_key_opens(cinema: Cinema) -> None:
    grant = ticket_of(cinema.alice.home)
    key = fetch_key(cinema, grant)
    for place in (f"127.0.0.1:{cinema.relay.port}", cinema.meter.url.removeprefix("http://")):
        for path, data in list(cinema.segments.items())[:4]:
            sealed = ask(place, "GET", f"/watch/film/{path}").body
            assert sealed != data
            assert open_file(key, cinema.key_id, path, sealed) == data
        playlist = ask(place, "GET", "/watch/film/audio/index.m3u8").body.decode()
        assert f'METHOD=AES-128,URI="/v1/keys/{cinema.key_id.hex()}",IV=0x' in playlist
        for path in ("audio/init.mp4", "poster.jpg"):
            assert ask(place, "GET", f"/watch/film/{path}").body == cinema.clear[path]


def test_ipfs_clients_get_ciphertext(cinema: Cinema) -> None:
    root = cinema.manifest.root_cid
    car = ask(f"127.0.0.1:{cinema.relay.port}", "GET", f"/ipfs/{root}?format=car")
    assert car.status == 200
    assert len(car.body) > sum(map(len, cinema.segments.values()))
    assert not found(windows(cinema.segments.values()), car.body)


def test_players_play_it_from_the_gateway(cinema: Cinema) -> None:
    local = cinema.street.folder / "clear"
    for path, data in cinema.clear.items():
        (local / path).parent.mkdir(parents=True, exist_ok=True)
        (local / path).write_bytes(data)
    gateway = f"{cinema.alice.url}/watch/film/master.m3u8"
    assert packets(gateway) == packets(str(local / "master.m3u8"))


def test_a_player_of_hls_with_the_key_plays_what_a_cache_holds(cinema: Cinema) -> None:
    """RFC 8216 as another implementation reads it: ffmpeg fetches playlist, key and ciphertext itself."""
    grant = ticket_of(cinema.alice.home)
    proof = prove_ticket(*grant, cinema.key_id, time.time_ns() // 1_000_000)
    sealed = f"http://127.0.0.1:{cinema.origin.port}/watch/film/master.m3u8"
    headers = ("-headers", f"Authorization: {proof}\r\n")
    assert packets(sealed, *headers) == packets(f"{cinema.alice.url}/watch/film/master.m3u8")
    ran = subprocess.run(
        [find_ffmpeg(), "-v", "error", "-i", sealed, "-c", "copy", "-f", "md5", "-"],
        capture_output=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert b"403" in ran.stderr  # without a ticket there is no key


def test_no_store_anywhere_has_a_clear_byte_and_no_disk_has_the_key_but_the_viewers(cinema: Cinema) -> None:
    for box in (cinema.relay, cinema.alice):  # whole films everywhere, so that there is something to search
        for path in cinema.clear:
            answer = ask(
                box.local if box is cinema.alice else f"127.0.0.1:{box.port}", "GET",
                f"/{box.token}/watch/film/{path}" if box is cinema.alice else f"/watch/film/{path}",
            )  # fmt: skip
            assert answer.status == 200
    key = fetch_key(cinema, ticket_of(cinema.alice.home))
    clear = windows(cinema.segments.values())
    sealed = sum(map(len, cinema.segments.values()))
    for name in ("origin", "relay", "alice"):
        home, searched = cinema.street.home(name), 0
        for path in [*home.rglob("*"), cinema.street.folder / f"{name}.log"]:
            if not path.is_file() or "encodes" in path.relative_to(cinema.street.folder).parts:
                continue  # the publisher's own encode is where the clear film comes from
            data = path.read_bytes()
            searched += len(data)
            assert not found(clear, data), path
            assert path.name.startswith("wallet.db") or (key not in data and key.hex().encode() not in data)
        assert searched > sealed, name
    cached = b"".join(cinema.meter.kept.values())
    assert len(cached) > sealed / 2
    assert not found(clear, cached)
    assert key not in cached
    secret = cinema.origin.home / "keys" / "content-secret"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert (cinema.alice.home / "wallet.db").stat().st_mode & 0o777 == 0o600


def test_without_an_account_a_sentence_says_what_to_do(cinema: Cinema) -> None:
    link = cinema.street.must("origin", "invite", "--home", cinema.origin.home)["link"]
    guest = cinema.newcomer("guest", link)
    status, reason, sentence = problem(cinema.watch(guest, "master.m3u8"))
    assert (status, reason) == (403, "no_account")
    assert sentence.startswith("The Film needs an account of ")
    assert problem(cinema.watch(guest, next(iter(cinema.segments))))[:2] == (403, "no_account")
    assert cinema.watch(guest, "poster.jpg").status == 200
    cinema.street.run("play", "film", "--url", "--home", guest.home).refused(1, "The Film", "farcast join")
    listed = cinema.street.must("list", "--home", guest.home)
    assert (listed[0]["access"], listed[0]["locked"]) == ("ticket", sentence)
    page = ask(guest.local, "GET", f"/{guest.token}/play/film").body.decode()
    assert "The Film needs an account of" in page
    assert 'farcast_node_locked_total{reason="no_account"} 2.0' in metrics(guest)
    guest.stop()


def test_a_revoked_account_is_stopped_while_it_plays(cinema: Cinema) -> None:
    rita = cinema.newcomer("rita", cinema.account("rita"))
    until(lambda: rita.api("/api/status")["tickets"] == 15, 30)
    paths = list(cinema.segments)
    assert cinema.watch(rita, paths[0]).status == 200
    cinema.street.must("origin", "account", "revoke", "rita", "--home", cinema.origin.home)
    grant = ticket_of(rita.home)
    with pytest.raises(HTTPError) as caught:
        fetch_key(cinema, grant)  # no key from that moment on
    with caught.value as refused:
        assert (refused.code, json.load(refused)["reason"]) == (403, "revoked")
    until(lambda: cinema.watch(rita, paths[1]).status == 403, 15)
    told = problem(cinema.watch(rita, paths[0]))
    assert told == (
        403,
        "revoked",
        "The Film does not play: this account has been revoked; ask the origin why",
    )
    cinema.street.run("play", "film", "--home", rita.home).refused(1, "revoked")
    page = ask(rita.local, "GET", f"/{rita.token}/play/film").body.decode()
    assert "this account has been revoked" in page
    assert re.search(
        r'farcast_origin_content_keys_refused_total\{reason="revoked"\} [2-9]', metrics(cinema.origin)
    )
    rita.stop()


def test_a_kept_title_plays_offline_as_long_as_tickets_reach_and_then_says_why_not(cinema: Cinema) -> None:
    told = cinema.street.must("keep", "film", "--home", cinema.alice.home)
    assert (told["held_blocks"], told["locked"]) == (told["blocks"], "")
    for box in (cinema.alice, cinema.origin, cinema.relay):
        box.stop()
    cinema.meter.close()
    alice = cinema.street.start("alice", "run", settings=RECHECK, shift_s=13 * DAY_S)
    until(lambda: bool(alice.api("/api/titles")), 30)
    for path, data in cinema.clear.items():
        answer = cinema.watch(alice, path)
        assert (answer.status, answer.body) == (200, data), path
    assert cinema.street.must("play", "film", "--url", "--home", alice.home)["locked"] == ""
    alice.stop()
    late = cinema.street.start("alice", "run", settings=RECHECK, shift_s=16 * DAY_S)
    until(lambda: bool(late.api("/api/titles")), 30)
    status, reason, sentence = problem(cinema.watch(late, "master.m3u8"))
    assert (status, reason) == (403, "no_ticket")
    assert "this box has none for today" in sentence
    late.stop()


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


def packets(source: str, *options: str) -> str:
    """Return a digest of every packet that ffmpeg reads from a playlist, nothing decoded."""
    command = [find_ffmpeg(), "-v", "error", *options, "-i", source, "-map", "0:v:0", "-map", "0:a:0"]
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
