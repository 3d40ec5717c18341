"""Evidence: what is really on the disks of a system's boxes, read from outside and from every side.

Which pulses exist says the wallet of the node that signed them; which were promised say triggers in
the spools of those who promised; which are stored says the origin's intake log, and which of them the
node knows to be stored, the acks it keeps.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry

from farcast.node.blocks.store import DiskStore
from farcast.origin.pulses.admission import STORED, copies, open_frame
from farcast.origin.pulses.segments import read_segments
from farcast.protocol.batch import TidAck, covers
from farcast.protocol.cid import Cid
from farcast.protocol.codec import decode
from farcast.protocol.errors import RemoteError

Key = tuple[bytes, int]
"""A pulse: its ticket's id and its number."""

BUSY_TIMEOUT_S = 10.0
QUOTA_BYTES = 1 << 40
_TRIGGERS = """
CREATE TABLE IF NOT EXISTS soak_taken(tid BLOB, seq INTEGER);
CREATE TABLE IF NOT EXISTS soak_promised(tid BLOB, seq INTEGER);
CREATE TRIGGER IF NOT EXISTS soak_taken AFTER INSERT ON pulse WHEN NEW.own = 0
BEGIN INSERT INTO soak_taken VALUES (NEW.tid, NEW.seq); END;
CREATE TRIGGER IF NOT EXISTS soak_promised AFTER INSERT ON handed
BEGIN INSERT INTO soak_promised VALUES (NEW.tid, NEW.seq); END;
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """What the intake log holds: how often each pulse was stored, its milliseconds, and its bodies."""

    times: Counter[Key] = field(default_factory=Counter[Key])
    copies: Counter[Key] = field(default_factory=Counter[Key])
    delta_ms: dict[Key, int] = field(default_factory=dict[Key, int])
    bodies: dict[Key, set[bytes]] = field(default_factory=dict[Key, set[bytes]])
    frames: int = 0


def watch_promises(home: Path) -> None:
    """Have a box's spool note every pulse it takes for another, and every promise it is given.

    A row is written in the very transaction that takes the pulse or notes the promise, so no kill
    can part them.
    """
    with closing(sqlite3.connect(home / "spool.db", timeout=BUSY_TIMEOUT_S)) as conn:
        conn.executescript(_TRIGGERS)


def signed(home: Path) -> set[Key]:
    """Return every pulse that this node ever signed, from its wallet's counters."""
    with _reading(home / "wallet.db") as conn:
        rows = conn.execute("SELECT tid, seq FROM day WHERE seq > 0").fetchall()
    return {(tid, number) for tid, seq in rows for number in range(1, seq + 1)}


def taken(home: Path) -> set[Key]:
    """Return every pulse this box ever took for others: all that its receipts can name."""
    return _noted(home, "soak_taken")


def promised(home: Path) -> set[Key]:
    """Return every pulse for which this box was ever given a receipt by a relay."""
    return _noted(home, "soak_promised")


def waiting(home: Path) -> int:
    """Return how many pulses this box still holds without an ack."""
    with _reading(home / "spool.db") as conn:
        return int(conn.execute("SELECT count(*) FROM pulse").fetchone()[0])


def acked(home: Path, keys: Iterable[Key]) -> set[Key]:
    """Return those of ``keys`` that the newest acks in this box's hands cover."""
    with _reading(home / "spool.db") as conn:
        acks = {tid: decode(TidAck, body) for tid, body in conn.execute("SELECT tid, body FROM ack")}
    return {key for key in keys if key[0] in acks and covers(acks[key[0]], key[1])}


def stored(home: Path) -> Stored:
    """Read the intake log of the origin in ``home``, running or not."""
    found, frames = Stored(), 0
    for payload in read_segments(home / "intake" / "seg"):
        frames += 1
        for copy in copies(open_frame(payload)):
            key = (copy.pulse.tid, copy.pulse.seq)
            found.times[key] += copy.verdict == STORED
            found.copies[key] += 1
            found.delta_ms[key] = copy.pulse.delta_ms
            found.bodies.setdefault(key, set()).add(copy.name)
    return Stored(found.times, found.copies, found.delta_ms, found.bodies, frames)


def torn_blocks(home: Path) -> list[str]:
    """Return the block files of a box, running or not, that are not what their names say."""
    torn: list[str] = []
    for path in (home / "blocks").glob("??/*"):
        try:
            cid, data = Cid.parse(path.name), path.read_bytes()
        except RemoteError:
            torn.append(f"{path}: no block's name")
        except FileNotFoundError:
            continue  # evicted while we looked
        else:
            if not cid.matches(data):
                torn.append(f"{path}: {len(data)} bytes of something else")
    return torn


def store_faults(home: Path) -> list[str]:
    """Open the store of a box that has ended, as its next start would, and say what is wrong in it."""
    store = DiskStore(home, QUOTA_BYTES, CollectorRegistry())
    try:
        held = store.cids()
        faults = [f"{home.name}: block {cid} is damaged" for cid in held if not store.check(cid)]
        stray = {path.name for path in store.folder.glob("??/*")} - {str(cid) for cid in held}
        return faults + [f"{home.name}: {name} is a file no index row names" for name in sorted(stray)]
    finally:
        store.close()


def database_faults(home: Path) -> list[str]:
    """Have SQLite check every database of a box that has ended."""
    faults: list[str] = []
    for path in sorted(home.glob("*.db")):
        with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)) as conn:
            rows = conn.execute("PRAGMA integrity_check").fetchall()
        if rows != [("ok",)]:
            faults.append(f"{path}: {rows[0][0]}")
    return faults


def _noted(home: Path, table: str) -> set[Key]:
    with _reading(home / "spool.db") as conn:
        return set(conn.execute(f"SELECT tid, seq FROM {table}"))  # noqa: S608 - one of two names above


@contextmanager
def _reading(path: Path) -> Generator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S)) as conn:
        yield conn
