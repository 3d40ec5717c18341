"""The tables of ``accounts.db``."""

from __future__ import annotations

import sqlite_utils

from ..protocol.ticket import DAY_MS

MIGRATIONS = sqlite_utils.Migrations("accounts")


@MIGRATIONS(name="0001_accounts")
def _accounts(db: sqlite_utils.Database) -> None:
    """``revoked_day`` is the first UTC day without tickets; days count since 1970."""
    db.table("account").create(
        {"pseudonym": bytes, "name": str, "created_ms": int, "revoked_day": int},
        pk="pseudonym",
        not_null={"created_ms"},
        strict=True,
    )
    db.table("account").create_index(["name"], unique=True)
    db.table("device").create(
        {"key": bytes, "account": bytes, "number": int, "enrolled_ms": int},
        pk="key",
        foreign_keys=[("account", "account", "pseudonym")],
        not_null={"account", "number", "enrolled_ms"},
        strict=True,
    )
    db.table("device").create_index(["account", "number"], unique=True)
    db.table("invite").create(
        {
            "hash": bytes,
            "kind": str,
            "account": bytes,
            "created_ms": int,
            "expires_ms": int,
            "used_by": bytes,
        },
        pk="hash",
        not_null={"kind", "created_ms", "expires_ms"},
        strict=True,
    )
    db.table("payee").create(
        {"id": str, "name": str, "method": str, "added_ms": int},
        pk="id",
        not_null={"name", "method", "added_ms"},
        strict=True,
    )
    db.table("relay").create(
        {"key": bytes, "record": bytes, "standing": str, "payee": str, "enrolled_ms": int, "created_ms": int},
        pk="key",
        not_null={"record", "standing", "payee", "enrolled_ms", "created_ms"},
        strict=True,
    )


@MIGRATIONS(name="0002_relay_wishes")
def _relay_wishes(db: sqlite_utils.Database) -> None:
    """``reason``: why a relay was refused; ``faults``: what dialling it back found, as encoded messages."""
    relay = db.table("relay")
    relay.add_column("wish", str, not_null_default="listed")
    relay.add_column("reason", str, not_null_default="")
    relay.add_column("faults", bytes, not_null_default=b"")
    relay.add_column("dialled_ms", int, not_null_default=0)


@MIGRATIONS(name="0003_relay_keys")
def _relay_keys(db: sqlite_utils.Database) -> None:
    """``key`` is a relay's first key, ``used`` the one it has now; former ones are in ``relay_key``."""
    db.table("relay").add_column("used", bytes, not_null_default=b"")
    db.conn.execute("UPDATE relay SET used = key")
    db.conn.execute("CREATE UNIQUE INDEX relay_used ON relay(used)")
    db.table("relay_key").create(
        {"key": bytes, "relay": bytes, "until_ms": int},
        pk="key",
        not_null={"relay", "until_ms"},
        strict=True,
    )


@MIGRATIONS(name="0004_payee_terms")
def _payee_terms(db: sqlite_utils.Database) -> None:
    """Where payees are paid, known to this file alone; ``points`` NULL: their region's rate."""
    db.table("payee_terms").create(
        {
            "payee": str,
            "region": str,
            "iban": str,
            "bic": str,
            "account": str,
            "points": int,
            "blocked": str,
        },
        pk="payee",
        foreign_keys=[("payee", "payee", "id")],
        not_null={"region", "iban", "bic", "account", "blocked"},
        strict=True,
    )


@MIGRATIONS(name="0005_payee_keys")
def _payee_keys(db: sqlite_utils.Database) -> None:
    """Which boxes may ask what a payee earns."""
    db.table("payee_key").create(
        {"key": bytes, "payee": str},
        pk="key",
        not_null={"payee"},
        strict=True,
    )


@MIGRATIONS(name="0006_revoked_ms")
def _revoked_ms(db: sqlite_utils.Database) -> None:
    """The moment an account ended, ms since 1970; of older revocations the day is known alone."""
    db.table("account").add_column("revoked_ms", int)
    db.conn.execute("UPDATE account SET revoked_ms = revoked_day * ?", (DAY_MS,))
    db.conn.execute("ALTER TABLE account DROP COLUMN revoked_day")
