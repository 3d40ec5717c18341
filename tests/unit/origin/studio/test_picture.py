"""Slices: whatever is interrupted, in whatever order and however often, the picture is the same."""

from __future__ import annotations

import hashlib
import subprocess
from fractions import Fraction
from pathlib import Path

import pytest

from farcast.node.ffmpeg import find_ffmpeg
from farcast.origin.studio import ingest as ingesting
from farcast.origin.studio import picture as picturing
from farcast.origin.studio import storyboard
from farcast.origin.studio.ingest import Encode, ingest
from farcast.origin.studio.package import read_streams, write_playlists
from farcast.origin.studio.picture import encode_picture

SLICE_S = 4
LEVELS = 40
"""Grey levels that one frame after another has, five apart: a frame lost or doubled shows."""
CODECS = {
    "mp4": [
        "-c:v",
        "libx264",
        "-preset",
        "fast",
        "-x264-params",
        "open-gop=1:keyint=50:bframes=3",
        "-qp",
        "8",
    ],
    "mkv": ["-c:v", "mpeg4", "-q:v", "2", "-g", "33"],
    "ts": ["-c:v", "mpeg2video", "-q:v", "2", "-g", "12", "-bf", "2"],
}


@pytest.fixture(autouse=True)
def short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (picturing, ingesting):
        monkeypatch.setattr(module, "SLICE_S", SLICE_S)
    monkeypatch.setattr(storyboard, "COLUMNS", 2)
    monkeypatch.setattr(storyboard, "ROWS", 1)


def run(*arguments: str) -> bytes:
    command = [find_ffmpeg(), "-hide_banner", "-loglevel", "error", "-y", *arguments]
    return subprocess.run(
        command, check=True, capture_output=True, timeout=60, stdin=subprocess.DEVNULL
    ).stdout


def make(path: Path, seconds: Fraction, rate: str = "25") -> Path:
    grey = f"nullsrc=s=64x64:r={rate}:d={float(seconds) + 0.5},geq=lum='20+mod(N\\,{LEVELS})*5':cb=128:cr=128"
    frames = str(round(seconds * Fraction(rate)))
    run(
        "-f",
        "lavfi",
        "-i",
        grey,
        "-frames:v",
        frames,
        "-pix_fmt",
        "yuv420p",
        *CODECS[path.suffix[1:]],
        str(path),
    )
    return path


def quiet(stage: str, done: float, total: float) -> None:
    """Show no progress."""


def encode(media: Path, encodes: Path) -> Encode:
    return ingest(media, encodes, quiet, preset="ultrafast")


def digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(f"{path.relative_to(folder)} ".encode() + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def levels(folder: Path) -> list[int]:
    """Decode the largest rendition and return the level of each frame."""
    write_playlists(folder, read_streams(folder), "")
    playlist = str(folder / "v64/index.m3u8")
    raw = run("-i", playlist, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-")
    frame = 64 * 64 * 3 // 2
    return [round((raw[at + 64 * 32 + 32] - 20) / 5) for at in range(0, len(raw), frame)]


@pytest.mark.parametrize("rate", ["25", "30000/1001"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_no_frame_is_lost_or_doubled_between_slices(tmp_path: Path, suffix: str, rate: str) -> None:
    film = make(tmp_path / f"film.{suffix}", Fraction(11), rate)
    folder = encode(film, tmp_path / "e").folder
    frames = round(11 * Fraction(rate))
    assert levels(folder) == [number % LEVELS for number in range(frames)]
    streams = read_streams(folder)
    assert {stream.duration for stream in streams} == {frames / Fraction(rate)}
    assert {len(stream.fragments) for stream in streams} == {6}
    assert sorted(path.name for path in (folder / "storyboard").iterdir()) == [
        "00000.jpg", "00001.jpg", "00002.jpg",
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", ["mp4", "ts"])
def test_a_film_that_ends_with_a_slice_has_no_empty_one_behind_it(tmp_path: Path, suffix: str) -> None:
    film = make(tmp_path / f"film.{suffix}", Fraction(8))
    folder = encode(film, tmp_path / "e").folder
    assert [len(stream.fragments) for stream in read_streams(folder)] == [4, 4]
    assert len(list((folder / "storyboard").iterdir())) == 2


def test_an_interrupted_encode_goes_on_where_it_was_and_comes_out_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    film = make(tmp_path / "film.mkv", Fraction(15))
    undisturbed = encode(film, tmp_path / "undisturbed").folder
    starts: list[float] = []
    found: Encode | None = None
    for _ in range(8):
        seen: list[float] = []

        def once(stage: str, done: float, _total: float, seen: list[float] = seen) -> None:
            if stage == "encode":
                seen.append(done)
                if done > (seen[0] // SLICE_S + 1) * SLICE_S:  # in the midst of the slice after the next
                    raise KeyboardInterrupt

        try:
            found = ingest(film, tmp_path / "e", once, preset="ultrafast")
        except KeyboardInterrupt:
            starts.append(seen[0])
            assert seen == sorted(seen)
            continue
        break
    assert starts == [0, 4, 8]
    assert found is not None
    assert digest(found.folder) == digest(undisturbed)
    assert not list((tmp_path / "e" / ".parts").glob(".*"))


def test_slices_made_side_by_side_are_the_same(tmp_path: Path) -> None:
    film = make(tmp_path / "film.mkv", Fraction(15))
    asked = ingesting.Ingest(film, tmp_path, preset="ultrafast")
    found: list[str] = []
    for workers in (1, 3):
        work = tmp_path / f"work-{workers}"
        work.mkdir()
        seen: list[float] = []
        slices = encode_picture(find_ffmpeg(), asked.picture, work, seen.append, workers)
        assert [path.name for path in slices] == ["0000", "0001", "0002", "0003-last"]
        assert seen == sorted(seen)
        found.append(digest(work))
    assert found[0] == found[1]


def test_slices_behind_a_film_shorter_than_it_says_are_no_part_of_it(tmp_path: Path) -> None:
    film = make(tmp_path / "film.mkv", Fraction(6))
    asked = ingesting.Ingest(film, tmp_path, preset="ultrafast")
    boasts = asked.picture._replace(held=asked.held._replace(duration_s=60.0))
    (tmp_path / "work").mkdir()
    slices = encode_picture(find_ffmpeg(), boasts, tmp_path / "work", lambda _: None, 4)
    assert [path.name for path in slices] == ["0000", "0001-last"]
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["0000", "0001-last"]
