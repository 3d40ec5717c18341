"""Sounds, subtitles and storyboard of a title as hls.js, dash.js and Shaka see them in a real Chromium."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Generator, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.blocks.store import DiskStore
from farcast.node.ffmpeg import find_ffmpeg
from farcast.origin.publish import publish
from farcast.origin.studio.film import load_film
from farcast.protocol.identity import Identity
from farcast.tests.system.chromium import Tab

FILM_S = 12
TIMEOUT_S = 20.0
MODULES = Path(__file__).parents[2] / "node" / "page" / "node_modules"
TOML = """
title = "tracks"
language = "en"
[[payees]]
payee = "anna"
points = 10000
[[audio]]
file = "film.fr.flac"
language = "fr"
label = "Français"
[[subtitles]]
file = "film.de.srt"
language = "de"
label = "Deutsch"
"""
SUBTITLES = "1\n00:00:01,000 --> 00:00:11,000\nGuten Abend\n"

SHOWN = """
(() => {
  const video = document.getElementById("video");
  return [...video.textTracks].flatMap((track) => [...(track.activeCues || [])])
    .map((cue) => cue.text).concat(document.body.innerText).join(" ").includes("Guten Abend");
})()
"""
PLAYERS = {
    "hls.js": (
        "hls.js/dist/hls.min.js",
        """
        const player = window.player = new Hls();
        player.loadSource("/film/master.m3u8");
        player.attachMedia(video);
        player.on(Hls.Events.MANIFEST_PARSED, () => video.play());
        video.addEventListener("playing", () => {
          player.audioTrack = player.audioTracks.findIndex((track) => track.lang === "fr");
          player.subtitleTrack = 0;
        }, { once: true });
        window.heard = () => player.audioTracks[player.audioTrack].name;
        """,
        None,
    ),
    "dash.js": (
        "dashjs/dist/modern/umd/dash.all.min.js",
        """
        const player = window.player = dashjs.MediaPlayer().create();
        player.initialize(video, "/film/manifest.mpd", true);
        player.on("streamInitialized", () => {
          player.setCurrentTrack(player.getTracksFor("audio").find((track) => track.lang === "fr"));
          player.setTextTrack(0);
        });
        window.heard = () => player.getCurrentTrackFor("audio").labels[0].text;
        """,
        """
        new Promise((done) => player.provideThumbnail(3,
          (found) => done(found && [found.width, found.height, found.x, found.y])))
        """,
    ),
    "shaka": (
        "shaka-player/dist/shaka-player.compiled.js",
        """
        const player = window.player = new shaka.Player();
        player.attach(video).then(() => player.load("/film/manifest.mpd")).then(() => {
          player.selectAudioTrack(player.getAudioTracks().find((track) => track.language === "fr"));
          player.selectTextTrack(player.getTextTracks()[0]);
          if (player.setTextTrackVisibility) { player.setTextTrackVisibility(true); }
          return video.play();
        }).catch((error) => { window.failure = String(error.code) + " " + JSON.stringify(error.data); });
        window.heard = () => player.getAudioTracks().find((track) => track.active).label;
        """,
        """
        player.getThumbnails(player.getImageTracks()[0].id, 3).then(
          (found) => [found.width, found.height, found.positionX, found.positionY])
        """,
    ),
}
PAGE = """<!doctype html><meta charset="utf-8"><title>{name}</title>
<body><video id="video" muted width="320"></video><div id="texts"></div>
<script src="/{script}"></script><script>const video = document.getElementById("video");{code}</script>
"""

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


class Files(SimpleHTTPRequestHandler):
    """Serves a folder and says nothing."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the class above
        """Keep silent."""


def make(*arguments: str) -> None:
    command = [find_ffmpeg(), "-hide_banner", "-loglevel", "error", "-y", *arguments]
    subprocess.run(command, check=True, timeout=60, stdin=subprocess.DEVNULL)


def quiet(stage: str, done: float, total: float) -> None:
    """Show no progress."""


def tone(hertz: int) -> Sequence[str]:
    return ("-f", "lavfi", "-i", f"sine=frequency={hertz}:sample_rate=48000:duration={FILM_S}")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """Publish a film of two sounds and one text; serve its folder, the players and a page for each."""
    folder = tmp_path_factory.mktemp("tracks")
    (folder / "film.de.srt").write_text(SUBTITLES)
    (folder / "film.toml").write_text(TOML)
    make(*tone(880), str(folder / "film.fr.flac"))
    picture = ("-f", "lavfi", "-i", f"testsrc2=s=320x180:r=25:d={FILM_S}")
    make(*picture, *tone(440), "-c:v", "mpeg4", "-q:v", "5", str(folder / "film.mkv"))
    store = DiskStore(folder / "home", 256 << 20, CollectorRegistry())
    try:
        film = load_film(folder / "film.mkv")
        done = publish(
            folder / "film.mkv", film, folder / "e", store, Identity(b"w" * 32), None, 1, "ultrafast", quiet
        )
    finally:
        store.close()
    site = folder / "site"
    site.mkdir()
    (site / "film").symlink_to(done.folder)
    for name, (script, code, _) in PLAYERS.items():
        (site / script.partition("/")[0]).symlink_to(MODULES / script.partition("/")[0])
        (site / f"{name}.html").write_text(PAGE.format(name=name, script=script, code=code))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("name", PLAYERS)
async def test_a_player_shows_subtitles_and_plays_another_language(base: str, tab: Tab, name: str) -> None:
    script, _, thumbnail = PLAYERS[name]
    if not (MODULES / script).is_file():
        pytest.skip(f"{name} is not here: .ci/peers.sh players")
    await tab.go(f"{base}/{name}.html")
    await tab.until("window.failure || video.currentTime > 1.5", TIMEOUT_S)
    assert await tab.evaluate("window.failure") is None
    await tab.until(SHOWN, TIMEOUT_S)
    await tab.until("window.heard() === 'Français'", TIMEOUT_S)
    assert any("/film/audio-fr/seg-" in one for one in tab.requests)
    assert any("/film/text/de.vtt" in one for one in tab.requests)
    if thumbnail is not None:
        assert await tab.evaluate(thumbnail) == [160, 90, 160, 0]  # the second picture of the first sheet
    await tab.until("video.ended || video.currentTime > 6", TIMEOUT_S)
