"""Ingest: one ``ffmpeg`` run turns a film into a CMAF ladder with separate sound, and a poster.

An encode lives in ``<encodes>/<digest>``, where the digest covers the film's bytes and everything
asked of ffmpeg. It is built in a hidden work folder and renamed when whole, so a folder with its
final name is complete and is used again; an interrupted one is thrown away and redone.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from fractions import Fraction
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import IO, NamedTuple

from ..node.ffmpeg import find_ffmpeg
from ..protocol.errors import FarcastError, LocalError, StoreFullError, UsageError
from .fragments import split
from .playlist import INIT, segment_name
from .probe import Probe, complaint, media_arguments, probe

VERSION = 1
"""Raised whenever the same film would be encoded differently."""
SEGMENT_S = 2
DEFAULT_PRESET = "veryfast"
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
HEIGHTS = (2160, 1440, 1080, 720, 480, 360, 240)
LEAST_SIDE = 8
THREADS = 4
"""Per rendition; a fixed number, because x264's output depends on it."""
STALL_S = 300
POSTER = "poster.jpg"
POSTER_TIMEOUT_S = 120
READ_BYTES = 1 << 20
LOG_LIMIT_BYTES = 16 << 20
LEAST_FREE_BYTES = 1 << 20

Progress = Callable[[str, float, float], None]
"""Called with a stage (``read``, ``encode``, ``package``), what is done and the total of it."""


class Rung(NamedTuple):
    """One size of the ladder; ``kbit_s`` caps its bit rate."""

    name: str
    width: int
    height: int
    kbit_s: int


class Encode(NamedTuple):
    """A finished encode: its folder, and whether it was there before."""

    folder: Path
    reused: bool


def ladder(width: int, height: int, frames_per_s: Fraction) -> list[Rung]:
    """Return the sizes a film is encoded in, largest first: at least two, none above the source.

    Every rung fits a 16:9 box of the usual heights (9:16 for an upright film); a source that lies
    well between two boxes, or under the smallest, keeps its own size as the top.
    """
    landscape = width >= height
    long, short = (width, height) if landscape else (height, width)
    scales = [min(Fraction(box * 16, 9 * long), Fraction(box, short)) for box in HEIGHTS]
    beyond = scales[0] <= 1  # larger than the largest box: that one is the top
    scales = [scale for scale in scales if scale <= 1]
    if not beyond and (not scales or scales[0] < Fraction(85, 100)):
        scales.insert(0, Fraction(1))
    sizes = [(_even(width * scale, width), _even(height * scale, height)) for scale in scales]
    sizes = sizes[:1] + [size for size in sizes[1:] if min(size) >= LEAST_SIDE]  # no slivers
    if len(sizes) == 1:
        sizes.append((_even(Fraction(sizes[0][0], 2), width), _even(Fraction(sizes[0][1], 2), height)))
    rungs: list[Rung] = []
    for w, h in dict.fromkeys(sizes):
        # 5.2 Mbit/s for 1080p25; smaller pictures need more bits a pixel, faster ones fewer a frame
        pixels, rate = w * h / (1920 * 1080), float(frames_per_s) / 25
        rungs.append(Rung(f"v{h}", w, h, max(100, round(5200 * pixels**0.75 * rate**0.5))))
    return rungs


def ingest(
    media: Path,
    encodes: Path,
    progress: Progress,
    *,
    preset: str = "",
    loop_to_s: float = 0,
    program: str = "",
) -> Encode:
    """Encode ``media`` below ``encodes``, or find that it was encoded before.

    ``preset`` is x264's (default: ``FARCAST_INGEST_PRESET``, else ``veryfast``); a film shorter
    than ``loop_to_s`` is repeated until it is that long; ``program`` names the ffmpeg to use.

    Raises:
        UsageError: no ffmpeg, an unknown preset, or a file that is no film.
        LocalError: ``encode_failed``, ``busy``, or a full disk.

    """
    preset = preset or os.environ.get("FARCAST_INGEST_PRESET", "") or DEFAULT_PRESET
    if preset not in PRESETS:
        raise UsageError(f"{preset!r} is no x264 preset; use one of {', '.join(PRESETS)}", reason="bad_value")
    ffmpeg = find_ffmpeg(program)
    held = probe(ffmpeg, media)
    length_s = max(held.duration_s, loop_to_s)
    looped = loop_to_s > held.duration_s
    command, names = _encode_command(held, preset, loop_to_s if looped else 0)
    try:
        encodes.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _only_one(encodes):
            digest = _digest(media, [str(VERSION), *command], progress)
            folder = encodes / digest
            if folder.is_dir():
                return Encode(folder, reused=True)
            work = encodes / f".{digest}.work"
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(mode=0o700)
            try:
                run = [ffmpeg, "-hide_banner", "-nostdin", "-loglevel", "error", "-y"]
                run += ["-progress", "pipe:1", "-nostats", *_inputs(media, looped=looped), *command]
                _follow(run, work, media, lambda done_s: progress("encode", min(done_s, length_s), length_s))
                for name in names:
                    _slice(work / f"{name}.mp4", work / name)
                _poster(ffmpeg, media, held, work / POSTER)
                os.sync()  # what the final name promises is on the disk before the name is
                work.rename(folder)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        message = f"{media} cannot be encoded in {encodes}: {error.strerror or error}"
        raise LocalError(message, reason="encode_failed") from error
    progress("encode", length_s, length_s)
    return Encode(folder, reused=False)


