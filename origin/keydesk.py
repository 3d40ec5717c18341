"""The key desk: gives content keys to those who hold a ticket for today, and says no to everybody else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from prometheus_client import CollectorRegistry, Counter

from ..node.http.exchange import Answer, Exchange, Handler, Router
from ..node.http.signed import SignedHandler
from ..protocol.catalog import Catalog, open_entry
from ..protocol.cid import Cid
from ..protocol.codec import encode
from ..protocol.contentkey import (
    LEASE_MS,
    PROOF_WINDOW_MS,
    REQUEST_LIMIT_BYTES,
    KeyAnswer,
    KeyGrant,
    open_key_request,
    open_ticket_proof,
)
from ..protocol.errors import RefusedError, RemoteError
from ..protocol.manifest import Manifest, Window
from ..protocol.protection import KEYS_PATH
from ..protocol.ticket import DAY_MS, Ticket, TicketOffice, open_ticket
from .accounts import Accounts
from .keys import Keys
from .studio.contentkeys import ContentKeys

MEDIA_TYPE = "application/vnd.farcast+msgpack"
KEY_MEDIA_TYPE = "application/octet-stream"
ASKS_AT_ONCE = 32
"""Requests being judged at one time; the next are told to come back."""
KEYS_A_DAY = 2_048
"""Keys one ticket may ask for on its day: a title's, every ten minutes, many times over."""
TICKETS_COUNTED = 100_000
REASONS = (
    "bad_ticket", "wrong_key", "wrong_day", "revoked", "unknown_key", "lost_secret", "not_yet", "window_over",
    "taken_down", "too_many_keys", "no_ticket", "busy", "malformed",
)  # fmt: skip
CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "GET, OPTIONS",
    "access-control-allow-headers": "authorization",
    "access-control-max-age": "86400",
}


class Private(Protocol):
    """What the desk needs of ``OriginService``: channels that nobody else can read."""

    def private(self, handler: SignedHandler) -> Handler:
        """Return ``handler`` behind a signed request on such a channel."""
        ...

    def check_channel(self, exchange: Exchange) -> None:
        """Raise ``RefusedError`` 403 where others could read the answer."""
        ...


class _Sealed(NamedTuple):
    """What a key opens: the newest manifest that names it."""

    title: str
    manifest: Cid
    window: Window


