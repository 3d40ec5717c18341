"""A backup: everything an origin needs, read while it runs, in one file under a passphrase.

What it holds is consistent by the order in which it is read: first what refers (the ledger, the
catalog's head), then what is referred to and only grows (the catalog's entries, the intake log).
Databases are copied by SQLite's online backup, books in PostgreSQL row by row into a file as SQLite has
them. docs/adr/0030 says what is left out, and why.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sqlite3
import stat
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from ...node.home import LOCK_FILE
from ...node.report import Report
from ...node.settings import FILE as SETTINGS_FILE
from ...protocol.errors import LocalError, StoreFullError, UsageError
from ..pulses.intake import SEGMENTS
from ..sealedfile import SealedWriter
from .bookscopy import copy_books

SUMMARY = "backup.json"
MANIFESTS = "manifests"
BLOCKS = ("index.db", "blocks")
LEDGER = "ledger.db"
_REFERRING = (LEDGER, "accounts.db")
_APART = frozenset({LOCK_FILE, "admin.json", "admin.new", "tuf", "catalog", "intake", "encodes", *BLOCKS})
"""What is no part of it, or is read by itself, later."""
_DERIVED = (".parquet", "-wal", "-shm", "-journal")
_SECRET = re.compile(r"\s*ledger\s*=")


class Member(NamedTuple):
    """One file of a backup: its name there, its size and mode, and where its bytes are."""

    name: str
    size_bytes: int
    mode: int
    file: BinaryIO


class Backup:
    """Writes backups of the origin in ``home``, whose lock this process holds; every method blocks.

    ``summary`` is what a restore is checked against, ``trust`` the trust files by name, ``manifests``
    the published manifests by CID.
    """

    def __init__(
        self,
        home: Path,
        summary: Mapping[str, object],
        trust: Mapping[str, bytes],
        manifests: Iterable[tuple[str, bytes]],
        *,
        blocks: bool,
        books: str = "",
    ) -> None:
        """Take ``blocks`` along or not; ``books`` is the address of the PostgreSQL that has the ledger."""
        self._home = home
        self._books = books
        self._summary = summary
        self._trust = trust
        self._manifests = manifests
        self._blocks = blocks

    def write(self, target: Path, passphrase: str, salt: bytes, report: Report) -> tuple[int, int]:
        """Write the backup to ``target``, whole or not at all; returns its files and bytes.

        Raises:
            UsageError: a target inside the home, or a passphrase that is too short.
            StoreFullError: no room.
            LocalError: ``backup`` where something cannot be read or written.

        """
        if self._home.resolve() in target.resolve().parents:
            message = f"{target} lies in the origin's own home; keep a backup somewhere else"
            raise UsageError(message, reason="bad_place")
        draft = target.with_name(f".{target.name}.{os.getpid()}.new")
        try:
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(fd, "wb") as file:
                sealed = SealedWriter(file, passphrase, salt)
                count = self._fill(sealed, report)
                sealed.finish()
                file.flush()
                os.fsync(fd)
            size_bytes = draft.stat().st_size
            draft.replace(target)
            _sync(target.parent)
        except OSError as error:
            kind = StoreFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else LocalError
            message = f"the backup {target} cannot be written: {error.strerror or error}"
            raise kind(message, reason="backup") from error
        finally:
            draft.unlink(missing_ok=True)
        return count, size_bytes

    def _fill(self, sealed: SealedWriter, report: Report) -> int:
        count = done = 0
        whole = max(1, sum(path.stat().st_size for path in _files(self._home / "intake" / SEGMENTS)))
        with tarfile.open(
            fileobj=cast("BinaryIO", sealed), mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 20
        ) as archive:
            for member in self._members():
                with closing(member.file):
                    info = tarfile.TarInfo(member.name)
                    info.size, info.mode = member.size_bytes, member.mode
                    archive.addfile(info, member.file)
                count += 1
                done += member.size_bytes if member.name.startswith("intake/") else 0
                report("copied", done, whole + 1)
        report("copied", 1.0)
        return count

    def _members(self) -> Iterator[Member]:
        yield _bytes(SUMMARY, json.dumps(self._summary, indent=2).encode())
        yield from self._top()
        for name, data in self._trust.items():
            yield _bytes(f"tuf/{name}" if name.endswith(".json") else f"tuf/targets/{name}", data)
        catalog = _files(self._home / "catalog")
        for path in sorted(catalog, key=lambda path: path.suffix == ".log"):  # entries are never behind heads
            yield from self._member(path)
        if self._blocks:
            for name in BLOCKS:
                for path in _files(self._home / name):
                    yield from self._member(path)
        else:
            for name, data in self._manifests:
                yield _bytes(f"{MANIFESTS}/{name}", data)
        for path in _files(self._home / "intake" / SEGMENTS):
            yield from self._member(path)

    def _top(self) -> Iterator[Member]:
        """Yield the books and what lies in the home itself, what refers to other things first."""
        if self._books:
            yield self._copied_books()
        names = {path.name for path in self._home.iterdir() if not path.name.startswith(".")}
        apart = _APART | {LEDGER} if self._books else _APART  # a file of before has other books
        for name in sorted(names - apart, key=lambda name: (name not in _REFERRING, name == "role", name)):
            for path in _files(self._home / name):
                yield from self._member(path)

    def _member(self, path: Path) -> Iterator[Member]:
        name = path.relative_to(self._home).as_posix()
        if name == SETTINGS_FILE:
            yield _bytes(name, _without_secrets(path.read_text("utf-8")).encode())
            return
        if path.suffix == ".db":
            yield self._database(path, name)
            return
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return  # gone meanwhile: nothing refers to it any more
        found = os.fstat(file.fileno())  # what is appended from now on belongs to the next backup
        yield Member(name, found.st_size, stat.S_IMODE(found.st_mode), file)

    def _copied_books(self) -> Member:
        """Copy the books from PostgreSQL to a file that is gone once it is closed."""
        draft = self._home / f".backup.{os.getpid()}.db"
        _forget(draft)
        try:
            os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            copy_books(self._books, draft)
            with closing(sqlite3.connect(draft)) as conn:
                conn.execute("PRAGMA journal_mode = DELETE")
            file = draft.open("rb")
            return Member(LEDGER, os.fstat(file.fileno()).st_size, 0o600, file)
        except sqlite3.Error as error:
            raise LocalError(f"the books cannot be copied: {error}", reason="backup") from error
        finally:
            _forget(draft)

    def _database(self, path: Path, name: str) -> Member:
        """Copy a database as it is at one moment, to a file that is gone once it is closed."""
        draft = self._home / f".backup.{os.getpid()}.db"
        try:
            os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
            with (
                closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as source,
                closing(sqlite3.connect(draft)) as copy,
            ):
                source.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")
            file = draft.open("rb")
            return Member(name, os.fstat(file.fileno()).st_size, 0o600, file)
        except sqlite3.Error as error:
            raise LocalError(f"{path} cannot be copied: {error}", reason="backup") from error
        finally:
            _forget(draft)


def _forget(draft: Path) -> None:
    """Remove a database file and what SQLite keeps beside it."""
    for left in (draft, *(draft.with_name(draft.name + end) for end in _DERIVED[1:])):
        left.unlink(missing_ok=True)


def _files(place: Path) -> list[Path]:
    """Return the files at or below ``place`` that nothing else is derived into, sorted."""
    found = [place] if place.is_file() else sorted(place.rglob("*"))
    return [
        path
        for path in found
        if path.is_file() and not path.is_symlink() and not path.name.endswith(_DERIVED)
        and not path.name.startswith(".")
    ]  # fmt: skip


def _without_secrets(text: str) -> str:
    """Return ``settings.toml`` without the address of a database, which may hold a password."""
    return "".join(line for line in text.splitlines(keepends=True) if not _SECRET.match(line))


def _bytes(name: str, data: bytes) -> Member:
    return Member(name, len(data), 0o600, BytesIO(data))


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
