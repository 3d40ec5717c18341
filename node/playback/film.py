"""A title as one stream: pictures and sound put together part by part, for players that want one file.

What every part weighs follows from the playlists and the folder, so lengths and offsets are known
before a segment is here; the bytes are made when they are asked for, always the same. How much of a
sealed segment is padding shows only once it is opened: its part ends in a ``free`` box that makes up for it.
"""

from __future__ import annotations

import asyncio
import posixpath
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from fractions import Fraction
from functools import partial
from itertools import accumulate
from typing import NamedTuple

from ...protocol.cid import RAW, Cid
from ...protocol.errors import RefusedError, RemoteError
from ...protocol.isobmff import HEADER_BYTES, box
from ...protocol.manifest import Manifest, Rendition
from ...protocol.mux import Indexed, movie_head, mux_init, mux_part, part_size
from ...protocol.unixfs import Leaf, Link, Load, content, leaves, listing, resolve
from ..catalog.library import Fetch, FilePlan, Library
from .timeline import PLAYLIST_LIMIT_BYTES, Slot, parse_media

VERSION = 2
"""Raised whenever the same title would become other bytes."""
FILMS_KEPT = 8
HEIGHT_LIMIT = 1_080
INIT_LIMIT_BYTES = 1 << 20
SEGMENT_LIMIT_BYTES = 64 << 20
NODES_AT_ONCE = 16
_MICRO = 1_000_000
_MAP = re.compile(r'^#EXT-X-MAP:URI="([^"]+)"', re.MULTILINE)

ReadText = Callable[[str], Awaitable[bytes]]
ReadFile = Callable[[str, FilePlan], Awaitable[bytes]]
"""Brings a file of a title, verified and in the clear."""


class File(NamedTuple):
    """One segment: its name in the title's folder, and its blocks."""

    path: str
    plan: FilePlan


class Part(NamedTuple):
    """A segment of pictures with the sound that begins in it; ``number`` is its first ``moof``'s."""

    number: int
    picture: File
    sounds: Sequence[File]
    slot: Slot
    us: int
    sound_us: int
    sealed: bool

    @property
    def size_bytes(self) -> int:
        """What it weighs once it is made."""
        sizes = [file.plan.size for file in (self.picture, *self.sounds)]
        return part_size(*sizes[:2]) + sum(sizes[2:]) + (HEADER_BYTES if self.sealed else 0)

    @property
    def leaves(self) -> list[Leaf]:
        """The blocks it is made of."""
        return [leaf for file in (self.picture, *self.sounds) for leaf in file.plan.leaves]

    async def make(self, read: ReadFile) -> bytes:
        """Return its bytes, of verified blocks.

        Raises:
            RefusedError: where a sealed segment may not be opened.
            RemoteError: what ``read`` raises, or where a segment is not as it must be.

        """
        picture = await read(*self.picture)
        sounds = [await read(*file) for file in self.sounds]
        data = mux_part(picture, sounds[0] if sounds else None, self.number)
        for late, sound in enumerate(sounds[1:], 1):
            data += mux_part(None, sound, self.number + late)
        if self.sealed:
            data += box(b"free", bytes(max(0, self.size_bytes - len(data) - HEADER_BYTES)))
        if len(data) != self.size_bytes:
            raise RemoteError("a segment of another size than its folder says", reason="bad_folder")
        return data


