"""Ordinary players on the gateway's plain HLS and DASH addresses."""

from __future__ import annotations

import subprocess

import pytest

from farcast.node.ffmpeg import find_ffmpeg
from farcast.tests.system.served import Served

DECODED = "out_time_us="


@pytest.mark.timeout(240)
@pytest.mark.parametrize("address", ["watch_hls", "watch_dash"])
def test_ffmpeg_plays_the_whole_film_without_an_error(served: Served, address: str) -> None:
    command = [find_ffmpeg(), "-hide_banner", "-nostdin", "-v", "warning", "-xerror", "-progress", "pipe:1"]
    command += ["-i", str(served.urls[address]), "-map", "0", "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    last = [line for line in done.stdout.splitlines() if line.startswith(DECODED)][-1]
    played_s = int(last.removeprefix(DECODED)) / 1e6
    assert played_s == pytest.approx(served.film["duration_s"], abs=0.2)
