"""Hearsay: what is taken of what others tell, and what is told, whichever way it travels.

A pure core. Everything is bounded and forgotten in time: what waits, what was seen, who told, who is
not listened to. A flood costs its teller first, then the way it came by, never another way; what is
lost to it is found at the next ordinary look.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from hashlib import sha256
from typing import NamedTuple, TypeVar

from ...protocol.codec import encode
from ...protocol.errors import RemoteError
from ...protocol.hint import HINT_LIMIT_BYTES, NEWS_LIMIT_BYTES, TOPICS, Hint, Topic, open_hint
from ..bucket import Bucket

K = TypeVar("K")
V = TypeVar("V")

TAKEN = "taken"

Teller = tuple[str, str]
"""The way a hint came by, and whoever told it there: an address or a peer id, kept in memory only."""


class Rules(NamedTuple):
    """How much is taken and told; times in seconds."""

    seen_s: float = 600.0
    seen_limit: int = 4_096
    waiting_s: float = 60.0
    waiting_limit: int = 32
    teller_burst: int = 16
    teller_per_s: float = 0.5
    tellers_limit: int = 1_024
    way_burst: int = 64
    way_per_s: float = 8.0
    doubts: int = 3
    doubt_s: float = 600.0
    muted_s: float = 3_600.0
    told_burst: int = 8
    told_per_s: float = 1.0


class Heard(NamedTuple):
    """One hint that waits to be looked at; nothing in it is verified."""

    topic: Topic
    news: bytes
    teller: Teller
    until: float


class _Doubts(NamedTuple):
    number: int
    until: float


class Hearsay:
    """Decides for one origin ``net``; time in seconds of any one clock."""

    def __init__(self, net: bytes, rules: Rules | None = None) -> None:
        self._net = net
        self._rules = rules or Rules()
        self._waiting: dict[Topic, deque[Heard]] = {topic: deque() for topic in TOPICS}
        self._seen: OrderedDict[bytes, float] = OrderedDict()
        self._tellers: OrderedDict[Teller, Bucket] = OrderedDict()
        self._ways: dict[str, Bucket] = {}
        self._doubts: OrderedDict[Teller, _Doubts] = OrderedDict()
        self._muted: OrderedDict[Teller, float] = OrderedDict()
        self._outgoing: deque[tuple[bytes, float]] = deque()
        self._telling = Bucket(self._rules.told_burst, self._rules.told_per_s)

    def hear(self, data: bytes, teller: Teller, now: float) -> str:
        """Take one hint as it came; returns ``taken``, or the reason why not."""
        refusal = self._refusal(data, teller, now)
        if refusal:
            return refusal
        try:
            hint = open_hint(data)
        except RemoteError as error:
            self.doubt(teller, now)
            return error.reason
        if hint.net != self._net:
            return "foreign"
        if self._seen.get(_name(data), now) > now:
            return "duplicate"
        waiting = self._waiting[hint.topic]
        self._drop_stale(waiting, now)
        if len(waiting) >= self._rules.waiting_limit:
            return "overflow"
        self._see(data, now)
        waiting.append(Heard(hint.topic, hint.news, teller, now + self._rules.waiting_s))
        return TAKEN

    def _refusal(self, data: bytes, teller: Teller, now: float) -> str:
        """Say why a hint is not even decoded; empty where it is."""
        if self.is_muted(teller, now):
            return "muted"
        if len(data) > HINT_LIMIT_BYTES:
            self.doubt(teller, now)
            return "too_large"
        if not self._bucket(teller).take(now):
            return "teller_rate"
        return "" if self._way(teller[0]).take(now) else "way_rate"

    def take(self, topic: Topic, now: float) -> Heard | None:
        """Return the oldest hint of ``topic`` that still holds; None where none waits."""
        waiting = self._waiting[topic]
        self._drop_stale(waiting, now)
        return waiting.popleft() if waiting else None

    def doubt(self, teller: Teller, now: float) -> bool:
        """Note that what ``teller`` told was no news at all; True where it is not listened to from now on."""
        rules = self._rules
        known = self._doubts.pop(teller, None)
        number = known.number + 1 if known is not None and known.until > now else 1
        if number < rules.doubts:
            self._doubts[teller] = _Doubts(number, now + rules.doubt_s)
            _shrink(self._doubts, rules.tellers_limit)
            return False
        self._muted.pop(teller, None)
        self._muted[teller] = now + rules.muted_s
        _shrink(self._muted, rules.tellers_limit)
        return True

    def is_muted(self, teller: Teller, now: float) -> bool:
        """Say whether ``teller`` is not listened to."""
        until = self._muted.get(teller)
        if until is not None and until <= now:
            del self._muted[teller]
            until = None
        return until is not None

    def tell(self, topic: Topic, news: bytes, now: float) -> str:
        """Have ``news`` told; returns ``taken``, or the reason why not."""
        if not 0 < len(news) <= NEWS_LIMIT_BYTES:
            return "too_large"
        data = encode(Hint(1, self._net, topic, news))
        if any(data == other for other, _ in self._outgoing):
            return "duplicate"
        if len(self._outgoing) >= self._rules.waiting_limit:
            self._outgoing.popleft()
        self._see(data, now)  # it comes back from everybody
        self._outgoing.append((data, now + self._rules.waiting_s))
        return TAKEN

    def tellings(self, now: float) -> list[bytes]:
        """Return the encoded hints to be told now, each once."""
        found: list[bytes] = []
        while self._outgoing and (self._outgoing[0][1] <= now or self._telling.take(now)):
            data, until = self._outgoing.popleft()
            if until > now:
                found.append(data)
        return found

    def wake_at(self, now: float) -> float | None:
        """Return when ``tellings`` has something, None where nothing is to be told."""
        return self._telling.ready_at(now) if self._outgoing else None

    def _bucket(self, teller: Teller) -> Bucket:
        bucket = self._tellers.get(teller)
        if bucket is None:
            bucket = self._tellers[teller] = Bucket(self._rules.teller_burst, self._rules.teller_per_s)
            _shrink(self._tellers, self._rules.tellers_limit)
        self._tellers.move_to_end(teller)
        return bucket

    def _way(self, way: str) -> Bucket:
        if way not in self._ways:
            self._ways[way] = Bucket(self._rules.way_burst, self._rules.way_per_s)
        return self._ways[way]

    def _drop_stale(self, waiting: deque[Heard], now: float) -> None:
        while waiting and waiting[0].until <= now:
            waiting.popleft()

    def _see(self, data: bytes, now: float) -> None:
        name = _name(data)
        self._seen.pop(name, None)
        self._seen[name] = now + self._rules.seen_s
        _shrink(self._seen, self._rules.seen_limit)


def _name(data: bytes) -> bytes:
    return sha256(data).digest()[:16]


def _shrink(known: OrderedDict[K, V], limit: int) -> None:
    """Forget what is known longest, past ``limit``."""
    while len(known) > limit:
        known.popitem(last=False)
