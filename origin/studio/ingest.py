"""Ingest: a film and what belongs to it become one folder of CMAF segments, poster and storyboard.

Every input is encoded into a part of its own: the film's picture, the film's sounds and texts, each
extra sound. A part lives in ``<encodes>/.parts/<digest>``, where the digest covers the input's bytes and
everything asked of ffmpeg, so another language added later leaves the picture alone. The folder of
the whole, ``<encodes>/<digest>``, holds hard links to its parts. Both are built under a hidden name and
renamed when whole; of an interrupted picture the slices that are whole stay and are gone on from.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ...node.ffmpeg import find_ffmpeg
from ...protocol.errors import LocalError, UsageError
from .film import Companion
from .ladder import ladder
from .picture import SLICE_S, Picture, encode_picture, encoded_s
from .playlist import Storyboard
from .poster import POSTER, make_poster
from .probe import SOUND_FORMATS, Probe, Track, probe, probe_sound
from .sound import Source, encode_sounds
from .storyboard import plan_storyboard

VERSION = 2
"""Raised whenever the same film would be encoded differently."""
DEFAULT_PRESET = "veryfast"
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
READ_BYTES = 1 << 20
KEEP_WORK_S = 14 * 86_400
"""An interrupted encode that nobody went on with for so long is swept."""
SOUND_APART_S = 2.0
"""How much longer or shorter than the film an extra sound may be."""
SIZES, PARTS, WHOLE = "sizes", ".parts", "whole"

Progress = Callable[[str, float, float], None]
"""Called with a stage (``read``, ``sound``, ``encode``, ``package``), what is done and the total of it."""


class Voice(NamedTuple):
    """One sound of a film: its folder in the encode, a language tag and a label, both maybe empty."""

    name: str
    language: str
    label: str


class Encode(NamedTuple):
    """A finished encode: its folder, whether it was there before, and what its tracks are.

    ``texts`` are the film's own subtitles as ffmpeg wrote them, in WebVTT; ``bitmaps`` are those that
    are pictures and stay behind; ``gaps`` are sentences about pictures beside the film that failed just now.
    """

    folder: Path
    reused: bool
    voices: tuple[Voice, ...]
    texts: tuple[tuple[Track, bytes], ...]
    bitmaps: tuple[Track, ...]
    storyboard: Storyboard
    gaps: tuple[str, ...] = ()


class Outlook(NamedTuple):
    """What an encode would do: whether it is there, and how many seconds of the picture are."""

    done: bool
    picture_s: float


class Ingest:
    """The encode of one film, asked for but not yet made."""

    def __init__(
        self,
        media: Path,
        encodes: Path,
        *,
        preset: str = "",
        loop_to_s: float = 0,
        program: str = "",
        sounds: Sequence[Companion] = (),
    ) -> None:
        """Look at ``media`` and the extra ``sounds``; nothing is written.

        ``preset`` is x264's (default: ``FARCAST_INGEST_PRESET``, else ``veryfast``); a film shorter
        than ``loop_to_s`` is repeated until it is that long; ``program`` names the ffmpeg to use.

        Raises:
            UsageError: no ffmpeg, an unknown preset, a file that is no film or sound, or a sound
                of another length.

        """
        preset = preset or os.environ.get("FARCAST_INGEST_PRESET", "") or DEFAULT_PRESET
        if preset not in PRESETS:
            raise UsageError(
                f"{preset!r} is no x264 preset; use one of {', '.join(PRESETS)}", reason="bad_value"
            )
        self.media, self._encodes = media, encodes
        self._ffmpeg = find_ffmpeg(program)
        self.held: Probe = probe(self._ffmpeg, media)
        loop_to_s = loop_to_s if loop_to_s > self.held.duration_s else 0
        self.length_s = loop_to_s or self.held.duration_s
        self.rungs = tuple(ladder(self.held.width, self.held.height, self.held.frames_per_s))
        smallest = self.rungs[-1]
        self.storyboard = plan_storyboard(self.length_s, smallest.width, smallest.height)
        self.picture = Picture(media, self.held, self.rungs, self.storyboard, preset, loop_to_s)
        self._sources = [self._extra(sound, loop_to_s) for sound in sounds]
        if self.held.sounds or self.held.texts:
            self._sources.insert(0, Source(media, self.held.sounds, self.held.texts, loop_to_s))
        spoken = [(track.language, track.label) for track in self.held.sounds]
        spoken += [(sound.language, sound.label) for sound in sounds]
        self.voices = tuple(_voices(spoken))
        self._gaps: list[str] = []
        self.channels = tuple(sound.channels for source in self._sources for sound in source.sounds)

    def outlook(self, progress: Progress) -> Outlook:
        """Say how much of the encode is there already; reads every input once, writes nothing."""
        digests = self._digests(progress)
        if (self._encodes / _digest(digests)).is_dir():
            return Outlook(done=True, picture_s=self.length_s)
        part = self._parts / digests[0]
        if part.is_dir():
            return Outlook(done=False, picture_s=self.length_s)
        return Outlook(done=False, picture_s=min(encoded_s(_work(part)), self.length_s))

    def encode(self, progress: Progress) -> Encode:
        """Encode what is not there yet.

        Raises:
            UsageError: an input that is not whole.
            LocalError: ``encode_failed``, ``busy``, or a full disk.

        """
        try:
            self._parts.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _only_one(self._encodes):
                digests = self._digests(progress)
                self._sweep(digests)
                folder = self._encodes / _digest(digests)
                reused = folder.is_dir()
                parts = [self._parts / digest for digest in digests]
                for part, source in zip(parts[1:], self._sources, strict=True):
                    if not reused or source.texts:
                        self._part(part, self._maker(source, progress))
                if not reused:
                    self._part(parts[0], lambda work: self._make_picture(work, progress))
                    self._compose(parts, folder)
                    if self._gaps:  # another ffmpeg may do better, once this folder is gone
                        shutil.rmtree(parts[0])
                texts = [
                    (track, (parts[1] / f"{index}.vtt").read_bytes())
                    for index, track in enumerate(self.held.texts)
                ]
        except OSError as error:
            message = f"{self.media} cannot be encoded in {self._encodes}: {error.strerror or error}"
            raise LocalError(message, reason="encode_failed") from error
        progress("encode", self.length_s, self.length_s)
        bitmaps, gaps = self.held.bitmaps, tuple(self._gaps)
        return Encode(folder, reused, self.voices, tuple(texts), bitmaps, self.storyboard, gaps)

    def _extra(self, sound: Companion, loop_to_s: float) -> Source:
        """Look at an extra sound; it must last as long as the film."""
        track, length_s = probe_sound(self._ffmpeg, sound.path)
        if abs(length_s - self.held.duration_s) > SOUND_APART_S:
            message = (
                f"{sound.path} lasts {length_s:.1f} s, the film {self.held.duration_s:.1f} s: sound and "
                "picture would part; name a sound of this very cut"
            )
            raise UsageError(message, reason="bad_sound")
        length_s = 0.0 if loop_to_s else self.held.duration_s
        return Source(sound.path, [track], [], loop_to_s, length_s, SOUND_FORMATS)

    @property
    def _parts(self) -> Path:
        return self._encodes / PARTS

    def _digests(self, progress: Progress) -> list[str]:
        """Hash every input and what is asked of ffmpeg: the picture first, then each source of sounds."""
        inputs = list(dict.fromkeys([self.media, *(source.media for source in self._sources)]))
        total = sum(path.stat().st_size for path in inputs)
        hashes: dict[Path, str] = {}
        done = 0
        for path in inputs:
            digest = hashlib.sha256()
            with path.open("rb", buffering=0) as file:
                while data := file.read(READ_BYTES):
                    digest.update(data)
                    done += len(data)
                    progress("read", done, max(done, total))
            hashes[path] = digest.hexdigest()
        picture = [*self.picture.outputs(0, self.picture.first_frame(1), 0), f"{self.picture.loop_to_s:g}"]
        found = [_digest([hashes[self.media], str(SLICE_S), *picture])]
        return found + [_digest([hashes[source.media], *source.outputs()]) for source in self._sources]

    def _sweep(self, digests: Sequence[str]) -> None:
        """Remove what was never finished, but for what can still be gone on from."""
        oldest_s = time.time() - KEEP_WORK_S
        for work in self._parts.glob(".*.work"):
            if work.name[1:-5] not in digests and work.stat().st_mtime < oldest_s:
                shutil.rmtree(work, ignore_errors=True)
        for left in self._encodes.glob(".*.tmp"):
            shutil.rmtree(left, ignore_errors=True)

    def _part(self, part: Path, make: Callable[[Path], None]) -> None:
        """Let ``make`` fill a part's work folder, unless the part is there and whole."""
        if part.is_dir():
            if (part / SIZES).is_file() and (part / SIZES).read_text() == _sizes(part):
                shutil.rmtree(_work(part), ignore_errors=True)  # killed between the rename and this
                return
            shutil.rmtree(part)
        work = _work(part)
        work.mkdir(mode=0o700, exist_ok=True)
        try:
            make(work)
            (work / WHOLE / SIZES).write_text(_sizes(work / WHOLE))
            (work / WHOLE).rename(part)
        except UsageError:  # the same input would only fail again
            shutil.rmtree(work, ignore_errors=True)
            raise
        except BaseException:
            for left in work.iterdir():
                if not left.name.startswith(tuple("0123456789")) or left.name.endswith(".part"):
                    shutil.rmtree(left, ignore_errors=True)
            if not any(work.iterdir()):
                work.rmdir()
            raise
        shutil.rmtree(work, ignore_errors=True)

    def _maker(self, source: Source, progress: Progress) -> Callable[[Path], None]:
        def make(work: Path) -> None:
            def tell(seconds: float) -> None:
                progress("sound", min(seconds, self.length_s), self.length_s)

            encode_sounds(self._ffmpeg, source, work / WHOLE, tell)

        return make

    def _make_picture(self, work: Path, progress: Progress) -> None:
        before_s = encoded_s(work)

        def tell(seconds: float) -> None:
            progress("encode", min(max(seconds, before_s), self.length_s), self.length_s)

        tell(before_s)
        slices = encode_picture(self._ffmpeg, self.picture, work, tell, note=self._gaps.append)
        whole = work / WHOLE
        shutil.rmtree(whole, ignore_errors=True)
        whole.mkdir()
        for folder in slices:
            _link(folder, whole)
        try:
            make_poster(self._ffmpeg, self.media, self.held, whole / POSTER)
        except LocalError as error:  # the film is worth more than its poster
            self._gaps.append(str(error))

    def _compose(self, parts: Sequence[Path], folder: Path) -> None:
        """Link every part's files into one folder; the bytes themselves are on the disk already."""
        work = folder.with_name(f".{folder.name}.tmp")
        work.mkdir(mode=0o700)
        _link(parts[0], work)
        names = iter(self.voices)
        for part, source in zip(parts[1:], self._sources, strict=True):
            for index in range(len(source.sounds)):
                _link(part / str(index), work / next(names).name)
        (work / SIZES).unlink(missing_ok=True)
        work.rename(folder)