class Film(NamedTuple):
    """One title as a stream of two tracks: ``init`` for HLS, ``head`` and ``offsets`` for one file."""

    init: bytes
    head: bytes
    parts: Sequence[Part]
    offsets: Sequence[int]
    size_bytes: int
    etag: str

    def playlist(self, init: str, name: Callable[[int], str]) -> str:
        """Return the media playlist of the parts (RFC 8216); ``name`` gives an address by its place."""
        target_s = max(1, round(max(part.us for part in self.parts) / _MICRO))
        lines = ["#EXTM3U", "#EXT-X-VERSION:7", f"#EXT-X-TARGETDURATION:{target_s}"]
        lines += ["#EXT-X-MEDIA-SEQUENCE:0", "#EXT-X-PLAYLIST-TYPE:VOD", "#EXT-X-INDEPENDENT-SEGMENTS"]
        lines.append(f'#EXT-X-MAP:URI="{init}"')
        for place, part in enumerate(self.parts):
            seconds, micros = divmod(part.us, _MICRO)
            lines += [f"#EXTINF:{seconds}.{micros:06d},", name(place)]
        return "\n".join([*lines, "#EXT-X-ENDLIST", ""])


class Films:
    """Plans the films asked for lately."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._films: OrderedDict[Cid, Film] = OrderedDict()

    async def film(self, title: str, fetch: Fetch) -> Film:
        """Return a title as one stream, fetching its playlists and what its folder needs.

        Raises:
            RefusedError: 404 for an unknown title, 415 for one that cannot be put together here.
            RemoteError: what ``fetch`` raises.

        """
        manifest = await self._library.learn(title, fetch)
        known = self._films.get(manifest.root_cid)
        if known is not None:
            self._films.move_to_end(manifest.root_cid)
            return known
        try:
            found = await self._plan(manifest, fetch)
        except RemoteError as error:
            if error.reason not in ("unsupported", "malformed", "bad_playlist", "not_found"):
                raise
            message = f"{title} cannot be made one file ({error}); its master.m3u8 plays"
            raise RefusedError(message, status=415, reason="unsupported") from error
        self._films[manifest.root_cid] = found
        while len(self._films) > FILMS_KEPT:
            self._films.popitem(last=False)
        return found

    async def _plan(self, manifest: Manifest, fetch: Fetch) -> Film:
        index, video = _pictures(manifest)
        sound = _sound(manifest)

        async def read(path: str) -> bytes:
            plan = await self._library.plan(manifest.title, path, fetch)
            if plan.size > max(PLAYLIST_LIMIT_BYTES, INIT_LIMIT_BYTES):
                raise RemoteError(f"{path} is too large for what it is", reason="bad_playlist")
            return await whole(plan, fetch)

        shots = await self._track(manifest, video, index, read, fetch)
        takes = await self._track(manifest, sound, 0, read, fetch) if sound else None
        inits = [await read(track.init) for track in (shots, takes) if track is not None]
        picture_init, sound_init = inits[0], inits[1] if takes else None
        parts = _parts(shots, takes, sealed=manifest.protection is not None)
        indexed = [Indexed(part.size_bytes, part.us, part.sound_us) for part in parts]
        head = movie_head(picture_init, sound_init, indexed)
        offsets = [*accumulate((part.size_bytes for part in parts), initial=len(head))]
        names = f"{video.name}-{sound.name if sound else ''}"
        etag = f'"{manifest.root_cid}-{names}-film-{VERSION}"'
        return Film(mux_init(picture_init, sound_init), head, parts, offsets[:-1], offsets[-1], etag)

    async def _track(
        self, manifest: Manifest, rendition: Rendition, index: int, read: ReadText, fetch: Fetch
    ) -> _Track:
        text = (await read(rendition.path)).decode(errors="replace")
        slots = parse_media(text, rendition.path, rendition.kind, index)
        lengths = [
            round(Fraction(line[8:].split(",", 1)[0]) * _MICRO)
            for line in text.splitlines()
            if line.startswith("#EXTINF:")
        ]
        init = _MAP.search(text)
        if not slots or len(slots) != len(lengths) or init is None:
            raise RemoteError(f"{rendition.path} is no playlist of ours", reason="bad_playlist")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(rendition.path), init[1]))
        plans = await self._plans(manifest, [*slots], fetch)
        files = [File(*pair) for pair in zip(slots, plans, strict=True)]
        return _Track(path, files, [*slots.values()], lengths)

    async def _plans(self, manifest: Manifest, paths: Sequence[str], fetch: Fetch) -> list[FilePlan]:
        """Return the files' blocks, of whole folders at a time: one by one would walk each from the root."""
        links: dict[str, Cid] = {}
        sizes: dict[Cid, int] = {}
        for folder in dict.fromkeys(path.rpartition("/")[0] for path in paths):
            found = await self._library.walk(partial(_listing, manifest.root_cid, folder), fetch)
            links |= {f"{folder}/{link.name}" if folder else link.name: link.cid for link in found}
            sizes |= {link.cid: link.tsize for link in found}
        room = asyncio.Semaphore(NODES_AT_ONCE)

        async def plan(path: str) -> FilePlan:
            cid = links.get(path)
            if cid is None:
                raise RemoteError(f"{path} is not in the folder", reason="not_found")
            if cid.codec == RAW and not cid.is_identity:
                blocks = [Leaf(cid, 0, sizes[cid])]
            else:
                async with room:
                    blocks = await self._library.walk(lambda load: leaves(cid, load), fetch)
            size = sum(leaf.size for leaf in blocks)
            if size > SEGMENT_LIMIT_BYTES:
                raise RemoteError(f"{path} is too large for a segment", reason="unsupported")
            return FilePlan(size, blocks, "video/mp4", f'"{cid}"')

        return [*await asyncio.gather(*(plan(path) for path in paths))]


