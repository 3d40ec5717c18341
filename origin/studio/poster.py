"""The poster of a film: one picture out of it."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

from ...mesh.child.environment import passed_on
from ...protocol.errors import LocalError
from .ladder import even
from .probe import Probe, complaint, media_arguments

POSTER = "poster.jpg"
POSTER_TIMEOUT_S = 120


def make_poster(ffmpeg: str, media: Path, held: Probe, path: Path) -> None:
    """Take a picture from a tenth into the film, or its first where there is none so late."""
    scale = min(Fraction(1), Fraction(1280, max(held.width, held.height)))
    width, height = even(held.width * scale, held.width), even(held.height * scale, held.height)
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
                env=passed_on(),
            )
        except subprocess.TimeoutExpired:
            continue
        if path.exists() and path.stat().st_size:
            return
        error = complaint(done.stderr.decode(errors="replace")) or error
    raise LocalError(f"no poster could be made of {media}: {error}", reason="encode_failed")
