"""The batcher: a carrier's numbered, linked batches of other people's pulses, kept until acked.

While the origin cannot be reached they are also given to other relays, who bring them there as they
are; what other relays gave us goes the same way.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter

from ...protocol.batch import (
    MAX_PULSES,
    Batch,
    batch_hash,
    open_receipt,
    pulses_root,
    read_parcel,
    seal_parcel,
)
from ...protocol.codec import decode
from ...protocol.errors import FarcastError, RefusedError, RemoteError, UnreachableError
from ...protocol.identity import Identity
from ...protocol.ports import Dialer, Reply, Source
from ...protocol.pulse import read_pulse
from .acks import Acks
from .spool import DiskSpool

POST_TIMEOUT_S = 15.0
CARRIED_AT_ONCE = 16
OTHERS_ASKED = 2
"""Relays that a batch is given to while the origin is out of reach."""
GIVEN_AGAIN_MS = 3_600_000
BATCHES_REMEMBERED = 4_096
ROUND_BATCHES, TIDS_ASKED = 16, 4
_LATER = frozenset({429, 503})


class Batcher:
    """Seals what the spool holds into batches and sends each until the origin acks it.

    A batch is durable before it is sent, so after a crash the same bytes go out again and the
    origin, which knows them by hash, answers with the same ack.
    """

    def __init__(
        self,
        spool: DiskSpool,
        identity: Identity,
        dialer: Dialer,
        origin: Callable[[], list[Source]],
        acks: Acks,
        clock_ms: Callable[[], int],
        registry: CollectorRegistry,
        *,
        max_pulses: int = 1_000,
        others: Callable[[], Sequence[Source]] = tuple,
    ) -> None:
        """Make batches of at most ``max_pulses``; ``others`` are relays that may carry them."""
        self._spool = spool
        self._identity = identity
        self._dialer = dialer
        self._origin = origin
        self._acks = acks
        self._clock_ms = clock_ms
        self._max_pulses = min(max_pulses, MAX_PULSES)
        self._others = others
        self._given: OrderedDict[bytes, tuple[int, list[Source]]] = OrderedDict()
        self._sent = Counter(
            "farcast_node_batches", "Batches posted to the origin, by result.", ["result"], registry=registry
        )

    def close(self) -> int:
        """Seal waiting foreign pulses into one durable batch; returns how many. Blocking."""
        waiting = self._spool.unbatched(self._max_pulses)
        if not waiting:
            return 0
        number, prev = self._spool.next_batch()
        pulses = [item.pulse for item in waiting]
        tickets = list(dict.fromkeys(item.ticket for item in waiting))
        received = [item.seen_ms for item in waiting]
        batch = Batch(
            1, self._identity.key, number, prev, min(received), self._clock_ms(), pulses_root(pulses),
            tickets, received,
        )  # fmt: skip
        self._spool.add_batch(number, seal_parcel(batch, pulses, self._identity), waiting)
        return len(waiting)

    async def flush(self) -> int:
        """Send every open batch to the origin, then those carried for others; returns how many were acked.

        Raises:
            UnreachableError: where no address of the origin answers; the batches stay.

        """
        await asyncio.to_thread(self.close)
        acked = 0
        failure: RemoteError | None = None
        own = [data for _, data in await asyncio.to_thread(self._spool.open_batches)]
        for data in [*own, *await asyncio.to_thread(self._spool.carried, CARRIED_AT_ONCE)]:
            try:
                await self._send(data)
                acked += 1
            except UnreachableError:
                await self._go_round()
                raise
            except RemoteError as error:
                if isinstance(error, RefusedError) and error.status in _LATER:
                    raise
                failure = error  # one batch that is not taken holds up no other
        if failure is not None:
            raise failure
        return acked

    async def _go_round(self) -> None:
        """Give what waits to other relays, and ask those who took something what the origin said."""
        others = list(self._others())
        if not others:
            return
        waiting = await asyncio.to_thread(self._spool.open_batches)
        now_ms = self._clock_ms()
        given = [data for _, data in waiting if self._given_since(data, now_ms - GIVEN_AGAIN_MS)]
        for data in given[:ROUND_BATCHES]:
            await self._ask(data, self._given[batch_hash(data)][1])
        alone = [(number, data) for number, data in waiting if data not in given]
        for number, data in alone[:ROUND_BATCHES]:
            start = number % len(others)
            turn = [*others[start:], *others[:start]][:OTHERS_ASKED]
            holders = [source for source in turn if await self._give(source, data)]
            if not holders:
                return
            self._given[batch_hash(data)] = (now_ms, holders)
            while len(self._given) > BATCHES_REMEMBERED:
                self._given.popitem(last=False)

    def _given_since(self, data: bytes, since_ms: int) -> bool:
        known = self._given.get(batch_hash(data))
        return known is not None and known[0] > since_ms

    async def _give(self, source: Source, data: bytes) -> bool:
        """Hand a batch to another relay; True where it promised to carry all of it."""
        try:
            reply = await self._dialer.request(
                source, "POST", "/v1/pulses", body=data, timeout_s=POST_TIMEOUT_S
            )
            _check_promise(source, reply, data)
        except RemoteError as error:
            self._sent.labels(error.reason).inc()
            return False
        self._sent.labels("given").inc()
        return True

    async def _ask(self, data: bytes, holders: Sequence[Source]) -> None:
        """Fetch the acks of one of a batch's tickets: the newest is of this batch, or says more."""
        tids = {read_pulse(pulse)[0].tid for pulse in read_parcel(data)[1]}
        for source in holders:
            for tid in sorted(tids)[:TIDS_ASKED]:
                try:
                    reply = await self._dialer.request(
                        source, "GET", f"/v1/acks/{tid.hex()}", timeout_s=POST_TIMEOUT_S
                    )
                    for ack in decode(list[bytes], reply.body) if reply.status == 200 else []:  # noqa: PLR2004
                        await asyncio.to_thread(self._acks.accept, ack)
                except FarcastError as error:
                    self._sent.labels(error.reason).inc()
                    break

    async def _send(self, data: bytes) -> None:
        failure: RemoteError = UnreachableError("no address of the origin is known")
        for source in self._origin():
            try:
                reply = await self._dialer.request(
                    source, "POST", "/v1/pulses", body=data, timeout_s=POST_TIMEOUT_S
                )
                if reply.status != 200:  # noqa: PLR2004 - only the origin's 200 carries an ack
                    message = f"the origin answered a batch with {reply.status}"
                    raise RefusedError(message, status=reply.status)
                ack = await asyncio.to_thread(self._acks.accept, reply.body)
            except RemoteError as error:
                failure = error
                self._sent.labels(error.reason).inc()
                continue
            if ack.batch == batch_hash(data):
                await asyncio.to_thread(self._spool.close_batch, ack.batch)
                self._given.pop(ack.batch, None)
                self._sent.labels("acked").inc()
                return
            failure = RemoteError("the origin acked another batch than the one sent", reason="wrong_ack")
        raise failure


def _check_promise(source: Source, reply: Reply, data: bytes) -> None:
    """Raise ``RemoteError`` where a relay did not promise to carry all of a batch."""
    if reply.status != 202:  # noqa: PLR2004 - a promise
        raise RefusedError(f"relay {source.name} took no batch", status=reply.status)
    receipt = open_receipt(reply.body)
    if (receipt.carrier, receipt.root) != (source.key, read_parcel(data)[0].root):
        raise RemoteError("a receipt for another batch than the one given", reason="bad_receipt")
