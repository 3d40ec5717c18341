"""The library: titles as people know them, turned into the blocks that make them up."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar

from ...protocol.catalog import Entry
from ...protocol.cid import DAG_PB, RAW, Cid
from ...protocol.errors import RefusedError, RemoteError
from ...protocol.keyring import Keyring
from ...protocol.manifest import Manifest, open_manifest
from ...protocol.ports import BlockStore
from ...protocol.unixfs import BLOCK_LIMIT_BYTES, Leaf, MissingError, leaves, locate, parse
from .replica import Heads

T = TypeVar("T")

PLANS_KEPT = 4_096
TITLES_KEPT = 512
BLOCKS_PER_TITLE = 400_000
SKELETON_ROUNDS = 10_000
"""More missing nodes than this on the way to one file is no film of ours."""

BROUGHT_LIMIT_BYTES = 64 << 20
"""Nodes held in memory for one walk while the store has no room."""

Fetch = Callable[[Cid], Awaitable[bytes]]

MEDIA_TYPES = {
    "m3u8": "application/vnd.apple.mpegurl",
    "mpd": "application/dash+xml",
    "m4s": "video/iso.segment",
    "mp4": "video/mp4",
    "vtt": "text/vtt; charset=utf-8",
    "jpg": "image/jpeg",
    "json": "application/json",
}


class FilePlan(NamedTuple):
    """One file as the ordered leaf blocks that hold its bytes; ``etag`` is quoted."""

    size: int
    leaves: Sequence[Leaf]
    media_type: str
    etag: str


class Library:
    """Answers which titles there are and which blocks a file of one needs."""

    def __init__(self, heads: Heads, store: BlockStore, keyring: Callable[[], Keyring | None]) -> None:
        self._heads = heads
        self._store = store
        self._keyring = keyring
        self._manifests: dict[Cid, Manifest] = {}
        self._plans: OrderedDict[tuple[Cid, str], FilePlan] = OrderedDict()
        self._blocks: OrderedDict[Cid, tuple[Cid, ...]] = OrderedDict()

    def entry(self, title: str) -> Entry:
        """Return the catalog entry of a listed title; raises ``RefusedError`` 404, 410 once taken down."""
        catalog = self._heads.catalog
        entry = catalog.listed(title)
        if catalog.taken_down(title) or (entry is not None and entry.cid in catalog.denied()):
            raise RefusedError(f"{title!r} was taken down", status=410, reason="taken_down")
        if entry is None:
            message = f"no title {title!r} in this catalog; `farcast list` shows what there is"
            raise RefusedError(message, status=404, reason="unknown_title")
        return entry

    @property
    def entries(self) -> int:
        """How many entries the catalog has: what was learned from it holds while this stays."""
        return self._heads.catalog.size

    def lists(self, title: str) -> bool:
        """Say whether a title is listed."""
        return self._heads.catalog.listed(title) is not None

    def manifests(self) -> dict[str, Cid]:
        """Return the manifest of every listed title."""
        return {title: entry.cid for title, entry in self._heads.catalog.titles().items()}

    def titles(self) -> list[str]:
        """Return the ids of the listed titles, in order."""
        return sorted(self._heads.catalog.titles())

    def manifest(self, title: str) -> Manifest:
        """Return a title's verified manifest.

        Raises:
            RefusedError: 404 for an unknown title, 503 where its manifest is not here yet.

        """
        return self._opened(self.entry(title).cid, title)

    async def learn(self, title: str, fetch: Fetch) -> Manifest:
        """Return a title's manifest, fetching its block if it is not here."""
        cid, brought = self.entry(title).cid, b""
        if cid not in self._manifests and not self._store.has(cid):
            brought = await fetch(cid)  # where the disk is full the store has not kept it
        return await asyncio.to_thread(self._opened, cid, title, brought)

    async def plan(self, title: str, path: str, fetch: Fetch, *, unseen: bool = False) -> FilePlan:
        """Return the blocks of one file of a title, fetching the folder's nodes on the way.

        A file of one block is that block, which is fetched too; where it may stay ``unseen``, its folder's
        word is taken for its size, and whoever reads it must check that (``unixfs.content``).

        Raises:
            RefusedError: 404 for an unknown title or file; what ``fetch`` raises.
            RemoteError: where the folder is not a folder of ours.

        """
        manifest = await self.learn(title, fetch)
        key = (manifest.root_cid, path)
        known = self._plans.get(key)
        if known is not None:
            self._plans.move_to_end(key)
            return known
        cid, tsize = await self.walk(lambda load: locate(manifest.root_cid, path.split("/"), load)[1:], fetch)
        if unseen and cid.codec == RAW and not cid.is_identity and 0 < tsize <= BLOCK_LIMIT_BYTES:
            found: Sequence[Leaf] = [Leaf(cid, 0, tsize)]
        else:
            found = await self.walk(lambda load: leaves(cid, load), fetch)
        size = sum(leaf.size for leaf in found)
        kind = MEDIA_TYPES.get(path.rsplit(".", 1)[-1], "application/octet-stream")
        plan = FilePlan(size, found, kind, f'"{cid}"')
        self._plans[key] = plan
        if len(self._plans) > PLANS_KEPT:
            self._plans.popitem(last=False)
        return plan

    def planned(self, title: str, path: str) -> FilePlan | None:
        """Return a plan made before, without waiting; None where there is none."""
        entry = self._heads.catalog.listed(title)
        manifest = self._manifests.get(entry.cid) if entry else None
        if manifest is None or manifest.title != title:
            return None
        return self._plans.get((manifest.root_cid, path))

    async def blocks(self, title: str, fetch: Fetch) -> tuple[Cid, ...]:
        """Return every block of a title, manifest first, then the folder depth first, each once.

        Raises:
            RefusedError: 404 for an unknown title, 502 past ``BLOCKS_PER_TITLE``; what ``fetch`` raises.

        """
        named = self.entry(title).cid  # one folder may have several manifests, one after the other
        manifest = await self.learn(title, fetch)
        known = self._blocks.get(named)
        if known is not None:
            self._blocks.move_to_end(named)
            return known
        found: dict[Cid, None] = {named: None}
        todo = [manifest.root_cid]
        while todo:
            cid = todo.pop()
            if cid in found or cid.is_identity:
                continue
            found[cid] = None
            if len(found) > BLOCKS_PER_TITLE:
                raise RefusedError(f"{title} has more blocks than any film", status=502, reason="bad_folder")
            if cid.codec == DAG_PB:
                data = await asyncio.to_thread(self._store.get, cid) or await fetch(cid)
                todo += [link.cid for link in reversed(parse(cid, data).links)]
        self._blocks[named] = blocks = tuple(found)
        if len(self._blocks) > TITLES_KEPT:
            self._blocks.popitem(last=False)
        return blocks

    def reached(self, title: str) -> tuple[Cid, ...]:
        """Return the blocks of a title as far as the folders held here lead; its root at least. Blocking.

        Raises:
            RefusedError: 404 for an unknown title, 503 where its manifest is not here yet.

        """
        root = self.manifest(title).root_cid
        known = self._blocks.get(self.entry(title).cid)
        if known is not None:
            return known
        found: dict[Cid, None] = {}
        todo = [root]
        while todo and len(found) < BLOCKS_PER_TITLE:
            cid = todo.pop()
            if cid in found or cid.is_identity:
                continue
            found[cid] = None
            if cid.codec == DAG_PB and (data := self._store.get(cid)) is not None:
                todo += [link.cid for link in reversed(parse(cid, data).links)]
        return tuple(found)

    async def walk(self, attempt: Callable[[Callable[[Cid], bytes | None]], T], fetch: Fetch) -> T:
        """Run a walk over a DAG, fetching each node it misses, until it comes through."""
        brought: dict[Cid, bytes] = {}  # what the store had no room for

        def load(cid: Cid) -> bytes | None:
            return brought.get(cid) or self._store.get(cid)

        for _ in range(SKELETON_ROUNDS):
            try:
                return await asyncio.to_thread(attempt, load)
            except MissingError as missing:
                data = await fetch(missing.cid)
                if not self._store.has(missing.cid):
                    brought[missing.cid] = data
                if sum(map(len, brought.values())) > BROUGHT_LIMIT_BYTES:
                    break
        message = "a folder that needs more nodes than any film has"
        raise RefusedError(message, status=502, reason="bad_folder")

    def _opened(self, cid: Cid, title: str, brought: bytes = b"") -> Manifest:
        manifest = self._manifests.get(cid)
        if manifest is None:
            data = brought or self._store.get(cid)
            keyring = self._keyring()
            if data is None or keyring is None:
                message = f"the manifest of {title!r} has not arrived yet"
                raise RefusedError(message, status=503, retry_after_s=5, reason="no_manifest")
            try:
                manifest = open_manifest(data, frozenset(keyring.publishers))
            except RemoteError as error:
                message = f"the manifest of {title!r} cannot be trusted: {error}"
                raise RefusedError(message, status=502, reason=error.reason) from error
        if manifest.title != title:
            message = f"the catalog lists {title!r} with the manifest of {manifest.title!r}"
            raise RefusedError(message, status=502, reason="bad_manifest")
        self._manifests[cid] = manifest
        return manifest
