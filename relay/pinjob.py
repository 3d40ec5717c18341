"""One pin being brought: a walk whose blocks come from the store, else from gateways."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ..node.blocks.store import DiskStore
from ..protocol.cid import RAW, Cid
from ..protocol.errors import RefusedError, StoreFullError
from ..protocol.unixfs import Node, parse
from .gateways import Asked
from .pinwalk import PinWalk

AT_ONCE = 8
"""Blocks of one pin on their way at a time: 16 MiB in memory at most."""
RATE_PAUSE_S = 10.0
CACHE_SHARE = 10
"""A tenth of the quota stays with what viewers ask for, whatever is pinned."""


class PinJob:
    """Brings what ``walk`` leads to and pins it under ``label``; ``bytes`` and ``blocks`` were fetched."""

    def __init__(
        self,
        walk: PinWalk,
        label: str,
        store: DiskStore,
        asked: Asked,
        admit: Callable[[], Awaitable[None]],
        denied: Callable[[Cid], bool],
    ) -> None:
        """``admit`` waits until the operator's contract lets a fetch begin; ``denied`` is never fetched."""
        self._walk = walk
        self._label = label
        self._store = store
        self._asked = asked
        self._admit = admit
        self._denied = denied
        self._own_bytes = 0
        self._arriving_bytes = 0
        self.blocks = 0
        self.bytes = 0

    async def run(self) -> None:
        """Return when every block is here, durable and pinned.

        Raises:
            RemoteError: no gateway has a block, or it is neither file nor folder.
            StoreFullError: the quota leaves pins no room for it.

        """
        store, walk = self._store, self._walk
        own = (await asyncio.to_thread(store.pinned)).get(self._label, [])
        self._own_bytes = sum(store.size(cid) or 0 for cid in own)
        await asyncio.to_thread(store.pin, self._label, [walk.root])
        running: set[asyncio.Future[None]] = set()
        try:
            while True:
                while len(running) < AT_ONCE and (cid := walk.take()) is not None:
                    running.add(asyncio.ensure_future(self._visit(cid)))
                if not running:
                    break
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        await asyncio.to_thread(store.sync)

    async def _visit(self, cid: Cid) -> None:
        store, walk = self._store, self._walk
        size_bytes = store.size(cid)
        if cid.codec == RAW and size_bytes is not None:
            walk.arrived(size_bytes)
            return
        data = await asyncio.to_thread(store.get, cid)
        if data is None:
            data = await self._fetch(cid)
        node = await asyncio.to_thread(parse, cid, data)
        if cid == walk.root:
            self._check_whole(node, len(data))
        fresh = walk.arrived(len(data), [link.cid for link in node.links])
        if fresh:  # pinned before they come, so that they do not push each other out
            await asyncio.to_thread(store.pin, self._label, fresh)

    async def _fetch(self, cid: Cid) -> bytes:
        if self._denied(cid):
            raise RefusedError(f"{cid} is taken down and not brought back", status=410, reason="denied")
        self._check_room(1)
        await self._wait_for_rate()
        data = await self._asked.block(cid)
        self._check_room(len(data))
        self._arriving_bytes += len(data)
        try:
            await asyncio.to_thread(self._store.put, cid, data, hashed=True)
        finally:
            self._arriving_bytes -= len(data)
        self.blocks += 1
        self.bytes += len(data)
        return data

    async def _wait_for_rate(self) -> None:
        """Return once the rate allows a fetch; whatever else forbids one ends the job."""
        while True:
            try:
                await self._admit()
            except RefusedError as error:
                if error.reason != "rate_down":
                    raise
                await asyncio.sleep(min(error.retry_after_s or 1.0, RATE_PAUSE_S))
            else:
                return

    def _check_whole(self, root: Node, size_bytes: int) -> None:
        """Refuse at once what says of itself that it is too large; what lies is stopped on the way."""
        self._check_room(size_bytes + sum(link.tsize for link in root.links) - self._own_bytes)

    def _check_room(self, more_bytes: int) -> None:
        quota = self._store.quota_bytes
        room = quota - quota // CACHE_SHARE - self._store.pinned_bytes - self._arriving_bytes
        if more_bytes > room:
            message = (
                f"{self._walk.root} needs {more_bytes} bytes more, but of the quota of {quota} bytes pins "
                f"may take {max(room, 0)} more; raise [store] quota_bytes or `farcast relay unpin` another"
            )
            raise StoreFullError(message)
