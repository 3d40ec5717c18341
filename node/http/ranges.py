"""Ranges and conditions: what of an answer a client asked for (RFC 9110 sections 13 and 14)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .exchange import Answer

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)
_TAG = re.compile(r'(?:W/)?("[^"]*")')


class FilePart(NamedTuple):
    """A part of a file on disk: ``length`` bytes from ``offset``."""

    path: str
    offset: int
    length: int


class Span(NamedTuple):
    """A satisfiable range: ``length`` bytes from ``first``."""

    first: int
    length: int


def negotiate(answer: Answer, method: str, headers: Mapping[str, str]) -> Answer:
    """Apply If-None-Match, Range and If-Range to a 200 answer; the given answer is not changed.

    Only bodies of file parts, or of bytes marked ``accept-ranges: bytes``, are served in ranges.
    A request for several ranges gets the whole (RFC 9110 section 14.2 allows that).
    """
    if answer.status != 200 or method not in ("GET", "HEAD"):  # noqa: PLR2004 - OK
        return answer
    tag = answer.headers.get("etag", "")
    if tag and _any_match(headers.get("if-none-match", ""), tag):
        kept = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
        return _copy(answer, 304, kept, b"")
    wanted = headers.get("range")
    if wanted is None or method == "HEAD" or not _still(headers.get("if-range"), tag):
        return answer
    return _part(answer, wanted)


def parse_range(text: str, total: int) -> Span | None:
    """Read a single byte range of a body of ``total`` bytes; length 0 where it cannot be satisfied.

    None where the field is malformed or asks for several ranges: it is then ignored.
    """
    match = _RANGE.fullmatch(text.strip())
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        length = min(int(match[2]), total)
        return Span(total - length, length)
    first = int(match[1])
    last = int(match[2]) if match[2] else total - 1
    if match[2] and last < first:
        return None
    if first >= total:
        return Span(0, 0)
    return Span(first, min(last, total - 1) - first + 1)


def cut(parts: Sequence[FilePart], span: Span) -> list[FilePart]:
    """Return what of ``parts``, laid end to end, lies in ``span``."""
    skip, left = span
    kept: list[FilePart] = []
    for part in parts:
        if skip >= part.length:
            skip -= part.length
            continue
        length = min(part.length - skip, left)
        if length:
            kept.append(FilePart(part.path, part.offset + skip, length))
        skip, left = 0, left - length
        if not left:
            break
    return kept


def content_tag(data: bytes) -> str:
    """Return a strong entity tag of ``data`` that every box makes alike (RFC 9110 section 8.8.3)."""
    return f'"{sha256(data).hexdigest()[:32]}"'


def part_bytes(parts: Sequence[FilePart]) -> int:
    """Return how many bytes ``parts`` are together."""
    return parts[0].length if len(parts) == 1 else sum(part.length for part in parts)


def _part(answer: Answer, wanted: str) -> Answer:
    body, total = answer.body, answer.length
    ranged = not isinstance(body, bytes) or "accept-ranges" in answer.headers
    span = parse_range(wanted, total) if total is not None and ranged else None
    if span is None or isinstance(body, AsyncIterator):
        return answer
    kept = {name: value for name, value in answer.headers.items() if name != "content-length"}
    if not span.length:
        kept |= {"content-range": f"bytes */{total}", "cache-control": "no-store"}
        return _copy(answer, 416, kept, b"")
    kept["content-range"] = f"bytes {span.first}-{span.first + span.length - 1}/{total}"
    if isinstance(body, bytes):
        return _copy(answer, 206, kept, body[span.first : span.first + span.length])
    return _copy(answer, 206, kept, cut(body, span))


def _any_match(field: str, tag: str) -> bool:
    # weak comparison (RFC 9110 section 13.1.2)
    return field.strip() == "*" or tag.removeprefix("W/") in _TAG.findall(field)


def _still(if_range: str | None, tag: str) -> bool:
    # strong comparison; a date is never strong here (RFC 9110 section 13.1.5)
    return if_range is None or (if_range == tag and not tag.startswith("W/"))


def _copy(answer: Answer, status: int, headers: dict[str, str], body: bytes | list[FilePart]) -> Answer:
    return type(answer)(status, headers, body)