class KeyDesk:
    """Answers ``/v1/keys``; keeps no key and no note of who asked for which."""

    def __init__(
        self,
        keys: Keys,
        accounts: Accounts,
        catalog: Callable[[], Catalog],
        manifest_of: Callable[[bytes], Manifest | None],
        channel: Private,
        clock_ms: Callable[[], int],
        registry: CollectorRegistry,
    ) -> None:
        """Give keys of the titles in ``catalog``; ``manifest_of`` finds one by its digest, blocking."""
        self._keys = keys
        self._accounts = accounts
        self._catalog = catalog
        self._manifest_of = manifest_of
        self._channel = channel
        self._clock_ms = clock_ms
        self._content = ContentKeys(keys.content_secret)
        self._tickets = TicketOffice(keys.ticket, keys.ticket_secret)
        self._lock = threading.Lock()
        self._sealed: dict[bytes, _Sealed] = {}
        self._seen = 0
        self._asked: dict[bytes, int] = {}
        self._asked_day = 0
        self._asking = 0
        self._issued = Counter(
            "farcast_origin_content_keys_issued", "Content keys given to ticket holders.", registry=registry
        )
        self._refused = Counter(
            "farcast_origin_content_keys_refused",
            "Requests for content keys refused.",
            ["reason"],
            registry=registry,
        )
        for reason in REASONS:
            self._refused.labels(reason)

    def add_to(self, router: Router) -> None:
        """Add the routes of keys: one for nodes, one for pages in a browser."""
        router.route("POST", KEYS_PATH, self._channel.private(self.issue))
        router.route("GET", KEYS_PATH + "/{key_id}", self.fetch)
        router.route("OPTIONS", KEYS_PATH + "/{key_id}", self._preflight)

    def learn(self) -> None:
        """Read the manifests of all that was published, before anybody waits for it. Blocking."""
        with self._lock:
            self._learn()

    async def issue(self, exchange: Exchange, signer: bytes) -> Answer:
        """``POST /v1/keys``: the keys a ticket's holder names, signed for by the ticket's session key."""

        async def grants() -> Sequence[KeyGrant]:
            request = open_key_request(await exchange.read(REQUEST_LIMIT_BYTES))
            ticket = self._ticket(request.ticket)
            if ticket.session != signer:
                message = "the request is not signed by the session key of its ticket"
                raise _no(message, "wrong_key")
            return await asyncio.to_thread(self._grants, ticket, request.key_ids)

        body = encode(KeyAnswer(1, list(await self._counted(grants))))
        return Answer(200, {"content-type": MEDIA_TYPE, "cache-control": "no-store"}, body)

    async def fetch(self, exchange: Exchange) -> Answer:
        """``GET /v1/keys/{key id}``: the 16 bytes of one key, for a page that proves its ticket key."""
        self._channel.check_channel(exchange)

        async def grants() -> Sequence[KeyGrant]:
            value = exchange.headers.get("authorization", "")
            if not value:
                raise _no("this title needs a ticket; ask the origin for an account", "no_ticket")
            proof, key_id = open_ticket_proof(value), _key_id(exchange.match["key_id"])
            ticket = self._ticket(proof.ticket)
            if not proof.holds(self._tickets.key(ticket.tid), key_id, self._clock_ms()):
                minutes = PROOF_WINDOW_MS // 60_000
                message = f"the proof is not of this ticket's key, or not of the last {minutes} minutes; "
                raise _no(message + "is this device's clock right?", "wrong_key")
            return await asyncio.to_thread(self._grants, ticket, [key_id])

        try:
            (grant,) = await self._counted(grants)
        except RefusedError as error:
            answer = Answer.problem(error.status, "Refused", str(error), reason=error.reason)
            answer.headers |= {"access-control-allow-origin": "*", "cache-control": "no-store"}
            return answer  # with a CORS header, so that the page can show the sentence
        headers = {"content-type": KEY_MEDIA_TYPE, "cache-control": "no-store", "vary": "authorization"}
        return Answer(200, {**headers, "access-control-allow-origin": "*"}, grant.key)

    async def _preflight(self, exchange: Exchange) -> Answer:
        del exchange
        return Answer(204, dict(CORS))

    async def _counted(self, ask: Callable[[], Awaitable[Sequence[KeyGrant]]]) -> Sequence[KeyGrant]:
        try:
            found = await self._one_of_a_few(ask)
        except RefusedError as error:
            self._refused.labels(error.reason if error.reason in REASONS else "malformed").inc()
            raise
        except RemoteError as error:
            self._refused.labels("malformed").inc()
            raise RefusedError(str(error), status=400, reason=error.reason) from error
        self._issued.inc(len(found))
        return found

    async def _one_of_a_few(self, ask: Callable[[], Awaitable[Sequence[KeyGrant]]]) -> Sequence[KeyGrant]:
        if self._asking >= ASKS_AT_ONCE:
            message = "many ask for keys at this moment; try again soon"
            raise RefusedError(message, status=429, retry_after_s=2, reason="busy")
        self._asking += 1
        try:
            return await ask()
        finally:
            self._asking -= 1

    def _ticket(self, data: bytes) -> Ticket:
        try:
            ticket, _ = open_ticket(data, list(self._keys.keyring.ticket))
        except RemoteError as error:
            raise _no(f"this is no ticket of this origin: {error}", "bad_ticket") from error
        if not ticket.valid_at(self._clock_ms()):
            message = "this ticket is for another day; ask for today's (is this device's clock right?)"
            raise _no(message, "wrong_day")
        return ticket

    def _grants(self, ticket: Ticket, key_ids: Sequence[bytes]) -> list[KeyGrant]:
        """Judge and answer one request. Blocking."""
        try:
            holder = self._tickets.holder(ticket)
        except RemoteError as error:
            raise _no(str(error), "bad_ticket") from error
        now_ms = self._clock_ms()
        # today counts, not the ticket's day alone: around midnight yesterday's ticket still holds
        if self._accounts.revoked(holder.account, max(ticket.day, now_ms // DAY_MS)):
            raise _no("this account has been revoked; ask the origin why", "revoked")
        with self._lock:
            self._count(ticket.tid, len(key_ids), now_ms // DAY_MS)
            self._learn()
            return [self._grant(key_id, now_ms) for key_id in key_ids]

    def _grant(self, key_id: bytes, now_ms: int) -> KeyGrant:
        sealed, catalog = self._sealed.get(key_id), self._catalog()
        if sealed is None:
            raise _no("no title published here is sealed under this key", "unknown_key", 404)
        if not self._content.owns(key_id):
            message = f"the key of {sealed.title} is of another secret: bring keys/content-secret back"
            raise _no(message + " from a backup", "lost_secret", 503)
        if sealed.manifest in catalog.denied() or catalog.taken_down(sealed.title):
            raise _no(f"{sealed.title} was taken down", "taken_down", 410)
        first_ms, until_ms = sealed.window.from_ms, sealed.window.until_ms
        if now_ms < first_ms:
            raise _no(f"{sealed.title} may be watched from {_moment(first_ms)} on", "not_yet")
        if until_ms and now_ms >= until_ms:
            raise _no(f"{sealed.title} could be watched until {_moment(until_ms)}", "window_over")
        end_ms = min(now_ms + LEASE_MS, until_ms or now_ms + LEASE_MS)
        return KeyGrant(key_id, self._content.key(key_id), end_ms)

    def _learn(self) -> None:
        """Read the manifests that the catalog has got since the last time."""
        entries = self._catalog().entries
        for entry in map(open_entry, entries[self._seen :]):
            self._seen += 1
            if entry.action not in ("publish", "supersede"):
                continue
            manifest = self._manifest_of(entry.cid.digest)
            if manifest is None or manifest.protection is None:
                continue
            for key_id in manifest.protection.key_ids:
                self._sealed[key_id] = _Sealed(manifest.title, entry.cid, manifest.window)

    def _count(self, tid: bytes, keys: int, day: int) -> None:
        """Hold each ticket to its keys a day; the count lives in memory only."""
        if day != self._asked_day or len(self._asked) > TICKETS_COUNTED:
            self._asked, self._asked_day = {}, day
        asked = self._asked.get(tid, 0) + keys
        if asked > KEYS_A_DAY:
            message = f"this ticket asked for more than {KEYS_A_DAY} keys today"
            raise RefusedError(message, status=429, retry_after_s=3_600, reason="too_many_keys")
        self._asked[tid] = asked


def _no(message: str, reason: str, status: int = 403) -> RefusedError:
    return RefusedError(message, status=status, reason=reason)


def _key_id(text: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if found.hex() != text or len(found) != 16:  # noqa: PLR2004 - what a key id has
        raise _no("a key id is 32 hexadecimal digits", "unknown_key", 404)
    return found


def _moment(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1_000, UTC):%Y-%m-%d %H:%M} UTC"
