"""The courier: takes this box's own pulses to a relay or the origin and brings the acks back.

Foreign pulses that a neighbour handed over go the same way on a viewer's node: to a relay as they
are, to the origin in this box's own batches. Nothing leaves the spool but by the origin's ack.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter

from ...protocol.batch import PulsePost, open_receipt, pulses_root
from ...protocol.codec import decode, encode
from ...protocol.digest import Digest, held, open_lacking
from ...protocol.errors import FarcastError, LocalError, RemoteError, UnreachableError
from ...protocol.identity import peer_id
from ...protocol.ports import Dialer, Source, SpooledPulse
from ..catalog.clear import ClearFirst
from .acks import Acks
from .batcher import Batcher
from .spool import DiskSpool

POST_PULSES = 200
ACK_TIDS = 64
APART_TICKETS = 16
CARRIERS_ASKED = 4
"""Carriers of one ticket's pulses asked for acks in a round, those that promised last first."""
REQUEST_TIMEOUT_S = 5.0
CONTACT_MS = 900_000
"""With nothing to hand over, an uplink that worked so lately is taken to work still."""
LOOK_FIRST_MS, LOOK_LAST_MS = 2_000, 16_000
"""Between two rounds while something waits, or the uplink is gone: each time twice as long."""
HANDED_AGAIN_MS = 3_600_000
"""A carrier that promised and brought no ack for so long is asked again."""


