"""What a media file holds, asked of ``ffmpeg`` itself: the extra's binary brings no ``ffprobe``."""

from __future__ import annotations

import re
import subprocess
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import NamedTuple

from ..protocol.errors import LocalError, UsageError

PROBE_TIMEOUT_S = 60
COUNT_TIMEOUT_S = 3_600
"""Deadline of reading a whole file whose container does not say how long it is."""
FORMATS = (
    "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,asf,ogg,mxf,gxf,nut,rm,wtv,dv,ivf,"
    "h264,hevc,obu,yuv4mpegpipe"
)
"""Containers that are one film in one file: no play list, image, text or script is ever opened."""
LEAST_PIXELS = 16
MOST_FRAMES_PER_S, LEAST_FRAMES_PER_S = 60, 1

_STREAM = re.compile(r"\s*Stream #0:(\d+)(?:\[[^]]*\])?(?:\([^)]*\))?: (Video|Audio): (.*)")
_DURATION = re.compile(r"^\s*Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)", re.MULTILINE)
_SIZE = re.compile(r", (\d+)x(\d+)(?=[ ,\[]|$)")
_ASPECT = re.compile(r"\bSAR (\d+):(\d+)")
_RATE = re.compile(r", (\d+(?:\.\d+)?)(k?) (fps|tbr)\b")
_LAYOUT = re.compile(r"\d+ Hz, ([^,]+)")
_ROTATION = re.compile(r"rotation of (-?\d+(?:\.\d+)?) degrees")
_OUT_TIME = re.compile(r"^out_time_us=(\d+)", re.MULTILINE)
_PREFIX = re.compile(r"^(\[[^]]*\] *)+")
_QUARTER = 90


class Probe(NamedTuple):
    """What a film file holds.

    ``width`` and ``height`` are as shown: square pixels, turned upright. ``video`` and ``audio``
    are ffmpeg's stream numbers, ``audio`` None for a silent film; ``channels`` is 1 or 2, what the
    sound becomes.
    """

    duration_s: float
    video: int
    width: int
    height: int
    frames_per_s: Fraction
    audio: int | None
    channels: int


def media_arguments(media: Path) -> list[str]:
    """Return the ffmpeg arguments that open ``media`` as one local file, whatever its name or content."""
    whitelists = ["-protocol_whitelist", "file", "-format_whitelist", FORMATS]
    return [*whitelists, "-i", f"file:{media.absolute()}"]


def probe(ffmpeg: str, media: Path) -> Probe:
    """Ask ``ffmpeg`` what ``media`` holds.

    Raises:
        UsageError: ``unreadable`` or ``not_video``, one sentence that says why.

    """
    if not media.is_file():
        what = "is a folder, not a film" if media.is_dir() else "does not exist"
        raise UsageError(f"{media} {what}", reason="unreadable")
    try:
        with media.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise UsageError(f"{media} cannot be read: {error.strerror}", reason="unreadable") from error
    text = _run([ffmpeg, "-hide_banner", "-nostdin", *media_arguments(media)], PROBE_TIMEOUT_S, media).stderr
    if not re.search(r"^Input #0", text, re.MULTILINE):
        reason = "it is in none of the usual film containers (mp4, mov, mkv, webm, ts, avi, ...)"
        raise _not_video(media, reason if "not on whitelist" in text else complaint(text))
    return _Reading(text).probe(ffmpeg, media)


def complaint(stderr: str) -> str:
    """Pick the one line of ffmpeg's error output that says why."""
    lines = [_PREFIX.sub("", line).strip() for line in stderr.splitlines()]
    lines = [
        line for line in lines if line and not line.startswith(("Error opening input file", "Conversion"))
    ]
    return lines[-1].rpartition(": ")[2][:200] if lines else "no reason given"


