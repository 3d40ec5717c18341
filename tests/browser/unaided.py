"""A small Farcast for browsers without a node: origin, relay, and a CDN that can go bad."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO, cast
from urllib.parse import urlsplit

from farcast.node.demo.troupe import free_port
from farcast.tests.system.chromium import Tab
from farcast.tests.wire.street import FILM, Box, Street, ask, draw, until

LENGTH_S = 26
PICTURE = ("-f", "lavfi", "-i", f"testsrc2=size=640x360:rate=12:duration={LENGTH_S}")
SOUND = ("-f", "lavfi", "-i", f"sine=frequency=440:duration={LENGTH_S}")
CODECS = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac")
STOP_S = 10.0

NO_WORKER = "delete Navigator.prototype.serviceWorker;"
NO_SOURCES = (
    "for (const kind of ['MediaSource', 'ManagedMediaSource', 'WebKitMediaSource']) delete window[kind];"
)

SMALL_BUFFER = """
Object.defineProperty(window, "Hls", { configurable: true, set(Hls) {
  Object.assign(Hls.DefaultConfig, { maxBufferLength: %d, maxMaxBufferLength: %d });
  Object.defineProperty(window, "Hls", { value: Hls });
} });
"""
"""Live players hold no more than a few seconds; ours would hold thirty."""

KEPT = """
Object.defineProperty(window, "Hls", { configurable: true, set(Hls) {
  const Kept = class extends Hls { constructor(...given) { super(...given); window.kept = this; } };
  Object.defineProperty(window, "Hls", { value: Kept });
} });
"""
"""The page's player is the test's too."""

WATCH = """
(() => {
  performance.setResourceTimingBufferSize(5000);
  const seen = window.seen = { longest: 0, samples: 0, advanced: 0, files: [], asked: [] };
  const open = XMLHttpRequest.prototype.open;
  XMLHttpRequest.prototype.open = function (method, url, ...rest) {
    const asked = { url: new URL(url, location).href, at: performance.now(), end: null };
    seen.asked.push(asked);
    this.addEventListener("loadend", () => { asked.end = performance.now(); });
    this.addEventListener("load", async () => {
      const { response, responseType, status } = this;
      if (status > 299) return;
      const data = responseType === "arraybuffer" ? response.slice(0) : new TextEncoder().encode(response);
      const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
      seen.files.push([new URL(url, location).href, digest.toHex()]);
    });
    return open.call(this, method, url, ...rest);
  };
  let place = null, moved = 0, looked = 0;
  setInterval(() => {
    const now = performance.now(), video = document.getElementById("video");
    const still = !video || video.paused || video.ended || (place === null && !video.currentTime);
    if (still) { place = null; return; }
    if (place === null || video.currentTime !== place) {
      if (place !== null) seen.advanced += now - looked;
      place = video.currentTime;
      moved = now;
    } else if (now - moved > seen.longest) seen.longest = now - moved;
    looked = now;
    seen.samples += 1;
  }, 20);
})();
"""
"""Notes how long the playhead advanced, how long it stood at most, each request, each file's SHA-256."""


class Cdn:
    """The spoilt CDN's process."""

    def __init__(self, port: int, origin: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("spoilt.py")), str(port), origin],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def turn(self, way: str) -> int:
        """Let it behave another way; returns how many answers it has spoiled so far."""
        print(way, file=cast("IO[str]", self.process.stdin), flush=True)
        return int(cast("IO[str]", self.process.stdout).readline())

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate(timeout=STOP_S)


