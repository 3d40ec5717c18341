"""Carry: decides what to tell which neighbour, and which pulses to hand over once it has answered.

While a way home is known, one neighbour that is nearer to it is told everything, so that a pulse crosses
each link once; which one changes now and then, so that nobody holds back what he was given. Where none is
known, what has waited so long that a daily way would have come is told to everybody: whoever leaves the
link first takes it along. Numbers are told first and again and again, ever more rarely while nothing
changes; only what the neighbour says it lacks is handed over, so a lost answer, a neighbour that forgot,
and one that was never asked before are all the same case.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

from ..protocol.digest import Held, Numbers, held
from ..protocol.presence import NO_WAY
from .neighbours import Neighbour

POST_PULSES = 200
ROUND_NEIGHBOURS = 8
PATIENCE_MS = 25 * 3_600_000
"""Longer than between two openings of a way that comes once a day."""
TURN_S = 1_800.0
"""How long one neighbour is the one, of those as near; after a failure it is passed over so long."""
AGAIN_S, AGAIN_LIMIT_S = 15.0, 240.0
"""A ticket of which nothing is new is told again after so long, because its ack may have come."""
SOON_S, SOON_LIMIT_S = 8.0, 30.0
"""The same while a way is open: what is acked soon is not sent twice when the way changes."""
NEWS_S = 120.0
"""A ticket that grew is told again after so long: a few pulses pay for one comparison and one ticket."""
ROUND_TIDS = 64
SPANS_TOLD = 4_000
"""In one digest: 64 KiB hold more, in the longest form."""
BEACONS_EVERY_S = 600.0
REMEMBERED_NEIGHBOURS = 64
REMEMBERED_TIDS = 4_096

PulseKey = tuple[bytes, int]


class _Told(NamedTuple):
    numbers: tuple[int, int, int]
    at: float
    again_at: float
    pause_s: float


class _Memory:
    """What one neighbour was told of, the longest ago first."""

    def __init__(self) -> None:
        self.told: OrderedDict[bytes, _Told] = OrderedDict()
        self.beacons_at = self.shunned_until = float("-inf")


class Choice(NamedTuple):
    """Whom to deal with; where no way is known, ``waited_ms`` is how old a pulse must be to be told."""

    neighbours: list[Neighbour]
    waited_ms: int


class Carrier:
    """Remembers, in bounds, what was told to whom; ``own`` is this box's presence key."""

    def __init__(self, own: bytes = b"") -> None:
        self._own = own
        self._memories: OrderedDict[bytes, _Memory] = OrderedDict()

    def choose(self, neighbours: Sequence[Neighbour], hops: int, now: float) -> Choice:
        """Return whom to deal with this round; ``hops`` is how far this box is from an uplink."""
        if hops >= NO_WAY:
            return Choice(list(neighbours)[:ROUND_NEIGHBOURS], PATIENCE_MS)
        near = [neighbour for neighbour in neighbours if neighbour.hops < hops]
        well = [neighbour for neighbour in near if not self._shunned(neighbour.key, now)]
        turn = int(now // TURN_S).to_bytes(8, "big")

        def rank(neighbour: Neighbour) -> tuple[int, bytes]:
            return neighbour.hops, blake2b(self._own + turn + neighbour.key, digest_size=8).digest()

        return Choice(sorted(well or near, key=rank)[:1], 0)

    def offer(
        self, key: bytes, waiting: Mapping[bytes, Numbers], now: float, *, is_open: bool = False
    ) -> list[Held]:
        """Return what to tell neighbour ``key`` of ``waiting`` now; it counts as told.

        With ``is_open`` it is on a way home that is open now.

        Tickets it never heard of and those that grew come first, then those told longest ago.
        """
        first_s, limit_s = (SOON_S, SOON_LIMIT_S) if is_open else (AGAIN_S, AGAIN_LIMIT_S)
        told = self._memory(key).told
        news = [
            tid
            for tid, numbers in waiting.items()
            if (known := told.get(tid)) is None
            or (known.numbers != _sum(numbers) and known.at + NEWS_S <= now)
        ]
        fresh = set(news)
        old = [
            tid
            for tid, known in told.items()
            if known.again_at <= now and tid in waiting and tid not in fresh
        ]
        offered: list[Held] = []
        spans = 0
        for tid in (news + old)[:ROUND_TIDS]:
            numbers = waiting[tid]
            at = now if tid in fresh else told[tid].at
            if tid not in fresh and told[tid].numbers != _sum(numbers):  # its news has to wait, its ack not
                last = told[tid].numbers[1]
                numbers = Numbers(
                    [n for n in numbers.all if n <= last], [n for n in numbers.twins if n <= last]
                )
            item = held(tid, numbers.all, numbers.twins)
            spans += len(item.spans) + len(item.twins)
            if offered and spans > SPANS_TOLD:
                break
            if item.spans:
                offered.append(item)
            pause_s = first_s if tid in fresh else min(told[tid].pause_s * 2, limit_s)
            told[tid] = _Told(_sum(numbers), at, now + pause_s, pause_s)
            told.move_to_end(tid)
        while len(told) > REMEMBERED_TIDS:
            told.popitem(last=False)
        return offered

    def wanted(self, key: bytes, offered: Sequence[Held], lacking: Sequence[Held]) -> list[PulseKey]:
        """Return the pulses to hand to neighbour ``key`` of those it lacks, as many as one post may carry.

        Tickets with more left are due at once; what was not offered is not handed over.
        """
        told = self._memory(key).told
        asked = {item.tid for item in lacking}
        known = {item.tid: set(item.numbers()) for item in offered if item.tid in asked}
        chosen: list[PulseKey] = []
        for item in lacking:
            numbers = [number for number in item.numbers() if number in known.get(item.tid, ())]
            room = POST_PULSES - len(chosen)
            chosen += [(item.tid, number) for number in numbers[:room]]
            if len(numbers) > room:
                told.pop(item.tid, None)
        return chosen

    def failed(self, key: bytes, offered: Sequence[Held], now: float) -> None:
        """Hear that neighbour ``key`` gave no answer to an offer, or took nothing: it is made again soon.

        Until then others come before it.
        """
        memory = self._memory(key)
        memory.shunned_until = now + TURN_S
        told = memory.told
        for item in offered:
            known = told.get(item.tid)
            if known is not None:
                told[item.tid] = known._replace(pause_s=AGAIN_S / 2)

    def wants_beacons(self, key: bytes, now: float) -> bool:
        """Say whether to ask neighbour ``key`` for beacons now; if so it counts as asked."""
        memory = self._memory(key)
        if memory.beacons_at + BEACONS_EVERY_S > now:
            return False
        memory.beacons_at = now
        return True

    def _shunned(self, key: bytes, now: float) -> bool:
        memory = self._memories.get(key)
        return memory is not None and memory.shunned_until > now

    def _memory(self, key: bytes) -> _Memory:
        memory = self._memories.get(key)
        if memory is None:
            memory = self._memories[key] = _Memory()
        self._memories.move_to_end(key)
        if len(self._memories) > REMEMBERED_NEIGHBOURS:
            self._memories.popitem(last=False)
        return memory


def _sum(numbers: Numbers) -> tuple[int, int, int]:
    """Return what tells a ticket that grew, or shrank by an ack, from what it was."""
    return len(numbers.all), numbers.all[-1] if numbers.all else 0, len(numbers.twins)
