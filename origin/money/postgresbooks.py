"""The books in PostgreSQL: one writer at a time over all processes, by an advisory lock.

A connection that is lost is opened again by whoever needs it next. What became of one that was lost
while it committed is asked over a new one (PostgreSQL documentation, ``pg_xact_status``), so nobody
hears that nothing was posted when it was. The address may hold a password: no message repeats it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, LiteralString

import psycopg
from psycopg import errors
from psycopg.adapt import Buffer, Loader
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

from ...protocol.errors import LocalError, StoreFullError, UsageError
from .database import Row, Rows, Schema, Session, Step, Value

LOCK_WAIT_MS = 10_000
STATEMENT_MS = 600_000
COMMIT_LOOKS = 5
FIRST_LOOK_S = 0.2
_LOCK_KEY = 0x46_61_72_63_61_73_74
"""The advisory lock of every writer: "Farcast"."""
_CONNECTION = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
    "target_session_attrs": "read-write",
    "client_encoding": "UTF8",
    "application_name": "farcast",
}
_TYPES = {"INTEGER": "BIGINT", "BLOB": "BYTEA", "TEXT": 'TEXT COLLATE "C"'}
_MIGRATION_TABLE = """CREATE TABLE IF NOT EXISTS farcast_migration (
    migration_set TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (migration_set, name))"""
_APPEND_ONLY = """CREATE OR REPLACE FUNCTION farcast_append_only() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$"""


class _Whole(Loader):
    """Reads a sum, which PostgreSQL gives as numeric, as the integer it is."""

    def load(self, data: Buffer) -> int:
        return int(bytes(data))


class _Session:
    """An open transaction, in the dialect of ``database.py``."""

    def __init__(self, conn: psycopg.Connection[Row]) -> None:
        self._conn = conn

    def execute(self, sql: str, values: Sequence[Value] = (), /) -> Rows:
        return self._conn.execute(_query(sql), values)

    def executemany(self, sql: str, rows: Iterable[Sequence[Value]], /) -> None:
        with self._conn.cursor() as cursor:
            cursor.executemany(_query(sql), rows)


class PostgresBooks:
    """The database that ``dsn`` names.

    Raises:
        UsageError: ``bad_dsn`` where ``dsn`` is no address of a database.
        LocalError: where it does not answer.

    """

    def __init__(self, dsn: str) -> None:
        try:
            parts = {**_CONNECTION, **_given(dsn)}
        except psycopg.ProgrammingError:  # its text repeats the address, password and all
            message = "[money] ledger is no address of a database; write postgresql://USER@HOST/DATABASE"
            raise UsageError(message, reason="bad_dsn") from None
        self.name = (
            f"PostgreSQL {parts.get('dbname') or 'of its user'} at {parts.get('host') or 'this machine'}"
        )
        self._secret = str(parts.get("password") or "")
        self._conninfo = make_conninfo("", **parts)
        self._lock = threading.Lock()
        self._conn: psycopg.Connection[Row] | None = None
        with self._lock:
            self._connected()

    def prepare(self, schema: Schema) -> None:
        """Bring a room's tables up to date; waits for no writer where they are."""
        with self.reading() as session:
            if not _pending(session, schema):
                return
        with self.writing() as session:
            session.execute(_MIGRATION_TABLE)
            for step in _pending(session, schema):
                for statement in step.statements:
                    session.execute(translated_ddl(statement))
                for statement in _guards(step.append_only):
                    session.execute(statement)
                session.execute("INSERT INTO farcast_migration VALUES (?, ?)", (schema.name, step.name))

    @contextmanager
    def writing(self) -> Generator[Session]:
        """Commit what the body did, or nothing of it; waits at most 10 s for another writer."""
        with self._lock:
            conn = self._begin("BEGIN")
            try:
                conn.execute("SELECT set_config('lock_timeout', %s, true)", (str(LOCK_WAIT_MS),))
                conn.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK_KEY,))
                yield _Session(conn)
                self._commit(conn)
            except psycopg.Error as error:
                raise self._translated(error) from error
            finally:
                self._leave(conn)

    @contextmanager
    def reading(self) -> Generator[Session]:
        """Show the body one state of the database."""
        with self._lock:
            conn = self._begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                yield _Session(conn)
            except psycopg.Error as error:
                raise self._translated(error) from error
            finally:
                self._leave(conn)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._drop()

    def _connected(self) -> psycopg.Connection[Row]:
        if self._conn is not None and self._conn.closed:
            self._conn = None
        if self._conn is None:
            try:
                conn = psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=None)
                self._conn = conn
                conn.adapters.register_loader("numeric", _Whole)
                conn.execute("SELECT set_config('statement_timeout', %s, false)", (str(STATEMENT_MS),))
                # a commit is on the disk when it returns, whatever the server's default says
                conn.execute(
                    """SELECT set_config('synchronous_commit', 'on', false)
                       WHERE current_setting('synchronous_commit') = 'off'"""
                )
            except psycopg.Error as error:
                self._drop()
                raise self._translated(error) from error
        return self._conn

    def _begin(self, statement: LiteralString) -> psycopg.Connection[Row]:
        conn = self._connected()
        try:
            conn.execute(statement)
        except psycopg.OperationalError:  # lost since it was last used; nothing has been asked of it yet
            self._drop()
            conn = self._connected()
            try:
                conn.execute(statement)
            except psycopg.Error as error:
                raise self._translated(error) from error
        return conn

    def _commit(self, conn: psycopg.Connection[Row]) -> None:
        row = conn.execute("SELECT pg_current_xact_id_if_assigned()::text").fetchone()
        number = row[0] if row else None
        try:
            done = conn.execute("COMMIT").statusmessage
        except psycopg.OperationalError as error:
            if number is None or self._committed(number, error):
                return
            raise
        if done != "COMMIT":  # what PostgreSQL answers where a statement before had failed
            raise LocalError(f"a statement failed in {self.name}; nothing was posted", reason="database")

    def _committed(self, number: str, lost: psycopg.Error) -> bool:
        """Ask over a new connection what became of a transaction whose commit was not answered."""
        self._drop()
        for look in range(COMMIT_LOOKS):
            time.sleep(FIRST_LOOK_S * 2**look)
            try:
                row = self._connected().execute("SELECT pg_xact_status(%s::xid8)", (number,)).fetchone()
            except (LocalError, psycopg.Error):
                self._drop()
                continue
            if row is not None and row[0] in ("committed", "aborted"):
                return bool(row[0] == "committed")
        message = (
            f"{self.name} was lost while it posted; look whether it did with `farcast origin ledger` "
            "before you post it again"
        )
        raise LocalError(message, reason="unknown_commit") from lost

    def _leave(self, conn: psycopg.Connection[Row]) -> None:
        if conn.closed or conn.info.transaction_status == TransactionStatus.IDLE:
            return
        try:
            conn.execute("ROLLBACK")
        except psycopg.Error:  # the server rolls back what its lost connections leave
            self._drop()

    def _drop(self) -> None:
        if self._conn is not None:
            self._conn.close()
        self._conn = None

    def _translated(self, error: psycopg.Error) -> LocalError:
        if isinstance(error, errors.DiskFull):
            return StoreFullError(f"the disk of {self.name} is full; make room", reason="disk_full")
        if isinstance(error, errors.LockNotAvailable):
            return LocalError(f"another origin keeps {self.name} busy; try again", reason="busy")
        text = " ".join(str(error).split())
        if self._secret:
            text = text.replace(self._secret, "***")
        if isinstance(error, psycopg.OperationalError):
            return LocalError(f"{self.name} does not answer, nothing was posted: {text}", reason="database")
        return LocalError(f"{self.name} refused, nothing was posted: {text}", reason="database")


