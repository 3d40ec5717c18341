"""The film the demo makes on the spot: moving test pictures with a clock in them, and sound."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ...protocol.errors import LocalError
from ..ffmpeg import find_ffmpeg

SIZE, FRAMES_PER_S, SOUND_HZ = "640x360", 25, 440
TIMEOUT_S = 120.0


def draw_film(path: Path, seconds: int) -> None:
    """Write a film of ``seconds`` to ``path``; raises ``LocalError`` where ffmpeg is missing or fails."""
    command = [
        find_ffmpeg(), "-hide_banner", "-loglevel", "error", "-y",
        "-f", "lavfi", "-i", f"testsrc2=size={SIZE}:rate={FRAMES_PER_S}:duration={seconds}",
        "-f", "lavfi", "-i", f"sine=frequency={SOUND_HZ}:sample_rate=48000:duration={seconds}",
        "-c:v", "libx264", "-preset", "ultrafast", "-crf", "30", "-pix_fmt", "yuv420p",
        "-c:a", "aac", "-b:a", "64k", "-ac", "2", "-shortest", str(path),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise LocalError(f"ffmpeg could not make the film: {lines[-1]}", reason="ffmpeg")
