"""The ledger: double entry, append-only, hash-chained, whole cents.

A transaction's id is SHA-256 over its kind and natural key, so posting the same thing twice is a
no-op; its hash covers the one before, its lines and its memo. Triggers refuse every change. A
posting's sign: positive is a debit, and the lines of each transaction sum to zero.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from sqlite3 import Connection
from typing import Annotated, Literal, NamedTuple

import sqlite_utils
from msgspec import Meta

from ...node.database import open_database, transaction
from ...protocol.codec import Message, decode, encode
from ...protocol.errors import LocalError, UsageError
from ...protocol.identity import peer_id
from ...protocol.statement import HEAD_LIMIT_BYTES, Line, Statement, digest
from .settlement import Books, Outcome

RECEIVED = "assets:received"
REVENUE = "pool:revenue"
COSTS = "pool:costs"
RESERVE = "reserve"
CARRIED = "carried"
DEFICIT = "deficit"
NOTHING = bytes(32)
MAX_CENTS = 2**53 - 1
MAX_MEMO = 400

Kind = Literal["revenue", "cost", "settlement"]
Cents = Annotated[int, Meta(ge=-MAX_CENTS, le=MAX_CENTS)]

MIGRATIONS = sqlite_utils.Migrations("ledger")


@MIGRATIONS(name="0001_books")
def _books(db: sqlite_utils.Database) -> None:
    db.table("account").create({"id": str, "kind": str}, pk="id", not_null={"kind"}, strict=True)
    db.table("tx").create(
        {"no": int, "id": bytes, "kind": str, "at_ms": int, "memo": str, "prev": bytes, "hash": bytes},
        pk="no",
        not_null={"id", "kind", "at_ms", "memo", "prev", "hash"},
        strict=True,
    )
    db.table("tx").create_index(["id"], unique=True)
    db.conn.execute(
        """CREATE TABLE posting (
             tx INTEGER NOT NULL REFERENCES tx(no), line INTEGER NOT NULL,
             account TEXT NOT NULL REFERENCES account(id), cents INTEGER NOT NULL CHECK (cents <> 0),
             PRIMARY KEY (tx, line)) STRICT, WITHOUT ROWID"""
    )
    db.table("posting").create_index(["account"])
    db.table("settlement").create(
        {"month": str, "tx": int, "as_of_ms": int, "digest": bytes, "statement": bytes},
        pk="month",
        not_null={"tx", "as_of_ms", "digest", "statement"},
        foreign_keys=[("tx", "tx", "no")],
        strict=True,
    )
    for table in ("account", "tx", "posting", "settlement"):
        for verb in ("UPDATE", "DELETE"):
            db.conn.execute(
                f"""CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table}
                    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"""
            )


class Posting(Message, frozen=True):
    """One line of a transaction."""

    account: str
    cents: Cents


class _Body(Message, frozen=True):
    """What a transaction's hash covers, behind the hash before."""

    no: int
    id: bytes
    kind: str
    at_ms: int
    memo: str
    lines: list[Posting]


class Settled(NamedTuple):
    """One settlement as posted."""

    month: str
    as_of_ms: int
    digest: bytes
    statement: Statement


