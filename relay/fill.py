"""What a relay fetches for others: only blocks that a catalog root reaches.

Asked for a root or given a title hint, the relay loads the title's skeleton (manifest, folders,
file roots) and from then on knows every leaf; everything else is "not here" at once, and so is for
a while what the origin said it lacks.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter

from ..node.catalog.library import Fetch, Library
from ..protocol.cid import DAG_PB, Cid
from ..protocol.errors import FarcastError, RefusedError, UnreachableError
from ..protocol.ports import BlockStore
from .absent import Absent

TITLES_KEPT = 512


class Bring(Protocol):
    """Fetches a block of ``title``; ``alone`` from CDN or origin, never from another relay."""

    async def __call__(self, cid: Cid, title: str, *, alone: bool) -> bytes:
        """Return the block, verified; raises ``RemoteError``."""
        ...


class Fill:
    """Fetches on demand; one flight per CID is the fetcher's rule, reach is this class's."""

    def __init__(
        self,
        library: Library,
        store: BlockStore,
        bring: Bring,
        registry: CollectorRegistry,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._library = library
        self._store = store
        self._bring = bring
        self._clock = clock
        self._reach: OrderedDict[str, frozenset[Cid]] = OrderedDict()
        self._roots: dict[Cid, str] = {}
        self._entries = -1
        self.lacking, self.strangers = Absent(), Absent()
        self._absent = Counter(
            "farcast_relay_absent_answers",
            "Answers that a block is not to be had, from memory.",
            ["reason"],
            registry=registry,
        )
        for reason in ("missing", "not_reachable"):
            self._absent.labels(reason)
        self.admit: Callable[[str], None] = lambda _title: None
        """Asked before a block of a title is fetched; raises ``RefusedError`` where it may not be."""
        self.came: Callable[[str, int], Awaitable[None]] = _heard
        """Told of the bytes of a title that were fetched."""
        self.learned: Callable[[str, frozenset[Cid]], Awaitable[None]] = _heard
        """Told of every block of a title, once they are known."""

    async def block(self, cid: Cid, title: str | None, *, alone: bool = False) -> bytes:
        """Return a block from the store or, where a catalog root reaches it, from a tier above.

        Raises:
            RefusedError: 404 for anything this relay has no reason to fetch or the origin lacks.
            RemoteError: what fetching raises.

        """
        held = await asyncio.to_thread(self._store.get, cid) if self._store.has(cid) else None
        if held is not None:
            return held
        self._follow()
        named = await self._reaches(cid, title, alone=alone)
        if named is None:
            message = f"{cid} is neither held here nor part of a title in the catalog"
            raise RefusedError(message, status=404, reason="not_reachable")
        return await self._fetch(named, alone=alone)(cid)

    def reaches(self, cid: Cid) -> str | None:
        """Return a listed title that is known to reach a block, without looking further."""
        for name, known in self._reach.items():
            if cid in known:
                return name
        return self._roots.get(cid)

    def holds(self, cid: Cid) -> bool:
        """Say whether a block is here."""
        return self._store.has(cid)

    def of(self, title: str) -> Fetch:
        """Return what fetches a title's blocks."""
        return self._fetch(title, alone=False)

    async def learn_roots(self) -> None:
        """Fetch the manifests of newly listed titles, so that their roots can be asked for."""
        self._follow()
        for name in self._library.titles():
            try:
                entry = self._library.entry(name).cid
                self._roots[entry] = name
                manifest = await self._library.learn(name, self._fetch(name, alone=False))
            except FarcastError:
                continue
            self._roots[manifest.root_cid] = name
            held = self._store.has(manifest.root_cid)
            if held and name not in self._reach and len(self._reach) < TITLES_KEPT:
                with suppress(FarcastError):  # a root that is held is answered without asking here
                    await self.skeleton(name)

    def _follow(self) -> None:
        """Forget what a change of the catalog may have made wrong."""
        entries = self._library.entries
        if entries == self._entries:
            return
        self._entries = entries
        self.lacking.clear()
        self.strangers.clear()
        listed = set(self._library.titles())
        for name in [name for name in self._reach if name not in listed]:
            del self._reach[name]
        self._roots = {cid: name for cid, name in self._roots.items() if name in listed}
        self._roots |= {cid: name for name, cid in self._library.manifests().items()}

    async def _reaches(self, cid: Cid, title: str | None, *, alone: bool) -> str | None:
        named = self.reaches(cid)
        if named is not None:
            if cid.codec == DAG_PB and named not in self._reach:  # a root: what lies below it is asked next
                await self.skeleton(named, alone=alone)
            return named
        hinted = title if title is not None and self._library.lists(title) else None
        now = self._clock()
        if (hinted is None or hinted in self._reach) and self.strangers.holds(cid, now):
            self._absent.labels("not_reachable").inc()
            return None
        if hinted is not None and cid in await self.skeleton(hinted, alone=alone):
            return hinted
        self.strangers.note(cid, now)
        return None

    async def skeleton(self, title: str, *, alone: bool = False) -> frozenset[Cid]:
        """Return every block of a title, fetching its folders where they are not here yet."""
        blocks = await self._library.blocks(title, self._fetch(title, alone=alone))
        known = self._reach.get(title)
        if known is None or blocks[0] not in known:
            known = self._reach[title] = frozenset(blocks)
            self.strangers.clear()
            if len(self._reach) > TITLES_KEPT:
                self._reach.popitem(last=False)
            await self.learned(title, known)
        else:
            self._reach.move_to_end(title)
        return known

    def _fetch(self, title: str, *, alone: bool) -> Fetch:
        async def fetch(cid: Cid) -> bytes:
            self.admit(title)
            if self.lacking.holds(cid, self._clock()):
                self._absent.labels("missing").inc()
                raise _lacking(cid)
            try:
                data = await self._bring(cid, title, alone=alone)
            except UnreachableError as error:
                if error.reason != "missing":
                    raise
                self.lacking.note(cid, self._clock())
                raise _lacking(cid) from error
            await self.came(title, len(data))
            return data

        return fetch


def _lacking(cid: Cid) -> RefusedError:
    return RefusedError(f"the origin lacks the block {cid}", status=404, reason="missing")


async def _heard(_title: str, _what: object) -> None:
    """Hear and do nothing."""
