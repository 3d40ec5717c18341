"""The key desk behind a real router, with real tickets, accounts and catalog."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.catalog.replica import catalog_name
from farcast.node.http.exchange import Answer, Exchange, Hosts, Router
from farcast.node.http.nonces import NonceBook
from farcast.origin.accounts import Accounts
from farcast.origin.keydesk import KEYS_A_DAY, KeyDesk
from farcast.origin.keys import CONTENT_SECRET, Keys, init
from farcast.origin.log import CatalogLog
from farcast.origin.pulses.intake import Intake
from farcast.origin.roster import Roster
from farcast.origin.service import OriginService
from farcast.origin.studio.contentkeys import ContentKeys
from farcast.protocol.codec import decode, encode
from farcast.protocol.contentkey import (
    LEASE_MS,
    PROOF_WINDOW_MS,
    KeyAnswer,
    KeyGrant,
    KeyRequest,
    prove_ticket,
)
from farcast.protocol.directory import Endpoint
from farcast.protocol.identity import Identity
from farcast.protocol.manifest import Manifest, Payee, Protection, Window, seal_manifest
from farcast.protocol.request import authorization, read_challenge
from farcast.protocol.ticket import DAY_MS, TicketGrant, TicketOffice

DEVICE, SESSION, STRANGER = Identity(b"\x11" * 32), Identity(b"\x12" * 32), Identity(b"\x13" * 32)
OPEN_WINDOW = Window(0, 0)


class Origin:
    """What the desk stands on, with a clock at noon until it is set."""

    def __init__(self, home: Path) -> None:
        self.registry = CollectorRegistry()
        self.now_ms = time.time_ns() // 1_000_000 // DAY_MS * DAY_MS + DAY_MS // 2
        self.keys = Keys(home)
        self.accounts = Accounts(home / "accounts.db")
        self.log = CatalogLog(home / "catalog", self.keys.catalog, catalog_name(self.keys.keyring))
        self.tickets = TicketOffice(self.keys.ticket, self.keys.ticket_secret)
        roster = Roster(self.accounts, self.keys.catalog)
        self.intake = Intake(
            home / "intake", self.tickets, lambda: self.keys.keyring.ticket, self.keys.intake,
            roster.is_relay, self.registry,
        )  # fmt: skip
        service = OriginService(
            self.keys, self.accounts, roster, self.log, self.intake,
            NonceBook(b"\6" * 32, self.keys.box.key), lambda: self.now_ms, self.registry,
        )  # fmt: skip
        self.manifests: dict[bytes, Manifest] = {}
        desk = KeyDesk(
            self.keys, self.accounts, lambda: self.log.catalog, self.manifests.get, service,
            lambda: self.now_ms, self.registry,
        )  # fmt: skip
        self.router = Router(Hosts())
        desk.add_to(self.router)
        self.content = ContentKeys(self.keys.content_secret)
        token = self.accounts.add("alice", self.now_ms)
        self.accounts.enrol(token, DEVICE.key, self.now_ms)
        self.title("film")

    def close(self) -> None:
        """Close every file."""
        self.intake.close()
        self.log.close()
        self.accounts.close()

    def title(self, title: str, window: Window = OPEN_WINDOW, key_id: bytes = b"") -> bytes:
        """List a protected title and return the id of its key."""
        key_id = key_id or self.content.key_id(title, bytes(32))
        publisher = self.keys.publisher
        manifest = Manifest(
            1, title, 1, publisher.key, title, "", "", 1_000, b"\x01\x70\x12\x20" + bytes(32), 1, [], [],
            window, [], [Payee("ada", 10_000)], "ticket", Protection("aes-128", [key_id]), self.now_ms, b"",
        )  # fmt: skip
        cid, _ = seal_manifest(manifest, publisher)
        self.manifests[cid.digest] = manifest
        listed = self.log.catalog.listed(title)
        self.log.append("supersede" if listed else "publish", title, cid, self.now_ms)
        return key_id

    def ticket(self, day: int | None = None) -> TicketGrant:
        """Issue a ticket of alice's for a day, today's by default."""
        holder = self.accounts.holder(DEVICE.key)
        return self.tickets.issue(
            b"t" * 16, self.now_ms // DAY_MS if day is None else day, SESSION.key, holder
        )

    async def send(
        self, method: str, path: str, body: bytes = b"", *, proof: str = "", secure: bool = True
    ) -> Answer:
        """Make one request from the Internet."""

        async def read(limit_bytes: int) -> bytes:
            assert len(body) <= limit_bytes
            return body

        headers = {"host": "203.0.113.1:7433", **({"authorization": proof} if proof else {})}
        exchange = Exchange.of(method, path, headers, peer="203.0.113.9", secure=secure, reader=read)
        return await self.router.handle(exchange)

    async def ask(self, ticket: TicketGrant, *key_ids: bytes, signer: Identity = SESSION) -> Answer:
        """Ask as a node does: for a nonce, then signed over it."""
        body = encode(KeyRequest(1, ticket.ticket, [*key_ids]))
        first = await self.send("POST", "/v1/keys")
        assert first.status == 401
        proof = authorization(
            signer, method="POST", path="/v1/keys", body=body, audience=self.keys.box.key, at_ms=self.now_ms,
            nonce=read_challenge(first.headers["www-authenticate"]),
        )  # fmt: skip
        return await self.send("POST", "/v1/keys", body, proof=proof)

    async def fetch(self, ticket: TicketGrant, key_id: bytes, *, at_ms: int | None = None) -> Answer:
        """Ask as a page in a browser does."""
        proof = prove_ticket(ticket.ticket, ticket.key, key_id, self.now_ms if at_ms is None else at_ms)
        return await self.send("GET", f"/v1/keys/{key_id.hex()}", proof=proof)

    def refused(self, reason: str) -> float:
        """Return how many requests were refused for a reason."""
        name = "farcast_origin_content_keys_refused_total"
        return self.registry.get_sample_value(name, {"reason": reason}) or 0.0


def body_of(answer: Answer) -> bytes:
    assert isinstance(answer.body, bytes)
    return answer.body


def reason_of(answer: Answer) -> tuple[int, str]:
    return answer.status, json.loads(body_of(answer))["reason"]


def grants_of(answer: Answer) -> list[KeyGrant]:
    assert answer.status == 200, answer.body
    assert answer.headers["cache-control"] == "no-store"
    return decode(KeyAnswer, body_of(answer)).grants


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make one origin to copy from, because stretching its passphrase takes long on purpose."""
    home = tmp_path_factory.mktemp("template") / "home"
    init(home, "Acme", [Endpoint("films.example", 7433, False)], "correct horse battery", time.time())
    return home


