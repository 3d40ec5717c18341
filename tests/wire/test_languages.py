"""A film with several sounds and subtitles, from its files to what players are told."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.blocks.cidpath import cid_of
from farcast.node.blocks.store import DiskStore
from farcast.node.ffmpeg import find_ffmpeg
from farcast.origin.publish import Published, publish
from farcast.origin.studio.film import load_film
from farcast.protocol.errors import UsageError
from farcast.protocol.identity import Identity

PUBLISHER = Identity(b"w" * 32)
FILM_S = 5
TOML = """
title = "languages"
language = "en"
[[payees]]
payee = "anna"
points = 10000
[[audio]]
file = "film.de.m4a"
language = "deu"
label = "Deutsch"
[[subtitles]]
file = "film.pt.srt"
language = "pt-br"
label = "Português"
"""
SUBTITLES = (
    "1\n00:00:00,500 --> 00:00:02,000\nOlá, <i>mundo</i>\n\n2\n00:00:03,000 --> 00:00:04,000\n{\\an8}Tchau\n"
)
OWN = "1\n00:00:01,000 --> 00:00:02,000\nHello & goodbye\n"


def quiet(stage: str, done: float, total: float) -> None:
    """Show no progress."""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [find_ffmpeg(), "-hide_banner", "-loglevel", "error", "-y", *arguments]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )


def tone(hertz: int, seconds: float = FILM_S) -> list[str]:
    return ["-f", "lavfi", "-i", f"sine=frequency={hertz}:sample_rate=48000:duration={seconds}"]


class Files(SimpleHTTPRequestHandler):
    """Serves a folder and says nothing."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the class above
        """Keep silent."""


