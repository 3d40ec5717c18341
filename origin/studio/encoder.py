"""One run of ffmpeg: watched while it works, gone with whoever started it, its complaint one sentence."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from ...mesh.child.environment import passed_on
from ...protocol.errors import LocalError, StoreFullError, UsageError
from .probe import complaint

STALL_S, LOOK_S = 300.0, 0.5
"""How long ffmpeg may make nothing; how often it is looked whether it is still wanted."""
LOG_LIMIT_BYTES = 16 << 20
LEAST_FREE_BYTES = 1 << 20

_LEASH = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Becomes ffmpeg, having asked the kernel (prctl(2), PR_SET_PDEATHSIG) to kill it once its parent is dead:
an encoder that outlives its publish would work on for nothing."""


def run_encoder(
    ffmpeg: str,
    arguments: Sequence[str],
    work: Path,
    media: Path,
    done: Callable[[float], None],
    stop: threading.Event | None = None,
    skipped_s: float = 0.0,
) -> None:
    """Run ffmpeg in ``work`` and tell how many seconds of film it has made; ``stop`` ends it early.

    ``skipped_s`` is how much of the film it decodes before it makes anything.

    Raises:
        UsageError: ``cut_short``, where ``media`` ends before its container says.
        LocalError: ``encode_failed``, ``disk_full``, or ``stopped``.

    """
    log = work / "ffmpeg.log"
    command = [ffmpeg, "-hide_banner", "-nostdin", "-loglevel", "error", "-y"]
    command += ["-progress", "pipe:1", "-nostats", *arguments]
    if sys.platform == "linux":
        command = [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), *command]
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command,
            cwd=work,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=passed_on(),
        ) as process,
    ):
        try:
            assert process.stdout is not None
            for seconds in _times(process.stdout, media, stop or threading.Event(), STALL_S + skipped_s):
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


def _times(pipe: IO[bytes], media: Path, stop: threading.Event, stall_s: float) -> Iterator[float]:
    """Yield ``out_time_us`` of ffmpeg's report in seconds; ``stall_s`` without a frame is an error."""
    rest, moved = b"", time.monotonic()
    seen: dict[bytes, bytes] = {}
    while True:
        ready, _, _ = select.select([pipe], [], [], LOOK_S)
        if stop.is_set():
            raise LocalError(f"the encode of {media} was stopped", reason="stopped")
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
        if time.monotonic() - moved > stall_s:
            message = f"ffmpeg made nothing of {media} for {stall_s:.0f} s and was stopped"
            raise LocalError(message, reason="encode_failed")
