"""Carry: decides which pulses go to which neighbour, and what to ask them back.

Who has an uplink gets everything; where nobody has, everybody gets everything, so that whoever
leaves the link first takes the pulses along. What a neighbour took is offered to it again only after
a time that doubles, because only the origin's ack says that a pulse arrived.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..protocol.ports import SpooledPulse
from .neighbours import Neighbour

POST_PULSES = 200
POST_BYTES = 512 << 10
ROUND_NEIGHBOURS = 8
AGAIN_S = 60.0
AGAIN_LIMIT_S = 3_600.0
ASK_EVERY_S = 15.0
ASK_TIDS = 16
BEACONS_EVERY_S = 600.0
REMEMBERED_NEIGHBOURS = 64
REMEMBERED_PULSES = 8_192
REMEMBERED_TIDS = 256

_PulseKey = tuple[bytes, int]


class _Handed(NamedTuple):
    again_at: float
    pause_s: float


class _Memory:
    """What one neighbour was given and asked."""

    def __init__(self) -> None:
        self.handed: OrderedDict[_PulseKey, _Handed] = OrderedDict()
        self.asked_at: OrderedDict[bytes, float] = OrderedDict()
        self.beacons_at = float("-inf")


class Carrier:
    """Remembers, in bounds, what was handed to whom."""

    def __init__(self) -> None:
        self._memories: OrderedDict[bytes, _Memory] = OrderedDict()

    def choose(self, neighbours: Sequence[Neighbour]) -> list[Neighbour]:
        """Return whom to deal with this round: those with an uplink, else everybody, bounded."""
        uplinked = [neighbour for neighbour in neighbours if neighbour.uplink]
        return (uplinked or list(neighbours))[:ROUND_NEIGHBOURS]

    def load(self, key: bytes, pending: Iterable[SpooledPulse], now: float) -> list[SpooledPulse]:
        """Return the pulses to hand to neighbour ``key`` now, as many as one post may carry."""
        handed = self._memory(key).handed
        chosen: list[SpooledPulse] = []
        size = 0
        for item in pending:
            known = handed.get((item.tid, item.seq))
            if known is not None and known.again_at > now:
                continue
            size += len(item.pulse) + len(item.ticket)
            if len(chosen) == POST_PULSES or (chosen and size > POST_BYTES):
                break
            chosen.append(item)
        return chosen

    def handed(self, key: bytes, pulses: Iterable[SpooledPulse], now: float) -> None:
        """Remember that neighbour ``key`` promised to carry ``pulses``."""
        handed = self._memory(key).handed
        for item in pulses:
            known = handed.pop((item.tid, item.seq), None)
            pause_s = min(known.pause_s * 2, AGAIN_LIMIT_S) if known else AGAIN_S
            handed[(item.tid, item.seq)] = _Handed(now + pause_s, pause_s)
        while len(handed) > REMEMBERED_PULSES:
            handed.popitem(last=False)

    def tids_to_ask(self, key: bytes, pending: Iterable[SpooledPulse], now: float) -> list[bytes]:
        """Return the tickets whose acks to ask neighbour ``key`` for now; they count as asked."""
        asked_at = self._memory(key).asked_at
        tids = dict.fromkeys(item.tid for item in pending)
        due = [tid for tid in tids if asked_at.get(tid, float("-inf")) + ASK_EVERY_S <= now]
        due.sort(key=lambda tid: asked_at.get(tid, float("-inf")))
        for tid in due[:ASK_TIDS]:
            asked_at[tid] = now
            asked_at.move_to_end(tid)
        while len(asked_at) > REMEMBERED_TIDS:
            asked_at.popitem(last=False)
        return due[:ASK_TIDS]

    def wants_beacons(self, key: bytes, now: float) -> bool:
        """Say whether to ask neighbour ``key`` for beacons now; if so it counts as asked."""
        memory = self._memory(key)
        if memory.beacons_at + BEACONS_EVERY_S > now:
            return False
        memory.beacons_at = now
        return True

    def _memory(self, key: bytes) -> _Memory:
        memory = self._memories.setdefault(key, _Memory())
        self._memories.move_to_end(key)
        if len(self._memories) > REMEMBERED_NEIGHBOURS:
            self._memories.popitem(last=False)
        return memory
