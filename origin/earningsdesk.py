"""The earnings desk: tells a relay, or a payee's box, what it earns; nobody else's, and no viewer's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter

from ..node.http.exchange import Answer, Exchange, Router
from ..protocol.codec import encode
from ..protocol.earnings import (
    EARNINGS_PATH,
    EARNINGS_REQUEST_LIMIT_BYTES,
    EarningsAnswer,
    EarningsRequest,
    open_earnings_request,
)
from ..protocol.errors import RefusedError, UsageError
from ..protocol.ticket import DAY_MS
from .accounts import Accounts
from .keydesk import Private
from .money.earningsbook import EarningsBook
from .roster import Roster

MEDIA_TYPE = "application/vnd.farcast+msgpack"
ASKS_AT_ONCE = 16
ASKS_A_DAY = 4_096
"""Questions one key may put a day: one a minute, and some by hand."""
ASKERS_COUNTED = 20_000
REASONS = ("unknown", "no_month", "busy", "too_many")


class _Asker(NamedTuple):
    relays: list[bytes]
    payees: list[str]


class EarningsDesk:
    """Answers ``/v1/earnings`` on channels that nobody else can read."""

    def __init__(
        self,
        book: EarningsBook,
        accounts: Accounts,
        roster: Roster,
        channel: Private,
        clock_ms: Callable[[], int],
        registry: CollectorRegistry,
    ) -> None:
        self._book = book
        self._accounts = accounts
        self._roster = roster
        self._channel = channel
        self._clock_ms = clock_ms
        self._asking = 0
        self._asked: dict[bytes, int] = {}
        self._asked_day = 0
        self._answered = Counter(
            "farcast_origin_earnings_asked", "Questions for earnings answered.", registry=registry
        )
        self._refused = Counter(
            "farcast_origin_earnings_refused",
            "Questions for earnings refused.",
            ["reason"],
            registry=registry,
        )
        for reason in REASONS:
            self._refused.labels(reason)

    def add_to(self, router: Router) -> None:
        """Add the route."""
        router.route("POST", EARNINGS_PATH, self._channel.private(self.answer))

    async def answer(self, exchange: Exchange, signer: bytes) -> Answer:
        """``POST /v1/earnings``: what the signer earns this month and in the last settled one, or in one."""
        request = open_earnings_request(await exchange.read(EARNINGS_REQUEST_LIMIT_BYTES))
        try:
            self._count(signer)
            self._asking += 1
            try:
                found = await asyncio.to_thread(self._find, request, signer)
            finally:
                self._asking -= 1
        except RefusedError as error:
            self._refused.labels(error.reason).inc()
            raise
        self._answered.inc()
        return Answer(200, {"content-type": MEDIA_TYPE, "cache-control": "no-store"}, encode(found))

    def _find(self, request: EarningsRequest, signer: bytes) -> EarningsAnswer:
        asker, now_ms = self._asker(signer), self._clock_ms()
        months = [request.month] if request.month else self._book.months(now_ms)
        try:
            found = [self._book.of(month, now_ms, wait=not request.month) for month in months]
        except UsageError as error:
            raise RefusedError(str(error), status=404, reason="no_month") from error
        currency = found[0].currency
        return EarningsAnswer(1, currency, [month.of(asker.relays, asker.payees) for month in found])

    def _asker(self, signer: bytes) -> _Asker:
        """Say whose earnings a key may see: a relay's by any key it uses now, a payee's by one that is known.

        A relay's payee is told nothing by it: a relay names whom it likes.
        """
        relay = self._roster.relay(signer)
        relays = [relay.key] if relay is not None else []
        payee = self._accounts.payee_of_key(signer)
        if not relays and not payee:
            message = (
                "this box is no relay here and shows nobody's earnings; the origin's team lets it by "
                "`farcast origin payee key PAYEE ID`"
            )
            raise RefusedError(message, status=403, reason="unknown")
        return _Asker(relays, [payee] if payee else [])

    def _count(self, key: bytes) -> None:
        """Hold each key to its questions a day and all to a few at once; the count is in memory only."""
        if self._asking >= ASKS_AT_ONCE:
            message = "many ask for their earnings at this moment; try again soon"
            raise RefusedError(message, status=429, retry_after_s=5, reason="busy")
        day = self._clock_ms() // DAY_MS
        if day != self._asked_day or len(self._asked) > ASKERS_COUNTED:
            self._asked, self._asked_day = {}, day
        asked = self._asked.get(key, 0) + 1
        if asked > ASKS_A_DAY:
            message = f"this box asked more than {ASKS_A_DAY} times today"
            raise RefusedError(message, status=429, retry_after_s=3_600, reason="too_many")
        self._asked[key] = asked
