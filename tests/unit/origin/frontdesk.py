"""The desks of a whole origin in one process: its real service behind a router, with a clock of the test."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from prometheus_client import CollectorRegistry

from farcast.node.catalog.replica import catalog_name
from farcast.node.http.exchange import Answer, Exchange, Hosts, Router
from farcast.node.http.nonces import NonceBook
from farcast.origin.accounts import Accounts
from farcast.origin.keys import Keys
from farcast.origin.log import CatalogLog
from farcast.origin.pulses.intake import Intake
from farcast.origin.roster import Roster
from farcast.origin.service import OriginService
from farcast.protocol.codec import Message, decode, encode
from farcast.protocol.enrol import DeviceRequest, TicketAnswer, TicketRequest, TicketWish
from farcast.protocol.identity import Identity
from farcast.protocol.request import authorization, read_challenge
from farcast.protocol.ticket import DAY_MS, TicketGrant, TicketOffice

DEVICE, SESSION = Identity(b"\x11" * 32), Identity(b"\x14" * 32)
CLIENT = "203.0.113.9"


class Origin:
    """A whole origin behind a router, with a clock that stands until it is set."""

    def __init__(self, home: Path) -> None:
        self.registry = CollectorRegistry()
        self.now_ms = int(time.time() * 1_000)
        self.keys = Keys(home)
        self.accounts = Accounts(home / "accounts.db")
        self.roster = Roster(self.accounts, self.keys.catalog)
        self.log = CatalogLog(home / "catalog", self.keys.catalog, catalog_name(self.keys.keyring))
        self.office = TicketOffice(self.keys.ticket, self.keys.ticket_secret)
        self.intake = Intake(
            home / "intake",
            self.office,
            lambda: self.keys.keyring.ticket,
            self.keys.intake,
            self.roster.is_relay,
            self.registry,
            revoked=self.accounts.revocations,
        )
        self.service = OriginService(
            self.keys,
            self.accounts,
            self.roster,
            self.log,
            self.intake,
            NonceBook(b"\6" * 32, self.keys.box.key),
            lambda: self.now_ms,
            self.registry,
        )
        self.router = Router(Hosts())
        self.service.routes(self.router)

    def close(self) -> None:
        """Close every file."""
        self.intake.close()
        self.log.close()
        self.accounts.close()

    async def post(
        self,
        path: str,
        body: bytes,
        *,
        proof: str = "",
        secure: bool = True,
        arrival: asyncio.Event | None = None,
    ) -> Answer:
        """Post ``body``, which arrives at once or when ``arrival`` is set."""

        async def read(limit_bytes: int) -> bytes:
            assert len(body) <= limit_bytes
            if arrival is not None:
                await asyncio.wait_for(arrival.wait(), 10)
            return body

        headers = {"host": "203.0.113.1:7433", **({"authorization": proof} if proof else {})}
        exchange = Exchange.of("POST", path, headers, peer=CLIENT, secure=secure, reader=read)
        return await self.router.handle(exchange)

    async def signed(self, path: str, message: Message, signer: Identity) -> Answer:
        """Post as a client does: ask for a nonce, then sign over it."""
        body = encode(message)
        first = await self.post(path, b"")
        assert first.status == 401
        nonce = read_challenge(first.headers["www-authenticate"])
        proof = authorization(
            signer,
            method="POST",
            path=path,
            body=body,
            nonce=nonce,
            audience=self.keys.box.key,
            at_ms=self.now_ms,
        )
        return await self.post(path, body, proof=proof)

    async def enrol(self, device: Identity = DEVICE, name: str = "alice") -> None:
        """Add an account and enrol its first device."""
        token = self.accounts.add(name, self.now_ms)
        assert (await self.signed("/v1/devices", DeviceRequest(1, token, device.key), device)).status == 200

    async def tickets(self, *days: int) -> list[TicketGrant]:
        """Ask for one ticket per day as the enrolled device."""
        request = TicketRequest(1, [TicketWish(day, SESSION.key) for day in days])
        answer = await self.signed("/v1/tickets", request, DEVICE)
        assert answer.status == 200, answer.body
        return decode(TicketAnswer, body_of(answer)).grants

    @property
    def today(self) -> int:
        """The UTC day, counted since 1970."""
        return self.now_ms // DAY_MS


def body_of(answer: Answer) -> bytes:
    """Return the body of an answer that is in memory."""
    assert isinstance(answer.body, bytes)
    return answer.body