def _even(exact: Fraction, limit: int) -> int:
    return max(2, min(2 * round(exact / 2), limit - limit % 2))


def _encode_command(held: Probe, preset: str, loop_to_s: float) -> tuple[list[str], list[str]]:
    """Return what makes the renditions (also what names them) and the renditions' names."""
    rungs = ladder(held.width, held.height, held.frames_per_s)
    split_ = f"split={len(rungs)}" + "".join(f"[s{index}]" for index in range(len(rungs)))
    chains = [f"[0:{held.video}]fps={held.frames_per_s}:start_time=0,{split_}"]
    outputs: list[str] = []
    length = ["-t", f"{loop_to_s:g}"] if loop_to_s else []
    plain = ["-map_metadata", "-1", "-map_chapters", "-1", "-fflags", "+bitexact", *length]
    gop = str(math.ceil(held.frames_per_s * SEGMENT_S) + 1)
    for index, rung in enumerate(rungs):
        scale = f"scale={rung.width}:{rung.height}:flags=bicubic,setsar=1,format=yuv420p"
        chains.append(f"[s{index}]{scale}[v{index}]")
        outputs += ["-map", f"[v{index}]", "-c:v", "libx264", "-preset", preset, "-crf", "23"]
        outputs += ["-maxrate", f"{rung.kbit_s}k", "-bufsize", f"{2 * rung.kbit_s}k"]
        outputs += ["-threads", str(THREADS), "-flags", "+cgop+bitexact", "-sc_threshold", "0", "-g", gop]
        outputs += ["-force_key_frames", f"expr:gte(t,n_forced*{SEGMENT_S})", *plain]
        outputs += ["-movflags", "+cmaf+empty_moov+frag_keyframe+skip_trailer", "-f", "mp4"]
        outputs.append(f"{rung.name}.mp4")
    names = [rung.name for rung in rungs]
    if held.audio is not None:
        # the encoder puts 1,024 samples of run-in first; taking as many away keeps lips in time
        trim = "atrim=start_sample=1024,asetpts=PTS-STARTPTS"
        chains.append(f"[0:{held.audio}]aresample=48000:async=1:first_pts=0,{trim}[sound]")
        outputs += ["-map", "[sound]", "-c:a", "aac", "-ac", str(held.channels)]
        outputs += ["-b:a", f"{64 * held.channels}k", "-flags", "+bitexact", *plain]
        outputs += ["-movflags", "+cmaf+empty_moov+skip_trailer", "-frag_duration", f"{SEGMENT_S}000000"]
        outputs += ["-f", "mp4", "audio.mp4"]
        names.append("audio")
    return ["-filter_complex", ";".join(chains), *outputs], names


def _inputs(media: Path, *, looped: bool) -> list[str]:
    return [*(["-stream_loop", "-1"] if looped else []), *media_arguments(media)]


def _digest(media: Path, asked: list[str], progress: Progress) -> str:
    """Hash the film's bytes and what is asked of ffmpeg."""
    digest = hashlib.sha256("\0".join(asked).encode())
    total, done = media.stat().st_size, 0
    with media.open("rb", buffering=0) as file:
        while data := file.read(READ_BYTES):
            digest.update(data)
            done += len(data)
            progress("read", done, max(done, total))
    return digest.hexdigest()[:32]


