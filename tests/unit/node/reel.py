"""A small real film for tests: folder, playlists, manifest, catalog; and tiers that can be made to fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from farcast.node.catalog.library import Library
from farcast.protocol.catalog import Catalog, Entry
from farcast.protocol.cid import Cid
from farcast.protocol.errors import RefusedError, UnreachableError
from farcast.protocol.identity import Identity
from farcast.protocol.keyring import Keyring
from farcast.protocol.manifest import Manifest, Payee, Protection, Rendition, Window, seal_manifest
from farcast.protocol.ports import BlockStore, Source, TierName
from farcast.protocol.protection import is_playlist, is_sealed, lock_playlist, seal_file
from farcast.protocol.unixfs import Entry as Link
from farcast.protocol.unixfs import FileWriter, directory

ORIGIN = Identity(b"\x01" * 32)
SEGMENT_S = 2.0
CHUNK_BYTES = 20_000


@dataclass
class Reel:
    """The blocks of one published title and its files by path."""

    blocks: dict[Cid, bytes] = field(default_factory=dict[Cid, bytes])
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    catalog: Catalog = field(default_factory=Catalog)

    def checkpoint(self) -> bytes | None:
        """No signed head: a library asks for none."""
        return None

    def directory(self) -> bytes | None:
        """No relays are needed."""
        return None

    def beacons(self) -> list[bytes]:
        """No beacons are needed."""
        return []

    def cids(self, path: str) -> list[Cid]:
        """Return the leaf blocks of a file, in order."""
        data = self.files[path]
        chunks = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
        return [next(cid for cid, block in self.blocks.items() if block == chunk) for chunk in chunks]

    def library(self, store: BlockStore) -> Library:
        """Return a library over ``store`` that trusts the film's publisher."""
        keys = [ORIGIN.key]
        keyring = Keyring(1, "test", ORIGIN.key, keys, keys, keys, keys, keys, [], [])
        return Library(self, store, lambda: keyring)


def film(
    title: str = "film", *, segments: int = 20, seed: int = 7, sealed: tuple[bytes, bytes] | None = None
) -> Reel:
    """Publish a film of ``segments`` two-second segments of video (two chunks each) and audio.

    ``sealed`` is id and key of a protected title; the reel's ``files`` are what players get of it.
    """
    reel, random = Reel(), Random(seed)
    folders: dict[str, Link] = {}
    renditions: list[Rendition] = []
    for name, kind, size in (("v0", "video", 35_000), ("a0", "audio", 3_000)):
        names = [f"seg-{index:05d}.m4s" for index in range(segments)]
        lines = ["#EXTM3U", "#EXT-X-VERSION:7", "#EXT-X-TARGETDURATION:2", '#EXT-X-MAP:URI="init.mp4"']
        for segment in names:
            lines += [f"#EXTINF:{SEGMENT_S:.6f},", segment]
        inside = {segment: b"\0" + random.randbytes(size)[1:] for segment in names}
        inside["init.mp4"] = random.randbytes(700)
        inside["index.m3u8"] = "\n".join([*lines, "#EXT-X-ENDLIST", ""]).encode()
        folders[name] = _folder(reel, _sealed(name, inside, *sealed) if sealed else inside)
        reel.files |= {f"{name}/{path}": data for path, data in inside.items()}
        is_video = kind == "video"
        renditions.append(
            Rendition(
                name, "video" if is_video else "audio", f"{name}/index.m3u8", "avc1.64001f", 1, 1,
                640 if is_video else 0, 360 if is_video else 0, 25_000 if is_video else 0, "", segments, 1,
            )
        )  # fmt: skip
    master = b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nv0/index.m3u8\n"
    reel.files["master.m3u8"] = master
    root = _folder(reel, {"master.m3u8": master}, folders)
    manifest = Manifest(
        1, title, 1, ORIGIN.key, title, "", "en", int(segments * SEGMENT_S * 1000), root.cid.encode(),
        root.tsize, renditions, [], Window(0, 0), [], [Payee("someone", 10_000)],
        "ticket" if sealed else "open", Protection("aes-128", [sealed[0]]) if sealed else None, 0, b"",
    )  # fmt: skip
    cid, block = seal_manifest(manifest, ORIGIN)
    reel.blocks[cid] = block
    reel.catalog.append(Entry(1, "publish", title, cid.encode(), 0))
    return reel


def _sealed(folder: str, files: dict[str, bytes], key_id: bytes, key: bytes) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name, data in files.items():
        path = f"{folder}/{name}"
        if is_playlist(path):
            found[name] = lock_playlist(data.decode(), path, key_id).encode()
        else:
            found[name] = seal_file(key, key_id, path, data) if is_sealed(path, ()) else data
    return found


def _folder(reel: Reel, files: dict[str, bytes], folders: dict[str, Link] | None = None) -> Link:
    links = dict(folders or {})
    for name, data in files.items():
        writer = FileWriter(CHUNK_BYTES)
        blocks = writer.push(data)
        rest, links[name] = writer.finish()
        reel.blocks |= dict([*blocks, *rest])
    cid, block, link = directory(links)
    reel.blocks[cid] = block
    return link


class FaultyTier:
    """A tier whose one source serves ``blocks`` and can be made to fail in every way a source can.

    ``fault`` is '', refuse, missing, hang, trickle, corrupt, truncate or bug.
    """

    metered = False

    def __init__(self, name: TierName, blocks: dict[Cid, bytes], *, delay_s: float = 0.005) -> None:
        """Serve after ``delay_s``."""
        self.name = name
        self.blocks = blocks
        self.delay_s = delay_s
        self.fault = ""
        self.asked: list[Cid] = []
        self.titles: set[str] = set()
        key = b"" if name is TierName.CDN else bytes([name]) * 32
        self.source = Source(name, name.label, f"{name.label}.example:1", key)

    def sources(self) -> Sequence[Source]:
        """Return the one source."""
        return [self.source]

    async def fetch(
        self, source: Source, cid: Cid, *, title: str = "", arrived: Callable[[int], None] | None = None
    ) -> bytes:
        """Serve or fail as told."""
        assert source == self.source
        self.asked.append(cid)
        self.titles.add(title)
        if self.fault == "hang":
            await asyncio.sleep(3_600)
        await asyncio.sleep(self.delay_s)
        data = self.blocks.get(cid)
        if self.fault == "refuse":
            raise UnreachableError("connection refused")
        if self.fault == "bug":
            raise ZeroDivisionError
        if self.fault == "missing" or data is None:
            raise RefusedError("not here", status=404)
        if self.fault == "trickle":
            for step in range(10_000):
                if arrived is not None:
                    arrived(step * 100 + 1)
                await asyncio.sleep(0.01)
        if arrived is not None:
            arrived(len(data))
        if self.fault == "corrupt":
            return bytes([data[0] ^ 1]) + data[1:]
        return data[:-1] if self.fault == "truncate" else data
