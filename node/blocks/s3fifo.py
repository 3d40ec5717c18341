"""S3-FIFO: which of the things that fill a quota leave first (Yang et al., SOSP 2023, algorithm 1).

Three first-in first-out queues. What is new waits in *small* (a tenth of the quota); what was used
again while it waited moves on to *main*, all else leaves and only its key stays, in *ghost*; what
comes back while its key is there goes straight to *main*. *Main* gives what was used another round.
So a film watched once passes through a tenth of the quota and never pushes out the hot set.

Size-aware: every share is bytes, ghosts stand for the bytes they had. A pure object that knows keys
and sizes only; the owner of the bytes does what it says. A hit is one dictionary look-up.

Compact, for a store of a million blocks: a thing costs a dictionary slot with all that is known of
it packed into one number, and eight bytes in its queue.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator
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


_QUEUES = tuple(Queue)
_SMALL, _MAIN, _PINNED = range(3)
_QUEUE_BITS, _FREQUENCY_SHIFT, _SIZE_SHIFT = 3, 2, 4
_ONE_USE = 1 << _FREQUENCY_SHIFT
_WORDS_LIMIT = 4_096
_SKIPPED_LIMIT = 64


class _Line(Generic[K]):
    """Keys in order of arrival; what leaves from the middle stays in line and is skipped later."""

    def __init__(self) -> None:
        self._keys: deque[K] = deque()
        self._gone: dict[K, int] = {}  # how many of a key's oldest places in line are void
        self._void = 0

    def __len__(self) -> int:
        return len(self._keys) - self._void

    def __iter__(self) -> Iterator[K]:
        gone = dict(self._gone)
        for key in self._keys:
            if gone.get(key):
                gone[key] -= 1
            else:
                yield key

    def append(self, key: K) -> None:
        self._keys.append(key)

    def head(self) -> K:
        """Return the key that came first."""
        while self._gone and self._keys[0] in self._gone:
            key = self._keys.popleft()
            self._void -= 1
            self._gone[key] -= 1
            if not self._gone[key]:
                del self._gone[key]
        return self._keys[0]

    def remove(self, key: K) -> None:
        if self._keys[0] == key and key not in self._gone:
            self._keys.popleft()
            return
        self._gone[key] = self._gone.get(key, 0) + 1
        self._void += 1
        if self._void > _SKIPPED_LIMIT + len(self._keys) // 2:
            self._keys = deque(self)
            self._gone.clear()
            self._void = 0


class S3Fifo(Generic[K]):
    """Decides about keys of known sizes under ``quota_bytes``.

    ``insert`` on a miss, ``hit`` on a use, ``discard`` for what left for another reason; ``insert``,
    ``evict`` and ``resize`` return what must leave. Pinned things count and never leave. ``size``
    and ``in`` may be asked by other threads meanwhile.
    """

    def __init__(
        self,
        quota_bytes: int,
        *,
        small_percent: int = SMALL_PERCENT,
        ghost_limit: int = GHOST_LIMIT,
        note_moves: bool = False,
    ) -> None:
        """Start empty; at most ``ghost_limit`` keys are remembered after their things have left.

        With ``note_moves`` the owner calls ``take_moved`` after each change, to write places down.
        """
        self.quota_bytes = quota_bytes
        self.held_bytes = 0
        self._small_percent = small_percent
        self._ghost_limit = ghost_limit
        self._note_moves = note_moves
        self._entries: dict[K, int] = {}
        self._words: dict[int, int] = {}  # most blocks of a film have one size: one number for all of them
        self._lines: tuple[_Line[K], ...] = tuple(_Line[K]() for _ in Queue)
        self._bytes = [0 for _ in Queue]
        self._moved: dict[K, None] = {}
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
        return self._bytes[_QUEUES.index(queue)]

    def size(self, key: K) -> int | None:
        """Return a thing's bytes; None where it is not here."""
        entry = self._entries.get(key)
        return None if entry is None else entry >> _SIZE_SHIFT

    def place(self, key: K) -> Place | None:
        """Return where a thing waits; None where it is not here."""
        entry = self._entries.get(key)
        return (
            None if entry is None else Place(_QUEUES[entry & _QUEUE_BITS], entry >> _SIZE_SHIFT, _uses(entry))
        )

    def keys(self, queue: Queue) -> list[K]:
        """Return what waits in ``queue``, the next to be looked at first."""
        return list(self._lines[_QUEUES.index(queue)])

    def held_keys(self) -> list[K]:
        """Return what is here, in no order; may be asked by other threads too."""
        return list(self._entries)

    def ghost_sizes(self) -> list[tuple[K, int]]:
        """Return the keys remembered of things that left, with the bytes they had, the oldest first."""
        return list(self._ghosts.items())

    def take_moved(self) -> list[K]:
        """Return what has changed queue or gone another round since the last call, in that order."""
        moved, self._moved = self._moved, {}
        return [key for key in moved if key in self._entries]

    def hit(self, key: K) -> bool:
        """Count a use; False where the thing is not here."""
        if key not in self._entries:
            return False
        self.count(key, 1)
        return True

    def count(self, key: K, uses: int) -> bool:
        """Count several uses; True where that changed what is known of the thing."""
        entry = self._entries.get(key)
        if entry is None or _uses(entry) == MOST_FREQUENCY:
            return False
        more = min(uses, MOST_FREQUENCY - _uses(entry))
        self._entries[key] = self._word(entry + more * _ONE_USE)
        return True

    def wanted(self, key: K) -> bool:
        """Say whether ``key`` left not long ago: an ``insert`` would put it into *main* at once."""
        return key in self._ghosts

    def insert(self, key: K, size_bytes: int) -> list[Evicted[K]]:
        """Take in a new thing and return what must leave for it, room for it included.

        A thing already here counts as used. One over what the pinned leave of the quota is not
        taken in: it is then not ``in`` this object, and nothing leaves for it.
        """
        if self.hit(key) or size_bytes > self.quota_bytes - self._bytes[_PINNED]:
            return []
        main = key in self._ghosts  # asked before the eviction, which may push this very ghost out
        leaving = self.evict(self.held_bytes + size_bytes - self.quota_bytes)
        self._forget(key)
        self._enter(key, size_bytes, _MAIN if main else _SMALL)
        return leaving

    def restore(self, key: K, place: Place) -> None:
        """Take in a thing as it was before a restart, last in its queue; ``evict`` what is too much."""
        if key in self._entries or key in self._ghosts:
            self.discard(key)
        frequency = min(place.frequency, MOST_FREQUENCY)
        self._enter(key, place.size_bytes, _QUEUES.index(place.queue), frequency)

    def restore_ghost(self, key: K, size_bytes: int) -> None:
        """Remember a key as it was before a restart, as the newest."""
        if key not in self._entries:
            self._forget(key)
            self._remember(key, size_bytes)

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
        return self._shift(key, _PINNED)

    def unpin(self, key: K, queue: Queue = Queue.MAIN) -> bool:
        """Let a pinned thing be evicted again, from ``queue``; False where it is not here or not pinned."""
        entry = self._entries.get(key)
        if entry is None or entry & _QUEUE_BITS != _PINNED:
            return False
        return self._shift(key, _QUEUES.index(queue))

    def _evict_one(self) -> Evicted[K] | None:
        """Move things on until one must leave; every turn lowers a frequency or empties *small*."""
        small, main = self._lines[_SMALL], self._lines[_MAIN]
        while small or main:
            share_bytes = self.quota_bytes * self._small_percent // 100
            if small and (self._bytes[_SMALL] > share_bytes or not main):
                key = small.head()
                entry = self._entries[key]
                if _uses(entry) < _TO_MAIN:
                    self._leave(key, entry)
                    self._remember(key, entry >> _SIZE_SHIFT)
                    return Evicted(key, entry >> _SIZE_SHIFT, Queue.SMALL)
                self._shift(key, _MAIN, frequency=0)
                continue
            key = main.head()
            entry = self._entries[key]
            if not _uses(entry):
                self._leave(key, entry)
                return Evicted(key, entry >> _SIZE_SHIFT, Queue.MAIN)
            self._entries[key] = self._word(entry - _ONE_USE)
            main.remove(key)
            main.append(key)
            self._move(key)
        return None

    def _enter(self, key: K, size_bytes: int, queue: int, frequency: int = 0) -> None:
        self._entries[key] = self._word(size_bytes << _SIZE_SHIFT | frequency << _FREQUENCY_SHIFT | queue)
        self._lines[queue].append(key)
        self._bytes[queue] += size_bytes
        self.held_bytes += size_bytes

    def _leave(self, key: K, entry: int) -> None:
        queue, size_bytes = entry & _QUEUE_BITS, entry >> _SIZE_SHIFT
        del self._entries[key]
        self._lines[queue].remove(key)
        self._bytes[queue] -= size_bytes
        self.held_bytes -= size_bytes

    def _shift(self, key: K, queue: int, frequency: int | None = None) -> bool:
        """Move a thing to the end of another queue; it is never missing meanwhile."""
        entry = self._entries.get(key)
        if entry is None:
            return False
        before, size_bytes = entry & _QUEUE_BITS, entry >> _SIZE_SHIFT
        if before != queue:
            kept = _uses(entry) if frequency is None else frequency
            self._entries[key] = self._word(size_bytes << _SIZE_SHIFT | kept << _FREQUENCY_SHIFT | queue)
            self._lines[before].remove(key)
            self._lines[queue].append(key)
            self._bytes[before] -= size_bytes
            self._bytes[queue] += size_bytes
            self._move(key)
        return True

    def _move(self, key: K) -> None:
        if self._note_moves:
            self._moved.pop(key, None)
            self._moved[key] = None

    def _word(self, entry: int) -> int:
        """Return ``entry`` as one shared number where many things have it."""
        if len(self._words) < _WORDS_LIMIT:
            return self._words.setdefault(entry, entry)
        return self._words.get(entry, entry)

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


def _uses(entry: int) -> int:
    return entry >> _FREQUENCY_SHIFT & MOST_FREQUENCY
