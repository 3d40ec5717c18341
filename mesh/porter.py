"""The porter: hands pulses to neighbours and brings acks and beacons back, while there is no uplink."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter

from ..protocol.batch import PulsePost, open_receipt, pulses_root
from ..protocol.codec import decode, encode
from ..protocol.errors import FarcastError, RefusedError, RemoteError
from ..protocol.ports import ANYBODY, Dialer, Source, Spool, SpooledPulse
from .carry import Carrier
from .neighbours import Neighbour

PENDING_PULSES = 4_096
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
        accept_ack: Callable[[bytes], object],
        accept_beacon: Callable[[bytes], object],
        clock_ms: Callable[[], int],
        registry: CollectorRegistry,
    ) -> None:
        self._clock_ms = clock_ms
        self._spool = spool
        self._dialer = dialer
        self._neighbours = neighbours
        self._has_uplink = has_uplink
        self._accept_ack = accept_ack
        self._accept_beacon = accept_beacon
        self._carrier = Carrier()
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
        chosen = [] if self._has_uplink() else self._carrier.choose(self._neighbours())
        if not chosen:
            return
        pending = await asyncio.to_thread(
            self._spool.pending,
            PENDING_PULSES,
            not_handed_to=ANYBODY,
            handed_before_ms=self._clock_ms() - PROMISE_MS,
        )
        async with asyncio.TaskGroup() as tasks:
            for neighbour in chosen:
                tasks.create_task(self._deal(neighbour, pending))

    async def _deal(self, neighbour: Neighbour, pending: Sequence[SpooledPulse]) -> None:
        source = neighbour.source
        load = self._carrier.load(neighbour.key, pending, time.monotonic())
        if load:
            try:
                await self._hand_over(source, load)
            except FarcastError as error:
                self._posts.labels(error.reason).inc()
                return
        for tid in self._carrier.tids_to_ask(neighbour.key, pending, time.monotonic()):
            if not await self._fetch(source, "ack", f"/v1/acks/{tid.hex()}", self._accept_ack):
                return
        if self._carrier.wants_beacons(neighbour.key, time.monotonic()):
            await self._fetch(source, "beacon", "/v1/beacons", self._accept_beacon)

    async def _hand_over(self, source: Source, load: list[SpooledPulse]) -> None:
        """Post pulses and check the promise that comes back."""
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
        self._carrier.handed(source.key, load, time.monotonic())
        if receipt.root != pulses_root(pulses):
            raise RemoteError(f"neighbour {source.name} left pulses out", reason="partial")
        self._posts.labels("ok").inc()
        self._pulses.inc(len(load))
        keys = [(item.tid, item.seq) for item in load if item.own]
        if keys:
            await asyncio.to_thread(self._spool.mark_left, keys, "neighbour", self._clock_ms())

    async def _fetch(self, source: Source, kind: str, path: str, accept: Callable[[bytes], object]) -> bool:
        """Fetch a list of signed messages and offer each to ``accept``; False where the neighbour fails."""
        try:
            reply = await self._dialer.request(
                source, "GET", path, limit_bytes=LIST_LIMIT_BYTES, timeout_s=REQUEST_TIMEOUT_S
            )
            if reply.status == _NOT_FOUND:
                return True
            if reply.status != _OK:
                raise RefusedError(f"neighbour {source.name} gave no {kind}s", status=reply.status)
            messages = decode(list[bytes], reply.body, limit_bytes=LIST_LIMIT_BYTES)[:LIST_LIMIT_ITEMS]
        except FarcastError as error:
            self._fetched.labels(kind, error.reason).inc()
            return False
        for message in messages:
            try:
                await asyncio.to_thread(accept, message)
                self._fetched.labels(kind, "ok").inc()
            except FarcastError as error:
                self._fetched.labels(kind, error.reason).inc()
        return True
