"""Package: an encode's playlists, and its folder as verified blocks in the store."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import NamedTuple

from ...node.blocks.cidpath import Read, add
from ...node.blocks.store import DiskStore
from ...protocol.cid import RAW, Bytes, Cid
from ...protocol.errors import LocalError, RemoteError, StoreFullError
from .dash import MANIFEST, dash_manifest
from .fragments import parse_fragment, parse_init
from .ingest import Progress
from .playlist import (
    INIT,
    MASTER,
    MEDIA,
    TEXTS,
    Storyboard,
    Stream,
    Text,
    check_stream,
    film_length,
    master_playlist,
    media_playlist,
    segment_name,
    spoken,
    text_playlist,
)
from .storyboard import INDEX, storyboard_index

Subtitles = tuple[Text, str]
"""A text and its WebVTT."""

HEAD_BYTES = 64 << 10
"""The boxes of a segment before its samples fit in here: 4,000 frames would."""
INIT_LIMIT_BYTES = 64 << 10


class Packaged(NamedTuple):
    """A folder in the store: its root, its files' bytes, its blocks, and how much of that was new."""

    root: Cid
    size_bytes: int
    cids: list[Cid]
    new_blocks: int
    new_bytes: int

    @property
    def blocks(self) -> int:
        """How many different blocks the folder has."""
        return len(self.cids)


def read_streams(folder: Path) -> list[Stream]:
    """Read every rendition of an encode: times, sizes and codecs of its segments.

    Raises:
        LocalError: ``damaged``, with the mend.

    """
    try:
        streams = [_read_stream(path.parent) for path in sorted(folder.glob(f"*/{INIT}"))]
    except (OSError, RemoteError) as error:
        message = f"the encode {folder} is damaged ({error}); delete it and publish again"
        raise LocalError(message, reason="damaged") from error
    if not any(stream.init.kind == "video" for stream in streams):
        message = f"the encode {folder} has no video in it; delete it and publish again"
        raise LocalError(message, reason="damaged")
    return streams


def write_playlists(
    folder: Path,
    streams: list[Stream],
    language: str,
    subtitles: Sequence[Subtitles] = (),
    storyboard: Storyboard | None = None,
) -> None:
    """Write what an encode's segments, subtitles and storyboard are called: playlists and indexes.

    Files that are already right are left alone; texts that are not ``subtitles`` go.
    """
    length = film_length(streams)
    texts = [text for text, _ in subtitles]
    files = {f"{stream.name}/{MEDIA}": media_playlist(stream) for stream in streams}
    files[MASTER] = master_playlist(streams, language, texts)
    files[MANIFEST] = dash_manifest(spoken(streams, language), texts, storyboard)
    for text, words in subtitles:
        files[text.path], files[text.playlist] = words, text_playlist(text, length)
    if storyboard is not None:
        files[INDEX] = storyboard_index(storyboard, length)
    for path in [*(folder / TEXTS).glob("*"), folder / INDEX]:
        if path.relative_to(folder).as_posix() not in files:
            path.unlink(missing_ok=True)
    if not texts and (folder / TEXTS).is_dir():
        (folder / TEXTS).rmdir()
    for name, words in files.items():
        path, data = folder / name, words.encode()
        if path.exists() and path.read_bytes() == data:
            continue
        path.parent.mkdir(exist_ok=True)
        draft = path.with_name(f".{path.name}.draft")
        draft.write_bytes(data)
        draft.replace(path)


def read_storyboard(folder: Path, planned: Storyboard, length: Fraction) -> Storyboard | None:
    """Return the storyboard as it was made: how many pictures, and how large its largest sheet is.

    None where a sheet is missing: a title goes without rather than with holes.
    """
    pictures = ceil(length / planned.interval_s)
    sheets = ceil(Fraction(pictures, planned.columns * planned.rows))
    try:
        sizes = [(folder / planned.sheet(number)).stat().st_size for number in range(sheets)]
    except OSError:
        return None
    return planned._replace(pictures=pictures, largest_bytes=max(sizes)) if all(sizes) else None


def package(folder: Path, store: DiskStore, progress: Progress, read: Read | None = None) -> Packaged:
    """Put a folder into the store, every block hashed once; ``store.sync()`` makes all of it durable.

    ``progress`` is called from several threads, one at a time; ``read`` gives each file's bytes where
    they are not those on the disk.

    Raises:
        StoreFullError: the quota or the disk has no room for the whole folder.
        LocalError: a file cannot be read.

    """
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    lock = threading.Lock()
    cids: dict[Cid, None] = {}
    done_bytes = new_blocks = new_bytes = 0

    def keep(cid: Cid, data: Bytes) -> None:
        nonlocal done_bytes, new_blocks, new_bytes
        fresh = batch.put(cid, data, hashed=True)
        with lock:
            cids[cid] = None
            new_blocks += fresh
            new_bytes += len(data) if fresh else 0
            done_bytes += len(data) if cid.codec == RAW else 0
            progress("package", min(done_bytes, total), total)

    progress("package", 0, total)
    with store.batch() as batch:
        root = add(folder, keep, read).cid
    if not all(store.has(cid) for cid in cids):
        message = f"the store has no room for the {total} bytes of {folder}: raise [store] quota_bytes"
        raise StoreFullError(message)
    return Packaged(root, done_bytes, list(cids), new_blocks, new_bytes)


def _read_stream(folder: Path) -> Stream:
    data = _head(folder / INIT, INIT_LIMIT_BYTES)[0]
    init = parse_init(data)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*.m4s")}
    ordered = [segment_name(index) for index in range(len(names))]
    if names != set(ordered):
        raise RemoteError(f"{folder.name} has a hole between its segments", reason="malformed")
    fragments = [parse_fragment(*_head(folder / name, HEAD_BYTES), init) for name in ordered]
    stream = Stream(folder.name, init, len(data), fragments)
    check_stream(stream)
    return stream


def _head(path: Path, limit_bytes: int) -> tuple[bytes, int]:
    with path.open("rb", buffering=0) as file:
        return file.read(limit_bytes), path.stat().st_size
