"""The scrubber: reads every block again now and then, so that rot is found before a player meets it.

It also finds files the index does not know (an index lost or taken back by a power cut): whole
blocks are taken in again, anything else is removed.
"""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from ...protocol.cid import Cid
from ...protocol.errors import RemoteError, StoreFullError
from .store import DiskStore

FOLDERS = 1 << 16
"""Leaf folders of the fan-out: one for each two first bytes of a digest."""


class Scrubbed(NamedTuple):
    """What a step found; ``wrapped`` says that it came past the last folder."""

    blocks: int
    bytes: int
    corrupt: int
    adopted: int
    wrapped: bool


class Scrubber:
    """Walks a store's folders in a circle, a step at a time; ``folder`` is where the next step begins."""

    def __init__(self, store: DiskStore, folder: int = 0) -> None:
        self._store = store
        self.folder = folder % FOLDERS

    def step(self, limit_bytes: int) -> Scrubbed:
        """Read folders until ``limit_bytes`` were read or the circle is closed. Blocking."""
        blocks = size_bytes = corrupt = adopted = 0
        wrapped = False
        for _ in range(FOLDERS):
            for cid in self._listed(self.folder):
                size = self._store.size(cid)
                blocks += 1
                if size is None:
                    with suppress(StoreFullError):
                        adopted += self._store.adopt(cid)
                else:
                    size_bytes += size
                    corrupt += not self._store.check(cid)
            self.folder = (self.folder + 1) % FOLDERS
            wrapped = wrapped or self.folder == 0
            if size_bytes >= limit_bytes:
                break
        return Scrubbed(blocks, size_bytes, corrupt, adopted, wrapped)

    def _listed(self, number: int) -> list[Cid]:
        fan = f"{number:04x}"
        cids: list[Cid] = []
        with suppress(FileNotFoundError):
            for file in (self._store.folder / fan[:2] / fan[2:]).iterdir():
                with suppress(RemoteError):  # no block's name: not ours to remove
                    cids.append(Cid.parse(file.name))
        return cids