def ingest(
    media: Path,
    encodes: Path,
    progress: Progress,
    *,
    preset: str = "",
    loop_to_s: float = 0,
    program: str = "",
    sounds: Sequence[Companion] = (),
) -> Encode:
    """Encode ``media`` below ``encodes``, or find that it was encoded before; see ``Ingest``.

    Raises:
        UsageError: what ``Ingest`` or ``Ingest.encode`` raises.
        LocalError: likewise.

    """
    asked = Ingest(media, encodes, preset=preset, loop_to_s=loop_to_s, program=program, sounds=sounds)
    return asked.encode(progress)


def _voices(spoken: Sequence[tuple[str, str]]) -> list[Voice]:
    """Name the folders of a film's sounds: ``audio`` for the first, whatever it is, then by language."""
    voices: list[Voice] = []
    for index, (language, label) in enumerate(spoken):
        name = f"audio-{language.lower() or 'other'}" if index else "audio"
        taken = {voice.name for voice in voices}
        number = 2
        plain = name
        while name in taken:
            name, number = f"{plain}-{number}", number + 1
        voices.append(Voice(name, language, label))
    return voices


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join([str(VERSION), *parts]).encode()).hexdigest()[:32]


def _work(part: Path) -> Path:
    return part.with_name(f".{part.name}.work")


def _sizes(folder: Path) -> str:
    """List a folder's files with their sizes: one that was cut short later is told from it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SIZES)
    return "".join(f"{path.stat().st_size} {path.relative_to(folder).as_posix()}\n" for path in files)


def _link(source: Path, target: Path) -> None:
    """Link every file below ``source`` into ``target``; where both have one it must be the same."""
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            if place.read_bytes() != path.read_bytes():
                message = (
                    f"{place.name} differs between two parts of {source.parent}; delete it and publish again"
                )
                raise LocalError(message, reason="damaged")
            continue
        try:
            place.hardlink_to(path)
        except OSError:  # a file system without links
            shutil.copyfile(path, place)


@contextmanager
def _only_one(encodes: Path) -> Generator[None]:
    """Hold the folder's lock: two ingests of one film would spoil each other's work."""
    with (encodes / ".lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"another film is being encoded in {encodes}; wait until that is done"
            raise LocalError(message, reason="busy") from error
        yield
