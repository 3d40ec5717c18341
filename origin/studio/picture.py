"""The picture of a film: every rung of its ladder and the storyboard, encoded slice by slice.

A slice is four minutes, whole segments, encoded by a run of ffmpeg of its own that knows nothing of the
others; so a slice has the same bytes whenever it is made, and an encode that was killed goes on with
the slice it was at. A slice is built in a folder ``NNNN.part`` and renamed ``NNNN``, or ``NNNN-last``
for the one the film ends in, once it is whole and on the disk. A storyboard that cannot be made is left out.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from math import ceil
from pathlib import Path
from typing import NamedTuple

from ...protocol.errors import LocalError
from .cmaf import cut_track
from .encoder import run_encoder
from .ladder import Rung
from .playlist import Storyboard
from .probe import Probe, media_arguments

SEGMENT_S = 2
SLICE_S = 240
"""A multiple of what any sheet of the storyboard covers, and of a segment."""
THREADS = 1
"""Per rendition: with more, x264's rate control looks at how far the others are, so its bytes depend on
the machine's load. What is left of the cores encodes other slices."""
CORES_PER_SLICE, MOST_SLICES = 2, 4
LAST = "-last"
BACK_S = 2
"""How far before a slice decoding begins at the latest, for films that do not begin a frame on time."""

Done = Callable[[float], None]
"""Called with how many seconds of film are encoded."""
Note = Callable[[str], object]
"""Called with why the storyboard cannot be made."""


