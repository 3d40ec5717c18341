"""What a media file holds, asked of ``ffmpeg`` itself: the extra's binary brings no ``ffprobe``."""

from __future__ import annotations

import re
import subprocess
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import NamedTuple

from ...mesh.child.environment import passed_on
from ...protocol.errors import LocalError, UsageError
from .language import stream_language

PROBE_TIMEOUT_S = 60
COUNT_TIMEOUT_S = 3_600
"""Deadline of reading a whole file whose container does not say how long it is."""
FORMATS = (
    "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,asf,ogg,mxf,gxf,nut,rm,wtv,dv,ivf,"
    "h264,hevc,obu,yuv4mpegpipe"
)
"""Containers that are one film in one file: no play list, image, text or script is ever opened."""
SOUND_FORMATS = f"{FORMATS},mp3,flac,wav,w64,aac,ac3,eac3,aiff,caf,au"
"""Containers that an extra sound may come in besides."""
SEEKABLE = frozenset({"mov", "matroska"})
"""Containers in which ffmpeg finds a time by an index, never past it."""
TEXTS = frozenset({"mov_text", "subrip", "srt", "webvtt", "ass", "ssa", "text"})
SOUNDS_LIMIT, TEXTS_LIMIT, LABEL_LIMIT_CHARS = 16, 24, 100
LEAST_PIXELS = 16
MOST_FRAMES_PER_S, LEAST_FRAMES_PER_S = 60, 1

_INPUT = re.compile(r"^Input #0, (\S+), from", re.MULTILINE)
_STREAM = re.compile(r"\s*Stream #0:(\d+)(?:\[[^]]*\])?(?:\(([^)]*)\))?: (\w+): (.*)")
_TITLE = re.compile(r"\s+title\s*: (.*\S)")
_CODEC = re.compile(r"\w+")
_DURATION = re.compile(r"^\s*Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)", re.MULTILINE)
_SIZE = re.compile(r", (\d+)x(\d+)(?=[ ,\[]|$)")
_ASPECT = re.compile(r"\bSAR (\d+):(\d+)")
_RATE = re.compile(r", (\d+(?:\.\d+)?)(k?) (fps|tbr)\b")
_LAYOUT = re.compile(r"\d+ Hz, ([^,]+)")
_ROTATION = re.compile(r"rotation of (-?\d+(?:\.\d+)?) degrees")
_OUT_TIME = re.compile(r"^out_time_us=(\d+)", re.MULTILINE)
_PREFIX = re.compile(r"^(\[[^]]*\] *)+")
_QUARTER = 90


class Track(NamedTuple):
    """A sound or text stream: ffmpeg's number, its codec, a BCP 47 tag and a label, both maybe empty.

    ``channels`` is 1 or 2, what a sound becomes, and 0 for text.
    """

    number: int
    codec: str
    language: str
    label: str
    channels: int


class Probe(NamedTuple):
    """What a film file holds.

    ``width`` and ``height`` are as shown: square pixels, turned upright. ``video`` is ffmpeg's stream
    number; ``sounds`` has the one that plays by itself first, none for a silent film; ``texts`` are
    subtitles of letters, ``bitmaps`` those of pictures. ``is_seekable``: a time in it is found exactly.
    """

    duration_s: float
    video: int
    width: int
    height: int
    frames_per_s: Fraction
    sounds: tuple[Track, ...]
    texts: tuple[Track, ...]
    bitmaps: tuple[Track, ...]
    is_seekable: bool


def media_arguments(media: Path, formats: str = FORMATS) -> list[str]:
    """Return the ffmpeg arguments that open ``media`` as one local file, whatever its name or content."""
    whitelists = ["-protocol_whitelist", "file", "-format_whitelist", formats]
    return [*whitelists, "-i", f"file:{media.absolute()}"]


def probe(ffmpeg: str, media: Path) -> Probe:
    """Ask ``ffmpeg`` what ``media`` holds.

    Raises:
        UsageError: ``unreadable`` or ``not_video``, one sentence that says why.

    """
    text = _report(ffmpeg, media, FORMATS, "film")
    if not _INPUT.search(text):
        reason = "it is in none of the usual film containers (mp4, mov, mkv, webm, ts, avi, ...)"
        raise _not_video(media, reason if "not on whitelist" in text else complaint(text))
    return _Reading(text).probe(ffmpeg, media)


def probe_sound(ffmpeg: str, path: Path) -> tuple[Track, float]:
    """Ask ``ffmpeg`` for the sound in a file of its own, and how many seconds it lasts.

    Raises:
        UsageError: ``unreadable`` or ``not_sound``, one sentence that says why.

    """
    text = _report(ffmpeg, path, SOUND_FORMATS, "sound")
    found = _Reading(text)
    if not found.sounds:
        reason = "there is no sound in it" if _INPUT.search(text) else complaint(text)
        message = f"{path} is not a sound ffmpeg can read: {reason.rstrip('.')}; name a file that plays"
        raise UsageError(message, reason="not_sound")
    track = found.preferred()
    return track, found.duration_s or _count(ffmpeg, path, track.number, SOUND_FORMATS)


