"""Our QR codes before a reader that other people made (ZBar)."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from random import Random

from farcast.node.page.qr import LIMIT_BYTES, QUIET, qr

Need = Callable[..., str]
SCALE = 4
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"


def draw(grid: list[list[int]], file: Path) -> None:
    """Write a grey picture (PGM) with the quiet zone around it."""
    width = (len(grid) + 2 * QUIET) * SCALE
    light = bytes([255]) * width
    lines = [light] * (QUIET * SCALE)
    for row in grid:
        edge = b"\xff" * (QUIET * SCALE)
        lines += [edge + b"".join(bytes([0 if one else 255]) * SCALE for one in row) + edge] * SCALE
    lines += [light] * (QUIET * SCALE)
    file.write_bytes(f"P5 {width} {width} 255\n".encode() + b"".join(lines))


def test_a_reader_reads_every_version_as_it_was_meant(need: Need, tmp_path: Path) -> None:
    zbarimg = need("zbarimg")
    random = Random(7)
    texts = ["a", "http://192.168.1.20:7481/" + "".join(random.choices(LETTERS, k=22)) + "/tv.m3u8"]
    lengths = [14, 15, 26, 42, 43, 62, 84, 106, 122, 152, 180, LIMIT_BYTES]
    texts += ["".join(random.choices(LETTERS, k=length)) for length in lengths for _ in range(3)]
    files = [tmp_path / f"{number:03}.pgm" for number in range(len(texts))]
    for text, file in zip(texts, files, strict=True):
        draw(qr(text), file)
    command = [zbarimg, "--quiet", "--raw", "-Sdisable", "-Sqrcode.enable", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == texts, done.stderr
