"""Publish: a film becomes an encode, a folder of blocks, and a signed manifest."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from ..node.blocks.store import DiskStore
from ..protocol.cid import Cid
from ..protocol.errors import UsageError
from ..protocol.identity import Identity, peer_id
from ..protocol.manifest import Manifest, Protection, Track, seal_manifest
from .reading import film_subtitles, read_companions
from .studio.contentkeys import ContentKeys
from .studio.drafts import Drafts
from .studio.film import Film
from .studio.ingest import Encode, Progress, Voice, ingest
from .studio.package import package, read_storyboard, read_streams, write_playlists
from .studio.playlist import Stream, Text, film_length, rendition, spoken
from .studio.poster import POSTER
from .studio.sealing import Sealer
from .studio.storyboard import FOLDER, INDEX


class Published(NamedTuple):
    """A title as it now stands.

    ``data`` is the signed manifest block and ``cid`` its name; ``changed`` says whether that is a
    new version, which the caller appends to the catalog. ``new_blocks`` and ``new_bytes`` are what
    the store did not hold before, ``blocks`` all there is, ``reused`` whether the encode was there,
    ``folder`` where the packaged files lie; ``warnings`` are sentences about what was left out.
    """

    manifest: Manifest
    cid: Cid
    data: bytes
    changed: bool
    blocks: int
    new_blocks: int
    new_bytes: int
    reused: bool
    folder: Path
    warnings: tuple[str, ...]


def manifest_label(cid: Cid) -> str:
    """Return the label that keeps a manifest: settling needs it long after the film is gone."""
    return f"manifest:{cid}"


def pin_label(title: str, root: Cid) -> str:
    """Return the label under which the blocks of one version of a title are pinned in the store."""
    return f"published:{title}:{root}"


def publish(
    media: Path,
    film: Film,
    encodes_dir: Path,
    store: DiskStore,
    publisher: Identity,
    previous: Manifest | None,
    now_ms: int,
    preset: str,
    progress: Progress,
    *,
    loop_to_s: float = 0,
    keys: ContentKeys | None = None,
    drafts: Drafts | None = None,
) -> Published:
    """Encode, package and sign ``media``; blocks and manifest are durable and pinned when this returns.

    ``previous`` is the title's newest manifest: where neither folder nor film data differ from it,
    it stays and nothing is new. An empty ``preset`` is the default's; ``keys`` encrypt a title
    whose access is ``ticket``. With ``drafts`` it becomes one of them, and what is listed stays as it is.

    Raises:
        UsageError: no ffmpeg, no film, or a title of another publisher.
        LocalError: encoding failed, or no room.

    """
    if film.access == "ticket" and keys is None:
        message = f"{film.title} asks for access = 'ticket', but there are no keys to encrypt it with"
        raise UsageError(message, reason="unsupported")
    if previous is not None and previous.title != film.title:
        raise UsageError(f"{film.title} cannot follow the title {previous.title}", reason="bad_value")
    if previous is not None and previous.publisher != publisher.key:
        message = f"the title {film.title} belongs to {peer_id(previous.publisher)}; name yours otherwise"
        raise UsageError(message, reason="foreign_title")
    companions = read_companions(film.subtitles)  # before hours of encoding
    encode = ingest(media, encodes_dir, progress, preset=preset, loop_to_s=loop_to_s, sounds=film.sounds)
    streams = spoken(named(read_streams(encode.folder), encode.voices), film.language)
    length = film_length(streams)
    subtitles, warnings = film_subtitles(media, companions, encode.texts, encode.bitmaps, length)
    storyboard = read_storyboard(encode.folder, encode.storyboard, length)
    if storyboard is None:
        shutil.rmtree(encode.folder / FOLDER, ignore_errors=True)  # no sheets that nothing names
    write_playlists(encode.folder, streams, film.language, subtitles, storyboard)
    beside = {POSTER: (encode.folder / POSTER).is_file(), INDEX: storyboard is not None}
    warnings += _gaps(media, encode, beside)
    sealer = Sealer(encode.folder, film.title, {POSTER}, keys) if film.access == "ticket" and keys else None
    packaged = package(encode.folder, store, progress, sealer.read if sealer else None)
    protection = sealer.protection if sealer else None
    tracks = _tracks([text for text, _ in subtitles], beside)
    manifest = _manifest(
        film, streams, tracks, packaged.root, packaged.size_bytes, publisher, previous, now_ms, protection
    )
    changed = previous is None or _undated(manifest) != _undated(previous)
    if previous is not None and not changed:
        manifest = previous
    cid, data = seal_manifest(manifest, publisher)
    fresh = store.put(cid, data, hashed=True)
    store.sync()
    if drafts is not None:
        drafts.put(film.title, cid, [*packaged.cids, cid])
    else:
        store.pin(pin_label(film.title, packaged.root), [*packaged.cids, cid])
    if drafts is None and previous is not None and previous.root != manifest.root:
        store.unpin(pin_label(film.title, previous.root_cid))
    return Published(
        manifest=manifest,
        cid=cid,
        data=data,
        changed=changed,
        blocks=packaged.blocks + 1,
        new_blocks=packaged.new_blocks + fresh,
        new_bytes=packaged.new_bytes + (len(data) if fresh else 0),
        reused=encode.reused,
        folder=encode.folder,
        warnings=tuple(warnings),
    )


def named(streams: Sequence[Stream], voices: Sequence[Voice]) -> list[Stream]:
    """Return the streams of an encode with their sounds' languages and labels, in the order of ``voices``."""
    by_name = {stream.name: stream for stream in streams}
    sounds = [by_name[voice.name]._replace(language=voice.language, label=voice.label) for voice in voices]
    return [*sounds, *(stream for stream in streams if stream.init.kind == "video")]


