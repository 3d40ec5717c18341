"""The reception: compares, takes pulses from others, checks and stores them, and promises with a receipt.

Relays and LAN neighbours run the same one; what happens next differs (``node/pulses/batcher.py``).
A relay's batch is taken whole and goes on as it is, because its signer's receive times count; of any
other carrier's the pulses are taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter

from ...protocol.batch import BATCH_LIMIT_BYTES, PulsePost, is_parcel, open_parcel, seal_receipt
from ...protocol.codec import decode, encode
from ...protocol.digest import ANSWER_LIMIT_BYTES, DIGEST_LIMIT_BYTES, MAX_ACKS, Lacking, open_digest
from ...protocol.errors import RefusedError, RemoteError
from ...protocol.identity import Identity
from ...protocol.keyring import Keyring
from ...protocol.ports import SpooledPulse
from ...protocol.pulse import check_pulse, read_pulse
from ...protocol.ticket import Ticket, open_ticket
from ..http.exchange import Answer, Exchange, Router
from .spool import DiskSpool

MEDIA_TYPE = "application/vnd.farcast+msgpack"
ACKS_BYTES = ANSWER_LIMIT_BYTES // 2
"""Of acks in one answer; the others come with the next."""


class Reception:
    """Verifies before storing, stores before promising.

    A pulse that fails its check is left out and counted by reason; the receipt names by root
    exactly the pulses that were stored.
    """

    def __init__(
        self,
        spool: DiskSpool,
        identity: Identity,
        keyring: Callable[[], Keyring | None],
        clock_ms: Callable[[], int],
        registry: CollectorRegistry,
        *,
        is_relay: Callable[[bytes], bool] = lambda _: False,
    ) -> None:
        """``is_relay`` says whose batches are kept whole, by the carrier's key."""
        self._spool = spool
        self._is_relay = is_relay
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

    def add_to(self, router: Router) -> None:
        """Add the routes of whoever carries pulses for others."""
        router.route("POST", "/v1/pulses", self.handle)
        router.route("POST", "/v1/digests", self.compare)

    async def handle(self, exchange: Exchange) -> Answer:
        """Answer ``POST /v1/pulses`` with 202 and a signed receipt."""
        data = await exchange.read(BATCH_LIMIT_BYTES)
        take = self.carry if is_parcel(data) else self.take
        receipt = await asyncio.to_thread(take, data)
        return Answer(202, {"content-type": MEDIA_TYPE}, receipt)

    async def compare(self, exchange: Exchange) -> Answer:
        """Answer ``POST /v1/digests``: what this box would take of what is named, and acks of its tickets."""
        data = await exchange.read(DIGEST_LIMIT_BYTES)
        answer = await asyncio.to_thread(self.lacking, data)
        return Answer(200, {"content-type": MEDIA_TYPE, "cache-control": "no-store"}, answer)

    def lacking(self, data: bytes) -> bytes:
        """Return the answer to a digest. Blocking; raises ``RemoteError`` where it is none."""
        digest = open_digest(data)
        acks: list[bytes] = []
        size_bytes = 0
        for ack in self._spool.acks_of(digest.held):
            size_bytes += len(ack)
            if len(acks) == MAX_ACKS or size_bytes > ACKS_BYTES:
                break
            acks.append(ack)
        return encode(Lacking(1, self._spool.missing(digest.held), acks))

    def take(self, data: bytes) -> bytes:
        """Check and store a post; returns the signed receipt. Blocking.

        Raises:
            RemoteError: where the post is no post.
            RefusedError: 503 before the origin's keys are known, 429 where the spool is full.

        """
        post = decode(PulsePost, data, limit_bytes=BATCH_LIMIT_BYTES)
        now_ms = self._clock_ms()
        good = self._authentic(post.tickets, post.pulses, now_ms)
        self._taken.inc(self._spool.add(good))
        return seal_receipt([pulse.pulse for pulse in good], now_ms, self._identity)

    def carry(self, data: bytes) -> bytes:
        """Check another carrier's batch and store it; returns the signed receipt. Blocking.

        Raises:
            RemoteError: where it is no batch of the carrier it names, or ``bad_batch`` where a relay's has
                pulses that are not authentic: it should have left them out.
            RefusedError: as ``take``.

        """
        batch, pulses = open_parcel(data)
        now_ms = self._clock_ms()
        good = self._authentic(batch.tickets, pulses, now_ms)
        if not self._is_relay(batch.carrier):
            self._taken.inc(self._spool.add(good))
        elif not good or len(good) != len(pulses):
            raise RemoteError("a relay's batch with pulses that are not authentic", reason="bad_batch")
        elif self._spool.carry(batch.carrier, data, now_ms):
            self._taken.inc(len(good))
        return seal_receipt([pulse.pulse for pulse in good], now_ms, self._identity)

    def _authentic(self, tickets: list[bytes], pulses: list[bytes], now_ms: int) -> list[SpooledPulse]:
        """Return the pulses that their tickets' holders signed; the others are counted by reason."""
        keyring = self._keyring()
        if keyring is None:
            message = "this box does not know the origin's ticket keys yet; try again in a minute"
            raise RefusedError(message, status=503, retry_after_s=60, reason="no_key")
        known: dict[bytes, tuple[Ticket, bytes]] = {}
        for item in tickets:
            try:
                ticket, _ = open_ticket(item, keyring.ticket)
            except RemoteError as error:
                self._refused.labels(error.reason).inc()
                continue
            known[ticket.tid] = (ticket, item)
        good: list[SpooledPulse] = []
        for item in pulses:
            try:
                good.append(self._check(item, known, now_ms))
            except RemoteError as error:
                self._refused.labels(error.reason).inc()
        return good

    def _check(self, item: bytes, tickets: dict[bytes, tuple[Ticket, bytes]], now_ms: int) -> SpooledPulse:
        tid = read_pulse(item)[0].tid
        if tid not in tickets:
            raise RemoteError("a pulse whose ticket is not beside it", reason="no_ticket")
        ticket, envelope = tickets[tid]
        pulse = check_pulse(item, ticket)
        if not ticket.valid_at(pulse.at_ms):
            raise RemoteError("a pulse from outside its ticket's day", reason="wrong_day")
        return SpooledPulse(tid, pulse.seq, item, envelope, now_ms, own=False)
