"""The orders in the books' database: each change of one, with its postings, is one durable transaction."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import astuple

from ...protocol.errors import UsageError
from ..money.bookings import RECEIVED, payable
from ..money.database import Row, Schema, Step
from ..money.ledger import Ledger
from ..money.transaction import Posting, Transaction
from .order import KEY_CHARS, Order, State, order_key
from .terms import Terms, tax_points, withheld

PAYABLE = payable("")
NOWHERE = "none"
"""The account of tax withheld from a payee without a region: ``withheld:none``."""
LIST_LIMIT = 10_000

_FIELDS = tuple(name for name in Order.__struct_fields__ if name != "due_ms")
_TYPES = {
    name: "INTEGER" if name.endswith(("_cents", "_ms")) else "TEXT" for name in _FIELDS
} | dict.fromkeys(("attempt", "sends", "tries"), "INTEGER")
_SELECT = "SELECT {}, coalesce(o.due_ms, 0) FROM payout p LEFT JOIN outbox o ON o.key = p.key".format(  # noqa: S608 - our own columns
    ", ".join(f"p.{name}" for name in _FIELDS)
)
_INSERT = "INSERT INTO payout ({}) VALUES ({})".format(", ".join(_FIELDS), ", ".join("?" * len(_FIELDS)))  # noqa: S608
_UPDATE = "UPDATE payout SET {} WHERE key = ?".format(", ".join(f"{name} = ?" for name in _FIELDS))  # noqa: S608

SCHEMA = Schema(
    "payout",
    (
        Step(
            "0001_payouts",
            (
                "CREATE TABLE payout ("
                + ", ".join(f"{name} {_TYPES[name]} NOT NULL" for name in _FIELDS)
                + ", PRIMARY KEY (key)) STRICT",
                "CREATE INDEX idx_payout_payee ON payout (payee)",
                """CREATE TABLE outbox (
                     key TEXT NOT NULL PRIMARY KEY REFERENCES payout(key), due_ms INTEGER NOT NULL) STRICT""",
                """CREATE TABLE payout_event (
                     key TEXT NOT NULL REFERENCES payout(key), no INTEGER NOT NULL, at_ms INTEGER NOT NULL,
                     state TEXT NOT NULL, attempt INTEGER NOT NULL, reason TEXT NOT NULL,
                     PRIMARY KEY (key, no)) STRICT""",
                "CREATE TABLE payout_run (month TEXT NOT NULL PRIMARY KEY, at_ms INTEGER NOT NULL) STRICT",
            ),
            append_only=("payout_event", "payout_run"),
        ),
    ),
)


class Event(NamedTuple):
    """One thing that happened to an order."""

    at_ms: int
    state: str
    attempt: int
    reason: str


class Sum(NamedTuple):
    """How many orders of a method are in a state, and their cents."""

    method: str
    state: State
    payouts: int
    gross_cents: int
    net_cents: int


class OrderBook:
    """The orders of one origin; ``origin`` is its key, which goes into theirs. Every method blocks."""

    def __init__(self, ledger: Ledger, origin: bytes) -> None:
        self._ledger = ledger
        self._origin = origin
        ledger.prepare(SCHEMA)

    def owed(self) -> dict[str, int]:
        """Return the cents that the books owe to each payee and no order has taken."""
        with self._ledger.reading() as tx:
            return _owed(tx)

    def reserve(self, terms: Terms, least_cents: int, rates: Mapping[str, int], now_ms: int) -> Order | None:
        """Take all that is owed to a payee into one order; None where it is less than ``least_cents``."""
        account = payable(terms.payee)
        with self._ledger.transaction() as tx:
            gross_cents = -tx.balances(account).get(account, 0)
            if gross_cents < max(1, least_cents):
                return None
            (count,) = _one(
                tx.execute("SELECT count(*) FROM payout WHERE payee = ?", (terms.payee,)).fetchone()
            )
            net_cents, tax_cents = withheld(gross_cents, tax_points(terms, rates))
            order = Order(
                key=order_key(self._origin, terms.payee, count + 1),
                payee=terms.payee,
                method=terms.method,
                region=terms.region,
                gross_cents=gross_cents,
                tax_cents=tax_cents,
                net_cents=net_cents,
                created_ms=now_ms,
                changed_ms=now_ms,
                due_ms=now_ms,
            )
            tx.execute(_INSERT, _values(order))
            tx.execute("INSERT INTO outbox VALUES (?, ?)", (order.key, order.due_ms))
            _note(tx, order, now_ms)
            _post(tx, "payout_reserved", order, now_ms, _taken(order))
        return order

    def change(self, key: str, step: Callable[[Order], Order], now_ms: int) -> Order:
        """Take an order one step further; what it ended with is posted in the same transaction."""
        with self._ledger.transaction() as tx:
            return _change(tx, _load(tx, key), step, now_ms)

    def begin(self, keys: Sequence[str], reference: str, now_ms: int) -> list[Order]:
        """Take all of ``keys`` as sent, or none of them: empty where somebody else was faster with one."""
        with self._ledger.transaction() as tx:
            orders = [_load(tx, key) for key in keys]
            if not all(order.may_be_sent(now_ms) for order in orders):
                return []
            return [_change(tx, order, lambda one: one.begun(now_ms, reference), now_ms) for order in orders]

    def due(self, now_ms: int, limit: int, *, hurry: bool = False) -> list[Order]:
        """Return the open orders that are due, the longest waiting first; with ``hurry`` all open ones."""
        where = "" if hurry else " WHERE o.due_ms <= ?"
        values = () if hurry else (now_ms,)
        query = f"{_SELECT.replace('LEFT JOIN', 'JOIN')}{where} ORDER BY o.due_ms, p.key LIMIT ?"
        with self._ledger.reading() as tx:
            return [_order(row) for row in tx.execute(query, (*values, limit))]

    def orders(self, state: str | None = None, limit: int = LIST_LIMIT) -> list[Order]:
        """Return the newest orders, perhaps those in one state alone."""
        where, values = (" WHERE p.state = ?", (state,)) if state else ("", ())
        query = f"{_SELECT}{where} ORDER BY p.created_ms DESC, p.key LIMIT ?"
        with self._ledger.reading() as tx:
            return [_order(row) for row in tx.execute(query, (*values, limit))]

    def find(self, name: str) -> Order:
        """Return the order whose key begins with ``name``; raises ``UsageError`` for none or several."""
        query = f"{_SELECT} WHERE p.key >= ? AND p.key < ? ORDER BY p.key LIMIT 2"
        found: list[Order] = []
        if name.isascii() and name.isalnum() and len(name) <= KEY_CHARS:
            with self._ledger.reading() as tx:
                found = [_order(row) for row in tx.execute(query, (name, name + "g"))]
        if len(found) != 1:
            how = "several payouts have ids that begin" if found else "no payout has an id that begins"
            raise UsageError(f"{how} with {name!r}; `farcast origin payout list` shows them")
        return found[0]

    def named(self, key: str) -> Order | None:
        """Return the order with this very key, None where there is none."""
        with self._ledger.reading() as tx:
            row = tx.execute(f"{_SELECT} WHERE p.key = ?", (key,)).fetchone()
        return None if row is None else _order(row)

    def together(self, reference: str) -> list[Order]:
        """Return the orders that left under a method's own word for them."""
        with self._ledger.reading() as tx:
            rows = tx.execute(f"{_SELECT} WHERE p.reference = ? ORDER BY p.key", (reference,))
            return [_order(row) for row in rows]

    def events(self, key: str) -> list[Event]:
        """Return what happened to an order, in order."""
        query = "SELECT at_ms, state, attempt, reason FROM payout_event WHERE key = ? ORDER BY no"
        with self._ledger.reading() as tx:
            return [Event(*row) for row in tx.execute(query, (key,))]

    def was_sent(self, reference: str) -> bool:
        """Say whether orders left under a method's own word for them."""
        query = "SELECT 1 FROM payout WHERE reference = ? AND attempt > 0 LIMIT 1"
        with self._ledger.reading() as tx:
            return tx.execute(query, (reference,)).fetchone() is not None

    def sums(self) -> list[Sum]:
        """Return the orders counted and summed by method and state."""
        query = """SELECT method, state, count(*), sum(gross_cents), sum(net_cents)
                   FROM payout GROUP BY method, state ORDER BY method, state"""
        with self._ledger.reading() as tx:
            return [Sum(*row) for row in tx.execute(query)]

    def ran(self, month: str) -> bool:
        """Say whether the run of a month was begun by the origin itself."""
        with self._ledger.reading() as tx:
            return tx.execute("SELECT 1 FROM payout_run WHERE month = ?", (month,)).fetchone() is not None

    def note_run(self, month: str, now_ms: int) -> None:
        """Remember that the run of a month is done."""
        with self._ledger.transaction() as tx:
            tx.execute("INSERT INTO payout_run VALUES (?, ?) ON CONFLICT DO NOTHING", (month, now_ms))


