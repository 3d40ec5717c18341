"""Subtitles: SubRip and WebVTT in, one plain WebVTT file out, the same on every machine.

Pure. Formats: W3C WebVTT (Candidate Recommendation, sections 4 and 6); SubRip as players read it.
Comments, styles, regions and cue names are left out; what a cue says and where it stands is kept.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

SIZE_LIMIT_BYTES = 4 << 20
CUES_LIMIT = 100_000

_TIME = r"(?:(\d{1,3}):)?([0-5]?\d):([0-5]\d)[.,](\d{3})"
_TIMING = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s+(.*))?\s*")
_SETTING = re.compile(
    r"vertical:(?:rl|lr)|line:-?[\d.]+%?(?:,(?:start|center|end))?|align:(?:start|center|end|left|right)"
    r"|position:[\d.]+%(?:,(?:line-left|center|line-right))?|size:[\d.]+%"
)
_TAG = re.compile(r"</?[biu]>", re.IGNORECASE)
_FOREIGN_TAG = re.compile(r"</?(?:font|s|span|br)\b[^>\n]*>", re.IGNORECASE)
_OVERRIDE = re.compile(r"\{\\[^}\n]*\}")
_ENTITY = re.compile(r"&(?!(?:amp|lt|gt|nbsp|lrm|rlm|quot|#\d+|#x[0-9a-f]+);)", re.IGNORECASE)
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_AT_TOP, _TOP = re.compile(r"\{\\an[789]\}"), "line:0"


class Cue(NamedTuple):
    """One piece of text and when it is shown; ``settings`` is WebVTT's."""

    start_ms: int
    end_ms: int
    settings: str
    text: str


def parse_subtitles(data: bytes) -> list[Cue]:
    """Read a whole SubRip or WebVTT file, cues in the order of time.

    Raises:
        ValueError: one clause that says what is wrong, to stand behind the file's name.

    """
    if len(data) > SIZE_LIMIT_BYTES:
        reason = f"is over {SIZE_LIMIT_BYTES >> 20} MiB, too long for subtitles"
        raise ValueError(reason)
    lines = _decoded(data).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    is_webvtt = lines[0].split(maxsplit=1)[:1] == ["WEBVTT"]
    cues = [cue for cue in _cues(lines, is_webvtt=is_webvtt) if cue.end_ms > cue.start_ms and cue.text]
    if not cues:
        reason = "has no cue in it: it must be SubRip (.srt) or WebVTT (.vtt) text"
        raise ValueError(reason)
    return sorted(cues, key=lambda cue: cue.start_ms)


def within(cues: Sequence[Cue], length: Fraction) -> list[Cue]:
    """Return the cues that begin in a film of ``length`` seconds, none longer than it."""
    end_ms = int(length * 1000)
    return [cue._replace(end_ms=min(cue.end_ms, end_ms)) for cue in cues if cue.start_ms < end_ms]


def webvtt(cues: Sequence[Cue]) -> str:
    """Write a WebVTT file."""
    blocks = ["WEBVTT\n"]
    for cue in cues:
        settings = f" {cue.settings}" if cue.settings else ""
        blocks.append(f"{clock(cue.start_ms)} --> {clock(cue.end_ms)}{settings}\n{cue.text}\n")
    return "\n".join(blocks)


def clock(time_ms: int) -> str:
    """Write a WebVTT timestamp, hours always."""
    seconds, milli = divmod(time_ms, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{milli:03d}"


def _decoded(data: bytes) -> str:
    found = ((name, len(mark)) for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark))
    encoding, skipped = next(found, ("utf-8", 0))
    try:
        text = data[skipped:].decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        reason = f"is not UTF-8 text (line {line}): save it as UTF-8, or `iconv -f WINDOWS-1252 -t UTF-8` it"
        raise ValueError(reason) from error
    if "\0" in text:
        reason = "is no text: it has zero bytes in it"
        raise ValueError(reason)
    return text


def _cues(lines: Sequence[str], *, is_webvtt: bool) -> Iterator[Cue]:
    """Walk the blocks between empty lines.

    A block without a time is a comment or style in WebVTT; in SubRip it goes on with the cue before it.
    """
    at, count = 0, 0
    while is_webvtt and at < len(lines) and lines[at].strip():  # the header
        at += 1
    held: Cue | None = None
    while at < len(lines):
        first = at
        while at < len(lines) and lines[at].strip():
            at += 1
        block, at = lines[first:at], at + 1
        timed = next((index for index, line in enumerate(block) if "-->" in line), None)
        if timed is None and block and held is not None and not is_webvtt:
            held = held._replace(text="\n".join([held.text, *block]))
        elif block and (timed is not None or not is_webvtt):
            if held is not None:
                yield _finished(held, is_webvtt=is_webvtt)
            held, count = _cue(block, timed, first), count + 1
            if count > CUES_LIMIT:
                reason = f"has more than {CUES_LIMIT} cues"
                raise ValueError(reason)
    if held is not None:
        yield _finished(held, is_webvtt=is_webvtt)


def _cue(block: Sequence[str], timed: int | None, first: int) -> Cue:
    match = _TIMING.fullmatch(block[timed]) if timed in (0, 1) else None  # a name or number may stand before
    if match is None or timed is None:
        number = first + (timed or 0) + 1
        reason = f"has no time at line {number}, where one like 00:01:02,500 --> 00:01:04,000 is due"
        raise ValueError(reason)
    times = match.groups()
    text = "\n".join(line.rstrip() for line in block[timed + 1 :])
    return Cue(_milliseconds(times[:4]), _milliseconds(times[4:8]), match[9] or "", text)


def _finished(cue: Cue, *, is_webvtt: bool) -> Cue:
    """Keep the settings that WebVTT knows, and turn SubRip's text into WebVTT's."""
    settings = [one for one in cue.settings.split() if is_webvtt and _SETTING.fullmatch(one)]
    text = _ENTITY.sub("&amp;", cue.text)
    if not is_webvtt:
        if _AT_TOP.search(text):
            settings = [_TOP]
        text = _escaped(text)
    return cue._replace(settings=" ".join(settings), text=text.strip().replace("-->", "--&gt;"))


def _milliseconds(parts: Sequence[str | None]) -> int:
    hours, minutes, seconds, milli = (int(part or 0) for part in parts)
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + milli


def _escaped(text: str) -> str:
    """Turn SubRip's text into WebVTT's: ``b``, ``i`` and ``u`` stay, other tags go, signs are escaped."""
    text = _FOREIGN_TAG.sub("", _OVERRIDE.sub("", text))
    parts: list[str] = []
    at = 0
    for tag in _TAG.finditer(text):
        parts += [text[at : tag.start()].replace("<", "&lt;"), tag[0].lower()]
        at = tag.end()
    lines = "".join([*parts, text[at:].replace("<", "&lt;")]).split("\n")
    return "\n".join(line for line in lines if line.strip())
