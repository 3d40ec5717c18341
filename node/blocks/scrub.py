"""The scrubber: reads every block again now and then, so that rot is found before a player meets it.

It also finds blocks whose files are gone, and files the index does not know (an index lost or taken
back by a power cut): whole blocks are taken in again, torn ones are removed, and what has no
block's name is left to whoever put it there.
"""

from __future__ import annotations

from collections import deque
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge

from ...protocol.cid import Cid
from ...protocol.errors import RemoteError, StoreFullError
from .store import DiskStore

FOLDERS = 1 << 8
"""One for each first byte of a digest."""
CIRCLE_S = 6 * 3_600.0
"""A store is not read more often than this, however small it is."""
_NOTE = "scrub"

Found = Literal["whole", "corrupt", "adopted", "removed", "full", "foreign"]
FOUND: tuple[Found, ...] = ("whole", "corrupt", "adopted", "removed", "full", "foreign")


class Scrubbed(NamedTuple):
    """What a step found; ``wrapped`` says that it came past the last folder."""

    blocks: int
    bytes: int
    corrupt: int
    adopted: int
    wrapped: bool


class Scrubber:
    """Walks a store's folders in a circle, a step at a time, and goes on there after a restart."""

    def __init__(self, store: DiskStore, registry: CollectorRegistry) -> None:
        self._store = store
        self.folder = store.note(_NOTE) % FOLDERS
        self._left: deque[str] | None = None
        self._began_s: float | None = None
        self._rests_until_s = float("-inf")
        self._found = Counter(
            "farcast_node_store_scrubbed_files",
            "Files looked at by the scrubber, by what they were: whole, corrupt (or missing) and dropped, "
            "adopted into the index, removed as torn, full (no room to adopt), foreign and left alone.",
            ["found"],
            registry=registry,
        )
        for found in FOUND:
            self._found.labels(found)
        self._bytes = Counter(
            "farcast_node_store_scrubbed_bytes", "Bytes hashed again by the scrubber.", registry=registry
        )
        self._circles = Counter(
            "farcast_node_store_scrubbed_circles", "Times the scrubber came round.", registry=registry
        )
        self._place = Gauge(
            "farcast_node_store_scrubbed_ratio", "How far round the scrubber is, 0 to 1.", registry=registry
        )

    def turn(self, limit_bytes: int, now_s: float) -> Scrubbed | None:
        """Do one ``step``, or rest where the whole store was read in less than ``CIRCLE_S``. Blocking."""
        if now_s < self._rests_until_s:
            return None
        if self._began_s is None:
            self._began_s = now_s
        done = self.step(limit_bytes)
        if done.wrapped:
            self._rests_until_s = self._began_s + CIRCLE_S
            self._began_s = None
        return done

    def step(self, limit_bytes: int) -> Scrubbed:
        """Read until ``limit_bytes`` were read or the circle is closed. Blocking."""
        counts: dict[Found, int] = dict.fromkeys(FOUND, 0)
        size_bytes, wrapped, began = 0, False, self.folder
        for _ in range(FOLDERS):
            if self._left is None:
                self._left = deque(self._names(self.folder))
            while self._left and size_bytes < limit_bytes:
                found, size = self._look(self._left.popleft())
                counts[found] += 1
                size_bytes += size
            if self._left:
                break
            self._left = None
            self.folder = (self.folder + 1) % FOLDERS
            wrapped = wrapped or self.folder == 0
            if size_bytes >= limit_bytes:
                break
        self._tell(counts, size_bytes, wrapped=wrapped)
        if self.folder != began:
            self._store.keep_note(_NOTE, self.folder)
        blocks = sum(counts.values()) - counts["foreign"]
        return Scrubbed(blocks, size_bytes, counts["corrupt"], counts["adopted"], wrapped)

    def _look(self, name: str) -> tuple[Found, int]:
        """Look at one file, or at a block that has none; returns what it was and how much was read."""
        try:
            cid = Cid.parse(name)
        except RemoteError:
            return "foreign", 0
        size = self._store.size(cid)
        if size is not None:
            return ("whole" if self._store.check(cid) else "corrupt"), size
        try:
            adopted = self._store.adopt(cid)
        except StoreFullError:
            return "full", 0
        size = self._store.size(cid) or 0
        return ("adopted" if adopted else "removed"), size

    def _names(self, folder: int) -> list[str]:
        """Return what lies in a folder and what should."""
        try:
            names = {file.name for file in (self._store.folder / f"{folder:02x}").iterdir()}
        except OSError:
            names = set[str]()
        return sorted(names.union(str(cid) for cid in self._store.held_in(folder)))

    def _tell(self, counts: dict[Found, int], size_bytes: int, *, wrapped: bool) -> None:
        for found, count in counts.items():
            self._found.labels(found).inc(count)
        self._bytes.inc(size_bytes)
        self._circles.inc(wrapped)
        self._place.set(self.folder / FOLDERS)
