"""Keeping titles: every block fetched and pinned, so that it plays with no network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, Protocol

from ...protocol.cid import Cid
from ...protocol.errors import FarcastError, StoreFullError
from ..blocks.store import DiskStore
from ..catalog.library import Fetch, Library

AT_ONCE = 4
LABEL = "keep/"


class Kept(NamedTuple):
    """How far a kept title is; ``error`` is the sentence of what stopped it, empty while it goes on."""

    title: str
    blocks: int
    held_blocks: int
    bytes: int
    error: str


class Blocks(Protocol):
    """Where a keeper gets blocks from."""

    async def block(self, cid: Cid, *, title: str = "") -> bytes:
        """Return a block of ``title``, verified; raises ``RemoteError``."""
        ...


class Keeper:
    """Fetches what is to be kept, a few blocks at a time, and goes on after a restart."""

    def __init__(
        self,
        store: DiskStore,
        library: Library,
        fetcher: Blocks,
        *,
        label: str = LABEL,
        share: Callable[[str, Fetch], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        """Pin under ``label`` and the title.

        ``share`` brings all of a title together with neighbours, and by the fetch given to it what none has.
        """
        self._store = store
        self._library = library
        self._fetcher = fetcher
        self._label = label
        self._share = share
        self._work: dict[str, asyncio.Task[None]] = {}
        self._errors: dict[str, str] = {}
        self._pinning = asyncio.Lock()

    async def keep(self, title: str) -> Kept:
        """Pin a title's blocks and start to fetch what is missing; raises ``RefusedError`` for no title."""
        blocks = await self._library.blocks(title, self._fetch(title))
        async with self._pinning:
            await asyncio.to_thread(self._store.pin, self._label + title, blocks)
        self._begin(title, blocks)
        return await self.progress(title)

    async def progress(self, title: str) -> Kept:
        """Say how far a title is."""
        blocks = await self._library.blocks(title, self._fetch(title))
        places = [self._store.path(cid) for cid in blocks]
        held = [place[1] for place in places if place is not None]
        return Kept(title, len(blocks), len(held), sum(held), self._errors.get(title, ""))

    async def drop(self, title: str) -> Kept:
        """Unpin a title; its blocks stay until the room is needed."""
        async with self._pinning:
            await asyncio.to_thread(self._store.unpin, self._label + title)
        work = self._work.pop(title, None)
        if work is not None:
            work.cancel()
        self._errors.pop(title, None)
        return await self.progress(title)

    async def resume(self) -> None:
        """Go on with every kept title that is not whole: after a restart, or when a tier came back."""
        for label in await asyncio.to_thread(self._store.pinned):
            if not label.startswith(self._label):
                continue
            title = label.removeprefix(self._label)
            try:
                blocks = await self._library.blocks(title, self._fetch(title))
            except FarcastError:
                continue  # its catalog entry is gone, or no tier is up: the next round tries again
            if all(map(self._store.has, blocks)):
                continue
            async with self._pinning:
                if label not in await asyncio.to_thread(self._store.pinned):
                    continue  # dropped while its folders were fetched
                await asyncio.to_thread(self._store.pin, label, blocks)
                self._begin(title, blocks)

    def stays(self, cid: Cid) -> None:
        """Raise ``StoreFullError`` where a block just fetched is not here: no more is fetched in vain."""
        if not self._store.has(cid):
            message = f"no room in {self._store.folder}: free some disk, or raise [store] quota_bytes"
            raise StoreFullError(message)

    async def close(self) -> None:
        """Stop fetching."""
        for work in self._work.values():
            work.cancel()
        await asyncio.gather(*self._work.values(), return_exceptions=True)

    def _begin(self, title: str, blocks: tuple[Cid, ...]) -> None:
        """Fetch what is missing, unless that is under way."""
        if title not in self._work or self._work[title].done():
            self._errors.pop(title, None)
            self._work[title] = asyncio.ensure_future(self._bring(title, blocks))

    def _fetch(self, title: str) -> Fetch:
        async def fetch(cid: Cid) -> bytes:
            return await self._fetcher.block(cid, title=title)

        return fetch

    async def _bring(self, title: str, blocks: tuple[Cid, ...]) -> None:
        missing = iter([cid for cid in blocks if not self._store.has(cid)])

        async def worker() -> None:
            for cid in missing:
                await self._fetcher.block(cid, title=title)
                self.stays(cid)

        try:
            async with asyncio.TaskGroup() as tasks:
                if self._share is not None:
                    tasks.create_task(self._share(title, self._fetch(title)))
                else:
                    for _ in range(AT_ONCE):
                        tasks.create_task(worker())
        except* FarcastError as group:
            self._errors[title] = str(group.exceptions[0])