@pytest.fixture
def origin(template: Path, tmp_path: Path) -> Iterator[Origin]:
    shutil.copytree(template, tmp_path / "home")
    origin = Origin(tmp_path / "home")
    yield origin
    origin.close()


async def test_a_ticket_holder_gets_keys_in_the_order_asked_for(origin: Origin) -> None:
    film, other = origin.title("film"), origin.title("other")
    found = grants_of(await origin.ask(origin.ticket(), other, film))
    assert [(grant.key_id, grant.key) for grant in found] == [
        (other, origin.content.key(other)),
        (film, origin.content.key(film)),
    ]
    assert {grant.until_ms for grant in found} == {origin.now_ms + LEASE_MS}
    assert origin.registry.get_sample_value("farcast_origin_content_keys_issued_total") == 2


async def test_a_browser_gets_the_bare_key_with_a_proof_of_its_ticket_key(origin: Origin) -> None:
    film = origin.title("film")
    answer = await origin.fetch(origin.ticket(), film)
    assert (answer.status, answer.body) == (200, origin.content.key(film))
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["access-control-allow-origin"] == "*"
    preflight = await origin.send("OPTIONS", f"/v1/keys/{film.hex()}")
    assert preflight.status == 204
    assert preflight.headers["access-control-allow-headers"] == "authorization"


async def test_a_ticket_alone_which_every_relay_has_seen_proves_nothing(origin: Origin) -> None:
    film, ticket = origin.title("film"), origin.ticket()
    assert reason_of(await origin.ask(ticket, film, signer=STRANGER)) == (403, "wrong_key")
    guessed = TicketGrant(ticket.ticket, bytes(32))
    assert reason_of(await origin.fetch(guessed, film)) == (403, "wrong_key")
    assert reason_of(await origin.send("GET", f"/v1/keys/{film.hex()}")) == (403, "no_ticket")
    assert origin.refused("wrong_key") == 2


async def test_a_proof_seen_once_is_worth_nothing_minutes_later_or_for_another_key(origin: Origin) -> None:
    film, other, ticket = origin.title("film"), origin.title("other"), origin.ticket()
    late = await origin.fetch(ticket, film, at_ms=origin.now_ms - PROOF_WINDOW_MS - 1)
    assert reason_of(late) == (403, "wrong_key")
    assert b"clock" in body_of(late)
    proof = prove_ticket(ticket.ticket, ticket.key, film, origin.now_ms)
    assert reason_of(await origin.send("GET", f"/v1/keys/{other.hex()}", proof=proof)) == (403, "wrong_key")


async def test_nobody_else_can_read_the_channel(origin: Origin) -> None:
    film, ticket = origin.title("film"), origin.ticket()
    assert reason_of(await origin.send("POST", "/v1/keys", secure=False)) == (403, "insecure")
    proof = prove_ticket(ticket.ticket, ticket.key, film, origin.now_ms)
    plain = await origin.send("GET", f"/v1/keys/{film.hex()}", proof=proof, secure=False)
    assert reason_of(plain) == (403, "insecure")


async def test_a_ticket_holds_on_its_day_with_five_minutes_grace(origin: Origin) -> None:
    film, today = origin.title("film"), origin.now_ms // DAY_MS
    for day in (today - 1, today + 1):
        assert reason_of(await origin.ask(origin.ticket(day), film)) == (403, "wrong_day")
    origin.now_ms = (today + 1) * DAY_MS + 299_000
    assert grants_of(await origin.ask(origin.ticket(today), film))
    forged = TicketOffice(STRANGER, bytes(32)).issue(
        b"t" * 16, today + 1, SESSION.key, origin.accounts.holder(DEVICE.key)
    )
    assert reason_of(await origin.ask(forged, film)) == (403, "bad_ticket")


