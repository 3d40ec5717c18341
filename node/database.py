"""SQLite files of a box: one way to open them, schemas by ``sqlite-utils`` migrations.

The migration runs through ``sqlite-utils``; afterwards the same connection is used with plain
prepared statements, explicit transactions and the caller's lock.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from ..protocol.errors import LocalError, StoreFullError

if TYPE_CHECKING:
    import sqlite_utils

BUSY_TIMEOUT_S = 10.0
_BUSY_LOOK_S = 0.01
LEAST_FREE_BYTES = 64 << 10
_CACHED_STATEMENTS = 128


class Tables(NamedTuple):
    """Migrations known by name: their module's ``MIGRATIONS`` is imported only where one is missing.

    The package costs a box 8 MB for as long as it runs, and it is needed once in a version.
    """

    module: str
    migration_set: str
    newest: str


def open_database(
    path: Path, schema: sqlite_utils.Migrations | Tables, *, synchronous: Literal["NORMAL", "FULL"]
) -> sqlite3.Connection:
    """Open or create the database at ``path`` in WAL mode and bring its schema up to date.

    With ``FULL`` a commit is on the disk when it returns; with ``NORMAL`` a power cut may take back
    the last commits, never a part of one (SQLite documentation, "PRAGMA synchronous").

    Raises:
        LocalError: ``damaged`` where the file is no database, with what to do about it.
        StoreFullError: the disk is full.

    """
    try:
        path.touch(mode=0o600)  # its -wal and -shm files take the same mode
        conn = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_S, check_same_thread=False, cached_statements=_CACHED_STATEMENTS
        )
    except sqlite3.DatabaseError as error:
        raise translated(error, path) from error
    except OSError as error:
        raise LocalError(f"{path} cannot be made: {error.strerror}", reason="database") from error
    try:
        conn.isolation_level = None  # from here on every transaction is explicit
        _write_ahead(conn)
        conn.execute(f"PRAGMA synchronous = {synchronous}")
        if not isinstance(schema, Tables):
            migrate(conn, schema)
        elif not _is_current(conn, schema):
            migrate(conn, import_module(schema.module).MIGRATIONS)
    except sqlite3.DatabaseError as error:
        conn.close()
        raise translated(error, path) from error
    return conn


def migrate(conn: sqlite3.Connection, migrations: sqlite_utils.Migrations) -> None:
    """Take the steps the file lacks; of processes that open it at once one does, and the others wait.

    Where none is lacking, no writer is waited for.
    """
    import sqlite_utils

    database = sqlite_utils.Database(conn, recursive_triggers=False, execute_plugins=False)
    if not migrations.pending(database):
        return
    conn.execute("BEGIN IMMEDIATE")
    try:
        migrations.apply(database)  # asks again what is lacking, now that nobody else writes
        conn.execute("COMMIT")
    finally:
        if conn.in_transaction:
            conn.execute("ROLLBACK")


@contextmanager
def transaction(conn: sqlite3.Connection, path: Path) -> Generator[sqlite3.Connection]:
    """Commit what the body did to the database at ``path``, or nothing of it.

    Raises:
        StoreFullError: the disk is full.
        LocalError: the file is damaged or cannot be written.

    """
    try:
        conn.execute("BEGIN IMMEDIATE")
        yield conn
        conn.execute("COMMIT")
    except sqlite3.DatabaseError as error:
        raise translated(error, path) from error
    finally:
        if conn.in_transaction:
            conn.execute("ROLLBACK")


def translated(error: sqlite3.DatabaseError, path: Path) -> LocalError:
    """Return the Farcast error that says what SQLite's error means for the file at ``path``."""
    if _is_full(getattr(error, "sqlite_errorcode", 0) & 0xFF, path):
        return StoreFullError(f"the disk is full, {path} cannot grow; make room", reason="disk_full")
    if isinstance(error, sqlite3.OperationalError):
        return LocalError(f"{path} cannot be used: {error}", reason="database")
    message = f"{path} is damaged ({error}); move it and its -wal file away and start again"
    return LocalError(message, reason="damaged")


def _is_current(conn: sqlite3.Connection, tables: Tables) -> bool:
    if conn.execute("SELECT 1 FROM sqlite_master WHERE name = '_sqlite_migrations'").fetchone() is None:
        return False
    newest = (tables.migration_set, tables.newest)
    query = "SELECT 1 FROM _sqlite_migrations WHERE migration_set = ? AND name = ?"
    return conn.execute(query, newest).fetchone() is not None


def _write_ahead(conn: sqlite3.Connection) -> None:
    """Turn to WAL mode; SQLite does not wait by itself where another process does so at this moment."""
    give_up_at = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            conn.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_at:
                raise
            time.sleep(_BUSY_LOOK_S)
        else:
            return


def _is_full(code: int, path: Path) -> bool:
    """Tell a full disk; where SQLite cannot grow the -shm file it only speaks of an I/O error."""
    if code != sqlite3.SQLITE_IOERR:
        return code == sqlite3.SQLITE_FULL
    try:
        return shutil.disk_usage(path.parent).free < LEAST_FREE_BYTES
    except OSError:
        return False
