"""The origin's own routes: devices, tickets, relays and pulses; and its catalog as every box asks for it.

Who asks is told by a signed request over a nonce; what is secret leaves only on a channel that this
box's key authenticated, or through its own front proxy.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge

from ..node.http.exchange import Answer, Exchange, Handler, Router
from ..node.http.nonces import NonceBook
from ..node.http.signed import SignedHandler, signed
from ..node.pulses.sealdesk import read_tid
from ..protocol.batch import BATCH_LIMIT_BYTES, is_parcel
from ..protocol.catalog import Catalog
from ..protocol.codec import encode
from ..protocol.directory import open_record
from ..protocol.enrol import (
    CHECK_LIMIT_BYTES,
    DAYS_AHEAD,
    ENROL_LIMIT_BYTES,
    CheckAnswer,
    DeviceAnswer,
    Fault,
    RelayAnswer,
    RelayRequest,
    TicketAnswer,
    TicketWish,
    open_check_request,
    open_device_request,
    open_relay_request,
    open_ticket_request,
)
from ..protocol.errors import RefusedError
from ..protocol.identity import can_sign
from ..protocol.ticket import DAY_GRACE_MS, DAY_MS, Holder, TicketGrant, TicketOffice
from .accounts import Accounts
from .dialback import DialBack
from .keys import Keys
from .log import CatalogLog
from .roster import Roster

MEDIA_TYPE = "application/vnd.farcast+msgpack"
TID_BYTES = 16
BEACON_BYTES = 32
CHECKS_AT_ONCE = 4
POSTS_AT_ONCE = 32
"""Posts of pulses being stored at one time; the next are told to come back."""
SEALS_AT_ONCE = 8
SEALS_TOLD = 2_000
TICKET_REFUSALS = ("unknown_device", "revoked", "wrong_day", "bad_session", "too_many_tickets")
TICKETS_A_DAY = 256
"""Tickets one device may ask for between two UTC midnights: 14 days ahead, many times over."""
DEVICES_COUNTED = 100_000


class PulseIntake(Protocol):
    """Stores pulses durably and acks them (``origin/pulses/intake.py``); every method blocks."""

    def post(self, data: bytes, now_ms: int) -> bytes:
        """Store the pulses of a post and return the signed ack."""
        ...

    def batch(self, data: bytes, now_ms: int) -> bytes:
        """Store a carrier's batch and return the signed ack."""
        ...

    def acks_for(self, tids: Iterable[bytes], now_ms: int) -> list[bytes]:
        """Return signed acks of what is stored under these tickets."""
        ...

    def seals_for(self, tids: Iterable[bytes]) -> list[bytes]:
        """Return the signed seal records of these tickets' closed sessions."""
        ...

    def seal(self, now_ms: int) -> int:
        """Close the sessions that are over."""
        ...


class _Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.devices = Counter("farcast_origin_devices_enrolled", "Devices enrolled.", registry=registry)
        self.tickets = Counter("farcast_origin_tickets_issued", "Tickets issued.", registry=registry)
        self.refused = Counter(
            "farcast_origin_tickets_refused", "Requests for tickets refused, by reason.", ["reason"],
            registry=registry,
        )  # fmt: skip
        for reason in TICKET_REFUSALS:
            self.refused.labels(reason)
        self.relays = Gauge("farcast_origin_relays", "Relays by standing.", ["standing"], registry=registry)
        self.root_expiry = Gauge(
            "farcast_origin_root_expiry_timestamp_seconds",
            "When the root of trust expires.",
            registry=registry,
        )
        self.entries = Gauge("farcast_origin_catalog_entries", "Entries in the catalog.", registry=registry)


