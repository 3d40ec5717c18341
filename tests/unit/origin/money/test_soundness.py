from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from farcast.origin.money import bookings
from farcast.origin.money.ledger import Ledger
from farcast.origin.money.ledgerwatch import LedgerWatch
from farcast.protocol.errors import LocalError
from farcast.tests.unit.origin.mint import FIRST_MS
from farcast.tests.unit.origin.money.months import outcome

CHAINED = {
    "tx": ["no", "id", "kind", "at_ms", "memo", "prev", "hash"],
    "posting": ["tx", "line", "account", "cents"],
    "settlement": ["month", "tx", "as_of_ms", "digest", "statement"],
    "balance": ["account", "cents"],
    "account": ["id", "kind"],
}
CELLS = [(table, column) for table, columns in CHAINED.items() for column in columns]


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return sound books with one of each kind, and no triggers."""
    path = tmp_path_factory.mktemp("sound") / "ledger.db"
    ledger = Ledger(path, "EUR")
    ledger.book_revenue(10_000, FIRST_MS, b"1", memo="Grüße")
    ledger.book(bookings.tip(555, "ann"), FIRST_MS, b"2")
    ledger.refund(2, FIRST_MS)
    ledger.post_settlement(outcome(ledger, served=3_000_000))
    assert ledger.verify_chain() == 5
    ledger.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            conn.execute(f"DROP TRIGGER {name}")
    return path


@given(st.sampled_from(CELLS), st.integers(0, 1_000), st.integers(0, 2**20), st.integers(0, 7))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_changed_byte_is_found(
    tmp_path: Path, books: Path, cell: tuple[str, str], row: int, byte: int, bit: int
) -> None:
    table, column = cell
    path = tmp_path / "changed.db"
    shutil.copy(books, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        count = conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
        keys = {
            "tx": "no",
            "posting": "tx, line",
            "settlement": "month",
            "balance": "account",
            "account": "id",
        }[table]
        at = f"({keys}) = (SELECT {keys} FROM {table} ORDER BY {keys} LIMIT 1 OFFSET {row % count})"  # noqa: S608
        old = conn.execute(f"SELECT {column} FROM {table} WHERE {at}").fetchone()[0]  # noqa: S608
        try:
            conn.execute(f"UPDATE {table} SET {column} = ? WHERE {at}", (changed(old, byte, bit),))  # noqa: S608
        except sqlite3.IntegrityError:
            return  # the schema itself refuses it
    ledger_is_refused(path)


def changed(value: int | str | bytes, byte: int, bit: int) -> int | str | bytes:
    """Return a value with one bit turned."""
    if isinstance(value, int):
        return value ^ (1 << (byte % 5 * 8 + bit))
    data = bytearray(value.encode("latin-1", "replace") if isinstance(value, str) else value)
    data[byte % len(data)] ^= 1 << bit
    return data.decode("latin-1") if isinstance(value, str) else bytes(data)


def ledger_is_refused(path: Path) -> None:
    """Check that opening and checking the books says that they are damaged."""
    with pytest.raises(LocalError):  # noqa: PT012 - either may find it
        ledger = Ledger(path)
        try:
            ledger.verify_chain()
        finally:
            ledger.close()


@pytest.mark.parametrize("table", ["posting", "balance"])
def test_a_missing_row_is_found(tmp_path: Path, books: Path, table: str) -> None:
    path = tmp_path / "short.db"
    shutil.copy(books, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute(f"DELETE FROM {table} WHERE account = 'fees'")  # noqa: S608
    ledger_is_refused(path)


def test_the_watch_tells_metrics_and_a_sentence(tmp_path: Path, books: Path) -> None:
    path = tmp_path / "ledger.db"
    shutil.copy(books, path)
    registry = CollectorRegistry()
    ledger = Ledger(path)
    watch = LedgerWatch(ledger.check, registry)
    watch.look()

    def figures() -> list[float | None]:
        names = ("transactions", "imbalance_cents", "sound")
        return [registry.get_sample_value(f"farcast_origin_ledger_{name}") for name in names]

    assert (watch.trouble, figures()) == ("", [5, 0, 1])
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("UPDATE posting SET cents = cents + 7 WHERE tx = 2 AND line = 0")
        watch.look()
        assert "the ledger is broken: transaction 2 is not what was posted" in watch.trouble
        assert figures() == [5, 14, 0]  # the transaction, and the balance beside its postings
        conn.execute("UPDATE posting SET cents = cents - 7 WHERE tx = 2 AND line = 0")
    watch.look()
    assert (watch.trouble, figures()) == ("", [5, 0, 1])
    ledger.close()


def test_the_watch_says_why_books_do_not_open() -> None:
    def check() -> None:
        raise LocalError("the ledger does not answer", reason="database")

    watch = LedgerWatch(check, CollectorRegistry())
    watch.look()
    assert watch.trouble == "the ledger does not answer"
