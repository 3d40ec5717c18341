"""A made-up month of pulses as columns, written by DuckDB itself: what ``settle`` is measured on.

Half of the accounts watch on any day, under a ticket of about 34 pulses in one or two sessions; one
in 5,000 tickets goes on beyond six hours, one in 50,000 for nineteen. 5 % of the sessions have a gap,
1 % of the pulses came through a second relay as well, 5 % are hours late, and of those some come on the
day after. ``python -m farcast.tests.bench.month ROWS FOLDER`` writes it.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import msgspec

from farcast.origin.pulses.duck import duck, quoted
from farcast.origin.pulses.part import VERSION, Head, Part, read_part
from farcast.protocol.manifest import Manifest, Payee, Window
from farcast.protocol.rules import DAY_MS

MONTH = "2026-11"
FIRST_DAY = 20_758
DAYS = 30
DAY_END_ENTRY = 10_000
EVENING_MS = 36_000_000
"""When the first of an ordinary day begin to watch; the last do ten hours later."""
TITLES, RELAYS, PULSES_PER_TICKET = 200, 50, 34
PUBLISHER = bytes(range(32))
_KINDS = "FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 30720"


def name_of(kind: str, number: int) -> bytes:
    """Return the digest of a title or the key of a relay."""
    digest = sha256(f"{kind} {number}".encode()).digest()
    return digest if kind == "title" else digest[:16]


def manifests() -> dict[bytes, Manifest]:
    """Return the titles, each of three payees out of forty."""
    return {
        name_of("title", number): Manifest(
            1, f"title-{number}", 1, PUBLISHER, f"Title {number}", "", "en", 5_400_000,
            b"\x01\x70\x12\x20" + bytes(32), 2_000_000_000, [], [], Window(0, 0), [],
            [Payee(f"payee-{(number + n) % 40}", points) for n, points in enumerate((5_000, 3_000, 2_000))],
            "open", None, 0, b"",
        )
        for number in range(1, TITLES + 1)
    }  # fmt: skip


def parts(folder: Path) -> list[Part]:
    """Return the parts of a month that ``write_month`` wrote."""
    found = [part for path in sorted(folder.iterdir()) if (part := read_part(path)) is not None]
    return sorted(found, key=lambda part: part.head.first)


def write_month(folder: Path, rows: int) -> None:
    """Write about ``rows`` pulses, a part for each day."""
    accounts = max(50, rows // (PULSES_PER_TICKET * DAYS // 2))
    after = folder / "after.parquet"
    tickets = rows_written = 0
    for day in range(DAYS):
        draft = folder / f"draft-{day}"
        draft.mkdir(parents=True)
        with duck(folder, memory_mib=2_000) as db:
            db.execute(_tickets(day, accounts, tickets))
            found = db.execute("SELECT count(*) FROM tickets").fetchone()
            assert found is not None
            fresh = int(found[0])
            columns = "ticket, tid, account, device, day, bucket, entry"
            db.execute(
                f"COPY (SELECT {columns} FROM tickets ORDER BY bucket, ticket) "
                f"TO {quoted(draft / 'tickets.parquet')} ({_KINDS})"
            )
            db.execute(f"CREATE TABLE pulses AS {_pulses(day)}")
            came = "SELECT * EXCLUDE (arrives) FROM pulses WHERE arrives < 86400000"
            if day:
                came += f" UNION ALL SELECT * FROM {quoted(after)}"
            order = "ORDER BY bucket, ticket, seq, entry"
            db.execute(f"COPY ({came} {order}) TO {quoted(draft / 'pulses.parquet')} ({_KINDS})")
            late = f"""
                SELECT * EXCLUDE (arrives) REPLACE (
                    {(day + 1) * DAY_END_ENTRY} + (arrives - 86400000) // 8640 AS entry
                ) FROM pulses WHERE arrives >= 86400000
            """
            db.execute(f"COPY ({late}) TO {quoted(after)} ({_KINDS})")
            found = db.execute(f"SELECT count(*) FROM {quoted(draft / 'pulses.parquet')}").fetchone()
            assert found is not None
            written = int(found[0])
            db.execute(
                f"""COPY (
                    SELECT {day * DAY_END_ENTRY} + range AS entry,
                        {(FIRST_DAY + day) * DAY_MS}::BIGINT + range * 8640 AS at_ms,
                        '{_segment(day)}' AS segment, range AS start,
                        sha256(range::VARCHAR)[1:32]::BLOB AS leaf
                    FROM range({DAY_END_ENTRY})
                ) TO {quoted(draft / "frames.parquet")} ({_KINDS})"""
            )
        first = day * DAY_END_ENTRY
        head = Head(
            VERSION, first, first + DAY_END_ENTRY, _segment(day), DAY_END_ENTRY, "", written, tickets, fresh,
            0 if day == 0 else TITLES, _names("title", TITLES if day == 0 else 0),
            0 if day == 0 else RELAYS, _names("relay", RELAYS if day == 0 else 0),
            {FIRST_DAY + day: first} | ({FIRST_DAY + day - 1: first} if day else {}),
        )  # fmt: skip
        (draft / "head.json").write_bytes(msgspec.json.encode(head))
        draft.rename(folder / f"{first:012d}-{first + DAY_END_ENTRY:012d}")
        tickets += fresh
        rows_written += written
    after.unlink(missing_ok=True)
    shutil.rmtree(folder / "spill", ignore_errors=True)


def _segment(day: int) -> str:
    """Return the segment that the day's entries end in; there is no log behind this month."""
    return f"{MONTH}-{day + 1:02d}T23.seg"