def _change(tx: Transaction, before: Order, step: Callable[[Order], Order], now_ms: int) -> Order:
    order = step(before)
    if order is before:
        return order
    tx.execute(_UPDATE, (*_values(order), order.key))
    if order.open:
        tx.execute("UPDATE outbox SET due_ms = ? WHERE key = ?", (order.due_ms, order.key))
    else:
        tx.execute("DELETE FROM outbox WHERE key = ?", (order.key,))
    if (order.state, order.attempt, order.reason) != (before.state, before.attempt, before.reason):
        _note(tx, order, now_ms)
    if order.state == "paid":
        clearing = f"clearing:{order.method}"
        lines = [Posting(clearing, order.net_cents), Posting(RECEIVED, -order.net_cents)]
        _post(tx, "payout_paid", order, now_ms, lines)
    elif order.state == "failed":
        inverse = [Posting(line.account, -line.cents) for line in _taken(order)]
        _post(tx, "payout_failed", order, now_ms, inverse)
    return order


def _taken(order: Order) -> list[Posting]:
    """Return the lines of a reservation: owed no more, but on its way and withheld."""
    return [
        Posting(payable(order.payee), order.gross_cents),
        Posting(f"withheld:{order.region or NOWHERE}", -order.tax_cents),
        Posting(f"clearing:{order.method}", -order.net_cents),
    ]


