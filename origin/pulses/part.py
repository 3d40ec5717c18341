"""A part of the columns: entries of the intake log that follow one another, as Parquet in one folder.

``pulses`` has a row for every stored copy of a pulse, sorted by bucket, ticket and number, so that a
bucket is read alone; accounts, tickets, titles and relays are small integers there, numbered in the
order in which the log names them. ``tickets`` and the head say what the new numbers mean, ``frames``
where each entry lies. The folder appears whole or not at all.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ...protocol.errors import LocalError
from ...protocol.ticket import TicketOffice
from .duck import duck, parquet, quoted
from .rows import DOUBTFUL, Names, Rows
from .segments import Entry, Place

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

VERSION = 2
NEVER = 2**62
"""An entry that no log ever has."""
_ROW_GROUP = 30_720

_PULSES = {
    "met": "INTEGER", "seq": "SMALLINT", "at_ms": "BIGINT", "received_ms": "BIGINT", "cum_ms": "BIGINT",
    "delta_ms": "INTEGER", "state": "UTINYINT", "manifest": "INTEGER", "kind": "UTINYINT", "entry": "BIGINT",
    "relay1": "INTEGER", "kbytes1": "BIGINT", "relay2": "INTEGER", "kbytes2": "BIGINT",
    "relay3": "INTEGER", "kbytes3": "BIGINT", "relay4": "INTEGER", "kbytes4": "BIGINT",
}  # fmt: skip
_MET = {
    "met": "INTEGER", "tid": "VARCHAR", "account": "VARCHAR", "device": "INTEGER", "day": "INTEGER",
    "bucket": "UTINYINT", "entry": "BIGINT", "session": "VARCHAR",
}  # fmt: skip
_FRAMES = {"entry": "BIGINT", "at_ms": "BIGINT", "segment": "VARCHAR", "start": "BIGINT", "leaf": "VARCHAR"}


class Head(msgspec.Struct, frozen=True):
    """What a part covers: entries ``first`` to before ``end``, the last at ``segment`` and ``offset``.

    ``chain`` ties it to this very log; ``tickets``, ``titles`` and ``relays`` are how many numbers
    were given before, the lists (hex) what this part added; ``days`` maps ticket days to the first
    entry with a pulse of theirs, ``NEVER`` where all it holds of a day is doubtful.
    """

    v: int
    first: int
    end: int
    segment: str
    offset: int
    chain: str
    rows: int
    tickets: int
    new_tickets: int
    titles: int
    new_titles: list[str]
    relays: int
    new_relays: list[str]
    days: dict[int, int]


class Part(NamedTuple):
    """A part on disk."""

    folder: Path
    head: Head

    @property
    def pulses(self) -> Path:
        """One row per stored copy of a pulse."""
        return self.folder / "pulses.parquet"

    @property
    def tickets(self) -> Path:
        """One row per ticket that this part brought."""
        return self.folder / "tickets.parquet"

    @property
    def frames(self) -> Path:
        """One row per entry of the log."""
        return self.folder / "frames.parquet"

    @property
    def date(self) -> str:
        """The UTC date of its last entry."""
        return self.head.segment[:10]

    @property
    def place(self) -> Place:
        """Where its last entry lies in the log."""
        return Place(self.head.segment, self.head.offset)


def read_part(folder: Path) -> Part | None:
    """Open a part; None for a folder that is none, or of another version."""
    try:
        head = msgspec.json.decode((folder / "head.json").read_bytes(), type=Head)
    except (OSError, msgspec.MsgspecError):
        return None
    return Part(folder, head) if head.v == VERSION else None


def write_part(
    root: Path,
    before: Sequence[Part],
    entries: Iterable[Entry],
    office: TicketOffice,
    names: Names,
) -> Part:
    """Write ``entries``, which follow the parts ``before``, into a folder of ``root``.

    Raises:
        LocalError: where the disk refuses, or the log names a ticket it never brought.

    """
    names.next_part()
    draft = _draft(root)
    titles, relays = len(names.titles), len(names.relays)
    reader = Rows(draft, before[-1].head.end if before else 0, office, names)
    try:
        reader.read(entries, [part.tickets for part in before], root)
        base = before[-1].head.tickets + before[-1].head.new_tickets if before else 0
        with duck(root) as db:
            rows, fresh, days = _write_tables(db, draft, [part.tickets for part in before], base)
        head = Head(
            VERSION, reader.first, reader.end, reader.place.segment, reader.place.offset, reader.chain.hex(),
            rows, base, fresh, titles, [name.hex() for name in names.titles[titles:]], relays,
            [name.hex() for name in names.relays[relays:]], days,
        )  # fmt: skip
        return _publish(draft, root / _range_name(head), head)
    except OSError as error:
        message = f"the columns in {root} cannot be written: {error.strerror}"
        raise LocalError(message, reason="columns") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def merge_parts(root: Path, parts: Sequence[Part]) -> Part:
    """Write several parts that follow one another as one, and delete them."""
    draft = _draft(root)
    heads = [part.head for part in parts]
    first, last = heads[0], heads[-1]
    try:
        with duck(root) as db:
            for file, order in (
                ("pulses.parquet", "bucket, ticket, seq, entry"),
                ("tickets.parquet", "bucket, ticket"),
                ("frames.parquet", "entry"),
            ):
                table = parquet(part.folder / file for part in parts)
                _copy(db, f"SELECT * FROM {table} ORDER BY {order}", draft / file)
        days: dict[int, int] = {}
        for head in heads:
            for day, entry in head.days.items():
                days[day] = min(entry, days.get(day, NEVER))
        merged = msgspec.structs.replace(
            last,
            first=first.first,
            rows=sum(head.rows for head in heads),
            tickets=first.tickets,
            new_tickets=sum(head.new_tickets for head in heads),
            titles=first.titles,
            new_titles=[name for head in heads for name in head.new_titles],
            relays=first.relays,
            new_relays=[name for head in heads for name in head.new_relays],
            days=days,
        )
        part = _publish(draft, root / _range_name(merged), merged)
    except OSError as error:
        message = f"the columns in {root} cannot be written: {error.strerror}"
        raise LocalError(message, reason="columns") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    for old in parts:
        shutil.rmtree(old.folder, ignore_errors=True)
    return part


def add_table(db: DuckDBPyConnection, query: str, path: Path) -> None:
    """Add a table to a part that is there already, whole or not at all.

    Raises:
        LocalError: where the disk refuses.

    """
    draft = path.with_suffix(".draft")
    try:
        _copy(db, query, draft)
        draft.chmod(0o600)
        _sync(draft)
        draft.rename(path)
        _sync(path.parent)
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}"
        raise LocalError(message, reason="columns") from error


def _write_tables(
    db: DuckDBPyConnection, draft: Path, earlier: list[Path], base: int
) -> tuple[int, int, dict[int, int]]:
    """Number the tickets and write the tables; returns rows, new tickets, and each day's first entry."""
    db.execute(
        f"CREATE TABLE met AS SELECT * REPLACE (unhex(tid) AS tid) FROM {_csv(draft / 'met.csv', _MET)}"
    )
    known = (
        parquet(earlier)
        if earlier
        else "(SELECT NULL::BLOB AS tid, 0 AS ticket, 0 AS day, 0 AS bucket WHERE false)"
    )
    db.execute(
        f"""
        CREATE TABLE numbered AS
        SELECT met, tid, account, device, entry, session, day, bucket, ticket IS NULL AS fresh,
            coalesce(ticket, {base} + row_number() OVER (PARTITION BY ticket IS NULL ORDER BY met))::INTEGER
                AS ticket
        FROM (
            SELECT m.met, m.tid, m.account, m.device, m.entry, m.session, k.ticket,
                coalesce(k.day, m.day)::INTEGER AS day, coalesce(k.bucket, m.bucket)::UTINYINT AS bucket
            FROM met m
            LEFT JOIN (SELECT tid, ticket, day, bucket FROM {known} SEMI JOIN met USING (tid)) k USING (tid)
        )
        """
    )
    strays, fresh = _row(db, "SELECT count(*) FILTER (day IS NULL), count(*) FILTER (fresh) FROM numbered")
    if strays:
        message = (
            "the intake log holds pulses of tickets it never brought; "
            "bring it back with `farcast origin restore`"
        )
        raise LocalError(message, reason="damaged")
    _copy(
        db,
        """
        SELECT ticket, tid, unhex(account) AS account, device, day, bucket, entry, unhex(session) AS session
        FROM numbered
        WHERE fresh ORDER BY bucket, ticket
        """,
        draft / "tickets.parquet",
    )
    _copy(
        db,
        f"""
        SELECT bucket, ticket, seq, day, (at_ms - day::BIGINT * 86400000)::INTEGER AS at_ms,
            received_ms - at_ms AS late_ms,
            cum_ms, delta_ms, state, manifest, kind, p.entry,
            relay1, kbytes1, relay2, kbytes2, relay3, kbytes3, relay4, kbytes4
        FROM {_csv(draft / "pulses.csv", _PULSES)} p JOIN numbered USING (met)
        ORDER BY bucket, ticket, seq, p.entry
        """,
        draft / "pulses.parquet",
    )
    frames = (
        f"SELECT * REPLACE (unhex(leaf) AS leaf) FROM {_csv(draft / 'frames.csv', _FRAMES)} ORDER BY entry"
    )
    _copy(db, frames, draft / "frames.parquet")
    for file in ("met.csv", "pulses.csv", "frames.csv"):
        (draft / file).unlink()
    pulses = parquet([draft / "pulses.parquet"])
    (rows,) = _row(db, f"SELECT count(*) FROM {pulses}")
    sure = f"coalesce(min(entry) FILTER (kind <> {DOUBTFUL}), {NEVER})"
    first = f"SELECT day, {sure} FROM {pulses} GROUP BY day ORDER BY day"
    days = db.execute(first).fetchall()
    return rows, fresh, {int(day): int(entry) for day, entry in days}


def _csv(path: Path, columns: dict[str, str]) -> str:
    types = ", ".join(f"'{name}': '{kind}'" for name, kind in columns.items())
    options = f"auto_detect=false, header=false, delim=',', nullstr='', columns={{{types}}}"
    return f"read_csv({quoted(path)}, {options})"


def _copy(db: DuckDBPyConnection, query: str, path: Path) -> None:
    options = f"FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {_ROW_GROUP}"
    db.execute(f"COPY ({query}) TO {quoted(path)} ({options})")


def _row(db: DuckDBPyConnection, query: str) -> tuple[int, ...]:
    found = db.execute(query).fetchone()
    assert found is not None
    return tuple(int(value) for value in found)


def _draft(root: Path) -> Path:
    draft = root / f"draft-{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700, parents=True)
    return draft


def _range_name(head: Head) -> str:
    return f"{head.first:012d}-{head.end:012d}"


def _publish(draft: Path, target: Path, head: Head) -> Part:
    """Make a part durable, then visible."""
    (draft / "head.json").write_bytes(msgspec.json.encode(head))
    for file in draft.iterdir():
        file.chmod(0o600)  # DuckDB makes them for everybody
        _sync(file)
    _sync(draft)
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    _sync(target.parent)
    return Part(target, head)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
