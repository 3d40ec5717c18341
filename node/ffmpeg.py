"""Finding ffmpeg: the one on PATH, else the binary that the extra ``origin`` brings."""

from __future__ import annotations

import shutil
import subprocess
from functools import lru_cache

from ..mesh.child.environment import passed_on
from ..protocol.errors import UsageError

PROBE_TIMEOUT_S = 30.0


@lru_cache(maxsize=8)
def find_ffmpeg(program: str = "") -> str:
    """Return an ``ffmpeg`` with H.264 and AAC: ``program`` if named, else PATH's, else the extra's.

    Raises:
        UsageError: ``no_ffmpeg``, with what to install.

    """
    for candidate in [program] if program else [shutil.which("ffmpeg"), _bundled()]:
        if candidate and _can_encode(candidate):
            return candidate
    found = f"{program} is no ffmpeg with libx264 and aac" if program else "there is no ffmpeg with libx264"
    message = f"{found}: install it (apt install ffmpeg), or Farcast's extra: pip install 'farcast[origin]'"
    raise UsageError(message, reason="no_ffmpeg")


def _bundled() -> str | None:
    try:
        import imageio_ffmpeg  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
    except ImportError:
        return None
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:  # no binary for this platform
        return None


def _can_encode(program: str) -> bool:
    command = [program, "-hide_banner", "-encoders"]
    try:
        done = subprocess.run(
            command, capture_output=True, check=False, timeout=PROBE_TIMEOUT_S, env=passed_on()
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return b" libx264 " in done.stdout and b" aac " in done.stdout
