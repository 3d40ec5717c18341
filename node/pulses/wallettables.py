"""The tables of ``wallet.db``."""

from __future__ import annotations

import sqlite_utils

MIGRATIONS = sqlite_utils.Migrations("wallet")


@MIGRATIONS(name="0001_days")
def _days(db: sqlite_utils.Database) -> None:
    """``seed`` is empty once the day is over; ``pulse`` is the newest signed under its ticket."""
    db.table("day").create(
        {
            "day": int,
            "seed": bytes,
            "tid": bytes,
            "ticket": bytes,
            "key": bytes,
            "seq": int,
            "cum_ms": int,
            "prev": bytes,
            "pulse": bytes,
            "spooled": int,
        },
        pk="day",
        not_null={"seed", "seq", "cum_ms", "prev", "spooled"},
        defaults={"seq": 0, "cum_ms": 0, "prev": b"", "spooled": 1},
    )


@MIGRATIONS(name="0002_content_keys")
def _content_keys(db: sqlite_utils.Database) -> None:
    """Keys of protected titles; times in ms since 1970."""
    db.table("content_key").create(
        {"id": bytes, "key": bytes, "granted_ms": int, "until_ms": int},
        pk="id",
        not_null={"key", "granted_ms", "until_ms"},
        strict=True,
    )


@MIGRATIONS(name="0003_ended")
def _ended(db: sqlite_utils.Database) -> None:
    """A row where the account was revoked: the first day whose tickets were thrown away."""
    db.table("ended").create({"day": int}, pk="day", strict=True)
