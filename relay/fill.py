"""What a relay fetches for others: only blocks that a catalog root reaches.

Asked for a root or given a title hint, the relay loads the title's skeleton (manifest, folders,
file roots) and from then on knows every leaf; everything else is "not here" at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable

from ..node.catalog.library import Library
from ..protocol.cid import Cid
from ..protocol.errors import FarcastError, RefusedError
from ..protocol.ports import BlockStore

TITLES_KEPT = 512

Fetch = Callable[[Cid], Awaitable[bytes]]


class Fill:
    """Fetches on demand; one flight per CID is the fetcher's rule, reach is this class's."""

    def __init__(self, library: Library, store: BlockStore, fetch: Fetch) -> None:
        self._library = library
        self._store = store
        self._fetch = fetch
        self._reach: OrderedDict[str, frozenset[Cid]] = OrderedDict()
        self._roots: dict[Cid, str] = {}
        self.admit: Callable[[str], None] = lambda _title: None
        """Asked before a block of a title is fetched; raises ``RefusedError`` where it may not be."""
        self.came: Callable[[str, int], Awaitable[None]] = _heard
        """Told of the bytes of a title that were fetched."""

    async def block(self, cid: Cid, title: str | None) -> bytes:
        """Return a block from the store or, where a catalog root reaches it, from the origin.

        Raises:
            RefusedError: 404 for anything this relay has no reason to fetch.
            RemoteError: what fetching raises.

        """
        held = self._store.get(cid)
        if held is not None:
            return held
        name = await self._reached_by(cid, title)
        if name is None:
            message = f"{cid} is neither held here nor part of a title in the catalog"
            raise RefusedError(message, status=404, reason="not_reachable")
        self.admit(name)
        data = await self._fetch(cid)
        await self.came(name, len(data))
        return data

    async def _reached_by(self, cid: Cid, title: str | None) -> str | None:
        """Return a listed title that ``cid`` belongs to, None where there is none."""
        known = next((name for name, blocks in self._reach.items() if cid in blocks), None)
        if known is not None:
            return known
        hinted = [title] if title in self._library.titles() else []
        for name in hinted or self._named_by(cid):
            self.admit(name)
            if cid in await self._skeleton(name):
                return name
        return None

    def _named_by(self, cid: Cid) -> list[str]:
        """Return the titles whose manifest or root folder ``cid`` is."""
        return [
            name
            for name in self._library.titles()
            if self._library.entry(name).cid == cid or self._roots.get(cid) == name
        ]

    async def learn_roots(self) -> None:
        """Fetch the manifests of newly listed titles, so that their roots can be asked for."""
        for name in self._library.titles():
            try:
                manifest = await self._library.learn(name, self._fetch)
            except FarcastError:
                continue
            self._roots[manifest.root_cid] = name

    async def _skeleton(self, title: str) -> frozenset[Cid]:
        blocks = await self._library.blocks(title, self._fetch)
        known = self._reach.get(title)
        if known is None or blocks[0] not in known:
            known = self._reach[title] = frozenset(blocks)
            if len(self._reach) > TITLES_KEPT:
                self._reach.popitem(last=False)
        self._reach.move_to_end(title)
        return known


async def _heard(_title: str, _size_bytes: int) -> None:
    """Hear and do nothing."""