def _report(ffmpeg: str, media: Path, formats: str, what: str) -> str:
    if not media.is_file():
        problem = f"is a folder, not a {what}" if media.is_dir() else "does not exist"
        raise UsageError(f"{media} {problem}", reason="unreadable")
    try:
        with media.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise UsageError(f"{media} cannot be read: {error.strerror}", reason="unreadable") from error
    command = [ffmpeg, "-hide_banner", "-nostdin", *media_arguments(media, formats)]
    return _run(command, PROBE_TIMEOUT_S, media).stderr


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
        self._turned: set[int] = set()
        self._defaults: set[int] = set()
        self.sounds: list[Track] = []
        self.texts: list[Track] = []
        self.bitmaps: list[Track] = []
        tracks: list[Track] | None = None  # the list whose last one the lines below it describe
        for line in text.splitlines():
            stream, turn, title = _STREAM.match(line), _ROTATION.search(line), _TITLE.match(line)
            if stream:
                tracks = self._add(int(stream[1]), stream[2] or "", stream[3], stream[4])
            elif turn and self._videos and round(float(turn[1])) % (2 * _QUARTER) == _QUARTER:
                self._turned.add(self._videos[-1][0])
            elif title and tracks:
                label = "".join(letter for letter in title[1] if letter.isprintable())[:LABEL_LIMIT_CHARS]
                tracks[-1] = tracks[-1]._replace(label=label)

    def _add(self, number: int, language: str, kind: str, line: str) -> list[Track] | None:
        if "(default)" in line:
            self._defaults.add(number)
        if kind == "Video":
            if "(attached pic)" not in line and _SIZE.search(line):
                self._videos.append((number, line))
            return None
        codec = _CODEC.match(line)
        layout = _LAYOUT.search(line)
        if codec is None or kind not in {"Audio", "Subtitle"} or (kind == "Audio" and layout is None):
            return None
        channels = 0
        tracks = self.texts if codec[0] in TEXTS else self.bitmaps
        if layout is not None and kind == "Audio":
            channels = 1 if layout[1] in {"mono", "1 channels"} else 2
            tracks = self.sounds
        tracks.append(Track(number, codec[0], stream_language(language), "", channels))
        return tracks

    @property
    def duration_s(self) -> float:
        length = _DURATION.search(self._text)
        return int(length[1]) * 3600 + int(length[2]) * 60 + float(length[3]) if length else 0.0

    def preferred(self) -> Track:
        """Return the sound that plays by itself."""
        return next((one for one in self.sounds if one.number in self._defaults), self.sounds[0])

    def probe(self, ffmpeg: str, media: Path) -> Probe:
        if not self._videos:
            raise _not_video(media, "there is no moving picture in it")
        number, line = next((one for one in self._videos if one[0] in self._defaults), self._videos[0])
        width, height = self._size(number, line)
        if min(width, height) < LEAST_PIXELS:
            reason = f"{width}x{height} pixels are too few, {LEAST_PIXELS}x{LEAST_PIXELS} is the least"
            raise _not_video(media, reason)
        sounds = [self.preferred()] if self.sounds else []
        sounds += [one for one in self.sounds if one not in sounds]
        container = _INPUT.search(self._text)
        return Probe(
            duration_s=self.duration_s or _count(ffmpeg, media, number),
            video=number,
            width=width,
            height=height,
            frames_per_s=_rate(line),
            sounds=tuple(sounds[:SOUNDS_LIMIT]),
            texts=tuple(self.texts[:TEXTS_LIMIT]),
            bitmaps=tuple(self.bitmaps[:TEXTS_LIMIT]),
            is_seekable=container is not None and not SEEKABLE.isdisjoint(container[1].split(",")),
        )

    def _size(self, number: int, line: str) -> tuple[int, int]:
        found, aspect = _SIZE.search(line), _ASPECT.search(line)
        width, height = (int(found[1]), int(found[2])) if found else (0, 0)
        if aspect and int(aspect[1]) and int(aspect[2]):
            width = round(Fraction(width * int(aspect[1]), int(aspect[2])))
        return (height, width) if number in self._turned else (width, height)


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


def _count(ffmpeg: str, media: Path, stream: int, formats: str = FORMATS) -> float:
    """Read the whole file without decoding it, for the length that its container does not say."""
    command = [ffmpeg, "-hide_banner", "-nostdin", "-loglevel", "error", *media_arguments(media, formats)]
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
            env=passed_on(),
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