async def test_a_revoked_account_gets_no_key_from_that_moment_on(origin: Origin) -> None:
    film, ticket = origin.title("film"), origin.ticket()
    assert grants_of(await origin.ask(ticket, film))
    origin.accounts.revoke("alice", origin.now_ms)
    assert reason_of(await origin.ask(ticket, film)) == (403, "revoked")
    assert reason_of(await origin.fetch(ticket, film)) == (403, "revoked")
    assert origin.refused("revoked") == 2


async def test_yesterdays_ticket_does_not_outlive_a_revocation_at_midnight(origin: Origin) -> None:
    film, today = origin.title("film"), origin.now_ms // DAY_MS
    ticket = origin.ticket(today)
    origin.accounts.revoke("alice", (today + 1) * DAY_MS)
    assert grants_of(await origin.ask(ticket, film))
    origin.now_ms = (today + 1) * DAY_MS + 60_000
    assert reason_of(await origin.ask(ticket, film)) == (403, "revoked")


async def test_an_erased_account_gets_no_key(origin: Origin) -> None:
    film, ticket = origin.title("film"), origin.ticket()
    origin.accounts.erase("alice", origin.now_ms)
    assert reason_of(await origin.ask(ticket, film)) == (403, "revoked")


async def test_the_rights_window_opens_and_closes_the_key_and_ends_the_lease(origin: Origin) -> None:
    start, end = origin.now_ms + 1_000, origin.now_ms + DAY_MS // 4
    film, ticket = origin.title("film", Window(start, end)), origin.ticket()
    early = await origin.ask(ticket, film)
    assert reason_of(early) == (403, "not_yet")
    assert b" UTC on" in body_of(early)
    origin.now_ms = start
    assert grants_of(await origin.ask(ticket, film))[0].until_ms == end
    origin.now_ms = end
    assert reason_of(await origin.ask(ticket, film)) == (403, "window_over")


async def test_a_retired_title_keeps_its_key_and_one_taken_down_loses_it(origin: Origin) -> None:
    film, ticket = origin.title("film"), origin.ticket()
    entry = origin.log.catalog.listed("film")
    assert entry is not None
    origin.log.append("retire", "film", entry.cid, origin.now_ms)
    assert grants_of(await origin.ask(ticket, film))
    origin.log.append("deny", "film", entry.cid, origin.now_ms)
    assert reason_of(await origin.ask(ticket, film)) == (410, "taken_down")


async def test_a_title_published_later_is_learnt_and_an_unknown_key_is_not_found(origin: Origin) -> None:
    ticket = origin.ticket()
    assert reason_of(await origin.ask(ticket, b"?" * 16)) == (404, "unknown_key")
    later = origin.title("later")
    assert grants_of(await origin.ask(ticket, later))
    for text in ("zz", later.hex().upper(), later.hex()[:-2]):
        proof = prove_ticket(ticket.ticket, ticket.key, later, origin.now_ms)
        assert reason_of(await origin.send("GET", f"/v1/keys/{text}", proof=proof)) == (404, "unknown_key")


async def test_a_lost_secret_gives_no_wrong_keys(origin: Origin) -> None:
    lost = ContentKeys(b"lost" * 8).key_id("old", bytes(32))
    origin.title("old", key_id=lost)
    answer = await origin.ask(origin.ticket(), lost)
    assert reason_of(answer) == (503, "lost_secret")
    assert b"from a backup" in body_of(answer)


async def test_one_ticket_gets_so_many_keys_a_day(origin: Origin) -> None:
    film, ticket = origin.title("film"), origin.ticket()
    for _ in range(KEYS_A_DAY // 16):
        grants_of(await origin.ask(ticket, *([film] * 16)))
    answer = await origin.ask(ticket, film)
    assert reason_of(answer) == (429, "too_many_keys")
    assert answer.headers["retry-after"] == "3600"


async def test_what_is_no_request_is_told_so(origin: Origin) -> None:
    first = await origin.send("POST", "/v1/keys")
    proof = authorization(
        SESSION, method="POST", path="/v1/keys", body=b"\xc0", audience=origin.keys.box.key,
        at_ms=origin.now_ms, nonce=read_challenge(first.headers["www-authenticate"]),
    )  # fmt: skip
    assert reason_of(await origin.send("POST", "/v1/keys", b"\xc0", proof=proof)) == (400, "malformed")
    answer = await origin.send("GET", f"/v1/keys/{'0' * 32}", proof="Bearer me")
    assert reason_of(answer) == (400, "malformed")
    assert origin.refused("malformed") == 2


def test_an_older_home_gets_its_secret_once_readable_by_its_owner_alone(
    template: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(template, home)
    path = home / "keys" / CONTENT_SECRET
    before = path.read_bytes()
    assert Keys(home).content_secret == before
    path.unlink()
    made = Keys(home).content_secret
    assert made != before
    assert Keys(home).content_secret == made == path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