def _post(tx: Transaction, kind: str, order: Order, now_ms: int, lines: Sequence[Posting]) -> None:
    tx.post(kind, order.key.encode(), now_ms, lines, json.dumps({"payout": order.key}))


def _note(tx: Transaction, order: Order, now_ms: int) -> None:
    (number,) = _one(tx.execute("SELECT count(*) FROM payout_event WHERE key = ?", (order.key,)).fetchone())
    tx.execute(
        "INSERT INTO payout_event VALUES (?, ?, ?, ?, ?, ?)",
        (order.key, number + 1, now_ms, order.state, order.attempt, order.reason),
    )


def _owed(tx: Transaction) -> dict[str, int]:
    return {
        account.removeprefix(PAYABLE): -cents for account, cents in tx.balances(PAYABLE).items() if cents < 0
    }


def _load(tx: Transaction, key: str) -> Order:
    return _order(_one(tx.execute(f"{_SELECT} WHERE p.key = ?", (key,)).fetchone()))


def _order(row: Row) -> Order:
    *fields, due_ms = row
    return Order(**dict(zip(_FIELDS, fields, strict=True)), due_ms=due_ms)


def _values(order: Order) -> tuple[int | str, ...]:
    named = dict(zip(Order.__struct_fields__, astuple(order), strict=True))
    return tuple(named[name] for name in _FIELDS)


def _one(row: Row | None) -> Row:
    assert row is not None
    return row
