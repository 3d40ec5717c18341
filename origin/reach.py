"""Reach: which blocks lie within the catalog, so that only of those somebody is said to have them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import NamedTuple

from ..node.catalog.library import Fetch, Library
from ..protocol.catalog import Entry
from ..protocol.cid import SHA2_256, Cid
from ..protocol.errors import FarcastError

BLOCKS_LIMIT = 262_144
"""Digests kept besides manifests and roots, of the newest titles first: 256 GiB of films in 30 MB."""


class _Title(NamedTuple):
    ends: tuple[bytes, bytes]
    blocks: frozenset[bytes]


class Reach:
    """Follows the catalog title by title; what has left it is out of reach at the next ``refresh``.

    Blocks are told by their hash alone, as routing does: a client may ask with another codec.
    """

    def __init__(self, library: Library, fetch: Fetch) -> None:
        self._library = library
        self._fetch = fetch
        self._titles: dict[Cid, _Title] = {}
        self._known: frozenset[bytes] = frozenset()
        self._ends: frozenset[bytes] = frozenset()

    def __contains__(self, cid: Cid) -> bool:
        """Say whether a listed title has this block, as far as that is remembered."""
        return cid.hash_code == SHA2_256 and cid.digest in self._known

    def begins_with(self, cid: Cid) -> bool:
        """Say whether this is a title's manifest or root: a relay asked for it learns all the rest."""
        return cid.hash_code == SHA2_256 and cid.digest in self._ends

    def __len__(self) -> int:
        return len(self._known)

    async def refresh(self) -> None:
        """Learn what the catalog lists now; a title that cannot be read is left out until it can."""
        titles: dict[Cid, _Title] = {}
        left = BLOCKS_LIMIT
        entries: list[Entry] = []
        for title in self._library.titles():
            with suppress(FarcastError):  # listed again after it was taken down: as little here as elsewhere
                entries.append(self._library.entry(title))
        for entry in sorted(entries, key=lambda entry: entry.at_ms, reverse=True):
            found = self._titles.get(entry.cid)
            if found is None or len(found.blocks) > left:
                try:
                    found = await self._read(entry.title, left)
                except FarcastError:
                    continue
            titles[entry.cid] = found
            left -= len(found.blocks)
        self._ends = frozenset(digest for title in titles.values() for digest in title.ends)
        blocks = (title.blocks for title in titles.values())
        self._known = await asyncio.to_thread(self._ends.union, *blocks)
        self._titles = titles

    async def _read(self, title: str, left: int) -> _Title:
        manifest = await self._library.learn(title, self._fetch)
        ends = (self._library.entry(title).cid.digest, manifest.root_cid.digest)
        if manifest.size_bytes >> 20 > left:
            return _Title(ends, frozenset())
        blocks = await self._library.blocks(title, self._fetch)
        known = frozenset(cid.digest for cid in blocks) if len(blocks) <= left else frozenset[bytes]()
        return _Title(ends, known)
