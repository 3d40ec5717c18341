"""Packaging an encoded title against one SHA-256 pass over the same files, in interleaved rounds.

Ours reads the segments' boxes, writes the playlists, makes the DAG and stores every block; the peer
is what nobody can do without: hashlib over every byte, once. ``extra.durable_ratio`` is the same
with the wait for the disk that ``publish`` adds before it signs.
Run alone: ``python -m farcast.tests.bench.publish``; ``FARCAST_BENCH_ROUNDS`` sets the rounds.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from prometheus_client import CollectorRegistry

from farcast.node.blocks.store import DiskStore
from farcast.node.ffmpeg import find_ffmpeg
from farcast.origin.studio.ingest import ingest
from farcast.origin.studio.package import package, read_streams, write_playlists
from farcast.tests.bench.figure import Peer, compared

FIGURES = ("publish",)
ROUNDS = 5
FILM_S, LENGTH_S = 4, 60
MIB = 1 << 20


def run(only: Sequence[str] | None = None) -> list[dict[str, object]]:
    """Measure ``publish`` unless ``only`` names other figures; ``ratio`` is ours / peer."""
    if only and "publish" not in only:
        return []
    with tempfile.TemporaryDirectory(prefix="farcast-bench-") as folder:
        return [_measure(Path(folder))]


def _measure(root: Path) -> dict[str, object]:
    rounds = int(os.environ.get("FARCAST_BENCH_ROUNDS", ROUNDS))
    film = root / "film.mp4"
    _make_film(film)
    encode = ingest(film, root / "encodes", _quiet, preset="ultrafast", loop_to_s=LENGTH_S).folder
    size_bytes = _packaged(encode, root / "warm")[0]
    durable: list[float] = []
    _hashed(encode)
    ours: list[float] = []
    peer: list[float] = []
    for index in range(rounds):
        done_bytes, seconds, sync_s = _packaged(encode, root / f"home-{index}")
        ours.append(done_bytes / seconds)
        durable.append(done_bytes / (seconds + sync_s))
        done_bytes, seconds = _hashed(encode)
        peer.append(done_bytes / seconds)
    return compared(
        "publish",
        "bytes/s",
        ours,
        peer,
        Peer("hashlib SHA-256", f"Python {platform.python_version()}, {ssl.OPENSSL_VERSION}"),
        greater_is_better=True,
        extra={
            "title_bytes": size_bytes,
            "files": sum(path.is_file() for path in encode.rglob("*")),
            "durable_ratio": round(median(mine / its for mine, its in zip(durable, peer, strict=True)), 3),
        },
    )


def _packaged(encode: Path, home: Path) -> tuple[int, float, float]:
    """Package the encode into an empty store; returns bytes, seconds, and seconds more until durable."""
    for playlist in encode.rglob("*.m3u8"):
        playlist.unlink()
    store = DiskStore(home, 64 << 30, CollectorRegistry())
    try:
        started = time.perf_counter()
        write_playlists(encode, read_streams(encode), "en")
        packaged = package(encode, store, _quiet)
        seconds = time.perf_counter() - started
        store.sync()
        sync_s = time.perf_counter() - started - seconds
    finally:
        store.close()
        shutil.rmtree(home)
    return packaged.size_bytes, seconds, sync_s


def _hashed(encode: Path) -> tuple[int, float]:
    """Hash every file of the encode once; returns the bytes and the seconds it took."""
    paths = sorted(path for path in encode.rglob("*") if path.is_file())
    digest, size_bytes = hashlib.sha256(), 0
    started = time.perf_counter()
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while data := file.read(MIB):
                digest.update(data)
                size_bytes += len(data)
    return size_bytes, time.perf_counter() - started


def _make_film(path: Path) -> None:
    """Make seconds of lively picture and sound, so that segments have the size of real ones."""
    picture = f"testsrc2=size=1920x1080:rate=25:duration={FILM_S},noise=alls=12:allf=t"
    command = [find_ffmpeg(), "-hide_banner", "-loglevel", "error", "-y", "-f", "lavfi", "-i", picture]
    command += ["-f", "lavfi", "-i", f"sine=frequency=440:duration={FILM_S}", "-c:v", "libx264"]
    command += ["-preset", "ultrafast", "-crf", "18", "-pix_fmt", "yuv420p", "-c:a", "aac", str(path)]
    subprocess.run(command, check=True, timeout=300, stdin=subprocess.DEVNULL)


def _quiet(stage: str, done: float, total: float) -> None:
    """Show nothing: a progress bar would be measured too."""


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(sys.argv[1:] or None), indent=1) + "\n")
