"""Reading a carrier's disk: what lies in its files and rows, and what two messages have in common."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

SAME = 8
"""Bytes: so many alike are no accident."""


def disk_of(folder: Path) -> bytes:
    """Return every byte below a folder, deleted pages and logs included."""
    return b"\0".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def rows_of(folder: Path) -> list[tuple[Any, ...]]:
    """Return every row of every table of the databases below a folder."""
    found: list[tuple[Any, ...]] = []
    for path in folder.rglob("*.db"):
        with closing(sqlite3.connect(path)) as conn:
            tables = conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                found += conn.execute(f'SELECT * FROM "{table}"').fetchall()  # noqa: S608 - its own names
    return found


def windows(parts: Iterable[bytes], own: bytes) -> set[bytes]:
    """Return every run of eight bytes in ``parts`` that holds nothing of the origin's ``own``."""
    pieces = (piece for part in parts for piece in part.split(own))
    return {piece[at : at + SAME] for piece in pieces for at in range(len(piece) - SAME + 1)}


def values(part: bytes) -> set[bytes]:
    """Return the fields of eight bytes or more of an envelope, with no structure around them."""
    whole = msgspec.msgpack.decode(part)
    fields: list[Any] = [*msgspec.msgpack.decode(whole[0]), whole[1]]
    return {field for field in fields if isinstance(field, bytes) and len(field) >= SAME}


def shared(rows: Iterable[tuple[Any, ...]], first: bytes, second: bytes) -> set[bytes | str]:
    """Return the values of eight bytes or more in rows of one ticket that rows of the other have too."""
    mine = [{v for v in row if isinstance(v, bytes | str) and len(v) >= SAME} for row in rows]
    one, two = ([found for found in mine if tid in found] for tid in (first, second))
    assert one
    assert two
    return set[bytes | str]().union(*one) & set[bytes | str]().union(*two)
