"""News by hints: a newer catalog head makes this box look at once, a relay's record says where to.

Whatever is told proves itself or counts for nothing: a head is the origin's signed checkpoint, a
record is the relay's own and of use only where the origin lists that relay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter

from ..protocol.directory import Endpoint, RelayRecord, open_record
from ..protocol.errors import FarcastError, RemoteError
from ..protocol.identity import peer_id
from ..protocol.ports import Dialer, Hints, Source, TierName, Told
from .catalog.replica import Heads, Replica
from .ladder.tiers import address
from .whereabouts import NEWS, TO_PROVE, Whereabouts, worth_telling

LOOK_S = 1.0
"""How often it is looked whether this box has news to tell."""
CHASE_S = (1.0, 3.0, 10.0)
"""How long until it is looked again for a head that is known to exist: who was asked may not have it yet."""
MEET_TIMEOUT_S = 5.0


class Own(NamedTuple):
    """A relay's own record, and its signed envelope."""

    record: RelayRecord
    signed: bytes


class Teller:
    """Tells this box's news: a head of more entries, and where a relay is now if others cannot know."""

    def __init__(self, hints: Hints, heads: Heads) -> None:
        self._hints = hints
        self._heads = heads
        self._told_size = 0
        self.own: Callable[[], Own | None] = lambda: None
        """A relay's newest record, as it is and signed."""
        self.listed: Callable[[], Sequence[RelayRecord]] = tuple
        """The relays the directory lists."""
        self._told: RelayRecord | None = None

    async def look(self) -> None:
        """Tell what has changed since the last look."""
        size, note = self._heads.catalog.size, self._heads.checkpoint()
        if note and size > self._told_size:
            self._told_size = size
            await self._hints.publish("head", note)
        own = self.own()
        if own is not None and worth_telling(own.record, self.listed(), self._told):
            self._told = own.record
            await self._hints.publish("relay", own.signed)


class News:
    """Listens for a box that follows an origin."""

    def __init__(
        self,
        hints: Hints,
        replica: Replica,
        dialer: Dialer,
        look: Callable[[], None],
        clock_ms: Callable[[], int],
        registry: CollectorRegistry,
        own: bytes = b"",
    ) -> None:
        """``look`` asks for the catalog at once; ``own`` is this box's key, where it is a relay."""
        self._hints = hints
        self._replica = replica
        self._dialer = dialer
        self._look = look
        self._clock_ms = clock_ms
        self._own = own
        self._whereabouts = Whereabouts()
        self._to_meet = asyncio.Event()
        self._counts = Counter(
            "farcast_node_hints",
            "Hints looked at, by topic and what they turned out to be.",
            ["topic", "result"],
            registry=registry,
        )

    def relays(self) -> Sequence[RelayRecord]:
        """Return the relays the directory lists, where they say they are by now."""
        return self._whereabouts.records(self._replica.relays(), self._clock_ms())

    async def run(self) -> None:
        """Listen for as long as the box runs."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hear_heads())
            tasks.create_task(self._hear_relays())
            tasks.create_task(self._meet())

    async def _hear_heads(self) -> None:
        async for told in self._hints.listen("head"):
            await self._hear_head(told)

    async def _hear_head(self, told: Told) -> None:
        """Look at once for a head that is newer; a fresher signature of the same one is taken as it is."""
        try:
            head = self._replica.peek(told.news)
            held = self._replica.catalog.size
            if head.size > held:
                self._counts.labels("head", "news").inc()
                await self._chase(head.size)
                return
            fresher = head.size == held and head.time_ms > self._replica.signed_ms
            if fresher:
                await asyncio.to_thread(self._replica.advance, told.news, held, [])
        except RemoteError as error:
            self._disbelieve("head", told, error)
            return
        self._counts.labels("head", "fresher" if fresher else "known").inc()

    async def _chase(self, size: int) -> None:
        for pause_s in CHASE_S:
            self._look()
            await asyncio.sleep(pause_s)
            if self._replica.catalog.size >= size:
                return

    async def _hear_relays(self) -> None:
        async for told in self._hints.listen("relay"):
            try:
                record = open_record(told.news)
            except RemoteError as error:
                self._disbelieve("relay", told, error)
                continue
            if record.relay == self._own:
                continue
            result = self._whereabouts.hear(record, self._replica.relays(), self._clock_ms())
            self._counts.labels("relay", result).inc()
            if result in (NEWS, TO_PROVE):
                await self._hints.publish("relay", told.news)
            if result == TO_PROVE:
                self._to_meet.set()

    async def _meet(self) -> None:
        """Go to new addresses of relays, one after the other, and see whether their key is there."""
        while True:
            await self._to_meet.wait()
            self._to_meet.clear()
            while (record := self._whereabouts.candidate(self._clock_ms())) is not None:
                met = [one for one in record.endpoints if not one.web and await self._is_at(record, one)]
                self._whereabouts.proven(record, met)
                self._counts.labels("relay", "met" if met else "not_met").inc()

    async def _is_at(self, record: RelayRecord, endpoint: Endpoint) -> bool:
        source = Source(TierName.RELAY, peer_id(record.relay), address(endpoint), record.relay)
        try:
            await self._dialer.request(source, "GET", "/healthz", timeout_s=MEET_TIMEOUT_S)
        except FarcastError:
            return False
        return True

    def _disbelieve(self, topic: str, told: Told, error: RemoteError) -> None:
        self._counts.labels(topic, error.reason).inc()
        if error.reason not in ("no_key", "stale"):  # neither says anything about who told it
            told.doubt()
