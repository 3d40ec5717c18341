"""Accounts, their devices, invites and payees: who may watch, and who is paid (``accounts.db``).

The only table that knows a person is ``account``: everywhere else an account is a random
pseudonym, so erasing the name here leaves the books whole and nobody behind them.
"""

from __future__ import annotations

import hmac
import re
import secrets
import sqlite3
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Literal, NamedTuple

from ..node.database import open_database, transaction, translated
from ..protocol.errors import LocalError, RefusedError, UsageError
from ..protocol.ticket import DAY_MS, Holder
from .accounttables import MIGRATIONS

INVITE_DAYS = 30
PSEUDONYM_BYTES = 16
TOKEN_BYTES = 24
MAX_DEVICES = 64
NAME_LIMIT_CHARS = 100

InviteKind = Literal["viewer", "relay"]

_PAYEE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)


class Account(NamedTuple):
    """One account as its origin's team sees it; ``name`` is empty once erased."""

    pseudonym: bytes
    name: str
    devices: int
    revoked_ms: int | None


class Payee(NamedTuple):
    """Somebody who is paid: ``method`` says how, in the words of whoever pays."""

    id: str
    name: str
    method: str


class Accounts:
    """The accounts of one origin; every method blocks on SQLite and may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._conn = open_database(path, MIGRATIONS, synchronous="FULL")
        self._conn.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten with zeros
        query = "SELECT pseudonym, revoked_ms FROM account WHERE revoked_ms IS NOT NULL"
        with self.reading() as conn:
            self._revocations: dict[bytes, int] = dict(conn.execute(query).fetchall())

    @property
    def revocations(self) -> Mapping[bytes, int]:
        """When accounts ended, ms since 1970, by pseudonym; the mapping goes on being true."""
        return self._revocations

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._conn.close()

    @contextmanager
    def writing(self) -> Generator[sqlite3.Connection]:
        """Hold the database for one transaction: all of the body's changes or none."""
        with self._lock, transaction(self._conn, self._path) as conn:
            yield conn

    @contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        """Hold the database for reading."""
        with self._lock:
            try:
                yield self._conn
            except sqlite3.DatabaseError as error:
                raise translated(error, self._path) from error

    def add(self, name: str, now_ms: int) -> str:
        """Add an account and return its first one-time token, for one device.

        Raises:
            UsageError: where the name cannot be used or is taken.

        """
        if not name.strip() or len(name) > NAME_LIMIT_CHARS or not name.isprintable():
            raise UsageError(f"an account name has 1 to {NAME_LIMIT_CHARS} printable characters")
        pseudonym = secrets.token_bytes(PSEUDONYM_BYTES)
        with self.writing() as conn:
            if conn.execute("SELECT 1 FROM account WHERE name = ?", (name,)).fetchone():
                message = f"there is an account {name!r} already; "
                raise UsageError(message + f"`farcast origin invite --account {name}` adds a device to it")
            conn.execute(
                "INSERT INTO account (pseudonym, name, created_ms) VALUES (?, ?, ?)",
                (pseudonym, name, now_ms),
            )
            return _add_invite(conn, "viewer", pseudonym, now_ms)

    def invite(self, kind: InviteKind, now_ms: int, *, account: str | None = None) -> str:
        """Return a fresh one-time token: for one more device of ``account``, or for a relay.

        Raises:
            UsageError: for an unknown account, or a viewer's token without one.

        """
        if (kind == "viewer") != (account is not None):
            raise UsageError("a viewer's token is for an account, a relay's is not")
        pseudonym = self.pseudonym(account) if account is not None else None
        with self.writing() as conn:
            return _add_invite(conn, kind, pseudonym, now_ms)

    def pseudonym(self, name: str) -> bytes:
        """Return the pseudonym of the account called ``name``; raises ``UsageError``."""
        with self.reading() as conn:
            row = conn.execute("SELECT pseudonym FROM account WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise UsageError(f"there is no account {name!r}; `farcast origin account list` shows them")
        return bytes(row[0])

    def accounts(self) -> list[Account]:
        """Return every account, by name."""
        query = """SELECT pseudonym, coalesce(name, ''),
                   (SELECT count(*) FROM device WHERE account = pseudonym), revoked_ms
                   FROM account ORDER BY name"""
        with self.reading() as conn:
            return [Account(*row) for row in conn.execute(query)]

    def revoke(self, name: str, now_ms: int) -> int:
        """End an account: no ticket for today and later, no key, and no time of its tickets after ``now_ms``.

        Returns when it ended: what was revoked before stays so. Raises ``UsageError``.
        """
        pseudonym = self.pseudonym(name)
        with self.writing() as conn:
            conn.execute(
                "UPDATE account SET revoked_ms = coalesce(revoked_ms, ?) WHERE pseudonym = ?",
                (now_ms, pseudonym),
            )
        return self._revocations.setdefault(pseudonym, now_ms)

    def erase(self, name: str, now_ms: int) -> None:
        """Forget whose account it is, on the disk too, and end it as ``revoke`` does.

        Raises:
            UsageError: for an unknown account.
            LocalError: ``busy`` where traces are left until the database is closed for good.

        """
        pseudonym = self.pseudonym(name)
        with self.writing() as conn:
            conn.execute(
                "UPDATE account SET name = NULL, revoked_ms = coalesce(revoked_ms, ?) WHERE pseudonym = ?",
                (now_ms, pseudonym),
            )
            conn.execute("DELETE FROM device WHERE account = ?", (pseudonym,))
            conn.execute("DELETE FROM invite WHERE account = ?", (pseudonym,))
        self._revocations.setdefault(pseudonym, now_ms)
        self._scrub()

    def _scrub(self) -> None:
        """Leave nothing of what was deleted in free pages, nor in the write-ahead log.

        SQLite documentation, "VACUUM": it builds the file anew, so that no deleted content is in it.
        """
        with self._lock:
            try:
                self._conn.execute("VACUUM")
                (busy, _, _) = self._conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            except sqlite3.DatabaseError as error:
                raise translated(error, self._path) from error
        if busy:
            message = f"{self._path}-wal still holds what was erased, for another program reads it; end that"
            raise LocalError(message, reason="busy")

    def revoked(self, account: bytes, day: int) -> bool:
        """Say whether a pseudonym's tickets for ``day`` are void: revoked by then, or unknown."""
        with self.reading() as conn:
            row = conn.execute("SELECT revoked_ms FROM account WHERE pseudonym = ?", (account,)).fetchone()
        return row is None or (row[0] is not None and day >= row[0] // DAY_MS)

    def enrol(self, token: str, device: bytes, now_ms: int) -> int:
        """Spend a token on a device's key and return the device's number in its account.

        A repeated request of the same device gets the same answer, for the first may have been lost.

        Raises:
            RefusedError: 403 for a token that is unknown, spent or expired, 409 for a device of
                another account or one too many.

        """
        with self.writing() as conn:
            account = spend(conn, token, "viewer", device, now_ms)
            row = conn.execute("SELECT account, number FROM device WHERE key = ?", (device,)).fetchone()
            if row is not None:
                if row[0] != account:
                    message = "this device belongs to another account already"
                    raise RefusedError(message, status=409, reason="other_account")
                return int(row[1])
            (last,) = conn.execute(
                "SELECT coalesce(max(number), 0) FROM device WHERE account = ?", (account,)
            ).fetchone()
            if last >= MAX_DEVICES:
                message = f"this account has {MAX_DEVICES} devices already"
                raise RefusedError(message, status=409, reason="too_many_devices")
            conn.execute(
                "INSERT INTO device (key, account, number, enrolled_ms) VALUES (?, ?, ?, ?)",
                (device, account, last + 1, now_ms),
            )
            return int(last) + 1

    def holder(self, device: bytes) -> Holder:
        """Return the ticket holder a device's key stands for; raises ``RefusedError`` 403."""
        with self.reading() as conn:
            row = conn.execute("SELECT account, number FROM device WHERE key = ?", (device,)).fetchone()
        if row is None:
            message = "this device is not enrolled here; ask the origin for an account invite"
            raise RefusedError(message, status=403, reason="unknown_device")
        return Holder(row[0], row[1])

    def add_payee(self, payee: Payee, now_ms: int) -> None:
        """Add somebody to be paid, or correct name and method; raises ``UsageError`` for a bad id."""
        if not _PAYEE.fullmatch(payee.id):
            message = f"a payee id is lower-case letters, digits, dots and dashes, not {payee.id!r}"
            raise UsageError(message)
        with self.writing() as conn:
            conn.execute(
                """INSERT INTO payee (id, name, method, added_ms) VALUES (?, ?, ?, ?)
                   ON CONFLICT (id) DO UPDATE SET name = excluded.name, method = excluded.method""",
                (*payee, now_ms),
            )

    def add_payee_key(self, payee: str, key: bytes) -> None:
        """Let the box with this key see what a payee earns; raises ``UsageError`` for an unknown payee."""
        with self.writing() as conn:
            if conn.execute("SELECT 1 FROM payee WHERE id = ?", (payee,)).fetchone() is None:
                raise UsageError(f"there is no payee {payee!r}; add them with `farcast origin payee add`")
            conn.execute("INSERT OR REPLACE INTO payee_key VALUES (?, ?)", (key, payee))

    def payee_of_key(self, key: bytes) -> str:
        """Return whose earnings the box with this key may see, empty where nobody's."""
        with self.reading() as conn:
            row = conn.execute("SELECT payee FROM payee_key WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else ""

    def payees(self) -> list[Payee]:
        """Return every payee, by id."""
        with self.reading() as conn:
            return [Payee(*row) for row in conn.execute("SELECT id, name, method FROM payee ORDER BY id")]


def spend(conn: sqlite3.Connection, token: str, kind: InviteKind, key: bytes, now_ms: int) -> bytes | None:
    """Mark a token as used by ``key`` and return the account it is for (None for a relay's).

    Raises:
        RefusedError: 403 where the token is unknown, of another kind, spent or expired.

    """
    digest = sha256(token.encode()).digest()
    row = conn.execute(
        "SELECT hash, kind, account, expires_ms, used_by FROM invite WHERE hash = ?", (digest,)
    ).fetchone()
    if row is None or not hmac.compare_digest(bytes(row[0]), digest) or row[1] != kind:
        raise RefusedError(
            "this invite is not one of this origin's; ask for a new one", status=403, reason="bad_invite"
        )
    _, _, account, expires_ms, used_by = row
    if used_by is not None and not hmac.compare_digest(bytes(used_by), key):
        message = "this invite has been used already; ask the origin for a new one"
        raise RefusedError(message, status=403, reason="spent_invite")
    if used_by is None and now_ms >= expires_ms:
        raise RefusedError(
            "this invite has expired; ask the origin for a new one", status=403, reason="old_invite"
        )
    conn.execute("UPDATE invite SET used_by = ? WHERE hash = ?", (key, digest))
    return None if account is None else bytes(account)


def _add_invite(conn: sqlite3.Connection, kind: InviteKind, account: bytes | None, now_ms: int) -> str:
    """Store the hash of a fresh token, sweep unused ones long expired, and return the token."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    # kept a while, so that whoever comes too late is told so
    long_ago_ms = now_ms - INVITE_DAYS * DAY_MS
    conn.execute("DELETE FROM invite WHERE used_by IS NULL AND expires_ms < ?", (long_ago_ms,))
    conn.execute(
        "INSERT INTO invite (hash, kind, account, created_ms, expires_ms) VALUES (?, ?, ?, ?, ?)",
        (sha256(token.encode()).digest(), kind, account, now_ms, now_ms + INVITE_DAYS * DAY_MS),
    )
    return token
