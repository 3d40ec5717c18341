"""What this box earns, as its origin says: asked over a signed request, for commands, page and metrics."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

from ..protocol.codec import encode
from ..protocol.earnings import (
    EARNINGS_LIMIT_BYTES,
    EARNINGS_PATH,
    EarningsAnswer,
    EarningsRequest,
    earnings_json,
    open_earnings_answer,
)
from ..protocol.errors import RefusedError, RemoteError, UnreachableError
from ..protocol.identity import Identity
from ..protocol.ports import Source
from .http.dial import HttpDialer
from .http.exchange import Answer, Exchange, Router
from .http.problem import expect

ANSWER_S = 15.0
_MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")


class EarningsAsker:
    """Asks for the earnings of ``identity``; ``last`` is the newest answer about this month."""

    def __init__(self, identity: Identity, dialer: HttpDialer, origin: Callable[[], list[Source]]) -> None:
        self._identity = identity
        self._dialer = dialer
        self._origin = origin
        self._asking = asyncio.Lock()
        self.last: EarningsAnswer | None = None

    def add_to(self, router: Router) -> None:
        """Add the admin call below the path token."""
        router.route("GET", "/api/earnings", self.get)

    async def ask(self, month: str = "") -> EarningsAnswer:
        """Return this month's earnings and the newest settled one's, or those of ``month``.

        Raises:
            UnreachableError: where no address of the origin answers.
            RefusedError: where the origin says no.
            RemoteError: where its answer does not read.

        """
        body = encode(EarningsRequest(1, month))
        failure: RemoteError = UnreachableError("no address of the origin is known; join one first")
        async with self._asking:
            for source in self._origin():
                try:
                    reply = await self._dialer.signed_request(
                        source, "POST", EARNINGS_PATH, body, self._identity, timeout_s=ANSWER_S,
                        limit_bytes=EARNINGS_LIMIT_BYTES,
                    )  # fmt: skip
                except UnreachableError as error:
                    failure = error
                    continue
                answer = open_earnings_answer(expect(reply, 200))
                if not month:
                    self.last = answer
                return answer
        raise failure

    async def get(self, exchange: Exchange) -> Answer:
        """``GET /api/earnings?month=``: the origin's answer as JSON."""
        month = exchange.query.get("month", "")
        if month and not _MONTH.fullmatch(month):
            message = f"{month!r} is no month; write it as 2026-11"
            raise RefusedError(message, status=400, reason="bad_month")
        return Answer.json(earnings_json(await self.ask(month)))


def earnings_lines(found: dict[str, Any]) -> list[str]:
    """Return an answer's JSON as a person reads it: each month, what is paid, held and not paid, and why."""
    currency = found["currency"]
    lines: list[str] = []
    for month in found["months"]:
        lines.append(f"{month['month']}, {month['state']}")
        if not month["revenue_known"]:
            lines.append("  no revenue is booked for it yet, so there is nothing to share among payees")
        for row in month["relays"]:
            lines.append(
                f"  relay {row['relay']}: {money(row['cents'], currency)} for "
                f"{row['acknowledged_gb']:.3f} GB at {row['cents_per_gb']} cents"
            )
            lines += [f"    not paid: {one['gb']:.3f} GB ({one['code']})" for one in row["not_paid"]]
        for row in month["payees"]:
            lines += _payee_lines(row, currency)
    return lines or ["Nothing is earned yet."]


def money(cents: int, currency: str) -> str:
    """Return cents as a person reads them: ``12.34 EUR``."""
    whole, rest = divmod(abs(cents), 100)
    return f"{'-' if cents < 0 else ''}{whole}.{rest:02d} {currency}"


def _payee_lines(row: dict[str, Any], currency: str) -> list[str]:
    lines = [f"  payee {row['payee']}: {money(row['paid_cents'], currency)}"]
    lines += [
        f"    {one['title']}: {one['viewed_s']:.0f} s viewed, {one['basis_points'] / 100:g} % of it"
        for one in row["titles"]
    ]
    if row["held_cents"]:
        lines.append(f"    held for a look: {money(row['held_cents'], currency)}")
    if row["capped_cents"]:
        lines.append(f"    cut by the per-payer cap: {money(row['capped_cents'], currency)}")
    return lines + [f"    not counted: {one['seconds']:.0f} s ({one['code']})" for one in row["not_paid"]]
