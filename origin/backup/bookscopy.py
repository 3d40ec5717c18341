"""A copy of books between the two databases they can be in: what a backup takes along, and brings back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing

from ...protocol.errors import LocalError, UsageError
from ..money import holds, rulebook, transaction
from ..money.database import Place, Row, Session, open_books
from ..money.ledger import Ledger
from ..payout import orderbook

ROOMS = (transaction.SCHEMA, rulebook.SCHEMA, holds.SCHEMA, orderbook.SCHEMA)
"""Every table of the books belongs to one of them."""
ROWS_AT_ONCE = 20_000

_TABLE = re.compile(r"CREATE TABLE (\w+)")
TABLES = tuple(
    name
    for room in ROOMS
    for step in room.steps
    for statement in step.statements
    for name in _TABLE.findall(statement)
)


def copy_books(source: Place, target: Place) -> int:
    """Copy all books as they are at one moment into an empty database; returns how many transactions.

    Where the target holds these very books, or has grown on from them, nothing is done. Blocks.

    Raises:
        UsageError: ``other_books`` where the target holds others.
        LocalError: where a database does not answer, or the copy is not sound.

    """
    with closing(open_books(source)) as old, closing(open_books(target)) as new:
        for room in ROOMS:
            old.prepare(room)
            new.prepare(room)
        with old.reading() as reading, new.writing() as writing:
            head = _head(reading)
            if head is not None and _has(writing, *head):
                return head[0]
            if any(_any(writing, table) for table in TABLES):
                message = f"{new.name} holds other books; name an empty database, or an empty schema of one"
                raise UsageError(message, reason="other_books")
            for table in TABLES:
                for rows in _rows(reading, table):
                    marks = ", ".join("?" * len(rows[0]))
                    writing.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)  # noqa: S608 - ours
    with closing(Ledger(target)) as copied:
        count = copied.verify_chain()
    if count != (head[0] if head else 0):
        raise LocalError(f"the copy of {old.name} is not whole", reason="damaged")
    return count


def _rows(session: Session, table: str) -> Iterator[list[Row]]:
    """Yield a table's rows, some at a time; the first two columns tell each from all others."""
    query = f"SELECT * FROM {table} ORDER BY 1, 2 LIMIT ? OFFSET ?"  # noqa: S608 - ours
    offset = 0
    while rows := session.execute(query, (ROWS_AT_ONCE, offset)).fetchall():
        yield rows
        offset += len(rows)


def _head(session: Session) -> tuple[int, bytes] | None:
    row = session.execute("SELECT no, hash FROM tx ORDER BY no DESC LIMIT 1").fetchone()
    return None if row is None else (int(row[0]), bytes(row[1]))


def _has(session: Session, number: int, name: bytes) -> bool:
    row = session.execute("SELECT hash FROM tx WHERE no = ?", (number,)).fetchone()
    return row is not None and bytes(row[0]) == name


def _any(session: Session, table: str) -> bool:
    return session.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is not None  # noqa: S608 - ours
