"""Small months to post, and hands that change the books behind the ledger's back."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from farcast.origin.money.credit import Credit, Fact
from farcast.origin.money.database import Place
from farcast.origin.money.ledger import Ledger
from farcast.origin.money.settlement import Log, Outcome, settle
from farcast.origin.money.viewing import sum_up
from farcast.protocol.rules import Rules
from farcast.tests.unit.origin.mint import CLOSE_MS, FIRST_DAY, MONTH, RELAY, Shelf, account

SHELF = Shelf()
FILM = SHELF.add("film", {"ann": 5_000, "bob": 5_000}, size_bytes=10**10)


def outcome(
    ledger: Ledger, month: str = MONTH, as_of_ms: int = CLOSE_MS, ms: int = 60_000, served: int = 0
) -> Outcome:
    """Return a month in which one account watched for ``ms``, and one relay served so many kilobytes."""
    tier = ((RELAY.key[:16], served),) if served else ()
    item = Fact(account(1), 0, account(1), FIRST_DAY, 1, b"n", 0, 0, 0, ms, 2, FILM, tier, "")
    viewing = sum_up([Credit(item, ms, ())] if ms else [], [], [], [], SHELF.manifests, Rules())
    log = Log(1, bytes(32), bytes(32))
    books = ledger.books(month, as_of_ms)
    relays = {RELAY.key[:16]: RELAY.key}
    return settle(month, as_of_ms, viewing, SHELF.manifests, books, relays, log, Rules())


def behind_its_back(place: Place, statement: str) -> None:
    """Run a statement on the database itself."""
    if isinstance(place, Path):
        with closing(sqlite3.connect(place, isolation_level=None)) as conn:
            conn.execute("PRAGMA foreign_keys = ON")
            conn.execute(statement)
        return
    import psycopg

    with psycopg.connect(place, autocommit=True) as server:
        server.execute(statement)  # pyright: ignore[reportArgumentType, reportCallIssue]


def without_guards(place: Place) -> None:
    """Take the triggers away, as only somebody with the database's key can."""
    for table in ("tx", "posting", "settlement", "account"):
        if isinstance(place, Path):
            for verb in ("update", "delete"):
                behind_its_back(place, f"DROP TRIGGER {table}_no_{verb}")
        else:
            behind_its_back(place, f"ALTER TABLE {table} DISABLE TRIGGER ALL")