class Courier:
    """One errand at a time: hand over what waits, then ask for acks.

    ``relays`` and ``origin`` say who can be reached; ``allowed`` is the switch ``[network] direct``.
    """

    def __init__(
        self,
        spool: DiskSpool,
        dialer: Dialer,
        acks: Acks,
        relays: Callable[[], Sequence[Source]],
        origin: Callable[[], list[Source]],
        batcher: Batcher,
        clock_ms: Callable[[], int],
        registry: CollectorRegistry,
    ) -> None:
        self._spool = spool
        self._dialer = dialer
        self._acks = acks
        self._relays = relays
        self._origin = origin
        self._batcher = batcher
        self._clock_ms = clock_ms
        self.allowed = True
        self.reachable = False
        self._clear = ClearFirst()
        self._count = 0
        self._look_at_ms, self._look_ms = 0, LOOK_FIRST_MS
        self._handed = Counter(
            "farcast_node_pulses_handed", "Own pulses handed over, by way.", ["way"], registry=registry
        )

    async def errand(self) -> None:
        """Make one round; failures are counted and end the round, never the box."""
        if not self.allowed:
            self.reachable = False
            return
        count = (await asyncio.to_thread(self._spool.waiting)).count
        news, self._count = count != self._count, count
        if not news and self._clock_ms() < self._look_at_ms:
            return  # asking again what is known would be most of what an idle box sends
        way = await self._hand_over()
        self.reachable = way is not None
        self._look_ms = LOOK_FIRST_MS if news else min(2 * self._look_ms, LOOK_LAST_MS)
        at_rest = self.reachable and not count
        self._look_at_ms = self._clock_ms() + (CONTACT_MS if at_rest else self._look_ms)
        if way == "origin":
            await self._carry_foreign()  # with no relay to take them, they go in batches of our own
        if self.reachable:
            await self._ask_for_acks()

    async def _hand_over(self) -> str | None:
        for way, sources in (("relay", self._relays()), ("origin", self._origin())):
            for source in sources:
                if await self._post(source, way):
                    return way
        return None

    async def _post(self, source: Source, way: str) -> bool:
        name = peer_id(source.key)
        waiting = await asyncio.to_thread(
            self._spool.pending,
            POST_PULSES,
            not_handed_to=name,
            handed_before_ms=self._clock_ms() - HANDED_AGAIN_MS,
            own=None if way == "relay" else True,  # foreign ones go to the origin in our own batches
        )
        if not waiting:
            return await self._ping(source)
        try:
            if way == "relay":
                waiting = await self._lacked(source, waiting)
            return await self._hand(source, way, waiting)
        except UnreachableError as error:
            self._handed.labels(error.reason).inc()
            return False

    async def _lacked(self, source: Source, waiting: list[SpooledPulse]) -> list[SpooledPulse]:
        """Return what to post: all of ours, for their receipt, and of others' what the relay lacks."""
        foreign: dict[bytes, list[int]] = {}
        for item in waiting:
            if not item.own:
                foreign.setdefault(item.tid, []).append(item.seq)
        if not foreign:
            return waiting
        digest = Digest(1, [held(tid, seqs) for tid, seqs in foreign.items()])
        reply = await self._dialer.request(
            source, "POST", "/v1/digests", body=encode(digest), timeout_s=REQUEST_TIMEOUT_S
        )
        if reply.status != 200:  # noqa: PLR2004 - it compares nothing
            return waiting
        lacking = open_lacking(reply.body)
        for ack in lacking.acks:
            with suppress(FarcastError):  # counted by reason where it is opened
                await asyncio.to_thread(self._acks.accept, ack)
        wanted = {(item.tid, seq) for item in lacking.held for seq in item.numbers()}
        there = [(p.tid, p.seq) for p in waiting if not p.own and (p.tid, p.seq) not in wanted]
        await asyncio.to_thread(self._spool.mark_handed, peer_id(source.key), there, self._clock_ms())
        return [p for p in waiting if p.own or (p.tid, p.seq) in wanted]

    async def _hand(self, source: Source, way: str, waiting: list[SpooledPulse]) -> bool:
        """Post pulses; where they are not all taken, each ticket's apart, so that one holds up no other.

        Raises:
            UnreachableError: where ``source`` is silent.

        """
        tids = list(dict.fromkeys(item.tid for item in waiting))
        if not tids or await self._posted(source, way, waiting):
            return True
        if len(tids) == 1:
            return False
        groups = [[item for item in waiting if item.tid == tid] for tid in tids[:APART_TICKETS]]
        return any([await self._posted(source, way, group) for group in groups])

    async def _posted(self, source: Source, way: str, waiting: list[SpooledPulse]) -> bool:
        tickets = list(dict.fromkeys(p.ticket for p in waiting))
        body = encode(PulsePost(1, tickets, [p.pulse for p in waiting]))
        try:
            reply = await self._dialer.request(
                source, "POST", "/v1/pulses", body=body, timeout_s=REQUEST_TIMEOUT_S
            )
            if reply.status == 202:  # noqa: PLR2004 - a promise
                await self._promised(source, reply.body, waiting)
            elif reply.status == 200:  # noqa: PLR2004 - the origin's ack
                await asyncio.to_thread(self._acks.accept, reply.body)
            else:
                return False
        except UnreachableError:
            raise
        except FarcastError as error:
            self._handed.labels(error.reason).inc()
            return False
        self._handed.labels(way).inc(len(waiting))
        keys = [(p.tid, p.seq) for p in waiting if p.own]
        if keys:
            with suppress(LocalError):  # a note for the page; a full disk must not end the errand
                await asyncio.to_thread(self._spool.mark_left, keys, way, self._clock_ms())
        return True

    async def _promised(self, source: Source, data: bytes, waiting: list[SpooledPulse]) -> None:
        receipt = open_receipt(data)
        if receipt.carrier != source.key or receipt.root != pulses_root([p.pulse for p in waiting]):
            raise RemoteError("a receipt for other pulses than the ones posted", reason="bad_receipt")
        keys = [(p.tid, p.seq) for p in waiting]
        await asyncio.to_thread(self._spool.mark_handed, peer_id(source.key), keys, self._clock_ms())
        own = [(p.tid, p.seq) for p in waiting if p.own]
        if own:
            with suppress(LocalError):  # the promise stands without our copy of it
                await asyncio.to_thread(self._spool.add_receipt, data, own, self._clock_ms())

    async def _ping(self, source: Source) -> bool:
        """Say whether ``source`` is reached; who it is matters only to what is handed over."""
        for way in self._clear.ways(source, self._clock_ms() / 1_000):
            try:
                reply = await self._dialer.request(way, "GET", "/healthz", timeout_s=REQUEST_TIMEOUT_S)
            except FarcastError:
                continue
            if reply.status == 200:  # noqa: PLR2004 - healthy
                return True
        return False

    async def _carry_foreign(self) -> None:
        try:
            await self._batcher.flush()
        except FarcastError as error:
            self._handed.labels(error.reason).inc()

    async def _ask_for_acks(self) -> None:
        """Ask everybody who promised to carry what waits, each may know of less than another carried.

        The origin is asked only where none of them answers.
        """
        tids = list(await asyncio.to_thread(self._spool.numbers))[:ACK_TIDS]
        carriers = await asyncio.to_thread(self._spool.carriers)
        relays = {peer_id(source.key): source for source in self._relays()}
        for tid in tids:
            asked = [relays[name] for name in carriers.get(tid, ()) if name in relays][:CARRIERS_ASKED]
            answered = [await self._fetch_acks(source, tid) for source in asked]
            if not any(answered):
                for source in self._origin():
                    if await self._fetch_acks(source, tid):
                        break

    async def _fetch_acks(self, source: Source, tid: bytes) -> bool:
        """Apply what ``source`` has on a ticket; False where it does not answer."""
        path = f"/v1/acks/{tid.hex()}"
        try:
            reply = await self._dialer.request(source, "GET", path, timeout_s=REQUEST_TIMEOUT_S)
            if reply.status == 200:  # noqa: PLR2004 - else nothing is known there yet
                for item in decode(list[bytes], reply.body):
                    await asyncio.to_thread(self._acks.accept, item)
        except FarcastError as error:
            self._handed.labels(error.reason).inc()
            return False
        return reply.status in {200, 404}
