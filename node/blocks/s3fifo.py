"""S3-FIFO: which of the things that fill a quota leave first (Yang et al., SOSP 2023, algorithm 1).

Three first-in first-out queues. What is new waits in *small* (a tenth of the quota); what was used
again while it waited moves on to *main*, all else leaves and only its key stays, in *ghost*; what
comes back while its key is there goes straight to *main*. *Main* gives what was used another round.
So a film watched once passes through a tenth of the quota and never pushes out the hot set.

Size-aware: every share is bytes, ghosts stand for the bytes they had. A pure object that knows keys
and sizes only; the owner of the bytes does what it says. A hit is one dictionary look-up.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from enum import Enum
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)

SMALL_PERCENT = 10
GHOST_LIMIT = 65_536
MOST_FREQUENCY = 3
"""A use past this changes nothing (two bits in the paper)."""
_TO_MAIN = 2
"""Uses in *small* after which a thing moves to *main*."""


class Queue(Enum):
    """Where a thing waits."""

    SMALL = "small"
    MAIN = "main"
    PINNED = "pinned"


class Evicted(NamedTuple, Generic[K]):
    """One thing that must leave now; ``queue`` is where it waited."""

    key: K
    size_bytes: int
    queue: Queue


class Place(NamedTuple):
    """What is known of one thing, enough to ``restore`` it."""

    queue: Queue
    size_bytes: int
    frequency: int


class _Entry:
    __slots__ = ("frequency", "queue", "size_bytes")

    def __init__(self, size_bytes: int, queue: Queue, frequency: int = 0) -> None:
        self.size_bytes = size_bytes
        self.queue = queue
        self.frequency = frequency


class S3Fifo(Generic[K]):
    """Decides about keys of known sizes under ``quota_bytes``.

    ``insert`` on a miss, ``hit`` on a use, ``discard`` for what left for another reason; ``insert``,
    ``evict`` and ``resize`` return what must leave. Pinned things count and never leave.
    """

    def __init__(
        self, quota_bytes: int, *, small_percent: int = SMALL_PERCENT, ghost_limit: int = GHOST_LIMIT
    ) -> None:
        """Start empty; at most ``ghost_limit`` keys are remembered after their things have left."""
        self.quota_bytes = quota_bytes
        self.held_bytes = 0
        self._small_percent = small_percent
        self._ghost_limit = ghost_limit
        self._entries: dict[K, _Entry] = {}
        self._queues: dict[Queue, OrderedDict[K, None]] = {queue: OrderedDict() for queue in Queue}
        self._bytes = dict.fromkeys(Queue, 0)
        self._ghosts: OrderedDict[K, int] = OrderedDict()
        self._ghost_bytes = 0

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def ghosts(self) -> int:
        """How many keys are remembered of things that left."""
        return len(self._ghosts)

    def bytes_in(self, queue: Queue) -> int:
        """Bytes of what waits in ``queue``."""
        return self._bytes[queue]

    def place(self, key: K) -> Place | None:
        """Return where a thing waits; None where it is not here."""
        entry = self._entries.get(key)
        return None if entry is None else Place(entry.queue, entry.size_bytes, entry.frequency)

    def keys(self, queue: Queue) -> list[K]:
        """Return what waits in ``queue``, the next to be looked at first."""
        return list(self._queues[queue])

    def hit(self, key: K) -> bool:
        """Count a use; False where the thing is not here."""
        entry = self._entries.get(key)
        if entry is None:
            return False
        if entry.frequency < MOST_FREQUENCY:
            entry.frequency += 1
        return True

    def wanted(self, key: K) -> bool:
        """Say whether ``key`` left not long ago: an ``insert`` would put it into *main* at once."""
        return key in self._ghosts

    def insert(self, key: K, size_bytes: int) -> list[Evicted[K]]:
        """Take in a new thing and return what must leave for it, room for it included.

        A thing already here counts as used. One over what the pinned leave of the quota is not
        taken in: it is then not ``in`` this object, and nothing leaves for it.
        """
        if self.hit(key) or size_bytes > self.quota_bytes - self._bytes[Queue.PINNED]:
            return []
        main = key in self._ghosts  # asked before the eviction, which may push this very ghost out
        leaving = self.evict(self.held_bytes + size_bytes - self.quota_bytes)
        self._forget(key)
        self._enter(key, _Entry(size_bytes, Queue.MAIN if main else Queue.SMALL))
        return leaving

    def restore(self, key: K, place: Place) -> None:
        """Take in a thing as it was before a restart, last in its queue; ``evict`` what is too much."""
        self.discard(key)
        self._enter(key, _Entry(place.size_bytes, place.queue, min(place.frequency, MOST_FREQUENCY)))

    def evict(self, need_bytes: int) -> list[Evicted[K]]:
        """Return what must leave so that ``need_bytes`` are freed, less only where all else is pinned."""
        leaving: list[Evicted[K]] = []
        while need_bytes > 0:
            evicted = self._evict_one()
            if evicted is None:
                break
            need_bytes -= evicted.size_bytes
            leaving.append(evicted)
        return leaving

    def resize(self, quota_bytes: int) -> list[Evicted[K]]:
        """Change the quota and return what must leave for it."""
        self.quota_bytes = quota_bytes
        leaving = self.evict(self.held_bytes - quota_bytes)
        self._bound_ghosts()
        return leaving

    def discard(self, key: K) -> bool:
        """Forget a thing and its ghost (it was taken down or is damaged); True where it was here."""
        self._forget(key)
        entry = self._entries.get(key)
        if entry is None:
            return False
        self._leave(key, entry)
        return True

    def pin(self, key: K) -> bool:
        """Keep a thing from eviction; False where it is not here."""
        return self._shift(key, Queue.PINNED)

    def unpin(self, key: K) -> bool:
        """Let a pinned thing be evicted again, from *main*; False where it is not here or not pinned."""
        entry = self._entries.get(key)
        return entry is not None and entry.queue is Queue.PINNED and self._shift(key, Queue.MAIN)

    def _evict_one(self) -> Evicted[K] | None:
        """Move things on until one must leave; every turn lowers a frequency or empties *small*."""
        small, main = self._queues[Queue.SMALL], self._queues[Queue.MAIN]
        while small or main:
            share_bytes = self.quota_bytes * self._small_percent // 100
            if small and (self._bytes[Queue.SMALL] > share_bytes or not main):
                key = next(iter(small))
                entry = self._entries[key]
                if entry.frequency < _TO_MAIN:
                    self._leave(key, entry)
                    self._remember(key, entry.size_bytes)
                    return Evicted(key, entry.size_bytes, Queue.SMALL)
                entry.frequency = 0
                self._shift(key, Queue.MAIN)
                continue
            key = next(iter(main))
            entry = self._entries[key]
            if not entry.frequency:
                self._leave(key, entry)
                return Evicted(key, entry.size_bytes, Queue.MAIN)
            entry.frequency -= 1
            main.move_to_end(key)
        return None

    def _enter(self, key: K, entry: _Entry) -> None:
        self._entries[key] = entry
        self._queues[entry.queue][key] = None
        self._bytes[entry.queue] += entry.size_bytes
        self.held_bytes += entry.size_bytes

    def _leave(self, key: K, entry: _Entry) -> None:
        del self._entries[key], self._queues[entry.queue][key]
        self._bytes[entry.queue] -= entry.size_bytes
        self.held_bytes -= entry.size_bytes

    def _shift(self, key: K, queue: Queue) -> bool:
        entry = self._entries.get(key)
        if entry is None:
            return False
        if entry.queue is not queue:
            self._leave(key, entry)
            entry.queue = queue
            self._enter(key, entry)
        return True

    def _remember(self, key: K, size_bytes: int) -> None:
        self._ghosts[key] = size_bytes
        self._ghost_bytes += size_bytes
        self._bound_ghosts()

    def _bound_ghosts(self) -> None:
        """Keep no more ghosts than *main* could hold, and no more than the limit."""
        most_bytes = self.quota_bytes * (100 - self._small_percent) // 100
        while self._ghosts and (self._ghost_bytes > most_bytes or len(self._ghosts) > self._ghost_limit):
            self._ghost_bytes -= self._ghosts.popitem(last=False)[1]

    def _forget(self, key: K) -> None:
        self._ghost_bytes -= self._ghosts.pop(key, 0)
