"""The tables of ``index.db``."""

from __future__ import annotations

import sqlite_utils

MIGRATIONS = sqlite_utils.Migrations("store")


@MIGRATIONS(name="0001_blocks")
def _blocks(db: sqlite_utils.Database) -> None:
    # last_used is a counter, not a clock: order is all that eviction asks for
    db.table("block").create(
        {"cid": bytes, "size": int, "last_used": int, "pins": int, "tier": int, "state": int},
        pk="cid",
        not_null={"size", "last_used", "pins", "tier", "state"},
        strict=True,
    )
    db.conn.execute("CREATE INDEX block_coldest ON block(last_used) WHERE pins = 0 AND state < 2")
    db.conn.execute("CREATE INDEX block_pinned ON block(size) WHERE pins > 0 AND state < 2")
    db.conn.execute("CREATE INDEX block_unsettled ON block(state) WHERE state <> 1")
    db.table("pin").create({"label": str, "cid": bytes}, pk=("label", "cid"), strict=True)
    db.table("pin").create_index(["cid"])
    db.table("brought").create({"tier": int, "blocks": int, "bytes": int}, pk="tier", strict=True)


@MIGRATIONS(name="0002_queues")
def _queues(db: sqlite_utils.Database) -> None:
    # what an older store held begins in the main queue (1), in the order of its last uses
    for statement in (
        "DROP INDEX block_coldest",
        "DROP INDEX block_pinned",
        "ALTER TABLE block RENAME COLUMN last_used TO turn",
        "ALTER TABLE block ADD COLUMN queue INTEGER NOT NULL DEFAULT 1",
        "ALTER TABLE block ADD COLUMN frequency INTEGER NOT NULL DEFAULT 0",
    ):
        db.conn.execute(statement)
    db.table("ghost").create({"turn": int, "cid": bytes, "size": int}, pk="turn", strict=True)
    db.table("note").create({"name": str, "value": int}, pk="name", not_null={"value"}, strict=True)
