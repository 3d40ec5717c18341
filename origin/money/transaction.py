"""A transaction of the books: lines that sum to zero, named by their cause, chained to the one before.

Its id is SHA-256 over kind and natural key, so posting the same thing twice is a no-op; its hash
covers the hash before, its memo and its lines. A posting's sign: positive is a debit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Annotated

from msgspec import Meta

from ...protocol.codec import Message, encode
from ...protocol.errors import LocalError, UsageError
from .database import Rows, Schema, Session, Step, Value

NOTHING = bytes(32)
MAX_CENTS = 2**53 - 1
MAX_MEMO = 8_192

Cents = Annotated[int, Meta(ge=-MAX_CENTS, le=MAX_CENTS)]

_KIND = re.compile(r"[a-z_]{1,20}")
_ACCOUNT = re.compile(r"[a-z]{1,20}(:[A-Za-z0-9._-]{1,100}){0,2}")

SCHEMA = Schema(
    "ledger",
    (
        Step(
            "0001_books",
            (
                "CREATE TABLE account (id TEXT NOT NULL PRIMARY KEY, kind TEXT NOT NULL) STRICT",
                """CREATE TABLE tx (
                     no INTEGER PRIMARY KEY, id BLOB NOT NULL, kind TEXT NOT NULL, at_ms INTEGER NOT NULL,
                     memo TEXT NOT NULL, prev BLOB NOT NULL, hash BLOB NOT NULL) STRICT""",
                "CREATE UNIQUE INDEX idx_tx_id ON tx (id)",
                """CREATE TABLE posting (
                     tx INTEGER NOT NULL REFERENCES tx(no), line INTEGER NOT NULL,
                     account TEXT NOT NULL REFERENCES account(id), cents INTEGER NOT NULL CHECK (cents <> 0),
                     PRIMARY KEY (tx, line)) STRICT, WITHOUT ROWID""",
                "CREATE INDEX idx_posting_account ON posting (account)",
                """CREATE TABLE settlement (
                     month TEXT NOT NULL PRIMARY KEY, tx INTEGER NOT NULL REFERENCES tx(no),
                     as_of_ms INTEGER NOT NULL, digest BLOB NOT NULL, statement BLOB NOT NULL) STRICT""",
            ),
            append_only=("account", "tx", "posting", "settlement"),
        ),
        Step(
            "0002_balances",
            (
                """CREATE TABLE balance (
                     account TEXT NOT NULL PRIMARY KEY REFERENCES account(id),
                     cents INTEGER NOT NULL) STRICT""",
                "INSERT INTO balance SELECT account, sum(cents) FROM posting GROUP BY account",
                """CREATE TABLE ledger (
                     one INTEGER PRIMARY KEY CHECK (one = 1), currency TEXT NOT NULL) STRICT""",
            ),
            append_only=("ledger",),
        ),
    ),
)


class Posting(Message, frozen=True):
    """One line of a transaction."""

    account: str
    cents: Cents


class Body(Message, frozen=True):
    """What a transaction's hash covers, behind the hash before."""

    no: int
    id: bytes
    kind: str
    at_ms: int
    memo: str
    lines: list[Posting]


class Transaction:
    """The books while one durable transaction of the database is open; made by ``Ledger.transaction``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def execute(self, sql: str, values: Sequence[Value] = (), /) -> Rows:
        """Run a statement of another room's tables, in the dialect of ``database.py``."""
        return self._session.execute(sql, values)

    def executemany(self, sql: str, rows: Iterable[Sequence[Value]], /) -> None:
        """Run such a statement for each row of values."""
        self._session.executemany(sql, rows)

    def post(self, kind: str, key: bytes, at_ms: int, lines: Sequence[Posting], memo: str = "") -> bool:
        """Append one transaction; False where this very one is there already.

        The only function that writes money. Lines of zero are left out. The time is never before
        that of the transaction before.

        Raises:
            UsageError: ``key_taken`` where another body is posted under this kind and key.
            LocalError: ``imbalance`` where the lines do not sum to zero.

        """
        kept = [line for line in lines if line.cents]
        _check(kind, kept, memo)
        name = tx_id(kind, key)
        if (row := self.execute("SELECT no, memo FROM tx WHERE id = ?", (name,)).fetchone()) is not None:
            if row[1] != memo or self.lines(row[0]) != kept:
                raise UsageError(f"another {kind} is booked under this key", reason="key_taken")
            return False
        last = self.execute("SELECT no, at_ms, hash FROM tx ORDER BY no DESC LIMIT 1").fetchone()
        number, after_ms, prev = (last[0] + 1, last[1], bytes(last[2])) if last else (1, 0, NOTHING)
        body = Body(number, name, kind, max(at_ms, after_ms), memo, kept)
        self.execute(
            "INSERT INTO tx VALUES (?, ?, ?, ?, ?, ?, ?)",
            (number, name, kind, body.at_ms, memo, prev, body_hash(prev, body)),
        )
        self._append(number, kept)
        return True

    def number(self, kind: str, key: bytes) -> int | None:
        """Return the number of the transaction posted under this kind and key, None where none is."""
        row = self.execute("SELECT no FROM tx WHERE id = ?", (tx_id(kind, key),)).fetchone()
        return None if row is None else int(row[0])

    def lines(self, number: int) -> list[Posting]:
        """Return the lines of a transaction."""
        rows = self.execute("SELECT account, cents FROM posting WHERE tx = ? ORDER BY line", (number,))
        return [Posting(account, cents) for account, cents in rows]

    def balances(self, prefix: str = "") -> dict[str, int]:
        """Return the balances of the accounts whose names begin like this, debits positive."""
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else "\x7f"
        rows = self.execute(
            "SELECT account, cents FROM balance WHERE account >= ? AND account < ? ORDER BY account",
            (prefix, end),
        )
        return dict(rows.fetchall())

    def _append(self, number: int, lines: Sequence[Posting]) -> None:
        many = self.executemany
        accounts = sorted({line.account for line in lines})
        many(
            "INSERT INTO account VALUES (?, ?) ON CONFLICT DO NOTHING",
            [(account, account.partition(":")[0]) for account in accounts],
        )
        many(
            "INSERT INTO posting VALUES (?, ?, ?, ?)",
            [(number, index, line.account, line.cents) for index, line in enumerate(lines)],
        )
        many(
            """INSERT INTO balance VALUES (?, ?)
               ON CONFLICT (account) DO UPDATE SET cents = balance.cents + excluded.cents""",
            [(line.account, line.cents) for line in lines],
        )


def tx_id(kind: str, key: bytes) -> bytes:
    """Return the id of a transaction: what it is and what caused it."""
    return sha256(kind.encode() + b"\0" + key).digest()


def body_hash(prev: bytes, body: Body) -> bytes:
    """Return a transaction's hash."""
    return sha256(prev + encode(body)).digest()


def _check(kind: str, lines: Sequence[Posting], memo: str) -> None:
    if not _KIND.fullmatch(kind) or len(memo) > MAX_MEMO or "\0" in memo:
        raise LocalError(f"{kind!r} cannot be posted like this", reason="bad_posting")
    for line in lines:
        if not _ACCOUNT.fullmatch(line.account) or not -MAX_CENTS <= line.cents <= MAX_CENTS:
            message = f"a {kind} cannot post {line.cents} cents to {line.account!r}"
            raise LocalError(message, reason="bad_posting")
    if sum(line.cents for line in lines):
        raise LocalError(f"the lines of a {kind} do not sum to zero", reason="imbalance")
