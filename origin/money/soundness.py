"""Whether the books are sound: every transaction, the chain, every balance and every settlement."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ...protocol.errors import RemoteError
from ...protocol.statement import digest
from .database import Session
from .takings import statement_of
from .transaction import NOTHING, Body, Posting, body_hash

PAGE = 1_000
"""Transactions read at one time."""
_LOOSE = (
    ("posting", "tx", "tx", "no", "there are postings without a transaction"),
    ("posting", "account", "balance", "account", "there are postings without a balance"),
    ("balance", "account", "posting", "account", "there is a balance without postings"),
    ("balance", "account", "account", "id", "there is a balance without an account"),
)
"""Tables whose rows each name one of another, and what it means where that one is missing."""


class Soundness(NamedTuple):
    """What a full check found: how many transactions, the cents out of balance, the first fault or none."""

    transactions: int
    imbalance_cents: int
    fault: str


def inspect(session: Session) -> Soundness:
    """Check all books over one state of the database."""
    prev = NOTHING
    count = imbalance_cents = 0
    fault = ""
    for count, (body, before, name, is_whole) in enumerate(_bodies(session), 1):
        off_cents = abs(sum(line.cents for line in body.lines))
        imbalance_cents += off_cents
        sound = body.no == count and is_whole and before == prev and name == body_hash(prev, body)
        if not fault and (off_cents or not sound):
            fault = f"transaction {count} is not what was posted"
        prev = name
    imbalance_cents += _balances_off(session)
    if imbalance_cents and not fault:
        fault = "a balance is not the sum of its postings"
    return Soundness(count, imbalance_cents, fault or _loose_end(session))


def _bodies(session: Session) -> Iterator[tuple[Body, bytes, bytes, bool]]:
    """Yield each transaction with the hashes it holds, and whether its lines are numbered without a gap."""
    after = -(2**63)
    while True:
        txs = session.execute(
            "SELECT no, id, kind, at_ms, memo, prev, hash FROM tx WHERE no > ? ORDER BY no LIMIT ?",
            (after, PAGE),
        ).fetchall()
        if not txs:
            return
        rows = session.execute(
            "SELECT tx, line, account, cents FROM posting WHERE tx BETWEEN ? AND ? ORDER BY tx, line",
            (txs[0][0], txs[-1][0]),
        )
        lines: dict[int, list[Posting]] = {}
        gaps: set[int] = set()
        for number, line, account, cents in rows:
            own = lines.setdefault(number, [])
            if line != len(own):
                gaps.add(number)
            own.append(Posting(account, cents))
        for number, tx_id, kind, at_ms, memo, prev, name in txs:
            body = Body(number, bytes(tx_id), kind, at_ms, memo, lines.get(number, []))
            yield body, bytes(prev), bytes(name), number not in gaps
        after = txs[-1][0]


def _balances_off(session: Session) -> int:
    """Return by how many cents the kept balances differ from the sums of the postings."""
    rows = session.execute(
        """SELECT account, sum(cents) FROM (
             SELECT account, cents FROM posting UNION ALL SELECT account, -cents FROM balance) AS both_sides
           GROUP BY account HAVING sum(cents) <> 0"""
    )
    return sum(abs(cents) for _, cents in rows)


def _loose_end(session: Session) -> str:
    """Return what stands beside the chain and does not fit it."""
    for table, column, other, key, fault in _LOOSE:
        missing = f"SELECT 1 FROM {other} AS b WHERE b.{key} = a.{column}"  # noqa: S608 - names of ours
        query = f"SELECT 1 FROM {table} AS a WHERE NOT EXISTS ({missing}) LIMIT 1"  # noqa: S608 - likewise
        if session.execute(query).fetchone() is not None:
            return fault
    for account, kind in session.execute("SELECT id, kind FROM account"):
        if kind != account.partition(":")[0]:
            return f"account {account} is not of the kind {kind}"
    rows = session.execute(
        """SELECT month, as_of_ms, digest, statement, kind, memo
           FROM settlement LEFT JOIN tx ON no = settlement.tx ORDER BY month"""
    )
    for month, as_of_ms, name, data, kind, memo in rows:
        if not _is_settled(month, as_of_ms, bytes(name), bytes(data)) or (kind, memo) not in (
            ("view", bytes(name).hex()),
            ("settlement", bytes(name).hex()),
        ):
            return f"the settlement of {month} is not what was posted"
    return ""


def _is_settled(month: str, as_of_ms: int, name: bytes, data: bytes) -> bool:
    try:
        statement = statement_of(data)
    except RemoteError:
        return False
    return (statement.month, statement.as_of_ms, digest(statement)) == (month, as_of_ms, name)