class Ledger:
    """The books of one origin in ``ledger.db``; every method blocks and is thread-safe."""

    def __init__(self, path: Path) -> None:
        """Open or create the ledger; raises ``LocalError`` where it is damaged."""
        self._path = path
        self._lock = threading.Lock()
        self._conn = open_database(path, MIGRATIONS, synchronous="FULL")
        self._conn.execute("PRAGMA foreign_keys = ON")

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._conn.close()

    # -- booking

    def book_revenue(
        self, cents: int, at_ms: int, key: bytes, *, memo: str = "", account: bytes | None = None,
        month: str = "",
    ) -> bool:  # fmt: skip
        """Book income, optionally of one account (its pseudonym); False where ``key`` is booked already.

        Zero is a booking too: it says that there was none. It counts for the month of ``at_ms``, or
        for a ``month`` before that which is not settled yet.

        Raises:
            UsageError: for negative or too large sums, another booking under the same key, or a
                ``month`` that is settled.

        """
        lines = [Posting(RECEIVED, cents), Posting(REVENUE, -cents)]
        return self._book("revenue", cents, lines, at_ms, key, memo, account, month)

    def book_cost(self, cents: int, at_ms: int, key: bytes, *, memo: str = "", month: str = "") -> bool:
        """Book a hub cost; False where ``key`` is booked already. As ``book_revenue``."""
        lines = [Posting(COSTS, cents), Posting(RECEIVED, -cents)]
        return self._book("cost", cents, lines, at_ms, key, memo, None, month)

    def _book(
        self, kind: Kind, cents: int, lines: list[Posting], at_ms: int, key: bytes, memo: str,
        account: bytes | None, month: str,
    ) -> bool:  # fmt: skip
        if not 0 <= cents <= MAX_CENTS:
            raise UsageError(f"{cents} is no sum to book; name whole cents from 0 to {MAX_CENTS}")
        if len(memo) > MAX_MEMO:
            raise UsageError(f"a memo has at most {MAX_MEMO} characters")
        fields = {"memo": memo, "account": account.hex() if account else None, "cents": cents}
        note = json.dumps({**fields, "month": month} if month else fields)
        with self._lock, transaction(self._conn, self._path) as conn:
            last = conn.execute("SELECT coalesce(max(month), '') FROM settlement").fetchone()[0]
            if month and month <= last:
                message = f"{last} is settled already; book it without --month, for the next settlement"
                raise UsageError(message, reason="settled")
            closed_ms = conn.execute("SELECT coalesce(max(as_of_ms), -1) FROM settlement").fetchone()[0]
            # what is booked after a close belongs to the next month, whatever the clock says
            return _post(conn, kind, key, max(at_ms, closed_ms + 1), note, lines)

    # -- settlement

    def books(self, month: str, as_of_ms: int) -> Books:
        """Return the sums booked after the settlement before ``month``'s and up to ``as_of_ms``.

        A booking that names its month counts there alone, whenever it was made.

        Raises:
            UsageError: ``no_revenue`` where no revenue is booked at all, not even zero.

        """
        with self._lock:
            row = self._conn.execute(
                """SELECT as_of_ms, digest, statement FROM settlement WHERE month < ?
                   ORDER BY month DESC LIMIT 1""",
                (month,),
            ).fetchone()
            rows = self._conn.execute(
                "SELECT kind, memo, at_ms FROM tx WHERE kind <> 'settlement' AND at_ms > ? ORDER BY no",
                (row[0] if row else -1,),
            ).fetchall()
        notes = [(kind, json.loads(memo), at_ms) for kind, memo, at_ms in rows]
        booked = [
            (kind, note)
            for kind, note, at_ms in notes
            if (note["month"] == month if "month" in note else at_ms <= as_of_ms)
        ]
        revenue = [note for kind, note in booked if kind == "revenue"]
        if not revenue:
            message = (
                f"no revenue is booked for {month}; book it with `farcast origin book revenue CENTS "
                f"--month {month}` (0 where there was none)"
            )
            raise UsageError(message, reason="no_revenue")
        contributions: dict[bytes, int] = {}
        paying = [note for note in revenue if note["cents"]]
        if all(note["account"] for note in paying):
            for note in paying:
                account = bytes.fromhex(note["account"])
                contributions[account] = contributions.get(account, 0) + note["cents"]
        return Books(
            revenue_cents=sum(note["cents"] for note in revenue),
            costs_cents=sum(note["cents"] for kind, note in booked if kind == "cost"),
            contributions=contributions,
            brought_cents=_statement(row[2]).carried_cents if row else 0,
            previous=bytes(row[1]) if row else NOTHING,
        )

    def post_settlement(self, outcome: Outcome, relays: Mapping[bytes, bytes] | None = None) -> bool:
        """Post a month in one transaction; False where this very result is posted already.

        ``relays`` gives the first key of a relay that has served with another; its account stays one.

        Raises:
            UsageError: ``settled`` where the month has another result, ``out_of_order`` where a
                later month is settled.

        """
        statement = outcome.statement
        name = digest(statement)
        with self._lock, transaction(self._conn, self._path) as conn:
            row = conn.execute("SELECT digest FROM settlement WHERE month = ?", (statement.month,)).fetchone()
            if row is not None:
                if bytes(row[0]) == name:
                    return False
                message = (
                    f"{statement.month} is settled already with another result, which stands; "
                    "what came later is carried into the next month"
                )
                raise UsageError(message, reason="settled")
            last = conn.execute("SELECT month, digest FROM settlement ORDER BY month DESC LIMIT 1").fetchone()
            if (last[0] if last else "") > statement.month:
                message = f"{last[0]} is settled already, so {statement.month} can no longer be"
                raise UsageError(message, reason="out_of_order")
            if (bytes(last[1]) if last else NOTHING) != statement.previous:
                raise LocalError("another settlement came in between; run it again", reason="out_of_order")
            key, lines = statement.month.encode(), _lines(statement, outcome.lines, relays or {})
            _post(conn, "settlement", key, statement.as_of_ms, name.hex(), lines)
            number = conn.execute("SELECT no FROM tx WHERE id = ?", (_tx_id("settlement", key),)).fetchone()[
                0
            ]
            conn.execute(
                "INSERT INTO settlement VALUES (?, ?, ?, ?, ?)",
                (statement.month, number, statement.as_of_ms, name, encode(statement)),
            )
        return True

    def settlements(self) -> list[Settled]:
        """Return every settlement in order of months."""
        with self._lock:
            rows = self._conn.execute(
                "SELECT month, as_of_ms, digest, statement FROM settlement ORDER BY month"
            ).fetchall()
        return [
            Settled(month, as_of_ms, bytes(name), _statement(data)) for month, as_of_ms, name, data in rows
        ]

    # -- looking

    def balances(self) -> dict[str, int]:
        """Return every account's balance in cents, debits positive."""
        with self._lock:
            rows = self._conn.execute(
                "SELECT account, sum(cents) FROM posting GROUP BY account ORDER BY account"
            ).fetchall()
        return dict(rows)

    def trial_balance(self) -> int:
        """Return the sum over all postings, which is zero in sound books."""
        return sum(self.balances().values())

    def verify_chain(self) -> int:
        """Check every transaction's hash, chain and sum; returns how many there are.

        Raises:
            LocalError: ``damaged``, naming the first transaction that is not what was posted.

        """
        with self._lock:
            txs = self._conn.execute(
                "SELECT no, id, kind, at_ms, memo, prev, hash FROM tx ORDER BY no"
            ).fetchall()
            rows = self._conn.execute("SELECT tx, account, cents FROM posting ORDER BY tx, line").fetchall()
        lines: dict[int, list[Posting]] = {}
        for number, account, cents in rows:
            lines.setdefault(number, []).append(Posting(account, cents))
        prev = NOTHING
        for count, (number, tx_id, kind, at_ms, memo, before, name) in enumerate(txs, 1):
            own = lines.pop(number, [])
            body = _Body(number, tx_id, kind, at_ms, memo, own)
            if number != count or before != prev or name != _hash(prev, body) or sum(p.cents for p in own):
                message = f"transaction {count} of {self._path} is not what was posted; restore a backup"
                raise LocalError(message, reason="damaged")
            prev = name
        if lines:
            raise LocalError(f"{self._path} has postings without a transaction", reason="damaged")
        return len(txs)