class Town:
    """Everybody's addresses."""

    def __init__(self, street: Street, origin: Box, relay: Box, cdn: Cdn, digests: dict[str, str]) -> None:
        self.street = street
        self.origin_box, self.relay_box, self.cdn = origin, relay, cdn
        self.origin = f"http://127.0.0.1:{origin.port}"
        self.relay = f"http://127.0.0.1:{relay.port}"
        self.digests = digests
        """The SHA-256 of every file of the title, by path."""

    def steers_to_the_cdn(self) -> bool:
        """Say whether the relay puts the CDN first."""
        answer = ask(urlsplit(self.relay).netloc, "GET", "/v1/steering/film")
        return str(json.loads(answer.body)["PATHWAY-PRIORITY"][0]).startswith("cdn-")

    def relay_sent_bytes(self) -> float:
        """Return how much the relay has sent."""
        return self.relay_box.metric("farcast_node_http_sent_bytes_total", carrier="tcp")

    def invite(self, name: str) -> str:
        """Return the invitation of a fresh account."""
        found = self.street.must("origin", "account", "add", name, "--home", self.origin_box.home)
        return str(found["link"])


@contextmanager
def town(folder: Path) -> Generator[Town]:
    """Bring everybody up."""
    street, port, cdn_port = Street(folder), free_port(), free_port()
    home, place, cdn = street.home("origin"), f"127.0.0.1:{port}", None
    try:
        film = draw(folder / "film.mp4", *PICTURE, *SOUND, *CODECS)
        street.must(
            "origin", "init", "--name", "Films", "--endpoint", place, "--home", home,
            "--cdn", f"http://127.0.0.1:{cdn_port}",
        )  # fmt: skip
        street.must("origin", "payee", "add", "ada", "--home", home)
        street.must("origin", "publish", film, "--preset", "ultrafast", "--home", home)
        secret = draw(folder / "secret.mp4", *FILM)
        street.must(
            "origin", "publish", secret, "--preset", "ultrafast", "--access", "ticket", "--home", home
        )
        origin = street.start("origin", "origin", "run", settings=_listen(port))
        cdn = Cdn(cdn_port, f"http://{place}")
        link = street.must("origin", "invite", "--relay", "--home", home)["link"]
        settings = _listen(free_port())
        ran = street.run("relay", "join", link, "--home", street.home("relay"), settings=settings)
        assert ran.code == 0, ran
        relay = street.start("relay", "relay", "run", settings=settings)
        until(lambda: ask(f"127.0.0.1:{relay.port}", "GET", "/web/film/film.json").status == 200, 30)
        until(lambda: _relays(place) == 1, 30)
        yield Town(street, origin, relay, cdn, _digests(place))
    finally:
        if cdn is not None:
            cdn.close()
        street.close()


def _relays(place: str) -> int:
    sources = json.loads(ask(place, "GET", "/web/film/film.json").body)["sources"]
    return sum(source["tier"] == 2 for source in sources)


def _listen(port: int) -> dict[str, str]:
    return {"FARCAST_LISTEN_PORT": str(port), "FARCAST_NETWORK_ANNOUNCE": f"127.0.0.1:{port}"}


def _digests(place: str) -> dict[str, str]:
    """Return the SHA-256 of every file a player may ask for, by path, as the origin has it."""
    found: dict[str, str] = {}
    waiting = ["master.m3u8"]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        data = ask(place, "GET", f"/watch/film/{path}").body
        found[path] = sha256(data).hexdigest()
        if not path.endswith(".m3u8"):
            continue
        folder = path.rpartition("/")[0]
        for line in data.decode().splitlines():
            uri = line.partition('URI="')[2].partition('"')[0] if line.startswith("#") else line
            if uri:
                waiting.append(f"{folder}/{uri}".removeprefix("/"))
    return found


async def prepare(tab: Tab, *scripts: str) -> None:
    """Run scripts before any of the page's own."""
    for script in scripts:
        await tab.call("Page.addScriptToEvaluateOnNewDocument", source=script)


async def play(tab: Tab, url: str, until_s: float, *, rate: float = 1) -> None:
    """Open a player page and play until the playhead is at ``until_s``."""
    await tab.go(url)
    await tab.until("document.getElementById('video').readyState > 2", 20)
    await tab.evaluate(f"document.getElementById('video').playbackRate = {rate}")
    await tab.evaluate("document.getElementById('video').play()")
    await tab.until(f"document.getElementById('video').currentTime > {until_s}", until_s * 2 + 10)
