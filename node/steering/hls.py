"""The derived HLS master: a title's own master, with one set of variants for each pathway.

Redundant variants serve players without content steering (RFC 8216 section 4.3.4.2); the steering
tag, pathways and stable ids the others (draft-ietf-hls-rfc8216bis, sections 4.4.6.6 and 7).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import urljoin

from .pathway import Pathway

_ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"]*"|[^",]*)')
_STREAM, _MEDIA, _FRAMES = "#EXT-X-STREAM-INF:", "#EXT-X-MEDIA:", "#EXT-X-I-FRAME-STREAM-INF:"
_GROUPS = ("AUDIO", "VIDEO", "SUBTITLES", "CLOSED-CAPTIONS")


class Stable(NamedTuple):
    """What a master says of itself: playlist paths by STABLE-VARIANT-ID and by STABLE-RENDITION-ID."""

    variants: dict[str, str]
    renditions: dict[str, str]


class _Line(NamedTuple):
    """A tag that belongs to each pathway, and the playlist's address on the line after it, if any."""

    tag: str
    attributes: dict[str, str]
    uri: str


def derived(master: str, folder: str, ways: Sequence[Pathway], steering: str, first: str) -> str:
    """Write the master for ``ways``.

    ``folder`` is the absolute path of the title's files, ``steering`` the steering server's address,
    ``first`` the pathway to begin with.
    """
    head, lines = _read(master)
    found = [_at(tag, lambda uri: urljoin(folder, uri)) for tag in head]
    found.append(f'#EXT-X-CONTENT-STEERING:SERVER-URI="{steering}",PATHWAY-ID="{first}"')
    for way in ways:
        for line in lines:
            found += _write(line, way, folder)
    return "\n".join([*found, ""])


def stable(master: str) -> Stable:
    """Return what steering servers name playlists by; lines without stable ids are left out."""
    ids = Stable({}, {})
    for line in _read(master)[1]:
        variant, rendition = (
            line.attributes.get("STABLE-VARIANT-ID"),
            line.attributes.get("STABLE-RENDITION-ID"),
        )
        uri = line.uri or line.attributes.get("URI", "").strip('"')
        if variant and uri and line.tag == _STREAM:
            ids.variants[variant.strip('"')] = uri
        elif rendition and uri:
            ids.renditions[rendition.strip('"')] = uri
    return ids


def _read(master: str) -> tuple[list[str], list[_Line]]:
    """Take a master apart into what stands once and what each pathway has."""
    head: list[str] = []
    lines: list[_Line] = []
    rows = iter([row for row in master.splitlines() if row and (row[0] != "#" or row.startswith("#EXT"))])
    for row in rows:
        tag = next((tag for tag in (_STREAM, _MEDIA, _FRAMES) if row.startswith(tag)), "")
        if not tag:
            head.append(row)
            continue
        attributes = dict(_ATTRIBUTE.findall(row[len(tag) :]))
        lines.append(_Line(tag, attributes, next(rows, "") if tag == _STREAM else ""))
    return head, lines


def _write(line: _Line, way: Pathway, folder: str) -> list[str]:
    attributes = dict(line.attributes)
    if line.tag == _MEDIA:
        attributes["GROUP-ID"] = _group(attributes.get("GROUP-ID", '""'), way)
    else:
        for name in _GROUPS:
            if attributes.get(name, "").startswith('"'):  # CLOSED-CAPTIONS may be NONE
                attributes[name] = _group(attributes[name], way)
        attributes["PATHWAY-ID"] = f'"{way.name}"'
    text = line.tag + ",".join(f"{name}={value}" for name, value in attributes.items())

    def uri(path: str) -> str:
        return way.base + urljoin(folder, path)

    return [_at(text, uri), *([uri(line.uri)] if line.uri else [])]


def _group(quoted: str, way: Pathway) -> str:
    """Name a group of one pathway: renditions of two ways must not be one group."""
    return f'"{quoted.strip(chr(34))}-{way.name}"'


def _at(tag: str, uri: Callable[[str], str]) -> str:
    return re.sub(r'(?<![A-Z-])URI="([^"]*)"', lambda match: f'URI="{uri(match[1])}"', tag)
