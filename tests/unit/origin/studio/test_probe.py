from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path
from struct import pack

import pytest

from farcast.node.ffmpeg import find_ffmpeg
from farcast.origin.studio.probe import complaint, probe
from farcast.protocol.errors import UsageError


def make(path: Path, *arguments: str) -> Path:
    """Make a tiny film with the real ffmpeg."""
    command = [find_ffmpeg(), "-hide_banner", "-loglevel", "error", "-y", *arguments, f"file:{path}"]
    subprocess.run(command, check=True, timeout=60, stdin=subprocess.DEVNULL)
    return path


def picture(spec: str) -> list[str]:
    return ["-f", "lavfi", "-i", f"testsrc2={spec}"]


def sound(spec: str) -> list[str]:
    return ["-f", "lavfi", "-i", spec]


def test_a_film_with_surround_sound_becomes_stereo(tmp_path: Path) -> None:
    source = [*picture("s=320x180:r=30000/1001:d=1"), *sound("anullsrc=cl=5.1:r=44100"), "-t", "1"]
    film = make(tmp_path / "-odd:name é 'q.mkv", *source, "-c:v", "ffv1", "-c:a", "flac")
    held = probe(find_ffmpeg(), film)
    assert (held.width, held.height) == (320, 180)
    assert held.frames_per_s == Fraction(30000, 1001)
    assert [(sound.number, sound.channels) for sound in held.sounds] == [(1, 2)]
    assert held.duration_s == pytest.approx(1, abs=0.1)


def test_mono_stays_mono_and_silence_is_no_sound(tmp_path: Path) -> None:
    mono = [*picture("s=64x64:r=10:d=1"), *sound("sine=d=1"), "-ac", "1", "-c:v", "ffv1", "-c:a", "flac"]
    assert probe(find_ffmpeg(), make(tmp_path / "mono.mkv", *mono)).sounds[0].channels == 1
    silent = make(tmp_path / "silent.mkv", *picture("s=64x64:r=10:d=1"), "-c:v", "ffv1")
    assert probe(find_ffmpeg(), silent).sounds == ()


def test_a_wide_pixel_counts_as_it_is_shown(tmp_path: Path) -> None:
    film = make(tmp_path / "sar.mkv", *picture("s=720x576:r=25:d=0.2,setsar=64/45"), "-c:v", "mpeg2video")
    held = probe(find_ffmpeg(), film)
    assert (held.width, held.height) == (1024, 576)


def test_a_length_the_container_does_not_say_is_counted(tmp_path: Path) -> None:
    live = [*picture("s=64x64:r=25:d=2"), "-c:v", "libvpx", "-f", "webm", "-live", "1"]
    held = probe(find_ffmpeg(), make(tmp_path / "live.webm", *live))
    assert held.duration_s == pytest.approx(2, abs=0.1)


def test_more_than_60_frames_a_second_are_halved_until_they_fit(tmp_path: Path) -> None:
    film = make(tmp_path / "fast.mkv", *picture("s=64x64:r=240:d=0.2"), "-c:v", "ffv1")
    assert probe(find_ffmpeg(), film).frames_per_s == 60


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("x.txt", b"hello\n", "is not a video ffmpeg can read"),
        ("empty.mp4", b"", "is not a video ffmpeg can read"),
        ("noise.mp4", bytes(range(256)) * 40, "is not a video ffmpeg can read"),
        (
            "list.mp4",
            b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
            "is not a video ffmpeg can read",
        ),
        ("concat.mkv", b"ffconcat version 1.0\nfile /etc/passwd\n", "is not a video ffmpeg can read"),
    ],
)
def test_what_is_no_film_is_refused_in_one_sentence(
    tmp_path: Path, name: str, content: bytes, why: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError, match=why) as caught:
        probe(find_ffmpeg(), path)
    assert str(caught.value).startswith(f"{path} is not")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(path))


def test_a_picture_a_song_and_a_song_with_a_cover_are_no_films(tmp_path: Path) -> None:
    still = make(tmp_path / "still.png", *picture("s=64x64"), "-frames:v", "1")
    with pytest.raises(UsageError, match="none of the usual film containers"):
        probe(find_ffmpeg(), still)
    song = make(tmp_path / "song.m4a", *sound("sine=d=1"), "-c:a", "aac")
    with pytest.raises(UsageError, match="no moving picture"):
        probe(find_ffmpeg(), song)
    cover = ["-i", str(song), "-i", str(still), "-map", "0", "-map", "1", "-c:v", "png", "-c:a", "copy"]
    covered = make(tmp_path / "covered.m4a", *cover, "-disposition:v:0", "attached_pic")
    with pytest.raises(UsageError, match="no moving picture"):
        probe(find_ffmpeg(), covered)


def test_too_few_pixels_are_named(tmp_path: Path) -> None:
    film = make(tmp_path / "ten.mkv", *picture("s=10x12:d=0.2"), "-c:v", "ffv1")
    with pytest.raises(UsageError, match="10x12 pixels are too few"):
        probe(find_ffmpeg(), film)


def test_nothing_or_a_folder_is_no_film(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        probe(find_ffmpeg(), tmp_path / "nope.mp4")
    with pytest.raises(UsageError, match="is a folder"):
        probe(find_ffmpeg(), tmp_path)


def test_a_program_that_is_no_ffmpeg_is_refused_with_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no ffmpeg with libx264 and aac: install it"):
        find_ffmpeg("/bin/true")
    with pytest.raises(UsageError, match=r"farcast\[origin\]"):
        find_ffmpeg(str(tmp_path / "nothing"))


def test_the_reason_is_the_last_line_that_gives_one() -> None:
    assert complaint("[in#0 @ 0x55] Error opening input: No such file\nError opening input files: x\n") == (
        "No such file"
    )
    assert complaint("") == "no reason given"


def test_a_film_shot_upright_is_turned(tmp_path: Path) -> None:
    film = make(tmp_path / "phone.mp4", *picture("s=64x32:r=10:d=0.5"), "-c:v", "mpeg4")
    straight = pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    turned = pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    head, middle, tail = film.read_bytes().split(straight)  # the matrices of the film and of its track
    film.write_bytes(head + straight + middle + turned + tail)
    held = probe(find_ffmpeg(), film)
    assert (held.width, held.height) == (32, 64)


def test_ffmpeg_sees_nothing_of_the_origins_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, told, film = tmp_path / "ffmpeg", tmp_path / "told", tmp_path / "film.mp4"
    film.write_bytes(b"no film")
    program.write_text(f"#!/bin/sh\nenv > {told}\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("FARCAST_CDN_KEY", "a-secret-of-the-origin")
    with pytest.raises(UsageError):
        probe(str(program), film)
    assert "PATH=" in told.read_text()
    assert "secret" not in told.read_text()
