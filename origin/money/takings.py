"""A month's takings: which bookings count in its settlement, and what they come to.

A booking counts once: in the month it names, or else in the settlement whose cut is the first at or
behind it. A refund counts with its original while that is open.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import msgspec

from ...protocol.errors import RemoteError, UsageError
from ...protocol.rules import DAY_MS
from ...protocol.statement import Statement, read_statement
from ..pulses.admission import month_of
from .database import Session
from .settlement import Books
from .transaction import NOTHING


class Takings(NamedTuple):
    """The books of a month as settled, and the plain sums of revenue and costs that stand open."""

    books: Books
    open_revenue_cents: int
    open_costs_cents: int


class _Note(NamedTuple):
    """A booking as its memo tells it."""

    number: int
    kind: str
    at_ms: int
    fields: dict[str, Any]

    @property
    def pool(self) -> str:
        """Which side of the pool it moves."""
        return str(self.fields["of"]) if self.kind == "refund" else self.kind


def takings(session: Session, month: str, as_of_ms: int) -> Takings:
    """Return what is booked behind the settlement before ``month``'s and counts in this one.

    Refunds may outweigh income: what they take beyond it counts as a cost, and the other way round,
    so neither sum is negative.

    Raises:
        UsageError: ``no_revenue`` where no revenue is booked at all, not even zero.

    """
    row = session.execute(
        """SELECT month, as_of_ms, digest, statement FROM settlement WHERE month < ?
           ORDER BY month DESC LIMIT 1""",
        (month,),
    ).fetchone()
    last, closed_ms, previous, data = row or ("", -1, NOTHING, b"")
    rows = session.execute(
        """SELECT no, kind, at_ms, memo FROM tx
           WHERE kind IN ('revenue', 'cost', 'refund') AND at_ms > ? ORDER BY no""",
        (closed_ms,),
    )
    notes = {number: _Note(number, kind, at_ms, json.loads(memo)) for number, kind, at_ms, memo in rows}
    counted = [note for note in notes.values() if _counts(note, notes, last, month, as_of_ms)]
    revenue = [note for note in counted if note.pool == "revenue"]
    if all(note.kind == "refund" for note in revenue):
        message = (
            f"no revenue is booked for {month}; book it with `farcast origin book revenue CENTS "
            f"--month {month}` (0 where there was none)"
        )
        raise UsageError(message, reason="no_revenue")
    income = sum(note.fields["cents"] for note in revenue)
    costs = sum(note.fields["cents"] for note in counted if note.pool == "cost")
    books = Books(
        revenue_cents=max(0, income) + max(0, -costs),
        costs_cents=max(0, costs) + max(0, -income),
        contributions=_contributions(revenue),
        brought_cents=statement_of(data).forward_cents if data else 0,
        previous=bytes(previous),
    )
    return Takings(books, income, costs)


def statement_of(data: bytes) -> Statement:
    """Read a posted statement, also one of before fields were added at the ends of its parts.

    Raises:
        RemoteError: where it is none.

    """
    try:
        return read_statement(bytes(data))
    except RemoteError:
        try:
            return msgspec.msgpack.decode(bytes(data), type=Statement)  # what is missing has its default
        except (msgspec.MsgspecError, UnicodeDecodeError):
            pass
        raise


def booked_months(session: Session) -> set[str]:
    """Return the months that income or costs not settled yet were booked for, or in."""
    rows = session.execute(
        """SELECT at_ms, memo FROM tx WHERE kind IN ('revenue', 'cost')
           AND at_ms > (SELECT coalesce(max(as_of_ms), -1) FROM settlement)"""
    )
    return {json.loads(memo).get("month") or month_of(at_ms // DAY_MS) for at_ms, memo in rows}


def _counts(note: _Note, notes: dict[int, _Note], last: str, month: str, as_of_ms: int) -> bool:
    if note.kind == "refund" and note.fields["open"]:
        original = notes.get(note.fields["refunds"])
        return original is not None and _counts(original, notes, last, month, as_of_ms)
    named = note.fields.get("month")
    return note.at_ms <= as_of_ms if named is None else last < named <= month


def _contributions(revenue: list[_Note]) -> dict[bytes, int]:
    """Return what each account brought; nothing unless every booking with money names its account."""
    paying = [note for note in revenue if note.fields["cents"]]
    if not all(note.fields["account"] for note in paying):
        return {}
    brought: dict[bytes, int] = {}
    for note in paying:
        account = bytes.fromhex(note.fields["account"])
        brought[account] = brought.get(account, 0) + note.fields["cents"]
    return {account: max(0, cents) for account, cents in brought.items()}
