"""CMCD: what a player tells of itself, version 1 and 2, by query, header or event (CTA-5004, CTA-5004-B).

A report is a list of ``key[=value]`` with the values of structured fields (RFC 8941): strings,
tokens, numbers, and in version 2 inner lists. Everything in it is a hint; only what Farcast uses is
kept, and a value of another shape than its key's is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite
from typing import NamedTuple
from urllib.parse import unquote

from .errors import RemoteError

REPORT_LIMIT_CHARS = 8_192
KEYS_LIMIT = 64
EVENTS_LIMIT = 200
NAME_LIMIT_CHARS = 128
HEADERS = ("cmcd-request", "cmcd-object", "cmcd-status", "cmcd-session")
STATES = frozenset("spkrawefqd")
"""starting playing seeking rebuffering paused waiting ended failed quit preloading."""

_ITEM = r'(?:"(?:[^"\\]|\\.)*"|[^\s",;()=]+)'
_PARAMETERS = rf"(?:;[ ]*[^\s\",;()=]+(?:={_ITEM})?)*"
_KEY = re.compile(r"[ ]*([A-Za-z*][A-Za-z0-9_.*-]*)")
_VALUE = re.compile(rf"=(?:({_ITEM})|\(([^\"()]*(?:\"(?:[^\"\\]|\\.)*\"[^\"()]*)*)\)){_PARAMETERS}")
_FIRST = re.compile(_ITEM)
_ITEM_WITH_PARAMETERS = re.compile(rf"({_ITEM}){_PARAMETERS}")
_NUMBER = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,6})?")
_INT_LIMIT = 2**53


class Report(NamedTuple):
    """One report; absent keys are empty or None, times milliseconds.

    ``state`` is one letter of ``STATES``; ``position_ms`` the playhead (``pt``), ``ahead_ms`` the media
    buffered ahead of it (``bl``), ``buffer_ms`` the shorter of ``bl`` and ``dl``, never negative;
    ``next_objects`` relative addresses (``nor``).
    """

    sid: str = ""
    content: str = ""
    event: str = ""
    state: str = ""
    rate: float | None = None
    position_ms: int | None = None
    sn: int | None = None
    ts_ms: int | None = None
    buffer_ms: int | None = None
    next_objects: tuple[str, ...] = ()
    ahead_ms: int | None = None

    @property
    def buffer_s(self) -> float | None:
        """What the player still holds, in seconds."""
        return self.buffer_ms / 1000 if self.buffer_ms is not None else None


def parse_report(text: str) -> Report:
    """Read one report.

    Raises:
        RemoteError: ``too_large``, ``malformed``.

    """
    if len(text) > REPORT_LIMIT_CHARS:
        message = f"a CMCD report of {len(text)} characters is over the limit of {REPORT_LIMIT_CHARS}"
        raise RemoteError(message, reason="too_large")
    fields: dict[str, str] = {}
    at = 0
    while at < len(text):
        key = _KEY.match(text, at)
        if key is None or len(fields) >= KEYS_LIMIT:
            raise RemoteError("bytes that are no CMCD report", reason="malformed")
        at = key.end()
        value = _VALUE.match(text, at)
        if value is not None:
            at = value.end()
            fields[key[1]] = value[1] if value[1] is not None else f"({value[2]})"
        else:
            fields[key[1]] = ""
        if at < len(text):
            if text[at] != ",":
                raise RemoteError("bytes that are no CMCD report", reason="malformed")
            at += 1
    return _report(fields)


def parse_events(body: bytes) -> list[Report]:
    """Read the body of an event-mode POST: one report a line, at most 200.

    Raises:
        RemoteError: ``too_large``, ``malformed``.

    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise RemoteError("a CMCD body that is no UTF-8", reason="malformed") from error
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) > EVENTS_LIMIT:
        raise RemoteError(f"{len(lines)} CMCD events in one body, over {EVENTS_LIMIT}", reason="too_large")
    return [parse_report(line.strip()) for line in lines]


def report_of(query: Mapping[str, str], headers: Mapping[str, str]) -> Report | None:
    """Read the report that came with a request, by query (``CMCD=``) or headers; None where none did.

    Raises:
        RemoteError: ``too_large``, ``malformed``.

    """
    text = query.get("CMCD") or ",".join(headers[name] for name in HEADERS if headers.get(name))
    return parse_report(text) if text else None


def _report(fields: Mapping[str, str]) -> Report:
    ahead = _integer(fields, "bl")
    buffers = [value for value in (ahead, _integer(fields, "dl")) if value is not None and value >= 0]
    state = _text(fields.get("sta", ""))
    return Report(
        _text(fields.get("sid", ""))[:NAME_LIMIT_CHARS],
        _text(fields.get("cid", ""))[:NAME_LIMIT_CHARS],
        _text(fields.get("e", ""))[:NAME_LIMIT_CHARS],
        state if state in STATES else "",
        _number(fields, "pr"),
        _integer(fields, "pt"),
        _integer(fields, "sn"),
        _integer(fields, "ts"),
        min(buffers) if buffers else None,
        _addresses(fields.get("nor", "")),
        ahead,
    )


def _addresses(value: str) -> tuple[str, ...]:
    if not value.startswith("("):
        return (unquote(_text(value)),) if value else ()
    return tuple(_text(item[1]) for item in _ITEM_WITH_PARAMETERS.finditer(value[1:-1]))


def _text(value: str) -> str:
    if value.startswith('"'):
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value


def _number(fields: Mapping[str, str], key: str) -> float | None:
    value = fields.get(key, "")
    if value.startswith("("):  # version 2: a value for each kind of object; the first speaks for all
        first = _FIRST.search(value, 1)
        value = first[0] if first is not None else ""
    if _NUMBER.fullmatch(value) is None:
        return None
    number = float(value)
    return number if isfinite(number) else None


def _integer(fields: Mapping[str, str], key: str) -> int | None:
    number = _number(fields, key)
    return int(number) if number is not None and abs(number) < _INT_LIMIT else None
