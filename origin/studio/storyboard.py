"""The storyboard: which small pictures of a film lie where on which sheet, and the WebVTT that says so.

Pure. A cue's text is a sheet's path with a spatial fragment (W3C Media Fragments, section 4.2.2).
"""

from __future__ import annotations

from fractions import Fraction

from .playlist import Storyboard
from .subtitles import Cue, webvtt

FOLDER, INDEX = "storyboard", "storyboard.vtt"
COLUMNS, ROWS = 6, 4
LONG_SIDE = 160
INTERVAL_S, SHORT_INTERVAL_S = 10, 2
SHORT_FILM_S = 600
"""A film up to this long has a picture each two seconds, a longer one each ten."""


def plan_storyboard(length_s: float, width: int, height: int) -> Storyboard:
    """Return the storyboard of a film whose smallest rendition is so large; no file of it is made yet."""
    scale = min(Fraction(1), Fraction(LONG_SIDE, max(width, height)))
    interval_s = SHORT_INTERVAL_S if length_s <= SHORT_FILM_S else INTERVAL_S
    wide, high = max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))
    return Storyboard(FOLDER, 0, interval_s, COLUMNS, ROWS, wide, high, 0)


def storyboard_index(storyboard: Storyboard, length: Fraction) -> str:
    """Write the WebVTT of a storyboard: one cue for each picture, to the film's end."""
    end_ms = int(length * 1000)
    each = storyboard.columns * storyboard.rows
    cues: list[Cue] = []
    for number in range(storyboard.pictures):
        start_ms = number * storyboard.interval_s * 1000
        row, column = divmod(number % each, storyboard.columns)
        x, y = column * storyboard.width, row * storyboard.height
        place = f"#xywh={x},{y},{storyboard.width},{storyboard.height}"
        until_ms = min(start_ms + storyboard.interval_s * 1000, max(end_ms, start_ms + 1))
        cues.append(Cue(start_ms, until_ms, "", storyboard.sheet(number // each) + place))
    return webvtt(cues)
