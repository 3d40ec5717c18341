"""Books in PostgreSQL that a backup takes along: a real server, and the same digests behind it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from farcast.node.report import quiet
from farcast.origin.backup.bookscopy import TABLES, copy_books
from farcast.origin.backup.restore import restore
from farcast.origin.money.ledger import Ledger
from farcast.origin.payout.orderbook import OrderBook
from farcast.origin.payout.terms import Terms
from farcast.protocol.errors import LocalError, UsageError
from farcast.tests.postgres import PostgresServer
from farcast.tests.unit.origin.livedin import PASSPHRASE, PERSON, bear, live, open_office
from farcast.tests.unit.origin.mint import CLOSE_MS, MONTH


class World:
    """A lived-in origin with its books in PostgreSQL, and a backup of it."""

    def __init__(self, folder: Path, postgres: PostgresServer) -> None:
        bear(folder / "template")
        self.home, self.address, self.file = folder / "home", postgres.fresh(), folder / "file.backup"
        self.report = live(folder / "template", self.home, MONEY_LEDGER=self.address)
        office = open_office(self.home, MONEY_LEDGER=self.address)
        try:
            self.rows(office.treasury.ledger)
            self.found = office.backups.backup(str(self.file), PASSPHRASE, progress=quiet)
            self.balances = office.treasury.ledger.balances()
            self.head = office.treasury.ledger.head()
            self.statement = office.money.settle(MONTH, dry_run=True) | {"report": ""}
        finally:
            office.close()

    @staticmethod
    def rows(ledger: Ledger) -> None:
        """Let there be something in every room of the books."""
        terms = Terms("ada", "Ada", "manual", "DE")
        assert OrderBook(ledger, bytes(32)).reserve(terms, 1, {}, CLOSE_MS) is not None


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> World:
    return World(tmp_path_factory.mktemp("world"), postgres)


def test_a_restored_origin_settles_to_the_same_digest_with_the_books_in_its_home(
    world: World, tmp_path: Path
) -> None:
    assert world.found["ledger"] == "postgresql"
    assert not (world.home / "ledger.db").exists()
    assert not [path.name for path in world.home.iterdir() if "backup" in path.name]
    home = tmp_path / "home"
    found = restore(world.file, home, PASSPHRASE, quiet)
    assert (found["ledger"], list(found["settled"])) == ("sqlite", [MONTH])
    office = open_office(home)
    try:
        ledger = office.treasury.ledger
        assert (ledger.head(), ledger.balances()) == (world.head, world.balances)
        assert ledger.verify_chain() == world.head[0]
        assert office.money.settle(MONTH, dry_run=True) | {"report": ""} == world.statement
        assert office.money.settle(MONTH, from_raw=True)["posted"] is False
        report = Path(office.money.report(MONTH)["folder"])
        assert {path.name: path.read_bytes() for path in report.iterdir()} == {
            path.name: path.read_bytes() for path in world.report.iterdir()
        }
    finally:
        office.close()


def test_a_restore_fills_an_empty_database_once_and_leaves_one_that_grew_on(
    world: World, tmp_path: Path, postgres: PostgresServer
) -> None:
    address = postgres.fresh()
    for number in range(2):
        home = tmp_path / f"home-{number}"
        found = restore(world.file, home, PASSPHRASE, quiet, ledger=address)
        assert found["ledger"] == "postgresql"
        assert not (home / "ledger.db").exists()
        with closing(Ledger(address)) as ledger:
            assert (ledger.head()[0] - number, ledger.verify_chain() - number) == (world.head[0],) * 2
            ledger.book_revenue(5, CLOSE_MS + 9, b"after the backup")
    other = postgres.fresh()
    with closing(Ledger(other)) as ledger:
        ledger.book_revenue(7, CLOSE_MS, b"somebody else's")
    with pytest.raises(UsageError, match="holds other books"):
        restore(world.file, tmp_path / "none", PASSPHRASE, quiet, ledger=other)
    assert not (tmp_path / "none").exists()


def test_every_table_of_the_books_is_copied(world: World, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    assert copy_books(world.address, copy) == world.head[0]
    with psycopg.connect(world.address) as conn, closing(sqlite3.connect(copy)) as sqlite:
        query = "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()"
        there = {str(name) for (name,) in conn.execute(query).fetchall()} - {"farcast_migration"}
        assert there == set(TABLES)
        for table in TABLES:
            count = f"SELECT count(*) FROM {table}"  # noqa: S608 - our own names
            (one,) = conn.execute(count.encode()).fetchone() or (0,)
            assert sqlite.execute(count).fetchone() == (one,), table
            if table not in ("hold", "hold_part", "hold_step", "payout_run"):
                assert one, f"{table} is empty, so nothing was shown"


def test_a_database_that_does_not_answer_leaves_no_copy(tmp_path: Path) -> None:
    nowhere = f"postgresql://x@/postgres?host={tmp_path}"
    with pytest.raises(LocalError, match="does not answer"):
        copy_books(nowhere, tmp_path / "copy.db")


def test_erasing_a_person_changes_no_digest_and_no_book_in_postgresql_has_the_name(
    world: World, tmp_path: Path, postgres: PostgresServer
) -> None:
    address, home = postgres.fresh(), tmp_path / "home"
    restore(world.file, home, PASSPHRASE, quiet, ledger=address)
    office = open_office(home, MONEY_LEDGER=address)
    try:
        ledger = office.treasury.ledger
        before, statement = (ledger.head(), ledger.balances()), office.money.settle(MONTH, dry_run=True)
        office.members.erase(PERSON)
        assert (ledger.head(), ledger.balances()) == before
        assert office.money.settle(MONTH, dry_run=True) == statement
        assert office.money.settle(MONTH)["posted"] is False
        report = Path(office.money.report(MONTH)["folder"])
        assert (report / "report.json").read_bytes() == (world.report / "report.json").read_bytes()
    finally:
        office.close()
    with psycopg.connect(address) as conn:
        for table in TABLES:
            rows = conn.execute(f"SELECT * FROM {table}".encode()).fetchall()  # noqa: S608 - our own
            assert PERSON.encode() not in repr(rows).encode(), table
    assert not [path for path in home.rglob("*") if path.is_file() and PERSON.encode() in path.read_bytes()]
