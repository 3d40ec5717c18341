from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from farcast.origin.accounts import Accounts
from farcast.protocol.errors import LocalError, UsageError
from farcast.tests.unit.origin.livedin import PERSON, bear, live, open_office
from farcast.tests.unit.origin.mint import MONTH


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("template") / "home"
    bear(home)
    return home


def holding(folder: Path, secret: bytes) -> list[str]:
    """Return the files anywhere below ``folder`` with ``secret`` in them."""
    return [path.name for path in folder.rglob("*") if path.is_file() and secret in path.read_bytes()]


def test_erasing_a_person_changes_no_digest_and_leaves_no_byte_of_the_name(
    template: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    report = live(template, home)
    name = PERSON.encode()
    assert "accounts.db" in holding(home, name)
    before = {path.name: path.read_bytes() for path in report.iterdir()}
    office = open_office(home)
    try:
        settled, balances = office.money.settle(MONTH, dry_run=True), office.treasury.ledger.balances()
        pseudonym = office.accounts.pseudonym(PERSON)
        office.members.erase(PERSON)
        assert holding(home, name) == [], "while the origin goes on running"
        with pytest.raises(UsageError):
            office.accounts.pseudonym(PERSON)
        assert office.money.settle(MONTH, dry_run=True) == settled
        assert office.money.settle(MONTH)["posted"] is False
        again = Path(office.money.report(MONTH)["folder"])
        assert {path.name: path.read_bytes() for path in again.iterdir()} == before
        assert office.treasury.ledger.balances() == balances
        assert office.accounts.revoked(pseudonym, 60_000)
    finally:
        office.close()
    assert holding(home, name) == []


def test_traces_are_found_though_the_name_lay_in_pages_of_long_ago(tmp_path: Path) -> None:
    """Names moved between pages of an older version leave copies behind, which deleting does not reach."""
    path = tmp_path / "accounts.db"
    accounts = Accounts(path)
    with accounts.reading() as conn:
        conn.execute("PRAGMA secure_delete = OFF")
    try:
        accounts.add(PERSON, 0)
        for number in range(300):
            accounts.add(f"{PERSON} the {number}th", number)
        for number in range(300):
            with accounts.writing() as conn:
                conn.execute("DELETE FROM account WHERE name = ?", (f"{PERSON} the {number}th",))
        with accounts.reading() as conn:
            conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert b"the 299th" in path.read_bytes(), "nothing to find is no test"
        accounts.erase(PERSON, 20_000)
        assert holding(tmp_path, PERSON.encode()) == []
    finally:
        accounts.close()


def test_a_reader_that_holds_the_log_is_named(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path / "accounts.db")
    other = sqlite3.connect(tmp_path / "accounts.db", isolation_level=None)
    try:
        with accounts.reading() as conn:
            conn.execute("PRAGMA busy_timeout = 10")
        accounts.add(PERSON, 0)
        other.execute("BEGIN")
        other.execute("SELECT * FROM account").fetchall()
        with pytest.raises(LocalError):
            accounts.erase(PERSON, 20_000)
    finally:
        other.close()
        accounts.close()
