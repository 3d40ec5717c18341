"""Cutting: one fragmented MP4 that ffmpeg wrote becomes an init segment and numbered media segments."""

from __future__ import annotations

from fractions import Fraction
from mmap import ACCESS_READ, mmap
from pathlib import Path

from ...protocol.errors import LocalError, RemoteError
from .fragments import parse_fragment, parse_init, retimed, split
from .playlist import INIT, segment_name


def cut_track(whole: Path, folder: Path, start: Fraction = Fraction(0), number: int = 0) -> int:
    """Cut ``whole`` into ``folder`` and delete it; returns how many samples it had.

    Its first segment gets ``number``, and its times move to ``start`` seconds into the film.

    Raises:
        LocalError: ``encode_failed`` where it is no MP4 of ours, or empty.

    """
    samples = 0
    try:
        with whole.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            ranges = split(data)
            head = data[slice(*next(ranges))]
            init = parse_init(head)
            ticks = _whole(start * init.timescale)
            for index, (first, end) in enumerate(ranges, start=number):
                segment = retimed(data[first:end], ticks, index + 1)
                samples += parse_fragment(segment, len(segment), init).samples
                path = folder / segment_name(index)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(segment)
        if samples:
            (folder / INIT).write_bytes(head)
    except (RemoteError, ValueError, StopIteration) as error:  # mmap refuses an empty file: a ValueError
        message = f"ffmpeg wrote no usable {whole.name}: {error}"
        raise LocalError(message, reason="encode_failed") from error
    if not samples:
        raise LocalError(f"ffmpeg found nothing for {whole.name}", reason="encode_failed")
    whole.unlink()
    return samples


def _whole(ticks: Fraction) -> int:
    if ticks.denominator != 1:
        reason = f"its start is {ticks} ticks, no whole number"
        raise ValueError(reason)
    return int(ticks)
