"""Carry: decides what to tell which neighbour, and which pulses to hand over once it has answered.

Who has an uplink is told everything; where nobody has, everybody is told everything, so that whoever
leaves the link first takes the pulses along. Numbers are told first and again and again, ever more
rarely while nothing changes; only what the neighbour says it lacks is handed over, so a lost answer,
a neighbour that forgot, and one that was never asked before are all the same case.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..protocol.digest import Held, Numbers, held
from .neighbours import Neighbour

POST_PULSES = 200
ROUND_NEIGHBOURS = 8
AGAIN_S, AGAIN_LIMIT_S = 15.0, 240.0
"""A ticket of which nothing is new is told again after so long, because its ack may have come."""
ROUND_TIDS = 64
SPANS_TOLD = 4_000
"""In one digest: 64 KiB hold more, in the longest form."""
BEACONS_EVERY_S = 600.0
REMEMBERED_NEIGHBOURS = 64
REMEMBERED_TIDS = 4_096

PulseKey = tuple[bytes, int]


class _Told(NamedTuple):
    numbers: tuple[int, int, int]
    again_at: float
    pause_s: float


class _Memory:
    """What one neighbour was told of, the longest ago first."""

    def __init__(self) -> None:
        self.told: OrderedDict[bytes, _Told] = OrderedDict()
        self.beacons_at = float("-inf")


class Carrier:
    """Remembers, in bounds, what was told to whom."""

    def __init__(self) -> None:
        self._memories: OrderedDict[bytes, _Memory] = OrderedDict()

    def choose(self, neighbours: Sequence[Neighbour]) -> list[Neighbour]:
        """Return whom to deal with this round: those with an uplink, else everybody, bounded."""
        uplinked = [neighbour for neighbour in neighbours if neighbour.uplink]
        return (uplinked or list(neighbours))[:ROUND_NEIGHBOURS]

    def offer(self, key: bytes, waiting: Mapping[bytes, Numbers], now: float) -> list[Held]:
        """Return what to tell neighbour ``key`` of ``waiting`` now; it counts as told.

        Tickets it never heard of and those that grew come first, then those told longest ago.
        """
        told = self._memory(key).told
        news = [
            tid for tid, numbers in waiting.items() if tid not in told or told[tid].numbers != _sum(numbers)
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
            item = held(tid, waiting[tid].all, waiting[tid].twins)
            spans += len(item.spans) + len(item.twins)
            if offered and spans > SPANS_TOLD:
                break
            offered.append(item)
            pause_s = AGAIN_S if tid in fresh else min(told[tid].pause_s * 2, AGAIN_LIMIT_S)
            told[tid] = _Told(_sum(waiting[tid]), now + pause_s, pause_s)
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

    def failed(self, key: bytes, offered: Sequence[Held]) -> None:
        """Hear that neighbour ``key`` gave no answer to an offer, or took nothing: it is made again soon."""
        told = self._memory(key).told
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
