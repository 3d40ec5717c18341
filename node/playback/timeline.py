"""The time line of a title: which file of it is which stretch of media, read from its own playlists."""

from __future__ import annotations

import posixpath
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import NamedTuple

from ...protocol.cid import Cid
from ...protocol.errors import RemoteError
from ...protocol.manifest import Manifest

PLAYLIST_LIMIT_BYTES = 4 << 20
SEGMENTS_LIMIT = 100_000
TITLES_KEPT = 32

ReadFile = Callable[[str], Awaitable[bytes]]


class Slot(NamedTuple):
    """One media segment: its track (``video`` or ``audio``), rendition index and place in the film."""

    track: str
    rendition: int
    start_ms: int
    duration_ms: int


def parse_media(text: str, path: str, track: str, rendition: int) -> dict[str, Slot]:
    """Read the segments of the media playlist at ``path`` (RFC 8216 section 4.3.2.1), by file path.

    Raises:
        RemoteError: ``bad_playlist``.

    """
    slots: dict[str, Slot] = {}
    folder = posixpath.dirname(path)
    at_s, duration_s = 0.0, -1.0
    for line in text.splitlines():
        if line.startswith("#EXTINF:"):
            try:
                duration_s = float(line[8:].split(",", 1)[0])
            except ValueError:
                duration_s = -1.0
            if not 0 <= duration_s < 3_600:  # noqa: PLR2004 - an hour is no segment
                raise RemoteError(f"{path} has a segment of no sane duration", reason="bad_playlist")
        elif line and not line.startswith("#"):
            if duration_s < 0 or len(slots) >= SEGMENTS_LIMIT:
                raise RemoteError(f"{path} is no media playlist of ours", reason="bad_playlist")
            name = posixpath.normpath(posixpath.join(folder, line))
            start_ms = round(at_s * 1000)
            at_s += duration_s
            slots[name] = Slot(track, rendition, start_ms, round(at_s * 1000) - start_ms)
            duration_s = -1.0
    return slots


class Timelines:
    """The slots of titles looked at lately; a playlist is read when a file beside it is asked for."""

    def __init__(self) -> None:
        self._slots: OrderedDict[Cid, dict[str, Slot]] = OrderedDict()
        self._read: dict[Cid, set[str]] = {}
        self._next: dict[Cid, dict[str, str]] = {}

    def after(self, root: Cid, path: str) -> str:
        """Return the segment that follows one in its playlist, as far as that was read; empty for none."""
        return self._next.get(root, {}).get(path, "")

    async def slot(self, manifest: Manifest, path: str, read: ReadFile) -> Slot | None:
        """Return the place of a file in its film, None for a file that is no media segment.

        Raises:
            RemoteError: ``bad_playlist``, or what ``read`` raises.

        """
        root = manifest.root_cid
        slots = self._slots.setdefault(root, {})
        self._slots.move_to_end(root)
        while len(self._slots) > TITLES_KEPT:
            gone, _ = self._slots.popitem(last=False)
            self._read.pop(gone, None)
            self._next.pop(gone, None)
        done = self._read.setdefault(root, set())
        if path in slots:
            return slots[path]
        for index, rendition in enumerate(manifest.renditions):
            folder = posixpath.dirname(rendition.path) + "/"  # long films go on in folders below it
            if rendition.path in done or not path.startswith(folder) or path == rendition.path:
                continue
            data = await read(rendition.path)
            try:
                text = data.decode()
            except UnicodeDecodeError as error:
                raise RemoteError(f"{rendition.path} is no text", reason="bad_playlist") from error
            found = parse_media(text, rendition.path, rendition.kind, index)
            slots.update(found)
            self._next.setdefault(root, {}).update(pairwise(found))
            done.add(rendition.path)
        return slots.get(path)