class OriginService:
    """Answers for the origin; as ``Heads`` it is where every box's catalog comes from."""

    def __init__(
        self,
        keys: Keys,
        accounts: Accounts,
        roster: Roster,
        log: CatalogLog,
        intake: PulseIntake,
        nonces: NonceBook,
        clock_ms: Callable[[], int],
        registry: CollectorRegistry,
    ) -> None:
        self._keys = keys
        self._accounts = accounts
        self._roster = roster
        self._log = log
        self._intake = intake
        self._nonces = nonces
        self._clock_ms = clock_ms
        self._tickets = TicketOffice(keys.ticket, keys.ticket_secret)
        self._metrics = _Metrics(registry)
        self.dialback: DialBack | None = None
        """Dials relays back; set by whoever has a dialler."""
        self._checking = 0
        self._posting = 0
        self._telling = 0
        self._asked: dict[bytes, int] = {}
        self._asked_day = 0

    def routes(self, router: Router) -> None:
        """Add the origin's routes; those that every box answers are ``PublicRoutes``'."""
        router.route("POST", "/v1/devices", self.private(self.enrol_device))
        router.route("POST", "/v1/tickets", self.private(self.issue_tickets))
        router.route("POST", "/v1/relays", self.private(self.enrol_relay))
        router.route("POST", "/v1/relays/rotation", self.private(self.rotate_relay))
        router.route("POST", "/v1/relays/check", self.check_relay)
        router.route("POST", "/v1/pulses", self.take_pulses)
        router.route("GET", "/v1/seals/{tid}", self.seals)

    @property
    def catalog(self) -> Catalog:
        """The entries so far."""
        return self._log.catalog

    def checkpoint(self) -> bytes | None:
        """Return the newest signed checkpoint."""
        return self._log.checkpoint()

    def directory(self) -> bytes | None:
        """Return the signed relay directory."""
        return self._roster.directory()

    def beacons(self) -> list[bytes]:
        """Return the signed beacons of the last 48 hours."""
        return self._log.beacons()

    def acks(self, tids: Iterable[bytes]) -> list[bytes]:
        """Return signed acks of what is stored under these tickets. Blocking."""
        return self._intake.acks_for(tids, self._clock_ms())

    async def tick(self) -> None:
        """Keep head, beacon, directory and trust files fresh; to be called every minute."""
        await asyncio.to_thread(self.freshen)

    def freshen(self) -> None:
        """Do what ``tick`` does. Blocking."""
        now_ms = self._clock_ms()
        self._log.tick(now_ms, secrets.token_bytes(BEACON_BYTES))
        self._roster.sign(now_ms)
        self._keys.repository.refresh(now_ms / 1_000)
        standings = [relay.standing for relay in self._roster.relays()]
        for standing in ("pending", "approved", "refused"):
            self._metrics.relays.labels(standing).set(standings.count(standing))
        self._metrics.root_expiry.set(self._keys.repository.root_state.expires_s)
        self._metrics.entries.set(self._log.catalog.size)

    async def enrol_device(self, exchange: Exchange, signer: bytes) -> Answer:
        """``POST /v1/devices``: spend a token on the device that signed the request."""
        request = open_device_request(await exchange.read(ENROL_LIMIT_BYTES))
        if request.device != signer:
            raise RefusedError(
                "the request is not signed by the device it names", status=403, reason="wrong_key"
            )
        number = await asyncio.to_thread(self._accounts.enrol, request.token, signer, self._clock_ms())
        self._metrics.devices.inc()
        return _answer(encode(DeviceAnswer(1, number)))

    async def issue_tickets(self, exchange: Exchange, signer: bytes) -> Answer:
        """``POST /v1/tickets``: tickets for the days and session keys an enrolled device names."""
        request = open_ticket_request(await exchange.read(ENROL_LIMIT_BYTES))
        try:
            grants = await asyncio.to_thread(self._issue, signer, request.wishes)
        except RefusedError as error:
            self._metrics.refused.labels(error.reason).inc()
            raise
        self._metrics.tickets.inc(len(grants))
        return _answer(encode(TicketAnswer(1, grants)))

    async def enrol_relay(self, exchange: Exchange, signer: bytes) -> Answer:
        """``POST /v1/relays``: a relay's signed record, new or renewed."""
        request = open_relay_request(await exchange.read(ENROL_LIMIT_BYTES))
        await asyncio.to_thread(self._enrol_relay, request, signer)
        faults = None
        if self.dialback is not None and request.wish in ("listed", "unlisted"):
            faults = await self.dialback.faults(open_record(request.record))
        return _answer(encode(await asyncio.to_thread(self._relay_answer, signer, faults)))

    async def check_relay(self, exchange: Exchange) -> Answer:
        """``POST /v1/relays/check``: dial the asker back, and send as much as he sent."""
        if self.dialback is None or self._checking >= CHECKS_AT_ONCE:
            raise RefusedError("other relays are being checked", status=429, retry_after_s=10, reason="busy")
        self._checking += 1
        try:
            began = monotonic()
            request = open_check_request(await exchange.read(CHECK_LIMIT_BYTES))
            read_ms = round((monotonic() - began) * 1_000)
            tcp, udp = await self.dialback.check(request.key, exchange.peer, request.port)
            seen = CheckAnswer(1, exchange.peer[:64], tcp, udp, self._clock_ms(), read_ms, request.padding)
            return _answer(encode(seen))
        finally:
            self._checking -= 1

    async def take_pulses(self, exchange: Exchange) -> Answer:
        """``POST /v1/pulses``: a carrier's batch or a plain post; 200 and the ack once it is durable."""
        if self._posting >= POSTS_AT_ONCE:
            raise RefusedError(
                "the intake is busy; try again soon", status=429, retry_after_s=5, reason="busy"
            )
        self._posting += 1
        try:
            data = await exchange.read(BATCH_LIMIT_BYTES)
            store = self._intake.batch if is_parcel(data) else self._intake.post
            return _answer(await asyncio.to_thread(store, data, self._clock_ms()))
        finally:
            self._posting -= 1

    async def seals(self, exchange: Exchange) -> Answer:
        """``GET /v1/seals/{tid}``: the verdicts on a ticket's closed sessions, 404 where there is none."""
        tid = read_tid(exchange.match["tid"])
        if self._telling >= SEALS_AT_ONCE:
            raise RefusedError("many ask for verdicts", status=429, retry_after_s=5, reason="busy")
        self._telling += 1
        try:
            found = await asyncio.to_thread(self._intake.seals_for, [tid])
        finally:
            self._telling -= 1
        if not found:
            raise RefusedError("no session of this ticket is closed yet", status=404, reason="no_seal")
        return _answer(encode(found[:SEALS_TOLD]))

    async def seal(self) -> None:
        """Close the sessions that are over; to be called every few seconds."""
        await asyncio.to_thread(self._intake.seal, self._clock_ms())

    def private(self, handler: SignedHandler) -> Handler:
        """Return ``handler`` behind a signed request, on channels that nobody else can read."""
        answer = signed(self._nonces, handler, limit_bytes=ENROL_LIMIT_BYTES)

        async def handle(exchange: Exchange) -> Answer:
            self.check_channel(exchange)
            return await answer(exchange)

        return handle

    def check_channel(self, exchange: Exchange) -> None:
        """Raise ``RefusedError`` 403 on a channel that others can read."""
        if not exchange.secure and not _is_loopback(exchange.peer):
            message = "this is asked over QUIC or TLS with the origin's key, or at its web endpoint"
            raise RefusedError(message, status=403, reason="insecure")

    def _issue(self, device: bytes, wishes: list[TicketWish]) -> list[TicketGrant]:
        holder = self._accounts.holder(device)
        now_ms = self._clock_ms()
        self._count(device, len(wishes), now_ms // DAY_MS)
        first, last = (now_ms - DAY_GRACE_MS) // DAY_MS, now_ms // DAY_MS + DAYS_AHEAD
        for wish in wishes:
            if not first <= wish.day <= last:
                message = (
                    f"tickets are issued for today and {DAYS_AHEAD} days ahead; is this device's clock right?"
                )
                raise RefusedError(message, status=400, reason="wrong_day")
            if not can_sign(wish.session):
                message = "the session key of a wish is no key that anybody can sign with; make a fresh one"
                raise RefusedError(message, status=400, reason="bad_session")
        return [self._grant(holder, wish) for wish in wishes]

    def _grant(self, holder: Holder, wish: TicketWish) -> TicketGrant:
        if self._accounts.revoked(holder.account, wish.day):
            raise RefusedError("this account has been revoked", status=403, reason="revoked")
        return self._tickets.issue(secrets.token_bytes(TID_BYTES), wish.day, wish.session, holder)

    def _count(self, device: bytes, wishes: int, day: int) -> None:
        """Hold each device to its tickets a day; the count lives in memory only."""
        if day != self._asked_day or len(self._asked) > DEVICES_COUNTED:
            self._asked, self._asked_day = {}, day
        asked = self._asked.get(device, 0) + wishes
        if asked > TICKETS_A_DAY:
            message = f"this device asked for more than {TICKETS_A_DAY} tickets today"
            raise RefusedError(message, status=429, retry_after_s=3_600, reason="too_many_tickets")
        self._asked[device] = asked

    async def rotate_relay(self, exchange: Exchange, signer: bytes) -> Answer:
        """``POST /v1/relays/rotation``: a relay's new key, signed by it and the old one; answers its id."""
        data = await exchange.read(ENROL_LIMIT_BYTES)
        relay = await asyncio.to_thread(self._roster.rotate, data, signer, self._clock_ms())
        return _answer(encode(relay))

    def _enrol_relay(self, request: RelayRequest, signer: bytes) -> None:
        now_ms = self._clock_ms()
        self._roster.enrol(request.token, request.record, signer, now_ms, request.wish)
        if request.wish in ("paused", "left"):
            self._roster.sign(now_ms)

    def _relay_answer(self, key: bytes, faults: list[Fault] | None) -> RelayAnswer:
        now_ms = self._clock_ms()
        if faults is not None:
            self._roster.mark(key, faults, now_ms)
        self._roster.sign(now_ms)
        relay = self._roster.relay(key)
        assert relay is not None, "it has just been enrolled"
        return RelayAnswer(2, relay.standing, relay.reason, relay.listed(now_ms), relay.faults)


def _answer(body: bytes) -> Answer:
    return Answer(200, {"content-type": MEDIA_TYPE, "cache-control": "no-store"}, body)


def _is_loopback(peer: str) -> bool:
    try:
        return ipaddress.ip_address(peer).is_loopback
    except ValueError:
        return False
