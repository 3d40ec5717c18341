"""The database under the books: SQLite in the origin's home, or PostgreSQL by its address.

One dialect for both, written as SQLite takes it: ``?`` for each value and nowhere else, columns of
INTEGER (64 bits), TEXT and BLOB in STRICT tables, ``ON CONFLICT`` for what may be there already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ...protocol.errors import UsageError

Value = int | str | bytes | None
Row = tuple[Any, ...]
Place = Path | str
"""Where the books are: a file, or the address of a PostgreSQL database."""


class Step(NamedTuple):
    """One step of a schema: statements, and the tables no row of which ever changes from then on."""

    name: str
    statements: tuple[str, ...]
    append_only: tuple[str, ...] = ()


class Schema(NamedTuple):
    """The tables of one room; ``prepare`` takes each step once, in order."""

    name: str
    steps: tuple[Step, ...]


class Rows(Protocol):
    """What a statement found."""

    @property
    def rowcount(self) -> int:
        """How many rows a change touched."""
        ...

    def fetchone(self) -> Row | None:
        """Return the next row, None behind the last."""
        ...

    def fetchall(self) -> list[Row]:
        """Return the rows that are left."""
        ...

    def __iter__(self) -> Iterator[Row]: ...


class Session(Protocol):
    """An open transaction of a database."""

    def execute(self, sql: str, values: Sequence[Value] = (), /) -> Rows:
        """Run one statement."""
        ...

    def executemany(self, sql: str, rows: Iterable[Sequence[Value]], /) -> object:
        """Run one statement for each row of values."""
        ...


class Database(Protocol):
    """One open database; every method blocks and is thread-safe."""

    @property
    def name(self) -> str:
        """What messages call it; holds no secret."""
        ...

    def prepare(self, schema: Schema) -> None:
        """Bring a room's tables up to date."""
        ...

    def writing(self) -> AbstractContextManager[Session]:
        """Commit durably what the body did, or nothing of it; one at a time over all processes.

        Raises:
            StoreFullError: the disk is full.
            LocalError: the database is damaged, does not answer or stays busy.

        """
        ...

    def reading(self) -> AbstractContextManager[Session]:
        """Show the body one state of the database, whatever others write meanwhile; raises likewise."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


def open_books(place: Place) -> Database:
    """Open the database at ``place``.

    Raises:
        UsageError: ``no_driver`` where PostgreSQL is named and its driver is not installed.
        LocalError: where the database is damaged or does not answer.

    """
    if isinstance(place, Path):
        from .sqlitebooks import SqliteBooks

        return SqliteBooks(place)
    try:
        from .postgresbooks import PostgresBooks
    except ImportError as error:
        message = (
            "[money] ledger names PostgreSQL, whose driver is not installed: pip install 'farcast[scale]'"
        )
        raise UsageError(message, reason="no_driver") from error
    return PostgresBooks(place)