class Picture(NamedTuple):
    """What is to be encoded: ``loop_to_s`` is 0 for a film that plays once."""

    media: Path
    held: Probe
    rungs: tuple[Rung, ...]
    storyboard: Storyboard
    preset: str
    loop_to_s: float
    bare: bool = False
    """Without the storyboard."""

    @property
    def frames(self) -> int | None:
        """How many frames a looped film has; of another one only its last slice tells."""
        return ceil(self.loop_to_s * self.held.frames_per_s) if self.loop_to_s else None

    def surely_has(self, index: int) -> bool:
        """Say whether the film lasts to the end of a slice, by what its container says."""
        return (index + 1) * SLICE_S < (self.loop_to_s or self.held.duration_s)

    def first_frame(self, index: int) -> int:
        """Return the number of a slice's first frame: the first not before the slice's time."""
        return ceil(index * SLICE_S * self.held.frames_per_s)

    def arguments(self, index: int) -> list[str]:
        """Return what makes slice ``index`` (from 0), input included."""
        first, end = self.first_frame(index), self.first_frame(index + 1)
        end = min(end, self.frames or end)
        return [*self.source(index), *self.outputs(first, end, index)]

    def outputs(self, first: int, end: int, index: int) -> list[str]:
        """Return what makes the frames from ``first`` to before ``end``; it also names them for reuse."""
        cut = f"trim=start_frame={first}:end_frame={end},setpts=PTS-STARTPTS"
        split_ = f"split={len(self.rungs)}" + "".join(f"[s{number}]" for number in range(len(self.rungs)))
        chains = [f"[0:{self.held.video}]fps={self.held.frames_per_s}:start_time=0,{cut},{split_}"]
        outputs: list[str] = []
        plain = ["-map_metadata", "-1", "-map_chapters", "-1", "-fflags", "+bitexact"]
        gop = str(ceil(self.held.frames_per_s * SEGMENT_S) + 1)
        for number, rung in enumerate(self.rungs):
            scale = f"scale={rung.width}:{rung.height}:flags=bicubic,setsar=1,format=yuv420p"
            ends = f"[v{number}]"
            if number == len(self.rungs) - 1 and not self.bare:
                ends = f",split=2[v{number}][small]"
            chains.append(f"[s{number}]{scale}{ends}")
            outputs += ["-map", f"[v{number}]", "-c:v", "libx264", "-preset", self.preset, "-crf", "23"]
            outputs += ["-maxrate", f"{rung.kbit_s}k", "-bufsize", f"{2 * rung.kbit_s}k"]
            outputs += ["-threads", str(THREADS), "-flags", "+cgop+bitexact", "-sc_threshold", "0", "-g", gop]
            outputs += ["-force_key_frames", f"expr:gte(t,n_forced*{SEGMENT_S})", *plain]
            outputs += ["-movflags", "+cmaf+empty_moov+frag_keyframe+skip_trailer", "-f", "mp4"]
            outputs.append(f"{rung.name}.mp4")
        if self.bare:
            return ["-filter_complex", ";".join(chains), *outputs]
        board = self.storyboard
        chains.append(
            f"[small]select='gte(t,selected_n*{board.interval_s})',"
            f"scale={board.width}:{board.height}:flags=bicubic,setsar=1,format=yuvj420p,"
            f"tile={board.columns}x{board.rows},settb=1,setpts=N[board]"
        )
        outputs += ["-map", "[board]", "-c:v", "mjpeg", "-q:v", "5", "-r", "1", "-flags", "+bitexact", *plain]
        outputs += ["-start_number", str(index * SLICE_S // board.sheet_s), "-f", "image2"]
        outputs.append(f"{board.name}/%05d.jpg")
        return ["-filter_complex", ";".join(chains), *outputs]

    def source(self, index: int) -> list[str]:
        """Open the film near a slice where it has an index; elsewhere decode it from the start."""
        if self.loop_to_s:
            return ["-stream_loop", "-1", *media_arguments(self.media)]
        near_s = index * SLICE_S - BACK_S
        if not self.held.is_seekable or near_s <= 0:
            return media_arguments(self.media)
        # times stay the film's own, so that the same frames are chosen as in one run over all of it
        times = ["-copyts", "-start_at_zero", "-noaccurate_seek", "-ss", str(near_s)]
        return [*times, *media_arguments(self.media)]


def encode_picture(
    ffmpeg: str, picture: Picture, work: Path, done: Done, workers: int | None = None, note: Note = str
) -> list[Path]:
    """Make every slice that is not in ``work`` yet, ``workers`` at a time; returns their folders in order.

    Where the storyboard fails, ``note`` hears why, and slices are made without it.

    Raises:
        LocalError: ``encode_failed``, or a full disk; slices that are whole stay.
        UsageError: the film is not whole.

    """
    for left in work.glob("*.part"):
        shutil.rmtree(left, ignore_errors=True)
    workers = workers or max(1, min((os.cpu_count() or 1) // CORES_PER_SLICE, MOST_SLICES))
    tally = _Tally(done, note)
    slices: list[Path] = []
    with ThreadPoolExecutor(workers) as pool:
        running: dict[int, Future[Path]] = {}
        try:
            while not slices or not slices[-1].name.endswith(LAST):
                index = len(slices)
                # ahead of its turn only a slice that the film surely fills
                wanted = [index, *(i for i in range(index + 1, index + workers) if picture.surely_has(i))]
                for each in wanted:
                    if each not in running:
                        running[each] = pool.submit(_slice, ffmpeg, picture, each, work, tally)
                slices.append(running.pop(index).result())
        finally:
            tally.stop.set()  # an error, or slices behind a film that was shorter than it said
    for left in [*work.glob("*.part"), *(one for one in work.glob("[0-9]*") if one not in slices)]:
        shutil.rmtree(left, ignore_errors=True)
    return slices


class _Tally:
    """How many seconds of film the slices at work have made, and if they are ``bare``; ``stop`` ends them."""

    def __init__(self, done: Done, note: Note) -> None:
        self._done, self._note = done, note
        self.bare = False
        self._made: dict[int, float] = {}
        self._lock = threading.Lock()
        self.stop = threading.Event()

    def add(self, index: int, seconds: float) -> None:
        with self._lock:
            self._made[index] = max(seconds, self._made.get(index, 0.0))
            self._done(sum(self._made.values()))

    def strip(self, why: str) -> None:
        with self._lock:
            if not self.bare:
                self._note(why)
            self.bare = True


def encoded_s(work: Path) -> float:
    """Return how many seconds of film lie in ``work`` as whole slices."""
    index = 0
    while (work / f"{index:04d}").is_dir():
        index += 1
    return float(index * SLICE_S)


def _slice(ffmpeg: str, picture: Picture, index: int, work: Path, tally: _Tally) -> Path:
    """Return the folder of a slice that is whole, made now if need be."""
    name = f"{index:04d}"
    for whole in (work / name, work / f"{name}{LAST}"):
        if whole.is_dir():
            tally.add(index, SLICE_S)
            return whole
    part = work / f"{name}.part"
    (part / picture.storyboard.name).mkdir(parents=True)
    try:
        frames = _frames(ffmpeg, picture, index, part, tally)
    except LocalError as error:  # where no frame is left, some versions of ffmpeg say so as an error
        if any(part.rglob("*.m4s")) or error.reason != "encode_failed":
            raise
        ended = index and _ends_before(ffmpeg, picture, index, part, tally)
        shutil.rmtree(part)
        part.mkdir()
        frames = 0 if ended else _barely(ffmpeg, picture, index, part, tally, error)
    wanted = picture.first_frame(index + 1)
    is_last = frames < wanted - picture.first_frame(index) or wanted == picture.frames
    whole = work / (f"{name}{LAST}" if is_last else name)
    os.sync()  # what the final name promises is on the disk before the name is
    part.rename(whole)
    tally.add(index, SLICE_S)
    return whole


def _barely(ffmpeg: str, picture: Picture, index: int, part: Path, tally: _Tally, error: LocalError) -> int:
    """Encode a slice once more without the storyboard; raises ``error`` where that was not what failed."""
    try:
        frames = _frames(ffmpeg, picture._replace(bare=True), index, part, tally)
    except LocalError:
        raise error from None
    tally.strip(str(error))
    return frames


def _frames(ffmpeg: str, picture: Picture, index: int, part: Path, tally: _Tally) -> int:
    """Encode a slice and cut it into segments; returns its frames, the same in every rung."""

    def tell(seconds: float) -> None:
        tally.add(index, min(seconds, SLICE_S))

    skipped_s = float(index * SLICE_S)
    picture = picture._replace(bare=picture.bare or tally.bare)
    run_encoder(ffmpeg, picture.arguments(index), part, picture.media, tell, tally.stop, skipped_s)
    start = picture.first_frame(index) / picture.held.frames_per_s
    number = index * SLICE_S // SEGMENT_S
    frames = {cut_track(part / f"{rung.name}.mp4", part / rung.name, start, number) for rung in picture.rungs}
    if len(frames) != 1:
        raise LocalError(f"ffmpeg lost frames of {picture.media}", reason="encode_failed")
    return frames.pop()


def _ends_before(ffmpeg: str, picture: Picture, index: int, part: Path, tally: _Tally) -> bool:
    """Say whether the film has the frame before slice ``index`` and none after it."""
    first = picture.first_frame(index)
    peek = f"[0:{picture.held.video}]fps={picture.held.frames_per_s}:start_time=0"
    peek += (
        f",trim=start_frame={first - 1}:end_frame={first + 1},setpts=PTS-STARTPTS,scale=2:2,format=gray[peek]"
    )
    outputs = ["-filter_complex", peek, "-map", "[peek]", "-c:v", "rawvideo", "-f", "rawvideo", "peek"]
    look, skipped_s = [*picture.source(index), *outputs], float(index * SLICE_S)
    run_encoder(ffmpeg, look, part, picture.media, lambda _: None, tally.stop, skipped_s)
    return (part / "peek").stat().st_size == 2 * 2
