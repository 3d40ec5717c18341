"""The tables of ``spool.db``."""

from __future__ import annotations

import sqlite_utils

MIGRATIONS = sqlite_utils.Migrations("spool")


@MIGRATIONS(name="0001_pulses")
def _pulses(db: sqlite_utils.Database) -> None:
    # made_ms and delta_ms are read from the pulse; batch is the number of the open batch it is in
    db.table("ticket").create({"hash": bytes, "tid": bytes, "data": bytes}, pk="hash", strict=True)
    db.table("ticket").create_index(["tid"])
    db.table("pulse").create(
        {
            "tid": bytes,
            "seq": int,
            "hash": bytes,
            "pulse": bytes,
            "ticket": bytes,
            "seen_ms": int,
            "made_ms": int,
            "delta_ms": int,
            "own": int,
            "batch": int,
        },
        pk=("tid", "seq", "hash"),
        strict=True,
    )
    db.table("pulse").create_index(["seen_ms", "tid", "seq"])
    db.conn.execute(
        "CREATE INDEX pulse_unbatched ON pulse(seen_ms, tid, seq) WHERE own = 0 AND batch IS NULL"
    )
    db.conn.execute("CREATE INDEX pulse_batched ON pulse(batch) WHERE batch IS NOT NULL")
    db.create_view(
        "spooled",
        "SELECT pulse.tid, seq, pulse.hash, pulse, ticket.data AS ticket, seen_ms, own, batch "
        "FROM pulse JOIN ticket ON pulse.ticket = ticket.hash",
    )
    db.table("handed").create(
        {"tid": bytes, "seq": int, "peer": str, "at_ms": int}, pk=("tid", "seq", "peer"), strict=True
    )


@MIGRATIONS(name="0002_answers")
def _answers(db: sqlite_utils.Database) -> None:
    # an ack's envelope covers many tids and is stored once; open is 1 until the batch is acked
    db.table("envelope").create({"hash": bytes, "data": bytes}, pk="hash", strict=True)
    db.table("ack").create(
        {"tid": bytes, "at_ms": int, "envelope": bytes, "body": bytes}, pk="tid", strict=True
    )
    db.table("ack").create_index(["at_ms"])
    db.table("ack").create_index(["envelope"])
    db.table("batch").create(
        {"number": int, "hash": bytes, "data": bytes, "at_ms": int, "open": int}, pk="number", strict=True
    )
    db.table("batch").create_index(["hash"], unique=True)
    db.table("receipt").create({"hash": bytes, "data": bytes, "at_ms": int}, pk="hash", strict=True)
    db.table("receipt").create_index(["at_ms"])
    db.table("beacon").create({"number": int, "data": bytes}, pk="number", strict=True)


@MIGRATIONS(name="0003_sent")
def _sent(db: sqlite_utils.Database) -> None:
    # this box's own pulses, for its viewer to read: they stay a while after an ack took them out of pulse
    db.table("sent").create(
        {
            "tid": bytes,
            "seq": int,
            "pulse": bytes,
            "made_ms": int,
            "way": str,
            "left_ms": int,
            "acked_ms": int,
            "code": str,
        },
        pk=("tid", "seq"),
        strict=True,
    )
    db.table("sent").create_index(["made_ms"])
    db.conn.execute(
        "INSERT INTO sent SELECT tid, seq, min(pulse), made_ms, '', 0, 0, '' FROM pulse WHERE own = 1 "
        "GROUP BY tid, seq"
    )


@MIGRATIONS(name="0004_carried")
def _carried(db: sqlite_utils.Database) -> None:
    # beacons live in the catalog replica, and no receipt was ever kept
    for name in ("beacon", "receipt"):
        db.conn.execute(f"DROP TABLE IF EXISTS {name}")
    db.table("receipt").create({"hash": bytes, "data": bytes, "at_ms": int}, pk="hash", strict=True)
    db.table("receipt").create_index(["at_ms"])
    db.table("promised").create(
        {"tid": bytes, "seq": int, "receipt": bytes}, pk=("tid", "seq", "receipt"), strict=True
    )
    db.table("promised").create_index(["receipt"])
    # an ack says something of many tickets: its envelope is stored once
    db.table("proof_envelope").create({"hash": bytes, "data": bytes}, pk="hash", strict=True)
    db.table("proof").create(
        {"tid": bytes, "stored": int, "refused": int, "at_ms": int, "envelope": bytes}, pk="tid", strict=True
    )
    db.table("proof").create_index(["envelope"])
    db.table("carried").create(
        {"hash": bytes, "carrier": bytes, "data": bytes, "at_ms": int}, pk="hash", strict=True
    )
    db.table("carried").create_index(["at_ms"])
    db.table("carried").create_index(["carrier"])


@MIGRATIONS(name="0005_seals")
def _seals(db: sqlite_utils.Database) -> None:
    # judged_ms is when a verdict covered an own pulse, cuts the codes of what of it does not count
    db.table("sent").add_column("judged_ms", int, not_null_default=0)
    db.table("sent").add_column("cuts", str, not_null_default="")
    db.table("seal").create(
        {
            "hash": bytes,
            "tid": bytes,
            "data": bytes,
            "heard_ms": int,
            "begun_ms": int,
            "claimed_ms": int,
            "counted_ms": int,
            "codes": str,
        },
        pk="hash",
        strict=True,
    )
    db.table("seal").create_index(["heard_ms"])
