"""Layouts: what a title is made of, block by block, as neighbours name it when they share it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

from ...mesh.share import Layout
from ...protocol.cid import DAG_PB, Cid
from ...protocol.errors import RefusedError
from ...protocol.unixfs import parse
from ..blocks.blockfiles import BLOCK_LIMIT_BYTES
from ..blocks.store import DiskStore
from ..catalog.library import Fetch, Library

KEPT = 64


class Layouts:
    """Makes layouts from the catalog and the folders held here, and remembers the last ones."""

    def __init__(self, store: DiskStore, library: Library) -> None:
        self._store = store
        self._library = library
        self._made: OrderedDict[bytes, Layout] = OrderedDict()

    async def of(self, title: str, fetch: Fetch) -> Layout:
        """Return a title's layout, fetching its folders on the way.

        Raises:
            RefusedError: no such title, or it was taken down; what ``fetch`` raises.

        """
        digest = self._library.entry(title).cid.digest
        known = self._made.get(digest)
        if known is None:
            blocks = await self._library.blocks(title, fetch)
            digest = blocks[0].digest  # another, where a new manifest was listed meanwhile
            known = Layout(title, digest, blocks, await asyncio.to_thread(self._sizes, blocks))
            self._made[digest] = known
            if len(self._made) > KEPT:
                self._made.popitem(last=False)
        return known

    def made(self, title: str) -> Layout | None:
        """Return a layout made before, without waiting; None where there is none, or no such title."""
        if not self._library.lists(title):
            return None
        return self._made.get(self._library.entry(title).cid.digest)

    async def held(self, digest: bytes) -> Layout | None:
        """Return the layout of the listed title with this manifest, where all of it is here."""
        title = next((one for one, cid in self._library.manifests().items() if cid.digest == digest), None)
        if title is None:
            return None
        try:
            layout = await self.of(title, _not_here)
        except RefusedError:
            return None
        return layout if all(self._store.has(cid) for cid in layout.cids) else None

    def _sizes(self, blocks: Sequence[Cid]) -> list[int]:
        """Return the blocks' sizes: as held, else as the folders tell. Blocking."""
        told: dict[Cid, int] = {}
        for cid in blocks:
            data = self._store.get(cid) if cid.codec == DAG_PB else None
            if data is not None:
                told.update((link.cid, link.tsize) for link in parse(cid, data).links)
        found = [(self._store.size(cid), told.get(cid, BLOCK_LIMIT_BYTES)) for cid in blocks]
        return [min(said, BLOCK_LIMIT_BYTES) if held is None else held for held, said in found]


async def _not_here(cid: Cid) -> bytes:
    raise RefusedError(f"{cid} is not held here", status=404, reason="not_held")
