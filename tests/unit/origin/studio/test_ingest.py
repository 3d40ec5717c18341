from __future__ import annotations

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from struct import unpack

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from farcast.node.ffmpeg import find_ffmpeg
from farcast.origin.studio.ingest import Encode, ingest
from farcast.origin.studio.ladder import ladder
from farcast.origin.studio.package import read_streams, write_playlists
from farcast.origin.studio.poster import POSTER
from farcast.protocol.errors import LocalError, UsageError

SAMPLES_S = 48_000


def run(*arguments: str) -> bytes:
    """Run the real ffmpeg and return what it writes."""
    command = [find_ffmpeg(), "-hide_banner", "-loglevel", "error", "-y", *arguments]
    return subprocess.run(
        command, check=True, capture_output=True, timeout=60, stdin=subprocess.DEVNULL
    ).stdout


def make(path: Path, seconds: float, *, size: str = "96x64", sound: str = "", codec: str = "mpeg4") -> Path:
    source = ["-f", "lavfi", "-i", f"testsrc2=s={size}:r=25:d={seconds}"]
    source += ["-f", "lavfi", "-i", sound, "-t", str(seconds)] if sound else []
    run(*source, "-c:v", codec, "-q:v", "9", str(path))
    return path


def quiet(stage: str, done: float, total: float) -> None:
    """Show no progress."""


def encode(media: Path, encodes: Path, *, loop_to_s: float = 0) -> Encode:
    return ingest(media, encodes, quiet, preset="ultrafast", loop_to_s=loop_to_s)