@contextmanager
def _only_one(encodes: Path) -> Generator[None]:
    """Hold the folder's lock: two ingests of one film would throw away each other's work."""
    with (encodes / ".lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"another film is being encoded in {encodes}; wait until that is done"
            raise LocalError(message, reason="busy") from error
        for left in encodes.glob(".*.work"):
            shutil.rmtree(left, ignore_errors=True)
        yield


def _follow(command: list[str], work: Path, media: Path, done: Callable[[float], None]) -> None:
    """Run ffmpeg in ``work`` and tell how many seconds of film it has made."""
    log = work / "ffmpeg.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command, cwd=work, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
        ) as process,
    ):
        try:
            assert process.stdout is not None
            for seconds in _times(process.stdout, media):
                done(seconds)
            code = process.wait(STALL_S)
        except BaseException:
            process.kill()
            raise
    with log.open("rb") as report:
        text = report.read(LOG_LIMIT_BYTES).decode(errors="replace")
    if code and shutil.disk_usage(work).free < LEAST_FREE_BYTES:  # its log had no room either
        message = f"{media} cannot be encoded: the disk of {work.parent} is full; make room on it"
        raise StoreFullError(message, reason="disk_full")
    if code:
        raise LocalError(f"ffmpeg could not encode {media}: {complaint(text)}", reason="encode_failed")
    if "partial file" in text or "ended prematurely" in text:  # ffmpeg's words on mp4 and Matroska
        message = f"{media} is not whole: it ends before its container says; copy it again"
        raise UsageError(message, reason="cut_short")
    log.unlink()


def _times(pipe: IO[bytes], media: Path) -> Iterator[float]:
    """Yield ``out_time_us`` of ffmpeg's progress report in seconds; STALL_S without a frame is an error."""
    rest, moved = b"", time.monotonic()
    seen: dict[bytes, bytes] = {}
    while True:
        ready, _, _ = select.select([pipe], [], [], STALL_S)
        data = os.read(pipe.fileno(), 65_536) if ready else b""
        if ready and not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            key, _, value = line.partition(b"=")
            if key in {b"frame", b"out_time_us"} and seen.get(key) != value:
                seen[key], moved = value, time.monotonic()
                if key == b"out_time_us" and value.isdigit():
                    yield int(value) / 1e6
        if time.monotonic() - moved > STALL_S:
            message = f"ffmpeg made nothing of {media} for {STALL_S} s and was stopped"
            raise LocalError(message, reason="encode_failed")


def _slice(whole: Path, folder: Path) -> None:
    """Cut one fragmented MP4 into its init segment and its media segments."""
    folder.mkdir()
    try:
        with whole.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            for index, (start, end) in enumerate(split(data)):
                path = folder / (segment_name(index - 1) if index else INIT)
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(data[start:end])
    except (FarcastError, ValueError) as error:  # mmap refuses an empty file with a ValueError
        message = f"ffmpeg wrote no usable {whole.name}: {error}"
        raise LocalError(message, reason="encode_failed") from error
    if not (folder / segment_name(0)).exists():
        raise LocalError(f"ffmpeg found not one frame for {whole.name}", reason="encode_failed")
    whole.unlink()


def _poster(ffmpeg: str, media: Path, held: Probe, path: Path) -> None:
    """Take a picture from a tenth into the film, or its first where there is none so late."""
    scale = min(Fraction(1), Fraction(1280, max(held.width, held.height)))
    width, height = _even(held.width * scale, held.width), _even(held.height * scale, held.height)
    error = "no picture came out"
    for seek_s in (held.duration_s / 10, 0.0):
        command = [ffmpeg, "-hide_banner", "-nostdin", "-loglevel", "error", "-y", "-ss", f"{seek_s:.3f}"]
        command += [*media_arguments(media), "-map", f"0:{held.video}", "-frames:v", "1", "-q:v", "4"]
        command += ["-vf", f"scale={width}:{height},setsar=1,format=yuvj420p", "-map_metadata", "-1"]
        command += ["-fflags", "+bitexact", "-flags", "+bitexact", "-f", "image2", "-update", "1", path.name]
        try:
            done = subprocess.run(
                command,
                cwd=path.parent,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=POSTER_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            continue
        if path.exists() and path.stat().st_size:
            return
        error = complaint(done.stderr.decode(errors="replace")) or error
    raise LocalError(f"no poster could be made of {media}: {error}", reason="encode_failed")
