"""Earnings: what a relay's operator or a payee asks of the origin, and its answer (``/v1/earnings``).

Neither body is signed by itself: the request travels as a signed request over a nonce
(``protocol/request.py``), and who signed it is told of their own earnings alone.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from .codec import Message, decode
from .identity import peer_id
from .manifest import Count, Key, PayeeId
from .rules import Currency
from .statement import CodeLine, Month

EARNINGS_PATH = "/v1/earnings"
EARNINGS_REQUEST_LIMIT_BYTES = 1_024
EARNINGS_LIMIT_BYTES = 256 << 10
MAX_TITLES = 1_000

MonthOrNone = Annotated[str, Meta(pattern=r"^([0-9]{4}-(0[1-9]|1[0-2]))?\Z")]
TitleName = Annotated[str, Meta(max_length=63)]


class EarningsRequest(Message, frozen=True):
    """``POST /v1/earnings``: of one month, or (empty) of this one so far and the newest settled one."""

    v: Literal[1]
    month: MonthOrNone


class RelayEarning(Message, frozen=True):
    """What a relay, named by its first key, earned: kilobytes (1,000 bytes) acknowledged and paid.

    ``over_kbytes`` is what viewers signed beyond what its line can carry in a day; it is not paid.
    """

    relay: Key
    kbytes: Count
    over_kbytes: Count
    cents_per_gb: Count
    cents: Count


class TitleViewed(Message, frozen=True):
    """Counted time of one title of a payee, and the payee's part of it in basis points."""

    title: TitleName
    viewed_ms: Count
    points: Count


class PayeeEarning(Message, frozen=True):
    """What a payee earned: share = paid + held + capped; ``uncounted`` why seconds do not count.

    Of more than ``MAX_TITLES`` titles those watched most are named.
    """

    payee: PayeeId
    titles: Annotated[list[TitleViewed], Meta(max_length=MAX_TITLES)]
    share_cents: Count
    paid_cents: Count
    held_cents: Count
    capped_cents: Count
    uncounted: Annotated[list[CodeLine], Meta(max_length=64)]


class MonthEarnings(Message, frozen=True):
    """One month: ``settled`` as it stands for good, else provisional as of ``as_of_ms``.

    ``revenue_known`` is False while no revenue is booked, so that there is nothing to share yet.
    """

    month: Month
    settled: bool
    as_of_ms: Count
    revenue_known: bool
    relays: Annotated[list[RelayEarning], Meta(max_length=16)]
    payees: Annotated[list[PayeeEarning], Meta(max_length=16)]


class EarningsAnswer(Message, frozen=True):
    """The months asked for that there is something to say of, the newest first."""

    v: Literal[1]
    currency: Currency
    months: Annotated[list[MonthEarnings], Meta(max_length=2)]


def open_earnings_request(data: bytes) -> EarningsRequest:
    """Decode the body of ``POST /v1/earnings``; raises ``RemoteError``."""
    return decode(EarningsRequest, data, limit_bytes=EARNINGS_REQUEST_LIMIT_BYTES)


def open_earnings_answer(data: bytes) -> EarningsAnswer:
    """Decode its answer; raises ``RemoteError``."""
    return decode(EarningsAnswer, data, limit_bytes=EARNINGS_LIMIT_BYTES)


def earnings_json(answer: EarningsAnswer) -> dict[str, object]:
    """Return an answer as commands print it."""
    return {"currency": answer.currency, "months": [month_json(month) for month in answer.months]}


def month_json(month: MonthEarnings) -> dict[str, object]:
    """Return one month's earnings as commands print them."""
    return {
        "month": month.month,
        "state": "settled" if month.settled else "provisional",
        "as_of_ms": month.as_of_ms,
        "revenue_known": month.revenue_known,
        "relays": [
            {
                "relay": peer_id(item.relay),
                "acknowledged_gb": item.kbytes / 1_000_000,
                "cents_per_gb": item.cents_per_gb,
                "cents": item.cents,
                "not_paid": [{"code": "relay_rate", "gb": item.over_kbytes / 1_000_000}]
                if item.over_kbytes
                else [],
            }
            for item in month.relays
        ],
        "payees": [
            {
                "payee": item.payee,
                "titles": [
                    {"title": x.title, "viewed_s": x.viewed_ms / 1_000, "basis_points": x.points}
                    for x in item.titles
                ],
                "share_cents": item.share_cents,
                "paid_cents": item.paid_cents,
                "held_cents": item.held_cents,
                "capped_cents": item.capped_cents,
                "not_paid": [
                    {"code": code.code, "pulses": code.pulses, "seconds": code.ms / 1_000}
                    for code in item.uncounted
                ],
            }
            for item in month.payees
        ],
    }
