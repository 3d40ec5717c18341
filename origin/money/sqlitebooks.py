"""The books in one SQLite file: WAL, and on the disk before a commit returns."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import sqlite_utils

from ...node.database import migrate, open_database, transaction, translated
from .database import Schema, Session, Step


class SqliteBooks:
    """The database at ``path``; raises ``LocalError`` where it is damaged."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._lock = threading.Lock()
        self._conn = open_database(path, sqlite_utils.Migrations("none"), synchronous="FULL")
        self._conn.execute("PRAGMA foreign_keys = ON")

    def prepare(self, schema: Schema) -> None:
        """Bring a room's tables up to date."""
        migrations = sqlite_utils.Migrations(schema.name)
        for step in schema.steps:
            migrations(name=step.name)(_function(step))
        with self._lock:
            try:
                migrate(self._conn, migrations)
            except sqlite3.DatabaseError as error:
                raise translated(error, self._path) from error

    @contextmanager
    def writing(self) -> Generator[Session]:
        """Commit what the body did, or nothing of it."""
        with self._lock, transaction(self._conn, self._path) as conn:
            yield conn

    @contextmanager
    def reading(self) -> Generator[Session]:
        """Show the body one state of the file."""
        with self._lock:
            try:
                self._conn.execute("BEGIN")
                yield self._conn
            except sqlite3.DatabaseError as error:
                raise translated(error, self._path) from error
            finally:
                if self._conn.in_transaction:
                    self._conn.execute("ROLLBACK")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._conn.close()


def _function(step: Step) -> Callable[[sqlite_utils.Database], None]:
    def apply(db: sqlite_utils.Database) -> None:
        for statement in step.statements:
            db.conn.execute(statement)
        for table in step.append_only:
            for verb in ("UPDATE", "DELETE"):
                db.conn.execute(
                    f"""CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table}
                        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"""
                )

    return apply
