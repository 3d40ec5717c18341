"""The porter: compares with neighbours, hands over what they lack, and brings acks and beacons back.

It works while there is no uplink.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter

from ..protocol.batch import PulsePost, open_receipt, pulses_root
from ..protocol.codec import decode, encode
from ..protocol.digest import ANSWER_LIMIT_BYTES, Digest, Held, Lacking, Numbers, open_lacking
from ..protocol.errors import FarcastError, RefusedError, RemoteError
from ..protocol.ports import Dialer, Source, Spool, SpooledPulse
from .carry import POST_PULSES, Carrier, PulseKey
from .neighbours import Neighbour

POST_BYTES = 512 << 10
DIGESTS_PATH = "/v1/digests"
REQUEST_TIMEOUT_S = 5.0
RECEIPT_LIMIT_BYTES = 4 << 10
PROMISE_MS = 120_000
"""What a relay took is its to bring home for two of its batches, before neighbours are asked too."""
LIST_LIMIT_BYTES = 256 << 10
LIST_LIMIT_ITEMS = 64
_OK, _ACCEPTED, _NOT_FOUND = 200, 202, 404


class Porter:
    """One errand at a time.

    ``neighbours`` returns who is on the link; ``has_uplink`` whether this box needs nobody's help;
    ``hops`` how far it is from one that needs none; ``own`` is this box's presence key;
    ``accept_ack`` verifies and applies a signed ack and returns how many pulses it settled;
    ``accept_beacon`` verifies and keeps a signed beacon; both block and raise ``RemoteError``.
    """

    def __init__(
        self,
        *,
        spool: Spool,
        dialer: Dialer,
        neighbours: Callable[[], Sequence[Neighbour]],
        has_uplink: Callable[[], bool],
        hops: Callable[[], int],
        accept_ack: Callable[[bytes], object],
        accept_beacon: Callable[[bytes], object],
        clock_ms: Callable[[], int],
        registry: CollectorRegistry,
        own: bytes = b"",
    ) -> None:
        self._clock_ms = clock_ms
        self._spool = spool
        self._dialer = dialer
        self._neighbours = neighbours
        self._has_uplink = has_uplink
        self._hops = hops
        self._accept_ack = accept_ack
        self._accept_beacon = accept_beacon
        self._carrier = Carrier(own)
        self._pulses = Counter("farcast_mesh_handed_pulses", "Pulses neighbours took.", registry=registry)
        self._posts = Counter(
            "farcast_mesh_posts", "Posts of pulses to neighbours, by result.", ["result"], registry=registry
        )
        self._fetched = Counter(
            "farcast_mesh_fetched_messages",
            "Acks and beacons brought by neighbours, by kind and result.",
            ["kind", "result"],
            registry=registry,
        )

    async def errand(self) -> None:
        """Deal with every chosen neighbour once; failures are counted and end that neighbour's turn."""
        if self._has_uplink():
            return
        choice = self._carrier.choose(self._neighbours(), self._hops(), time.monotonic())
        if not choice.neighbours:
            return
        now_ms = self._clock_ms()
        seen_before_ms = now_ms - choice.waited_ms if choice.waited_ms else None
        waiting = await asyncio.to_thread(self._spool.numbers, now_ms - PROMISE_MS, seen_before_ms)
        async with asyncio.TaskGroup() as tasks:
            for neighbour in choice.neighbours:
                tasks.create_task(self._deal(neighbour, waiting, is_open=not choice.waited_ms))

    async def _deal(self, neighbour: Neighbour, waiting: Mapping[bytes, Numbers], *, is_open: bool) -> None:
        source = neighbour.source
        offered = self._carrier.offer(neighbour.key, waiting, time.monotonic(), is_open=is_open)
        if offered:
            try:
                lacking = await self._compare(source, offered)
                await self._take("ack", lacking.acks, self._accept_ack)
                await self._hand_over(source, self._carrier.wanted(neighbour.key, offered, lacking.held))
            except FarcastError as error:
                self._carrier.failed(neighbour.key, offered, time.monotonic())
                self._posts.labels(error.reason).inc()
                return
        if self._carrier.wants_beacons(neighbour.key, time.monotonic()):
            await self._fetch_beacons(source)

    async def _compare(self, source: Source, offered: list[Held]) -> Lacking:
        """Tell a neighbour what waits here; returns what it lacks."""
        reply = await self._dialer.request(
            source,
            "POST",
            DIGESTS_PATH,
            body=encode(Digest(1, offered)),
            limit_bytes=ANSWER_LIMIT_BYTES,
            timeout_s=REQUEST_TIMEOUT_S,
        )
        if reply.status != _OK:
            raise RefusedError(f"neighbour {source.name} compared nothing", status=reply.status)
        return open_lacking(reply.body)

    async def _hand_over(self, source: Source, keys: list[PulseKey]) -> None:
        """Post pulses and check the promise that comes back."""
        load = _bounded(await asyncio.to_thread(self._spool.find, keys)) if keys else []
        if not load:
            return
        pulses = [item.pulse for item in load]
        tickets = list(dict.fromkeys(item.ticket for item in load))
        reply = await self._dialer.request(
            source,
            "POST",
            "/v1/pulses",
            body=encode(PulsePost(1, tickets, pulses)),
            limit_bytes=RECEIPT_LIMIT_BYTES,
            timeout_s=REQUEST_TIMEOUT_S,
        )
        if reply.status != _ACCEPTED:
            raise RefusedError(f"neighbour {source.name} took no pulses", status=reply.status)
        receipt = open_receipt(reply.body)
        if receipt.carrier != source.key:
            raise RemoteError(f"neighbour {source.name} sent another's receipt", reason="wrong_carrier")
        if receipt.root != pulses_root(pulses):
            raise RemoteError(f"neighbour {source.name} left pulses out", reason="partial")
        self._posts.labels("ok").inc()
        self._pulses.inc(len(load))
        own = [(item.tid, item.seq) for item in load if item.own]
        if own:
            await asyncio.to_thread(self._spool.mark_left, own, "neighbour", self._clock_ms())

    async def _fetch_beacons(self, source: Source) -> None:
        """Fetch a neighbour's beacons and offer each to ``accept_beacon``."""
        try:
            reply = await self._dialer.request(
                source, "GET", "/v1/beacons", limit_bytes=LIST_LIMIT_BYTES, timeout_s=REQUEST_TIMEOUT_S
            )
            if reply.status == _NOT_FOUND:
                return
            if reply.status != _OK:
                raise RefusedError(f"neighbour {source.name} gave no beacons", status=reply.status)
            messages = decode(list[bytes], reply.body, limit_bytes=LIST_LIMIT_BYTES)[:LIST_LIMIT_ITEMS]
        except FarcastError as error:
            self._fetched.labels("beacon", error.reason).inc()
            return
        await self._take("beacon", messages, self._accept_beacon)

    async def _take(self, kind: str, messages: Sequence[bytes], accept: Callable[[bytes], object]) -> None:
        for message in messages:
            try:
                await asyncio.to_thread(accept, message)
                self._fetched.labels(kind, "ok").inc()
            except FarcastError as error:
                self._fetched.labels(kind, error.reason).inc()


def _bounded(load: list[SpooledPulse]) -> list[SpooledPulse]:
    """Return as many as one post may carry; twins make them more than were asked for."""
    size_bytes = 0
    for place, item in enumerate(load):
        size_bytes += len(item.pulse) + len(item.ticket)
        if place == 2 * POST_PULSES or size_bytes > POST_BYTES:
            return load[:place]
    return load