class _Track(NamedTuple):
    init: str
    files: Sequence[File]
    slots: Sequence[Slot]
    us: Sequence[int]


def _pictures(manifest: Manifest) -> tuple[int, Rendition]:
    """Return the largest pictures a television takes, and their place among the renditions."""
    videos = [(at, one) for at, one in enumerate(manifest.renditions) if one.kind == "video"]
    if not videos:
        raise RemoteError("it has no pictures", reason="unsupported")
    fit = [pair for pair in videos if min(pair[1].width, pair[1].height) <= HEIGHT_LIMIT]
    if fit:
        return max(fit, key=lambda pair: (pair[1].height, pair[1].bandwidth))
    return min(videos, key=lambda pair: pair[1].height)


def _sound(manifest: Manifest) -> Rendition | None:
    sounds = [one for one in manifest.renditions if one.kind == "audio"]
    return next((one for one in sounds if one.language == manifest.language), next(iter(sounds), None))


def _parts(shots: _Track, takes: _Track | None, *, sealed: bool) -> list[Part]:
    """Put to each segment of pictures the sound up to what plays as it begins, to the last all the rest.

    So whoever seeks to a part's first picture finds the sound of that moment in the same part.
    """
    waiting: list[tuple[int, int, File]] = []
    if takes is not None:
        starts = [0, *accumulate(takes.us)][:-1]
        waiting = [*zip(starts, takes.us, takes.files, strict=True)][::-1]
    parts: list[Part] = []
    at, number = 0, 1
    for place, (file, slot, us) in enumerate(zip(shots.files, shots.slots, shots.us, strict=True), 1):
        sounds: list[File] = []
        sound_us = 0
        while waiting and (waiting[-1][0] <= at or place == len(shots.files)):
            _, lasts_us, sound = waiting.pop()
            sounds.append(sound)
            sound_us += lasts_us
        parts.append(Part(number, file, sounds, slot, us, sound_us, sealed))
        number += max(1, len(sounds))
        at += us
    return parts


def _listing(root: Cid, folder: str, load: Load) -> list[Link]:
    return listing(resolve(root, folder.split("/") if folder else [], load), load)


async def whole(plan: FilePlan, fetch: Fetch) -> bytes:
    """Return a file as it is in the store; raises ``RemoteError`` where its blocks are not of its size."""
    data = b"".join([content(leaf, await fetch(leaf.cid)) for leaf in plan.leaves])
    if len(data) != plan.size:
        raise RemoteError("a file of another size than its folder says", reason="bad_folder")
    return data