def _post(conn: Connection, kind: Kind, key: bytes, at_ms: int, memo: str, lines: Sequence[Posting]) -> bool:
    """Append one transaction; False where it is there already. The only function that writes money."""
    tx_id = _tx_id(kind, key)
    kept = [line for line in lines if line.cents]
    if sum(line.cents for line in kept):
        raise LocalError(f"the lines of a {kind} do not sum to zero", reason="imbalance")
    if (row := conn.execute("SELECT memo FROM tx WHERE id = ?", (tx_id,)).fetchone()) is not None:
        if row[0] != memo:
            raise UsageError(f"another {kind} is booked under this key", reason="key_taken")
        return False
    last = conn.execute("SELECT no, at_ms, hash FROM tx ORDER BY no DESC LIMIT 1").fetchone()
    number, after_ms, prev = (last[0] + 1, last[1], bytes(last[2])) if last else (1, 0, NOTHING)
    body = _Body(number, tx_id, kind, max(at_ms, after_ms), memo, kept)
    conn.execute(
        "INSERT INTO tx VALUES (?, ?, ?, ?, ?, ?, ?)",
        (number, tx_id, kind, body.at_ms, memo, prev, _hash(prev, body)),
    )
    for index, line in enumerate(kept):
        account = (line.account, line.account.partition(":")[0])
        conn.execute("INSERT OR IGNORE INTO account VALUES (?, ?)", account)
        conn.execute("INSERT INTO posting VALUES (?, ?, ?, ?)", (number, index, line.account, line.cents))
    return True


def _lines(statement: Statement, lines: Sequence[Line], relays: Mapping[bytes, bytes]) -> list[Posting]:
    """Return a settlement's postings: the open pool becomes what is owed to each."""
    s = statement
    owed: dict[str, int] = {}
    for line in lines:
        for account, cents in (
            (f"payee:{line.payee}", line.paid_cents),
            (f"held:{line.payee}", line.held_cents),
        ):
            owed[account] = owed.get(account, 0) + cents
    return [
        Posting(REVENUE, s.revenue_cents),
        Posting(COSTS, -s.booked_costs_cents),
        *[
            Posting(f"relay:{peer_id(relays.get(relay.relay, relay.relay))}", -relay.cents)
            for relay in s.relays
        ],
        Posting(RESERVE, -s.reserve_cents),
        *[Posting(account, -cents) for account, cents in sorted(owed.items())],
        Posting(CARRIED, s.brought_cents - s.carried_cents),
        Posting(DEFICIT, s.deficit_cents),
    ]


def _statement(data: bytes) -> Statement:
    return decode(Statement, bytes(data), limit_bytes=HEAD_LIMIT_BYTES)


def _tx_id(kind: Kind, key: bytes) -> bytes:
    return sha256(kind.encode() + b"\0" + key).digest()


def _hash(prev: bytes, body: _Body) -> bytes:
    return sha256(prev + encode(body)).digest()
