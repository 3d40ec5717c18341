"""A title that needs a ticket, end to end: real processes, real players, and a search of every store."""

from __future__ import annotations

import http.server
import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Generator
from importlib.resources import files
from urllib.error import HTTPError

import pytest

from farcast.node.ffmpeg import find_ffmpeg
from farcast.protocol.contentkey import prove_ticket
from farcast.protocol.protection import open_file
from farcast.tests.system.chromium import Tab
from farcast.tests.wire.cinema import (
    RECHECK,
    Cinema,
    fetch_key,
    found,
    metrics,
    opened,
    packets,
    problem,
    ticket_of,
    windows,
)
from farcast.tests.wire.street import DAY_S, ask, until

Need = Callable[..., str]

PAGE = """<!doctype html><meta charset="utf-8"><title>no node</title><video id="video" muted></video>
<script src="/hls.js"></script><script>
const hls = new Hls({enableWorker: false, xhrSetup: (xhr, url) => {
  if (!url.includes("/v1/keys/")) return;
  xhr.open("GET", "KEYS" + new URL(url).pathname);
  xhr.setRequestHeader("authorization", "PROOF");
}});
window.errors = [];
hls.on(Hls.Events.ERROR, (_, data) => errors.push(data.details + " " + (data.response?.code ?? "")));
hls.loadSource("SOURCE");
hls.attachMedia(document.getElementById("video"));
</script>"""


@pytest.fixture(scope="module")
def cinema(tmp_path_factory: pytest.TempPathFactory) -> Generator[Cinema]:
    with opened(tmp_path_factory.mktemp("cinema")) as made:
        yield made


@pytest.fixture(scope="module")
def hls_js() -> bytes:
    place = files("farcast.node.page").joinpath("vendor/hls.min.js")
    if not place.is_file():
        pytest.skip("hls.js is not here: `make page` brings it where npm is installed")
    return place.read_bytes()


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
    assert b"Unable to open key file" in ran.stderr  # without a ticket there is none


@pytest.mark.parametrize("address", ["tv.m3u8", "film.mp4"])
def test_a_television_gets_the_clear_film_in_one_piece(cinema: Cinema, address: str) -> None:
    local = cinema.street.folder / "whole"
    for path, data in cinema.clear.items():
        (local / path).parent.mkdir(parents=True, exist_ok=True)
        (local / path).write_bytes(data)
    rows = cinema.manifest.renditions
    pictures = max((row for row in rows if row.kind == "video"), key=lambda row: row.height)
    sound = next(row for row in rows if row.kind == "audio")
    whole = f"{cinema.alice.url}/watch/film/{address}"
    assert packets(whole, kind="v") == packets(str(local / pictures.path), kind="v")
    assert packets(whole, kind="a") == packets(str(local / sound.path), kind="a")
    if address == "film.mp4":
        size = int(cinema.watch(cinema.alice, address).headers["content-length"])
        tail = ask(
            cinema.alice.local, "GET", f"/{cinema.alice.token}/watch/film/{address}",
            {"range": f"bytes={size - 9_000}-"},
        )  # fmt: skip
        assert (tail.status, len(tail.body)) == (206, 9_000)


def test_mpv_plays_it_from_the_gateway(cinema: Cinema, need: Need) -> None:
    command = [need("mpv"), "--no-config", "--vo=null", "--ao=null", "--untimed", "--msg-level=all=warn"]
    address = f"{cinema.alice.url}/watch/film/master.m3u8"
    done = subprocess.run([*command, address], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done


@pytest.mark.browser
async def test_hls_js_plays_it_on_the_nodes_page(cinema: Cinema, tab: Tab, hls_js: bytes) -> None:
    del hls_js
    await tab.go(f"{cinema.alice.url}/play/film")
    await tab.evaluate("document.getElementById('video').play()")
    await tab.until("document.getElementById('video').currentTime > 2", 20)
    assert await tab.evaluate("document.getElementById('line').textContent") == "Playing"
    assert not tab.complaints


@pytest.mark.browser
async def test_hls_js_without_a_node_decrypts_what_a_relay_holds(
    cinema: Cinema, tab: Tab, hls_js: bytes
) -> None:
    grant = ticket_of(cinema.alice.home)
    proof = prove_ticket(*grant, cinema.key_id, time.time_ns() // 1_000_000)
    source = f"http://127.0.0.1:{cinema.relay.port}/watch/film/master.m3u8"
    page = PAGE.replace("KEYS", f"http://127.0.0.1:{cinema.origin.port}").replace("SOURCE", source)
    with Site({"/": page.replace("PROOF", proof).encode(), "/hls.js": hls_js}) as site:
        await tab.go(site.url)
        await tab.evaluate("document.getElementById('video').play()")
        await tab.until("document.getElementById('video').currentTime > 2", 20)
        assert await tab.evaluate("errors.filter(error => error.startsWith('key'))") == []
        preflights = [one for one in tab.requests if one.startswith("GET") and "/v1/keys/" in one]
        assert len(preflights) >= 1
        site.pages["/"] = page.replace("PROOF", proof[:-1] + ("A" if proof[-1] != "A" else "E")).encode()
        await tab.go(site.url)
        await tab.until("errors.includes('keyLoadError 403')", 20)
        assert await tab.evaluate("document.getElementById('video').currentTime") == 0


def test_no_store_anywhere_has_a_clear_byte_and_no_disk_has_the_key_but_the_viewers(cinema: Cinema) -> None:
    for file in cinema.clear:  # the whole film everywhere, so that there is something to search
        assert cinema.watch(cinema.alice, file).status == 200
        assert ask(f"127.0.0.1:{cinema.relay.port}", "GET", f"/watch/film/{file}").status == 200
    key = fetch_key(cinema, ticket_of(cinema.alice.home))
    clear = windows(cinema.segments.values())
    sealed = sum(map(len, cinema.segments.values()))
    assert all(found(clear, path.read_bytes()) for path in cinema.origin.home.glob("encodes/*/*/*.m4s"))
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
    assert problem(cinema.watch(guest, "film.mp4"))[:2] == (403, "no_account")
    assert cinema.watch(guest, "poster.jpg").status == 200
    cinema.street.run("play", "film", "--url", "--home", guest.home).refused(1, "The Film", "farcast join")
    listed = cinema.street.must("list", "--home", guest.home)
    assert (listed[0]["access"], listed[0]["locked"]) == ("ticket", sentence)
    page = ask(guest.local, "GET", f"/{guest.token}/play/film").body.decode()
    assert "The Film needs an account of" in page
    assert 'farcast_node_locked_total{reason="no_account"} 3.0' in metrics(guest)
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


class Site(http.server.ThreadingHTTPServer):
    """A web site of a few pages, somewhere else than origin and relay."""

    daemon_threads = True

    def __init__(self, pages: dict[str, bytes]) -> None:
        """Listen on a free port of loopback."""
        super().__init__(("127.0.0.1", 0), _Visit)
        self.pages = pages
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def server_close(self) -> None:
        """Stop."""
        self.shutdown()
        super().server_close()
        self._thread.join()


class _Visit(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        site = self.server
        assert isinstance(site, Site)
        body = site.pages.get(self.path, b"")
        self.send_response(200 if body else 404)
        self.send_header("content-type", "text/javascript" if self.path.endswith(".js") else "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as above
        del format, args
