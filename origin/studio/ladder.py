"""The ladder: the sizes in which a film is encoded."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

HEIGHTS = (2160, 1440, 1080, 720, 480, 360, 240)
LEAST_SIDE = 8


class Rung(NamedTuple):
    """One size of the ladder; ``kbit_s`` caps its bit rate."""

    name: str
    width: int
    height: int
    kbit_s: int


def ladder(width: int, height: int, frames_per_s: Fraction) -> list[Rung]:
    """Return the sizes a film is encoded in, largest first: at least two, none above the source.

    Every rung fits a 16:9 box of the usual heights (9:16 for an upright film); a source that lies
    well between two boxes, or under the smallest, keeps its own size as the top.
    """
    landscape = width >= height
    long, short = (width, height) if landscape else (height, width)
    scales = [min(Fraction(box * 16, 9 * long), Fraction(box, short)) for box in HEIGHTS]
    beyond = scales[0] <= 1  # larger than the largest box: that one is the top
    scales = [scale for scale in scales if scale <= 1]
    if not beyond and (not scales or scales[0] < Fraction(85, 100)):
        scales.insert(0, Fraction(1))
    sizes = [(even(width * scale, width), even(height * scale, height)) for scale in scales]
    sizes = sizes[:1] + [size for size in sizes[1:] if min(size) >= LEAST_SIDE]  # no slivers
    if len(sizes) == 1:
        sizes.append((even(Fraction(sizes[0][0], 2), width), even(Fraction(sizes[0][1], 2), height)))
    rungs: list[Rung] = []
    for w, h in dict.fromkeys(sizes):
        # 5.2 Mbit/s for 1080p25; smaller pictures need more bits a pixel, faster ones fewer a frame
        pixels, rate = w * h / (1920 * 1080), float(frames_per_s) / 25
        rungs.append(Rung(f"v{h}", w, h, max(100, round(5200 * pixels**0.75 * rate**0.5))))
    return rungs


def even(exact: Fraction, limit: int) -> int:
    """Return the even number of pixels next to ``exact``: at least 2, at most ``limit``."""
    return max(2, min(2 * round(exact / 2), limit - limit % 2))
