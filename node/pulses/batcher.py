"""The batcher: a carrier's numbered, linked batches of other people's pulses, kept until acked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter

from ...protocol.batch import MAX_PULSES, Batch, batch_hash, pulses_root, seal_batch
from ...protocol.errors import RefusedError, RemoteError, UnreachableError
from ...protocol.identity import Identity
from ...protocol.ports import Dialer, Source
from .acks import Acks
from .spool import DiskSpool

POST_TIMEOUT_S = 15.0


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
    ) -> None:
        self._spool = spool
        self._identity = identity
        self._dialer = dialer
        self._origin = origin
        self._acks = acks
        self._clock_ms = clock_ms
        self._max_pulses = min(max_pulses, MAX_PULSES)
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
            tickets, pulses, received,
        )  # fmt: skip
        self._spool.add_batch(number, seal_batch(batch, self._identity), waiting)
        return len(waiting)

    async def flush(self) -> int:
        """Send every open batch to the origin; returns how many were acked.

        Raises:
            UnreachableError: where no address of the origin answers; the batches stay.

        """
        await asyncio.to_thread(self.close)
        acked = 0
        for _, data in await asyncio.to_thread(self._spool.open_batches):
            await self._send(data)
            acked += 1
        return acked

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
                self._sent.labels("acked").inc()
                return
            failure = RemoteError("the origin acked another batch than the one sent", reason="wrong_ack")
        raise failure
