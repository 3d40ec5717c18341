"""Reach: which blocks lie within the catalog, so that only of those somebody is said to have them."""

from __future__ import annotations

import asyncio

from ..node.catalog.library import Fetch, Library
from ..protocol.cid import SHA2_256, Cid
from ..protocol.errors import FarcastError

BLOCKS_LIMIT = 262_144
"""Digests kept besides manifests and roots, of the newest titles first: 256 GiB of films in 30 MB."""

_ENDS = 2
"""Of every title at least its manifest and its root."""


class Reach:
    """Follows the catalog title by title; what has left it is out of reach at the next ``refresh``.

    Blocks are told by their hash alone, as routing does: a client may ask with another codec.
    """

    def __init__(self, library: Library, fetch: Fetch) -> None:
        self._library = library
        self._fetch = fetch
        self._titles: dict[Cid, frozenset[bytes]] = {}
        self._known: frozenset[bytes] = frozenset()

    def __contains__(self, cid: Cid) -> bool:
        """Say whether a listed title has this block, as far as that is remembered."""
        return cid.hash_code == SHA2_256 and cid.digest in self._known

    def __len__(self) -> int:
        return len(self._known)

    async def refresh(self) -> None:
        """Learn what the catalog lists now; a title that cannot be read is left out until it can."""
        titles: dict[Cid, frozenset[bytes]] = {}
        left = BLOCKS_LIMIT
        entries = [self._library.entry(title) for title in self._library.titles()]
        for entry in sorted(entries, key=lambda entry: entry.at_ms, reverse=True):
            found = self._titles.get(entry.cid)
            if found is None or len(found) > max(left, _ENDS):
                try:
                    found = await self._blocks(entry.title, left)
                except FarcastError:
                    continue
            titles[entry.cid] = found
            left -= len(found) - _ENDS
        known = await asyncio.to_thread(frozenset[bytes]().union, *titles.values())
        self._titles, self._known = titles, known

    async def _blocks(self, title: str, left: int) -> frozenset[bytes]:
        manifest = await self._library.learn(title, self._fetch)
        ends = frozenset((self._library.entry(title).cid.digest, manifest.root_cid.digest))
        if manifest.size_bytes >> 20 > left:
            return ends
        blocks = await self._library.blocks(title, self._fetch)
        return ends | frozenset(cid.digest for cid in blocks) if len(blocks) <= left else ends
