"""The folders of titles held here: kept while any of their files' blocks are.

A title's folders name its blocks. Were they evicted first, a takedown could not find what is left;
they are a ten-thousandth of the film.
"""

from __future__ import annotations

import asyncio

from ..node.blocks.store import DiskStore
from ..node.catalog.library import Library
from ..protocol.cid import DAG_PB, Cid
from ..protocol.errors import FarcastError

LABEL = "folders:"
TIDY_S = 900.0


class Folders:
    """Pins manifest and folders of each title whose blocks are known; they go with the last block."""

    def __init__(self, library: Library, store: DiskStore) -> None:
        self._library = library
        self._store = store

    async def learned(self, title: str, blocks: frozenset[Cid]) -> None:
        """Keep what names the blocks of ``title``."""
        await asyncio.to_thread(self._store.pin, LABEL + title, self._naming(title, blocks))

    async def tidy(self) -> None:
        """Let the folders of titles go of which nothing else is held, or that are listed no more."""
        await asyncio.to_thread(self._tidy)

    def _naming(self, title: str, blocks: frozenset[Cid]) -> list[Cid]:
        return [self._library.entry(title).cid, *(cid for cid in blocks if cid.codec == DAG_PB)]

    def _tidy(self) -> None:
        for label in self._store.pinned():
            if not label.startswith(LABEL):
                continue
            title = label.removeprefix(LABEL)
            try:
                reached = self._library.reached(title)
            except FarcastError:
                reached = ()
            if not any(cid.codec != DAG_PB and self._store.has(cid) for cid in reached):
                self._store.unpin(label)