class _Reading:
    """The streams of one ``ffmpeg -i`` report."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._videos: list[tuple[int, str]] = []
        self._audios: list[tuple[int, str]] = []
        self._turned: set[int] = set()
        for line in text.splitlines():
            stream, turn = _STREAM.match(line), _ROTATION.search(line)
            if stream and stream[2] == "Audio" and _LAYOUT.search(stream[3]):
                self._audios.append((int(stream[1]), stream[3]))
            elif stream and stream[2] == "Video" and "(attached pic)" not in line and _SIZE.search(line):
                self._videos.append((int(stream[1]), stream[3]))
            elif turn and self._videos and round(float(turn[1])) % (2 * _QUARTER) == _QUARTER:
                self._turned.add(self._videos[-1][0])

    def probe(self, ffmpeg: str, media: Path) -> Probe:
        if not self._videos:
            raise _not_video(media, "there is no moving picture in it")
        number, line = _preferred(self._videos)
        width, height = self._size(number, line)
        if min(width, height) < LEAST_PIXELS:
            reason = f"{width}x{height} pixels are too few, {LEAST_PIXELS}x{LEAST_PIXELS} is the least"
            raise _not_video(media, reason)
        audio, sound = _preferred(self._audios) if self._audios else (None, "")
        layout = _LAYOUT.search(sound)
        mono = layout is not None and layout[1] in {"mono", "1 channels"}
        length = _DURATION.search(self._text)
        if length:
            duration_s = int(length[1]) * 3600 + int(length[2]) * 60 + float(length[3])
        else:
            duration_s = _count(ffmpeg, media, number)
        return Probe(duration_s, number, width, height, _rate(line), audio, 1 if mono else 2)

    def _size(self, number: int, line: str) -> tuple[int, int]:
        found, aspect = _SIZE.search(line), _ASPECT.search(line)
        width, height = (int(found[1]), int(found[2])) if found else (0, 0)
        if aspect and int(aspect[1]) and int(aspect[2]):
            width = round(Fraction(width * int(aspect[1]), int(aspect[2])))
        return (height, width) if number in self._turned else (width, height)


def _preferred(streams: list[tuple[int, str]]) -> tuple[int, str]:
    return next((stream for stream in streams if "(default)" in stream[1]), streams[0])


def _rate(line: str) -> Fraction:
    """Return the frame rate: the stream's base rate where the average is near it, the average else."""
    rates = {unit: Fraction(number) * (1000 if kilo else 1) for number, kilo, unit in _RATE.findall(line)}
    rate = rates.get("fps") or rates.get("tbr") or Fraction(25)
    base = rates.get("tbr", rate)
    if abs(base - rate) * 20 < rate:  # a phone's variable rate: 29.83 fps of a base of 30
        rate = base
    ntsc = Fraction(ceil(rate) * 1000, 1001)
    if rate.denominator > 1 and abs(ntsc - rate) < Fraction(1, 100):  # printed with two digits: 29.97
        rate = ntsc
    while rate > MOST_FRAMES_PER_S:  # halving keeps the rhythm of 120 fps footage
        rate /= 2
    return max(rate, Fraction(LEAST_FRAMES_PER_S)).limit_denominator(1001)


def _count(ffmpeg: str, media: Path, stream: int) -> float:
    """Read the whole file without decoding it, for the length that its container does not say."""
    command = [ffmpeg, "-hide_banner", "-nostdin", "-loglevel", "error", *media_arguments(media)]
    command += ["-map", f"0:{stream}", "-c", "copy", "-progress", "pipe:1", "-nostats", "-f", "null", "-"]
    times = _OUT_TIME.findall(_run(command, COUNT_TIMEOUT_S, media).stdout)
    return int(times[-1]) / 1e6 if times else 0.0


def _run(command: list[str], timeout_s: float, media: Path) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=timeout_s,
            encoding="utf-8",
            errors="replace",
        )
    except subprocess.TimeoutExpired as error:
        message = f"{media} kept ffmpeg busy for {timeout_s:.0f} s without an answer"
        raise UsageError(message, reason="not_video") from error
    except OSError as error:
        raise LocalError(f"{command[0]} cannot be started: {error.strerror}", reason="no_ffmpeg") from error


def _not_video(media: Path, reason: str) -> UsageError:
    message = f"{media} is not a video ffmpeg can read: {reason.rstrip('.')}; name a video file that plays"
    return UsageError(message, reason="not_video")