def _names(kind: str, count: int) -> list[str]:
    return [name_of(kind, number).hex() for number in range(1, count + 1)]


def _tickets(day: int, accounts: int, base: int) -> str:
    """Return the day's tickets: who watches, for how long, from when, with or without a gap."""
    return f"""
        CREATE TABLE tickets AS
        SELECT {base} + row_number() OVER (ORDER BY bucket, account)::INTEGER AS ticket, *
        FROM (
            SELECT unhex(md5('tid' || a || ' {day}')) AS tid, unhex(md5('account' || a)) AS account,
                0 AS device, {FIRST_DAY + day} AS day, (hash(a) % 256)::UTINYINT AS bucket,
                {day * DAY_END_ENTRY}::BIGINT AS entry,
                CASE WHEN h % 50000 = 7 THEN 1150 WHEN h % 5000 = 8 THEN 400
                    ELSE 21 + h % 27 END::INTEGER AS n,
                (h // 64 % 36000000)::INTEGER AS begins, h // 4096 % 2 AS two, h // 8192 % 1000 < 75 AS gap,
                (h // 65536 % 20)::INTEGER AS gap_at, h // 7 % 20 = 0 AS offline, h // 11 AS taste
            FROM (SELECT range AS a, (hash(range, {day}) >> 1)::BIGINT AS h FROM range({accounts}))
            WHERE h % 2 = 1 OR h % 5000 = 8
        )
    """


def _pulses(day: int) -> str:
    """Return the day's rows: a start, then one pulse a minute; a second session after a pause."""
    return f"""
        WITH numbered AS (
            SELECT t.*, unnest(range(1, n + 1))::INTEGER AS seq FROM tickets t
        ), body AS (
            SELECT *, two = 1 AND n < 100 AND seq > n // 2 AS second, (hash(ticket, seq) >> 1)::BIGINT AS r,
                CASE WHEN gap AND seq > 3 + gap_at THEN 1 ELSE 0 END AS shifted
            FROM numbered
        ), pulse AS (
            SELECT bucket, ticket, seq::SMALLINT AS seq, day,
                (begins + CASE WHEN n < 100 THEN {EVENING_MS} ELSE 0 END
                    + (seq - 1) * 60000 + shifted * 400000
                    + CASE WHEN second THEN 10800000 ELSE 0 END)::INTEGER AS at_ms,
                CASE WHEN offline THEN 7200000 + r % 3600000 ELSE 200 + r % 60000 END::BIGINT AS late_ms,
                (seq - 1 - CASE WHEN second THEN 1 ELSE 0 END) * 60000::BIGINT AS cum_ms,
                CASE WHEN seq = 1 OR (second AND seq = n // 2 + 1) THEN 0 ELSE 60000 END::INTEGER AS delta_ms,
                CASE WHEN seq = 1 OR (second AND seq = n // 2 + 1) THEN 1 ELSE 2 END::UTINYINT AS state,
                (1 + ((taste + CASE WHEN second THEN 77 ELSE 0 END) % {TITLES}) * (taste // 512 % {TITLES})
                    // {TITLES})::INTEGER AS manifest,
                (1 + taste % {RELAYS})::INTEGER AS relay, 9000 + r % 2000 AS kbytes, r
            FROM body
        )
        SELECT bucket, ticket, seq, day, at_ms, late_ms + CASE WHEN again = 1 THEN 900 ELSE 0 END AS late_ms,
            at_ms + late_ms AS arrives,
            cum_ms, delta_ms, state, manifest, again::UTINYINT AS kind,
            least({(day + 1) * DAY_END_ENTRY - 1}, {day * DAY_END_ENTRY} + at_ms // 8640 + again * 9)::BIGINT
                AS entry,
            relay AS relay1, kbytes AS kbytes1, NULL::INTEGER AS relay2, NULL::BIGINT AS kbytes2,
            NULL::INTEGER AS relay3, NULL::BIGINT AS kbytes3, NULL::INTEGER AS relay4, NULL::BIGINT AS kbytes4
        FROM (SELECT *, unnest(CASE WHEN r % 100 = 0 THEN [0, 1] ELSE [0] END) AS again FROM pulse)
    """


def main(arguments: Sequence[str]) -> None:
    """Write a month of so many rows into a folder."""
    write_month(Path(arguments[1]), int(arguments[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