@contextmanager
def served(folder: Path) -> Generator[str]:
    """Serve a folder by plain HTTP; yields its base URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    (folder / "own.srt").write_text(OWN)
    (folder / "film.pt.srt").write_bytes(b"\xef\xbb\xbf" + SUBTITLES.replace("\n", "\r\n").encode())
    (folder / "film.toml").write_text(TOML)
    run(*tone(900, FILM_S - 0.5), "-c:a", "aac", str(folder / "film.de.m4a"))
    film = folder / "film.mkv"
    run(
        "-f", "lavfi", "-i", f"testsrc2=s=96x64:r=25:d={FILM_S}", *tone(440), *tone(660),
        "-i", str(folder / "own.srt"), "-map", "0", "-map", "1", "-map", "2", "-map", "3",
        "-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=fre",
        "-metadata:s:a:1", "title=Version française", "-metadata:s:s:0", "language=eng",
        "-c:v", "mpeg4", "-c:a", "flac", "-c:s", "srt", str(film),
    )  # fmt: skip
    return film


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DiskStore]:
    opened = DiskStore(tmp_path_factory.mktemp("home"), 256 << 20, CollectorRegistry())
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def encodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encodes")


@pytest.fixture(scope="module")
def published(media: Path, store: DiskStore, encodes: Path) -> Published:
    return publish(media, load_film(media), encodes, store, PUBLISHER, None, 1_000, "ultrafast", quiet)


def test_the_manifest_and_both_playlists_name_every_sound_and_text(published: Published) -> None:
    manifest, folder = published.manifest, published.folder
    assert [(one.name, one.language) for one in manifest.renditions if one.kind == "audio"] == [
        ("audio", "en"), ("audio-fr", "fr"), ("audio-de", "de"),
    ]  # fmt: skip
    assert [(one.path, one.language, one.label) for one in manifest.tracks if one.kind == "subtitles"] == [
        ("text/pt-br.vtt", "pt-BR", "Português"), ("text/en.vtt", "en", ""),
    ]  # fmt: skip
    master = (folder / "master.m3u8").read_text()
    named = re.findall(r'TYPE=(\w+),GROUP-ID="\w+",NAME="([^"]+)",LANGUAGE="([^"]+)",DEFAULT=(\w+)', master)
    assert named == [
        ("AUDIO", "en", "en", "YES"), ("AUDIO", "Version française", "fr", "NO"),
        ("AUDIO", "Deutsch", "de", "NO"),
        ("SUBTITLES", "Português", "pt-BR", "NO"), ("SUBTITLES", "en", "en", "NO"),
    ]  # fmt: skip
    assert master.count('SUBTITLES="text"') == 2
    mpd = (folder / "manifest.mpd").read_text()
    assert re.findall(r'lang="([^"]+)"', mpd) == ["en", "fr", "de", "pt-BR", "en"]
    assert published.warnings == ()


def test_subtitles_come_out_as_plain_webvtt(published: Published) -> None:
    text = published.folder / "text"
    assert (text / "pt-br.vtt").read_text() == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:02.000\nOlá, <i>mundo</i>\n\n"
        "00:00:03.000 --> 00:00:04.000 line:0\nTchau\n"
    )
    assert (text / "en.vtt").read_text() == "WEBVTT\n\n00:00:01.000 --> 00:00:02.000\nHello &amp; goodbye\n"
    assert "#EXTINF:5.000000,\nen.vtt\n" in (text / "en.m3u8").read_text()


@pytest.mark.parametrize("manifest", ["master.m3u8", "manifest.mpd"])
def test_ffmpeg_plays_every_sound_to_the_films_end(published: Published, manifest: str) -> None:
    with served(published.folder) as base:  # of local files ffmpeg's DASH reader takes no .vtt
        where = f"{base}/{manifest}"
        done = run("-i", where, "-map", "0:v", "-map", "0:a", "-progress", "pipe:1", "-f", "null", "-")
    last = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert int(last["out_time_us"]) / 1e6 == pytest.approx(FILM_S, abs=0.1)
    assert "error" not in done.stderr.lower()


def test_an_extra_sound_that_is_a_little_short_is_filled_up(published: Published) -> None:
    lengths = {
        one.name: sum(map(float, re.findall(r"#EXTINF:([0-9.]+)", (published.folder / one.path).read_text())))
        for one in published.manifest.renditions
    }
    assert lengths["audio-de"] == pytest.approx(FILM_S, abs=0.05)


def test_the_storyboard_has_a_picture_each_two_seconds(published: Published) -> None:
    index = (published.folder / "storyboard.vtt").read_text()
    places = re.findall(r"storyboard/00000.jpg#xywh=(\d+),(\d+),(\d+),(\d+)", index)
    width, height = places[0][2:]
    assert places == [
        ("0", "0", width, height),
        (width, "0", width, height),
        (str(2 * int(width)), "0", width, height),
    ]
    assert "00:00:04.000 --> 00:00:05.000\n" in index
    sheet = published.folder / "storyboard" / "00000.jpg"
    said = subprocess.run(
        [find_ffmpeg(), "-hide_banner", "-i", str(sheet)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    ).stderr
    assert f"{6 * int(width)}x{4 * int(height)}" in said
    assert 'value="6x4"' in (published.folder / "manifest.mpd").read_text()


def test_the_folder_in_the_store_is_the_folder_on_the_disk(published: Published) -> None:
    assert cid_of(published.folder) == published.manifest.root_cid


def test_another_language_leaves_the_blocks_of_the_picture_alone(
    media: Path, published: Published, store: DiskStore, encodes: Path
) -> None:
    stages: list[str] = []

    def note(stage: str, done: float, _total: float) -> None:
        stages.append(f"{stage} {done:.0f}")

    toml = media.with_name("film.toml")
    run(*tone(500), "-c:a", "aac", str(media.with_name("film.it.m4a")))
    toml.write_text(TOML + '[[audio]]\nfile = "film.it.m4a"\nlanguage = "it"\n')
    try:
        second = publish(
            media, load_film(media), encodes, store, PUBLISHER, published.manifest, 2, "ultrafast", note
        )
    finally:
        toml.write_text(TOML)
    assert [one for one in stages if one.startswith("encode")] == ["encode 5"], (
        "the picture was encoded again"
    )
    added = sum(one.segments for one in second.manifest.renditions if one.name == "audio-it")
    # its segments, init and playlist, its folder, the two playlists of the whole, their folder, the manifest
    assert second.new_blocks <= added + 2 + 1 + 2 + 1 + 1
    for name in ("v64", "v32", "audio", "audio-fr", "text"):
        assert cid_of(second.folder / name) == cid_of(published.folder / name)


@pytest.mark.parametrize(
    ("file", "data", "sentence"),
    [
        ("film.pt.srt", "não".encode("latin-1"), r"film\.pt\.srt is not UTF-8 text .* save it as UTF-8"),
        ("film.pt.srt", b"", r"film\.pt\.srt has no cue in it: it must be SubRip"),
        ("film.pt.srt", b"1\nsoon --> later\nx\n", r"film\.pt\.srt has no time at line 2, where one like"),
        (
            "film.de.m4a",
            b"no sound",
            r"film\.de\.m4a is not a sound ffmpeg can read: .* name a file that plays",
        ),
        (
            "film.toml",
            (TOML + '[[audio]]\nfile = "film.de.m4a"\nlanguage = "xx"\n').encode(),
            "names no language",
        ),
        (
            "film.toml",
            (TOML + '[[subtitles]]\nfile = "x.srt"\nlanguage = "en"\n').encode(),
            "there is no file .*x.srt",
        ),
    ],
)
def test_a_bad_companion_is_one_sentence_and_nothing_is_written(
    media: Path, store: DiskStore, tmp_path: Path, file: str, data: bytes, sentence: str
) -> None:
    path = media.with_name(file)
    good, held = path.read_bytes(), store.held_blocks
    path.write_bytes(data)
    try:
        with pytest.raises(UsageError, match=sentence) as caught:
            publish(media, load_film(media), tmp_path / "e", store, PUBLISHER, None, 1, "ultrafast", quiet)
    finally:
        path.write_bytes(good)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "e").exists()
    assert store.held_blocks == held


def test_a_sound_of_another_cut_is_refused(media: Path, store: DiskStore, tmp_path: Path) -> None:
    path = media.with_name("film.de.m4a")
    good = path.read_bytes()
    run(*tone(900, 9), "-c:a", "aac", str(path))
    try:
        with pytest.raises(
            UsageError, match=r"lasts 9\.\d s, the film 5\.\d s: .* name a sound of this very cut"
        ):
            publish(media, load_film(media), tmp_path / "e", store, PUBLISHER, None, 1, "ultrafast", quiet)
    finally:
        path.write_bytes(good)
