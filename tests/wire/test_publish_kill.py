"""``farcast origin publish`` under SIGKILL: it goes on where it was, and its title is the same."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from farcast.node.ffmpeg import find_ffmpeg

FILM_S = 500
"""Three slices of four minutes, the last of them not full."""
KILLS = 3
DEADLINE_S = 200.0
ROOT = Path(__file__).resolve().parents[2]


def farcast(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "farcast", *arguments]


def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("FARCAST_")}
    return {**kept, "PYTHONPATH": str(ROOT / ".src")}


def run(*arguments: str) -> str:
    return subprocess.run(
        farcast(*arguments), check=True, capture_output=True, text=True, timeout=DEADLINE_S, env=environment()
    ).stdout


def make_origin(home: Path) -> Path:
    run("origin", "init", "--name", "Kill", "--endpoint", "127.0.0.1:7433", "--home", str(home))
    run("origin", "payee", "add", "ada", "--home", str(home))
    return home


def blocks_of(home: Path) -> set[str]:
    """Return the names of the blocks in a store."""
    return {one.name for one in (home / "blocks").rglob("*") if one.is_file()}


def working_in(folder: Path) -> list[str]:
    """Return the programs whose working folder lies in ``folder``."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if folder in (process / "cwd").readlink().parents:
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mkv"
    source = [
        "-f",
        "lavfi",
        "-i",
        f"testsrc2=s=64x64:r=8:d={FILM_S}",
        "-f",
        "lavfi",
        "-i",
        f"sine=d={FILM_S}",
    ]
    command = [find_ffmpeg(), "-loglevel", "error", *source, "-c:v", "mpeg4", "-c:a", "pcm_s16le", str(path)]
    subprocess.run(command, check=True, timeout=DEADLINE_S, stdin=subprocess.DEVNULL)
    return path


@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
@pytest.mark.parametrize("seed", [1])
def test_an_encode_killed_at_any_moment_goes_on_and_gives_the_same_title(
    film: Path, tmp_path: Path, seed: int
) -> None:
    words = ["origin", "publish", str(film), "--payee", "ada", "--preset", "ultrafast", "--json", "--home"]
    calm = make_origin(tmp_path / "calm")
    started = time.monotonic()
    undisturbed = json.loads(run(*words, str(calm)))
    whole_s = time.monotonic() - started
    shaken = make_origin(tmp_path / "shaken")
    rng = random.Random(seed)
    killed = 0
    result: dict[str, object] = {}
    deadline = time.monotonic() + DEADLINE_S
    while not result:
        assert time.monotonic() < deadline, f"{killed} kills, and no end"
        with subprocess.Popen(
            farcast(*words, str(shaken)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
        ) as publishing:
            try:
                limit_s = rng.uniform(0.3, 0.8) * whole_s if killed < KILLS else None
                out, err = publishing.communicate(timeout=limit_s)
            except subprocess.TimeoutExpired:
                publishing.kill()
                publishing.communicate()
                killed += 1
                time.sleep(0.2)
                assert not working_in(tmp_path), "an encoder outlived its publish"
                continue
        assert publishing.returncode == 0, err.decode()
        result = json.loads(out)
    assert killed >= 1
    assert result["root_cid"] == undisturbed["root_cid"]
    own = {str(one["manifest_cid"]) for one in (result, undisturbed)}  # each names the time of its publish
    assert blocks_of(calm) - blocks_of(shaken) <= own
    assert not list((shaken / "encodes" / ".parts").glob(".*"))
