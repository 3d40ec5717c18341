from __future__ import annotations

import sqlite3
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace

import pytest
import sqlite_utils

from farcast.node.blocks.index import TABLES as BLOCK_TABLES
from farcast.node.database import BUSY_TIMEOUT_S, Tables, open_database, transaction, translated
from farcast.node.pulses.spool import TABLES as SPOOL_TABLES
from farcast.node.pulses.wallet import TABLES as WALLET_TABLES
from farcast.protocol.errors import LocalError, StoreFullError

MIGRATIONS = sqlite_utils.Migrations("test")


@MIGRATIONS(name="0001_notes")
def _notes(db: sqlite_utils.Database) -> None:
    db.table("note").create({"text": str}, strict=True)


def test_a_database_is_private_and_opens_again(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    conn = open_database(path, MIGRATIONS, synchronous="FULL")
    with transaction(conn, path):
        conn.execute("INSERT INTO note VALUES ('x')")
    conn.close()
    assert path.stat().st_mode & 0o777 == 0o600
    conn = open_database(path, MIGRATIONS, synchronous="NORMAL")
    assert conn.execute("SELECT text FROM note").fetchall() == [("x",)]
    assert conn.execute("PRAGMA synchronous").fetchone() == (1,)
    conn.close()


def test_of_those_who_open_a_new_file_at_once_one_makes_its_tables(tmp_path: Path) -> None:
    at_once = Barrier(4)

    def notes(path: Path) -> int:
        at_once.wait(10)
        conn = open_database(path, MIGRATIONS, synchronous="FULL")
        try:
            return len(conn.execute("SELECT * FROM note").fetchall())
        finally:
            conn.close()

    with ThreadPoolExecutor(4) as pool:
        for number in range(20):
            assert list(pool.map(notes, [tmp_path / f"{number}.db"] * 4)) == [0] * 4


def test_where_no_table_is_lacking_no_writer_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    writer = open_database(path, MIGRATIONS, synchronous="FULL")
    with transaction(writer, path):
        writer.execute("INSERT INTO note VALUES ('x')")
        before_s = time.monotonic()
        open_database(path, MIGRATIONS, synchronous="FULL").close()
        assert time.monotonic() - before_s < BUSY_TIMEOUT_S / 2
    writer.close()


def test_a_failing_body_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    conn = open_database(path, MIGRATIONS, synchronous="FULL")

    def fail() -> None:
        with transaction(conn, path):
            conn.execute("INSERT INTO note VALUES ('x')")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert conn.execute("SELECT count(*) FROM note").fetchone() == (0,)
    conn.close()


def test_a_full_disk_is_said_so_and_what_was_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    conn = open_database(path, MIGRATIONS, synchronous="FULL")
    conn.execute("INSERT INTO note VALUES ('x')")
    [(pages,)] = conn.execute("PRAGMA page_count")
    conn.execute(f"PRAGMA max_page_count = {pages + 1}")  # as full as a disk can be made without one
    with pytest.raises(StoreFullError, match="disk is full") as caught, transaction(conn, path):
        conn.execute("INSERT INTO note VALUES (?)", ("y" * 100_000,))
    assert caught.value.reason == "disk_full"
    assert conn.execute("SELECT text FROM note").fetchall() == [("x",)]
    conn.close()


def test_an_io_error_on_a_full_disk_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
    assert "cannot be used" in str(translated(error, tmp_path / "a.db"))

    def nearly_full(_: Path) -> SimpleNamespace:
        return SimpleNamespace(free=4_096)

    monkeypatch.setattr("shutil.disk_usage", nearly_full)
    found = translated(error, tmp_path / "a.db")
    assert isinstance(found, StoreFullError)
    assert "disk is full" in str(found)


def test_a_folder_in_the_way_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.db").mkdir()
    with pytest.raises(LocalError, match=r"a\.db"):
        open_database(tmp_path / "a.db", MIGRATIONS, synchronous="FULL")


@pytest.mark.parametrize(
    "tables", [BLOCK_TABLES, SPOOL_TABLES, WALLET_TABLES], ids=["index", "spool", "wallet"]
)
def test_tables_named_are_the_newest_and_are_imported_only_to_make_them(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrations = import_module(tables.module).MIGRATIONS
    made = sqlite_utils.Database(memory=True)
    migrations.apply(made)
    assert (migrations.name, migrations.applied(made)[-1].name) == (tables.migration_set, tables.newest)
    open_database(tmp_path / "a.db", tables, synchronous="FULL").close()
    monkeypatch.setitem(sys.modules, tables.module, None)  # importing it would fail from now on
    conn = open_database(tmp_path / "a.db", tables, synchronous="FULL")
    assert conn.execute("SELECT count(*) FROM _sqlite_migrations").fetchone() == (
        len(migrations.applied(made)),
    )
    conn.close()
