"""A payment provider by HTTP: a request carries its key, and a key can be looked up.

``POST URL/payouts`` with ``Idempotency-Key``, ``GET URL/payouts/KEY``; both answer one JSON object:
``key``, ``amount_cents``, ``currency``, ``state`` (``paid``, ``pending``, ``failed``; ``absent`` with 404),
``id``, ``reason``. What is not such an answer about this very payment says nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Annotated, Literal, NamedTuple, Self
from urllib.parse import urlsplit

import msgspec
from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
    DummyCookieJar,
)
from msgspec import Meta

from ...protocol.errors import UsageError
from ..cdn.secret import read_secret
from .method import Errand
from .order import Order, Verdict
from .terms import Terms

CONNECT_S = 5.0
CALL_S = 30.0
ANSWER_LIMIT_BYTES = 64 << 10
_NEVER_TAKEN = frozenset({401, 403, 404, 405, 425, 429})
"""It did not look at the payment: the key is not let in, the address is wrong, or it is busy."""
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_REFUSED = frozenset({400, 402, 422})

Word = Annotated[str, Meta(max_length=200)]


class _Answer(msgspec.Struct, frozen=True):
    key: Word
    state: Literal["paid", "pending", "failed", "absent"]
    amount_cents: int = 0
    currency: Word = ""
    id: Word = ""
    reason: Word = ""


class Place(NamedTuple):
    """Where a provider is: its base URL, and where its key lies (a file of mode 600, or ``$NAME``)."""

    url: str
    key: str


class PayService:
    """One provider; ``timeout_s`` bounds a request from its first byte to the answer's last."""

    looks_up = True
    together = 1

    def __init__(self, place: Place, currency: str, timeout_s: float = CALL_S) -> None:
        self._url = place.url.rstrip("/")
        self._key = place.key
        self._currency = currency
        self._timeout_s = timeout_s

    def trouble(self) -> str:
        """Say what the settings lack."""
        if not self._url:
            return "no provider is set: set [payout] url and key"
        parts = urlsplit(self._url)
        loopback = parts.hostname in _LOOPBACK
        if parts.scheme != "https" and not (parts.scheme == "http" and loopback):
            return f"[payout] url {self._url} is neither https nor on this machine"
        try:
            self._credentials()
        except UsageError as error:
            return str(error)
        return ""

    def fault(self, terms: Terms) -> str:
        """A provider knows its recipients by an account of its own, or by their bank's."""
        known = terms.account or terms.iban
        return "" if known else f"no account: farcast origin payee set {terms.payee} --account ..."

    def recover(self, was_sent: Callable[[str], bool]) -> None:
        """Nothing is kept here: the provider is asked."""
        del was_sent

    def prepare(self, errands: Sequence[Errand], now_ms: int) -> _Request:
        """Write the request down."""
        del now_ms
        ((order, terms),) = errands
        body = {
            "key": order.key,
            "amount_cents": order.net_cents,
            "currency": self._currency,
            "recipient": {
                "name": terms.name,
                "account": terms.account,
                "iban": terms.iban,
                "bic": terms.bic,
            },
        }
        return _Request(self, order, msgspec.json.encode(body))

    def find(self, order: Order) -> Verdict:
        """Ask for the order's key."""
        return asyncio.run(self._ask(order, None))

    def send(self, order: Order, body: bytes) -> Verdict:
        """Ask for the payment."""
        return asyncio.run(self._ask(order, body))

    async def _ask(self, order: Order, body: bytes | None) -> Verdict:
        method, url = ("GET", f"{self._url}/payouts/{order.key}")
        fields = self._credentials()
        if body is not None:
            method, url = "POST", f"{self._url}/payouts"
            fields |= {"content-type": "application/json", "idempotency-key": order.key}
        timeout = ClientTimeout(total=self._timeout_s, sock_connect=min(CONNECT_S, self._timeout_s))
        try:
            async with (
                ClientSession(cookie_jar=DummyCookieJar(), timeout=timeout, trust_env=False) as session,
                session.request(method, url, data=body, headers=fields, allow_redirects=False) as reply,
            ):
                data = await reply.content.read(ANSWER_LIMIT_BYTES)
                while not reply.content.at_eof() and len(data) < ANSWER_LIMIT_BYTES:
                    data += await reply.content.read(ANSWER_LIMIT_BYTES - len(data))
                status = reply.status
        except (ClientConnectorError, ConnectionTimeoutError):  # no connection, so no request
            return Verdict("unsent", "", "the provider cannot be reached")
        except TimeoutError:
            return Verdict("silent", "", f"no answer within {self._timeout_s:g} s")
        except (ClientError, OSError) as error:
            return Verdict("silent", "", f"the connection was lost ({type(error).__name__})")
        return read_answer(status, data, order, self._currency, sent=body is not None)

    def _credentials(self) -> dict[str, str]:
        if not self._key:
            return {}
        return {"authorization": f"Bearer {read_secret(self._key, os.environ).reveal()}"}


class _Request:
    reference = ""

    def __init__(self, service: PayService, order: Order, body: bytes) -> None:
        self._service = service
        self._order = order
        self._body = body

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing is held."""

    def go(self) -> Verdict:
        """Send it."""
        try:
            return self._service.send(self._order, self._body)
        except UsageError as error:  # the key's file went away meanwhile
            return Verdict("unsent", "", str(error))

    def drop(self) -> None:
        """Nothing was made."""


def read_answer(status: int, data: bytes, order: Order, currency: str, *, sent: bool) -> Verdict:
    """Say what an answer means for ``order``; ``sent`` where it answers the payment, not a look-up."""
    try:
        answer = msgspec.json.decode(data, type=_Answer)
    except msgspec.MsgspecError:
        answer = None
    if answer is not None and answer.key == order.key:
        if answer.state == "absent":
            absent = status == 404 and not sent  # noqa: PLR2004 - not found
            return Verdict("absent" if absent else "silent", "", f"it answered {status}")
        if (answer.amount_cents, answer.currency) != (order.net_cents, currency):
            return Verdict("silent", answer.id, "it answers with another amount")
        if answer.state == "failed":
            return Verdict("refused", answer.id, answer.reason or "the provider refused it")
        if 200 <= status < 300:  # noqa: PLR2004 - success
            return Verdict(answer.state, answer.id, answer.reason)
    reason = f"the provider answered {status}"
    if sent and status in _NEVER_TAKEN:
        return Verdict("unsent", "", reason)
    return Verdict("refused" if sent and status in _REFUSED else "silent", "", reason)
