"""The reception: takes pulses from others, checks them, stores them, and promises with a receipt.

Relays and LAN neighbours run the same one; what happens next differs (``node/pulses/batcher.py``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter

from ...protocol.batch import BATCH_LIMIT_BYTES, PulsePost, seal_receipt
from ...protocol.codec import decode
from ...protocol.errors import RefusedError, RemoteError
from ...protocol.identity import Identity
from ...protocol.keyring import Keyring
from ...protocol.ports import Spool, SpooledPulse
from ...protocol.pulse import check_pulse, read_pulse
from ...protocol.ticket import Ticket, open_ticket
from ..http.exchange import Answer, Exchange

MEDIA_TYPE = "application/vnd.farcast+msgpack"


class Reception:
    """Verifies before storing, stores before promising.

    A pulse that fails its check is left out and counted by reason; the receipt names by root
    exactly the pulses that were stored.
    """

    def __init__(
        self,
        spool: Spool,
        identity: Identity,
        keyring: Callable[[], Keyring | None],
        clock_ms: Callable[[], int],
        registry: CollectorRegistry,
    ) -> None:
        self._spool = spool
        self._identity = identity
        self._keyring = keyring
        self._clock_ms = clock_ms
        self._taken = Counter(
            "farcast_node_pulses_taken", "Pulses of others stored here on their way home.", registry=registry
        )
        self._refused = Counter(
            "farcast_node_pulses_refused",
            "Pulses of others not taken, by reason.",
            ["reason"],
            registry=registry,
        )

    async def handle(self, exchange: Exchange) -> Answer:
        """Answer ``POST /v1/pulses`` with 202 and a signed receipt."""
        data = await exchange.read(BATCH_LIMIT_BYTES)
        receipt = await asyncio.to_thread(self.take, data)
        return Answer(202, {"content-type": MEDIA_TYPE}, receipt)

    def take(self, data: bytes) -> bytes:
        """Check and store a post; returns the signed receipt. Blocking.

        Raises:
            RemoteError: where the post is no post.
            RefusedError: 503 before the origin's keys are known, 429 where the spool is full.

        """
        post = decode(PulsePost, data, limit_bytes=BATCH_LIMIT_BYTES)
        keyring = self._keyring()
        if keyring is None:
            message = "this box does not know the origin's ticket keys yet; try again in a minute"
            raise RefusedError(message, status=503, retry_after_s=60, reason="no_key")
        now_ms = self._clock_ms()
        tickets: dict[bytes, tuple[Ticket, bytes]] = {}
        for item in post.tickets:
            try:
                ticket, _ = open_ticket(item, keyring.ticket)
            except RemoteError as error:
                self._refused.labels(error.reason).inc()
                continue
            tickets[ticket.tid] = (ticket, item)
        good: list[SpooledPulse] = []
        for item in post.pulses:
            try:
                good.append(self._check(item, tickets, now_ms))
            except RemoteError as error:
                self._refused.labels(error.reason).inc()
        self._taken.inc(self._spool.add(good))
        return seal_receipt([pulse.pulse for pulse in good], now_ms, self._identity)

    def _check(self, item: bytes, tickets: dict[bytes, tuple[Ticket, bytes]], now_ms: int) -> SpooledPulse:
        tid = read_pulse(item)[0].tid
        if tid not in tickets:
            raise RemoteError("a pulse whose ticket is not beside it", reason="no_ticket")
        ticket, envelope = tickets[tid]
        pulse = check_pulse(item, ticket)
        if not ticket.valid_at(pulse.at_ms):
            raise RemoteError("a pulse from outside its ticket's day", reason="wrong_day")
        return SpooledPulse(tid, pulse.seq, item, envelope, now_ms, own=False)