def files_in(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 5 s of picture with 5.1 sound: a flash and a beep at exactly 3 s, dark and still before."""
    path = tmp_path_factory.mktemp("film") / "film.mkv"
    picture = "color=black:s=96x64:r=25:d=5,drawbox=c=white:t=fill:enable='gte(t,3)'"
    beep = "aevalsrc='gte(t,3)*sin(2000*t)|0|0|0|0|0':c=5.1:s=48000:d=5"
    run("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", beep, "-c:v", "ffv1", "-c:a", "flac", str(path))
    return path


@pytest.fixture(scope="module")
def encoded(film: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = encode(film, tmp_path_factory.mktemp("encodes")).folder
    write_playlists(folder, read_streams(folder), "")
    return folder


def test_a_film_becomes_two_sizes_stereo_sound_and_a_poster(encoded: Path) -> None:
    streams = {stream.name: stream for stream in read_streams(encoded)}
    assert list(streams) == ["audio", "v32", "v64"]
    assert [len(streams[name].fragments) for name in ("v32", "v64")] == [3, 3]
    assert streams["v64"].duration == streams["v32"].duration == 5
    assert abs(streams["audio"].duration - 5) < Fraction(3, 100)
    assert streams["audio"].init.channels == 2
    assert (encoded / POSTER).read_bytes().startswith(b"\xff\xd8")
    assert not list(encoded.glob("*.mp4"))
    assert not list(encoded.glob("*.log"))


def test_every_video_segment_is_two_seconds_and_starts_alike_in_every_size(encoded: Path) -> None:
    streams = [stream for stream in read_streams(encoded) if stream.init.kind == "video"]
    for stream in streams:
        ticks = [fragment.ticks / stream.init.timescale for fragment in stream.fragments]
        assert ticks == [2, 2, 1]


def test_ffmpeg_plays_all_of_it_to_the_end(encoded: Path) -> None:
    master = str(encoded / "master.m3u8")
    out = run("-xerror", "-i", master, "-map", "0", "-progress", "pipe:1", "-f", "null", "-").decode()
    last = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
    assert last["progress"] == "end"
    assert last["frame"] == "125"
    assert int(last["out_time_us"]) / 1e6 == pytest.approx(5, abs=0.05)


def test_sound_and_picture_keep_time_with_the_source(encoded: Path) -> None:
    """Neither the encoder's run-in nor its reordered pictures may shift anything by half a frame."""
    raw = run("-i", str(encoded / "v64/index.m3u8"), "-f", "rawvideo", "-pix_fmt", "gray", "-")
    frames = [raw[start + 3000] for start in range(0, len(raw), 96 * 64)]
    assert next(index for index, pixel in enumerate(frames) if pixel > 128) == 75
    pcm = run("-i", str(encoded / "audio/index.m3u8"), "-f", "s16le", "-ac", "1", "-ar", str(SAMPLES_S), "-")
    samples = unpack(f"<{len(pcm) // 2}h", pcm)
    loudest = max(samples)
    first = next(index for index, sample in enumerate(samples) if sample > loudest // 2)
    assert first / SAMPLES_S == pytest.approx(3, abs=0.012)  # the encoder smears a hard edge a little


def test_the_same_film_is_encoded_once_whatever_its_name(film: Path, tmp_path: Path) -> None:
    first = encode(film, tmp_path / "encodes")
    again = shutil.copy(film, tmp_path / "other name.mkv")
    second = encode(Path(again), tmp_path / "encodes")
    assert (first.reused, second.reused) == (False, True)
    assert first.folder == second.folder


def test_progress_goes_through_reading_and_encoding_to_the_end(tmp_path: Path) -> None:
    seen: list[tuple[str, float, float]] = []
    film = make(tmp_path / "a.avi", 1)

    def note(stage: str, done: float, total: float) -> None:
        seen.append((stage, done, total))

    ingest(film, tmp_path / "e", note, preset="ultrafast")
    assert list(dict.fromkeys(stage for stage, _, _ in seen)) == ["read", "encode"]
    assert seen[-1][0] == "encode"
    assert seen[-1][1] == seen[-1][2] == pytest.approx(1, abs=0.1)
    assert all(0 <= done <= total for _, done, total in seen)


def test_a_short_film_is_looped_to_the_length_asked_for(tmp_path: Path) -> None:
    film = make(tmp_path / "a.avi", 1.2, sound="sine=f=440")
    streams = read_streams(encode(film, tmp_path / "e", loop_to_s=5).folder)
    assert {stream.name: float(stream.duration) for stream in streams} == {
        "audio": pytest.approx(5, abs=0.05),
        "v32": 5,
        "v64": 5,
    }
    assert float(read_streams(encode(film, tmp_path / "e", loop_to_s=1).folder)[0].duration) < 1.5


def test_an_upright_silent_film_of_odd_size_has_two_sizes(tmp_path: Path) -> None:
    film = make(tmp_path / "a.mkv", 0.5, size="65x97", codec="ffv1")
    streams = read_streams(encode(film, tmp_path / "e").folder)
    assert [(one.name, one.init.width, one.init.height) for one in streams] == [
        ("v48", 32, 48),
        ("v96", 64, 96),
    ]


def test_a_part_that_was_cut_short_later_is_made_again(film: Path, tmp_path: Path) -> None:
    whole = encode(film, tmp_path).folder
    segment = whole / "v64" / "seg-00001.m4s"
    data = segment.read_bytes()
    segment.write_bytes(data[:-1])  # the part has the same file under its own name
    shutil.rmtree(whole)
    result = encode(film, tmp_path)
    assert not result.reused
    assert segment.read_bytes() == data


def test_a_failed_encode_leaves_nothing(tmp_path: Path) -> None:
    film = make(tmp_path / "a.avi", 1)

    def interrupt(stage: str, _done: float, _total: float) -> None:
        if stage == "encode":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(film, tmp_path / "e", interrupt, preset="ultrafast")
    assert files_in(tmp_path / "e") == [".lock"]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_film_that_was_copied_in_part_is_not_published(tmp_path: Path, suffix: str) -> None:
    film = tmp_path / f"a.{suffix}"
    run(
        "-f",
        "lavfi",
        "-i",
        "testsrc2=s=96x64:r=25:d=6",
        "-c:v",
        "mpeg4",
        "-movflags",
        "+faststart",
        str(film),
    )
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    with pytest.raises(UsageError, match="is not whole"):
        encode(film, tmp_path / "e")
    assert files_in(tmp_path / "e") == [".lock"]


def test_an_unknown_preset_names_those_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARCAST_INGEST_PRESET", "quick")
    with pytest.raises(UsageError, match="'quick' is no x264 preset; use one of ultrafast"):
        ingest(tmp_path / "a.mp4", tmp_path, quiet)


def test_a_folder_that_cannot_be_written_is_one_sentence(film: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LocalError, match=r"cannot be encoded in .*file"):
        encode(film, tmp_path / "file" / "e")


def test_only_one_encode_runs_at_a_time(tmp_path: Path) -> None:
    film = make(tmp_path / "a.avi", 0.5)

    def second(stage: str, _done: float, _total: float) -> None:
        if stage == "read":
            with pytest.raises(LocalError, match="another film is being encoded"):
                encode(film, tmp_path / "e")

    ingest(film, tmp_path / "e", second, preset="ultrafast")


@pytest.mark.parametrize(
    ("source", "sizes"),
    [
        ((1920, 1080), ["1920x1080", "1280x720", "854x480", "640x360", "426x240"]),
        ((1280, 720), ["1280x720", "854x480", "640x360", "426x240"]),
        ((1920, 800), ["1920x800", "1280x534", "854x356", "640x266", "426x178"]),
        ((1080, 1920), ["1080x1920", "720x1280", "480x854", "360x640", "240x426"]),
        ((1000, 600), ["1000x600", "800x480", "600x360", "400x240"]),
        ((640, 480), ["640x480", "480x360", "320x240"]),
        ((320, 240), ["320x240", "160x120"]),
        ((64, 36), ["64x36", "32x18"]),
        ((7680, 4320), ["3840x2160", "2560x1440", "1920x1080", "1280x720", "854x480", "640x360", "426x240"]),
        ((8000, 16), ["3840x8", "1920x4"]),
        ((17, 16), ["16x16", "8x8"]),
    ],
)
def test_the_ladder_follows_the_source(source: tuple[int, int], sizes: list[str]) -> None:
    assert [f"{rung.width}x{rung.height}" for rung in ladder(*source, Fraction(25))] == sizes


@given(st.integers(16, 8000), st.integers(16, 8000))
@example(8000, 23)
@example(16, 8000)
def test_no_ladder_scales_up_or_repeats_itself(width: int, height: int) -> None:
    rungs = ladder(width, height, Fraction(25))
    assert len(rungs) >= 2
    assert len({rung.name for rung in rungs}) == len(rungs)
    assert all(rung.width <= width and rung.height <= height for rung in rungs)
    assert all(rung.width % 2 == 0 and rung.height % 2 == 0 for rung in rungs)
    assert rungs == sorted(rungs, key=lambda rung: -rung.width * rung.height)
