"""Takedown: what the catalog denies leaves this box, and is remembered as gone.

A denied manifest's blocks are refused from the moment their list is on the disk (so a restart
knows them too, though the folders that named them are dropped), and only then dropped. Blocks that
a listed title reaches, as far as the folders here tell, stay. A pin protects nothing denied.
"""

from __future__ import annotations

import logging
import threading
from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge

from ...protocol.catalog import Catalog
from ...protocol.cid import DAG_PB, RAW, Cid
from ...protocol.errors import RemoteError
from ...protocol.manifest import open_manifest
from ...protocol.unixfs import parse
from ..blocks.store import DiskStore
from ..home import write_whole
from .library import BLOCKS_PER_TITLE

log = logging.getLogger(__name__)

SWEEP_S = 60.0
"""How often it is looked whether a block came back by a way that asks nobody."""

PREFIX_BYTES = 8
"""Of a digest are remembered: 8 MB for a million blocks, and no two alike by chance."""


class Heads(Protocol):
    """Whose deny entries are enforced."""

    @property
    def catalog(self) -> Catalog:
        """The entries and what they add up to."""
        ...


class Takedown:
    """Enforces the deny entries of one catalog."""

    def __init__(
        self,
        folder: Path,
        heads: Heads,
        store: DiskStore,
        registry: CollectorRegistry,
        *,
        spares_manifests: bool = False,
    ) -> None:
        """Remember in ``folder``; an origin ``spares_manifests``, which its settlement still needs."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._heads = heads
        self._store = store
        self._spares_manifests = spares_manifests
        self._lock = threading.Lock()
        self._gone = array("Q")
        self._done: set[Cid] = set()
        self._spared: frozenset[Cid] = frozenset()
        self._examined: set[Cid] = set()
        self._entries: int = -1
        self.version = 0
        """Grows with every change of what is gone: who remembers answers looks again."""
        self.dropped: list[Callable[[Collection[Cid]], None]] = []
        """Told, on whatever thread, of the blocks that may not be served from memory any more."""
        self._blocks = Counter(
            "farcast_node_taken_down_blocks", "Blocks dropped because of a takedown.", registry=registry
        )
        Gauge("farcast_node_takedowns", "Manifests taken down.", registry=registry).set_function(
            lambda: float(len(self._done))
        )

    def load(self) -> None:
        """Read what earlier runs took down, and finish what they did not. Blocking."""
        gone: set[int] = set()
        for path in self._folder.iterdir():
            try:
                self._done.add(Cid.parse(path.name))
            except RemoteError:
                continue  # a draft that a crash left
            numbers = array("Q")
            data = path.read_bytes()
            numbers.frombytes(data[: len(data) // PREFIX_BYTES * PREFIX_BYTES])
            gone.update(numbers)
        self._gone = array("Q", sorted(gone))
        self.version += 1
        self.sweep()

    def __contains__(self, cid: Cid) -> bool:
        """Say whether a block belongs to something taken down; a listed title may need it all the same."""
        number = _number(cid)
        at = bisect_left(self._gone, number)
        return at < len(self._gone) and self._gone[at] == number and cid not in self._spared

    @property
    def count(self) -> int:
        """How many manifests are taken down."""
        return len(self._done)

    def enforce(self) -> int:
        """Take down what the catalog denies by now; returns how many blocks left. Blocking."""
        with self._lock:
            dropped = 0
            fresh = self._heads.catalog.denied() - self._done
            if fresh:
                reach = {manifest: self._reach(manifest)[0] for manifest in sorted(fresh)}
                live = self._live(frozenset[Cid]().union(*reach.values()))
                for manifest, cids in reach.items():
                    dropped += self._take_down(manifest, cids - live)
            self._spare(anew=bool(fresh))
            return dropped

    def sweep(self) -> int:
        """Drop what is gone and came in again by another way; returns how many blocks that were. Blocking."""
        if not self._gone:
            return 0
        with self._lock:
            self._spare(anew=False)
            found = frozenset(cid for cid in self._store.cids() if cid in self)
            if self._spares_manifests:
                found -= self._done
            return self._drop(found - self._live(found)) if found else 0

    def alone(self, manifests: Iterable[Cid]) -> frozenset[Cid]:
        """Return the blocks that ``manifests`` reach and no listed title, themselves left out. Blocking."""
        named = frozenset(manifests)
        reach = frozenset[Cid]().union(*(self._reach(cid)[0] for cid in named))
        return reach - self._live(reach) - named

    def _spare(self, *, anew: bool) -> None:
        """Look which gone blocks the listed titles need after all, as far as their folders are here."""
        catalog = self._heads.catalog
        if not self._gone or (catalog.size == self._entries and not anew):
            return
        listed = {entry.cid for entry in catalog.titles().values()} - catalog.denied()
        spared = set(self._spared)
        if anew or not self._examined <= listed:
            self._examined.clear()
            spared.clear()
            self._spared = frozenset()
        for manifest in listed - self._examined:
            if self._store.has(manifest):
                reach, whole = self._reach(manifest)
                spared.update(cid for cid in reach if cid in self)
                if whole:
                    self._examined.add(manifest)
        found = frozenset(spared)
        if found != self._spared:
            self._spared = found
            self.version += 1
        self._entries = catalog.size

    def _take_down(self, manifest: Cid, gone: frozenset[Cid]) -> int:
        fresh = array("Q", sorted({_number(cid) for cid in (*gone, manifest)}))
        write_whole(self._folder / str(manifest), fresh.tobytes())
        self._gone = array("Q", sorted({*self._gone, *fresh}))  # replaced whole: readers take no lock
        self._done.add(manifest)
        self.version += 1
        dropped = self._drop(gone - {manifest} if self._spares_manifests else gone)
        log.warning("a title was taken down: %d blocks of it left this box", dropped)
        return dropped

    def _drop(self, cids: frozenset[Cid]) -> int:
        for hear in self.dropped:
            hear(cids)
        dropped = sum(self._store.drop(cid) for cid in cids)
        for hear in self.dropped:  # once more, for what was read in between
            hear(cids)
        self._blocks.inc(dropped)
        return dropped

    def _live(self, wanted: frozenset[Cid]) -> frozenset[Cid]:
        """Return which of ``wanted`` a listed title reaches."""
        catalog = self._heads.catalog
        denied, left, live = catalog.denied(), set(wanted), set[Cid]()
        for entry in catalog.titles().values():
            if entry.cid not in denied and self._store.has(entry.cid):
                live |= self._reach(entry.cid)[0] & left
                if live == left:
                    break
        return frozenset(live)

    def _reach(self, manifest: Cid) -> tuple[frozenset[Cid], bool]:
        """Return a manifest and every block below it as far as the folders here lead, and if that is all."""
        found, whole = {manifest}, self._store.has(manifest)
        todo = list(self._roots(manifest))
        while todo and len(found) < BLOCKS_PER_TITLE:
            cid = todo.pop()
            if cid in found or cid.is_identity:
                continue
            found.add(cid)
            if cid.codec != DAG_PB:
                continue
            data = self._store.get(cid)
            whole = whole and data is not None
            try:
                todo += [] if data is None else [link.cid for link in parse(cid, data).links]
            except RemoteError:
                continue
        return frozenset(found), whole

    def _roots(self, manifest: Cid) -> Iterable[Cid]:
        data = self._store.get(manifest) if manifest.codec == RAW else None
        try:
            return [] if data is None else [open_manifest(data).root_cid]
        except RemoteError:
            return []


def _number(cid: Cid) -> int:
    return int.from_bytes(cid.digest[:PREFIX_BYTES].ljust(PREFIX_BYTES, b"\0"))