def _gaps(media: Path, encode: Encode, beside: Mapping[str, bool]) -> list[str]:
    """Say what the title goes without, why, and how to have it."""
    missing = [name for path, name in ((POSTER, "poster"), (INDEX, "storyboard")) if not beside[path]]
    if not missing:
        return []
    why = f" ({'; '.join(encode.gaps)})" if encode.gaps else ""
    what = f"{media.name} goes without {' and '.join(missing)}, for ffmpeg could make none{why}"
    return [f"{what}; to try once more with another ffmpeg, delete {encode.folder} and publish again"]


def _tracks(texts: Sequence[Text], beside: Mapping[str, bool]) -> list[Track]:
    """Return what lies beside the renditions; of poster and storyboard what is there."""
    pictures: tuple[tuple[Literal["poster", "storyboard"], str], ...] = (
        ("poster", POSTER),
        ("storyboard", INDEX),
    )
    return [
        *(Track(kind=kind, path=path, language="", label="") for kind, path in pictures if beside[path]),
        *(
            Track(kind="subtitles", path=text.path, language=text.language, label=text.label)
            for text in texts
        ),
    ]


def _manifest(
    film: Film,
    streams: list[Stream],
    tracks: list[Track],
    root: Cid,
    size_bytes: int,
    publisher: Identity,
    previous: Manifest | None,
    now_ms: int,
    protection: Protection | None,
) -> Manifest:
    return Manifest(
        v=1,
        title=film.title,
        version=previous.version + 1 if previous else 1,
        publisher=publisher.key,
        name=film.name,
        description=film.description,
        language=film.language,
        duration_ms=round(film_length(streams) * 1000),
        root=root.encode(),
        size_bytes=size_bytes,
        renditions=[rendition(stream, film.language) for stream in streams],
        tracks=tracks,
        window=film.window,
        territories=list(film.territories),
        payees=list(film.payees),
        access=film.access,
        protection=protection,
        created_ms=now_ms,
        # Ed25519 is deterministic: sealing the previous manifest again gives its very block
        supersedes=seal_manifest(previous, publisher)[0].encode() if previous else b"",
    )


def _undated(manifest: Manifest) -> Manifest:
    """Return what a manifest says, without what differs between two versions anyway."""
    return msgspec.structs.replace(manifest, version=1, created_ms=0, supersedes=b"")
