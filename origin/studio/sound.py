"""The sounds of a film, each a CMAF track of AAC, and the texts that lie beside them in its file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from .cmaf import cut_track
from .encoder import run_encoder
from .probe import FORMATS, Track, media_arguments

SEGMENT_S = 2
SAMPLES_PER_S = 48_000


class Source(NamedTuple):
    """A file and what is taken from it; sounds become folders ``0``, ``1``, ..., texts ``0.vtt``, ...

    ``loop_to_s`` is 0 for what plays once; ``length_s`` is what the sounds are cut or filled up to,
    0 for as long as they are.
    """

    media: Path
    sounds: Sequence[Track]
    texts: Sequence[Track]
    loop_to_s: float = 0.0
    length_s: float = 0.0
    formats: str = FORMATS

    def outputs(self) -> list[str]:
        """Return what makes all of it; it also names them for reuse."""
        length = ["-t", f"{self.loop_to_s:g}"] if self.loop_to_s else []
        plain = ["-map_metadata", "-1", "-map_chapters", "-1", "-fflags", "+bitexact", *length]
        chains: list[str] = []
        outputs: list[str] = []
        for index, sound in enumerate(self.sounds):
            # the encoder puts 1,024 samples of run-in first; taking as many away keeps lips in time
            trim = "atrim=start_sample=1024,asetpts=PTS-STARTPTS"
            if self.length_s:
                samples = round(self.length_s * SAMPLES_PER_S)
                trim = f"apad,atrim=start_sample=1024:end_sample={samples},asetpts=PTS-STARTPTS"
            chains.append(f"[0:{sound.number}]aresample={SAMPLES_PER_S}:async=1:first_pts=0,{trim}[a{index}]")
            outputs += ["-map", f"[a{index}]", "-c:a", "aac", "-ac", str(sound.channels)]
            outputs += ["-b:a", f"{64 * sound.channels}k", "-flags", "+bitexact", *plain]
            outputs += ["-movflags", "+cmaf+empty_moov+skip_trailer", "-frag_duration", f"{SEGMENT_S}000000"]
            outputs += ["-f", "mp4", f"{index}.mp4"]
        for index, text in enumerate(self.texts):
            outputs += ["-map", f"0:{text.number}", "-c:s", "webvtt", *plain, "-f", "webvtt", f"{index}.vtt"]
        return [*(["-filter_complex", ";".join(chains)] if chains else []), *outputs]


def encode_sounds(ffmpeg: str, source: Source, folder: Path, done: Callable[[float], None]) -> None:
    """Fill ``folder``, which is made anew.

    Raises:
        LocalError: ``encode_failed``, or a full disk.
        UsageError: the file is not whole.

    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    loop = ["-stream_loop", "-1"] if source.loop_to_s else []
    inputs = [*loop, *media_arguments(source.media, source.formats)]
    run_encoder(ffmpeg, [*inputs, *source.outputs()], folder, source.media, done)
    for index in range(len(source.sounds)):
        cut_track(folder / f"{index}.mp4", folder / str(index))
    os.sync()  # whoever renames the folder says that it is whole