def _given(dsn: str) -> dict[str, Any]:
    return {key: value for key, value in conninfo_to_dict(dsn).items() if value is not None}


@lru_cache(maxsize=256)
def _query(sql: str) -> bytes:
    """Return a statement with PostgreSQL's placeholders."""
    return sql.replace("%", "%%").replace("?", "%s").encode()


def translated_ddl(statement: str) -> str:
    """Return a statement of a schema with PostgreSQL's types; text sorts by its bytes as in SQLite."""
    plain = re.sub(r"\)\s*STRICT(\s*,\s*WITHOUT\s+ROWID)?\s*$", ")", statement)
    return re.sub(r"\b(INTEGER|BLOB|TEXT)\b", lambda found: _TYPES[found.group()], plain)


def _pending(session: Session, schema: Schema) -> list[Step]:
    row = session.execute("SELECT to_regclass('farcast_migration') IS NULL").fetchone()
    if row is None or row[0]:
        return list(schema.steps)
    done = session.execute("SELECT name FROM farcast_migration WHERE migration_set = ?", (schema.name,))
    applied = {name for (name,) in done}
    return [step for step in schema.steps if step.name not in applied]


def _guards(tables: Sequence[str]) -> list[str]:
    guards = [_APPEND_ONLY] if tables else []
    for table in tables:
        for event, each in (("UPDATE OR DELETE", "ROW"), ("TRUNCATE", "STATEMENT")):
            guards.append(
                f"CREATE TRIGGER {table}_append_only_{each.lower()} BEFORE {event} ON {table} "
                f"FOR EACH {each} EXECUTE FUNCTION farcast_append_only()"
            )
    return guards
