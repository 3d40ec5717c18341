"""Holds: money of flagged accounts in escrow, appealed against, released or denied; each step a record.

A hold is made with its settlement, in the same transaction, and never changes what that month says.
``release`` moves it from ``held:<payee>`` to ``payable:<payee>``; ``deny`` moves it to a carry-over
of its own, which no settlement shares out. Nothing is forfeited by itself: after its window a hold
waits until somebody decides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Literal, NamedTuple

from ...protocol.errors import UsageError
from .bookings import payable
from .database import Row, Schema, Step, Value
from .flags import Hold
from .ledger import Ledger
from .transaction import Posting, Transaction

DENIED = "carried:denied"
MAX_NOTE = 1_000
SCHEMA = Schema(
    "holds",
    (
        Step(
            "0001_holds",
            (
                """CREATE TABLE hold (
                     id TEXT NOT NULL PRIMARY KEY, month TEXT NOT NULL, account BLOB NOT NULL,
                     rule TEXT NOT NULL, evidence TEXT NOT NULL, held_ms INTEGER NOT NULL,
                     until_ms INTEGER NOT NULL) STRICT""",
                "CREATE INDEX hold_month ON hold(month)",
                """CREATE TABLE hold_part (
                     hold TEXT NOT NULL REFERENCES hold(id), payee TEXT NOT NULL, cents INTEGER NOT NULL,
                     PRIMARY KEY (hold, payee)) STRICT""",
                """CREATE TABLE hold_step (
                     hold TEXT NOT NULL REFERENCES hold(id), kind TEXT NOT NULL, at_ms INTEGER NOT NULL,
                     note TEXT NOT NULL, PRIMARY KEY (hold, kind)) STRICT""",
            ),
            append_only=("hold", "hold_part", "hold_step"),
        ),
    ),
)

State = Literal["held", "appealed", "released", "denied"]
_ID_CHARS = 16
_UNDECIDED = """
    SELECT until_ms, (SELECT count(*) FROM hold_step WHERE hold = id AND kind = 'appealed'),
           (SELECT sum(cents) FROM hold_part WHERE hold = id)
    FROM hold WHERE NOT EXISTS (
        SELECT 1 FROM hold_step WHERE hold = id AND kind IN ('released', 'denied'))"""


class Held(NamedTuple):
    """One hold as it stands; ``until_ms`` ends the appeal window, ``note`` is the appeal's words."""

    id: str
    month: str
    account: bytes
    rule: str
    evidence: Mapping[str, int]
    cents: Mapping[str, int]
    held_ms: int
    until_ms: int
    state: State
    note: str
    decided_ms: int | None

    def json(self) -> dict[str, Any]:
        """Return the hold as commands print it."""
        return {
            "id": self.id,
            "month": self.month,
            "account": self.account.hex(),
            "rule": self.rule,
            "evidence": dict(self.evidence),
            "cents": sum(self.cents.values()),
            "payees": [{"payee": payee, "cents": cents} for payee, cents in self.cents.items()],
            "held_at": _time(self.held_ms),
            "appeal_until": _time(self.until_ms),
            "state": self.state,
            "note": self.note,
            "decided_at": None if self.decided_ms is None else _time(self.decided_ms),
        }


class Waiting(NamedTuple):
    """How many holds nobody has decided, the appealed and the expired ones among them, and their cents."""

    holds: int
    appealed: int
    expired: int
    cents: int


def hold_id(month: str, account: bytes) -> str:
    """Return the name of an account's hold of a month."""
    return sha256(b"hold\0" + month.encode() + b"\0" + account).hexdigest()[:_ID_CHARS]


class Holds:
    """The holds of one origin, in its ledger; every method blocks, and doing a thing twice does it once."""

    def __init__(self, ledger: Ledger) -> None:
        """Open or make the tables."""
        self._ledger = ledger
        ledger.prepare(SCHEMA)

    def list(self, month: str | None = None) -> list[Held]:
        """Return the holds, of one month or all, the newest month first."""
        with self._ledger.reading() as tx:
            return _read(tx, "WHERE month = ?" if month else "", (month,) if month else ())

    def waiting(self, now_ms: int) -> Waiting:
        """Say how much waits for somebody to decide."""
        with self._ledger.reading() as tx:
            rows = tx.execute(_UNDECIDED).fetchall()
        return Waiting(
            len(rows),
            sum(appealed for _, appealed, _ in rows),
            sum(not appealed and now_ms >= until_ms for until_ms, appealed, _ in rows),
            sum(int(cents) for _, _, cents in rows),
        )

    def appeal(self, name: str, note: str, now_ms: int) -> Held:
        """Note what is said against a hold.

        Raises:
            UsageError: without words, after its window, where it is decided or another appeal stands.

        """
        if not note.strip() or len(note) > MAX_NOTE or "\0" in note:
            raise UsageError(f"--note says in 1 to {MAX_NOTE} characters why the money should be released")
        with self._ledger.transaction() as tx:
            hold = _find(tx, name)
            if hold.state == "appealed" and hold.note == note:
                return hold
            if hold.state != "held":
                raise UsageError(f"hold {hold.id} is {hold.state} already", reason=hold.state)
            if now_ms >= hold.until_ms:
                message = (
                    f"the appeal window of hold {hold.id} is over; `farcast origin holds release` decides"
                )
                raise UsageError(message, reason="too_late")
            return _step(tx, hold, "appealed", now_ms, note)

    def release(self, name: str, now_ms: int) -> Held:
        """Give what is held to its payees; raises ``UsageError`` where it is denied."""
        with self._ledger.transaction() as tx:
            hold = _find(tx, name)
            if hold.state == "released":
                return hold
            _refuse_decided(hold)
            lines = [Posting(f"held:{payee}", cents) for payee, cents in hold.cents.items()]
            lines += [Posting(payable(payee), -cents) for payee, cents in hold.cents.items()]
            tx.post("release", hold.id.encode(), now_ms, lines, _memo(hold))
            return _step(tx, hold, "released", now_ms, "")

    def deny(self, name: str, now_ms: int) -> Held:
        """Keep what is held from its payees for good; it goes to nobody else either.

        Raises:
            UsageError: ``too_early`` within the appeal window of a hold without an appeal, or where
                it is released.

        """
        with self._ledger.transaction() as tx:
            hold = _find(tx, name)
            if hold.state == "denied":
                return hold
            _refuse_decided(hold)
            if hold.state == "held" and now_ms < hold.until_ms:
                message = (
                    f"hold {hold.id} may still be appealed against; it can be denied after an appeal, "
                    "or once its window is over (`farcast origin holds` shows when)"
                )
                raise UsageError(message, reason="too_early")
            lines = [Posting(f"held:{payee}", cents) for payee, cents in hold.cents.items()]
            lines.append(Posting(DENIED, -sum(hold.cents.values())))
            tx.post("denial", hold.id.encode(), now_ms, lines, _memo(hold))
            return _step(tx, hold, "denied", now_ms, "")


def record(tx: Transaction, month: str, holds: tuple[Hold, ...], now_ms: int, appeal_ms: int) -> None:
    """Write a settlement's holds, in the transaction that posts it."""
    for hold in holds:
        name = hold_id(month, hold.account)
        tx.execute(
            "INSERT INTO hold (id, month, account, rule, evidence, held_ms, until_ms) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                name, month, hold.account, hold.rule, json.dumps(dict(hold.evidence)), now_ms,
                now_ms + appeal_ms,
            ),
        )  # fmt: skip
        for payee, cents in hold.cents.items():
            tx.execute("INSERT INTO hold_part (hold, payee, cents) VALUES (?, ?, ?)", (name, payee, cents))


def _find(tx: Transaction, name: str) -> Held:
    found = _read(tx, "WHERE id >= ? AND id < ?", (name, f"{name}g"))  # hexadecimal digits end before g
    if len(found) != 1 or not name:
        what = f"{len(found)} holds fit" if found and name else "no hold fits"
        raise UsageError(f"{what} {name!r}; `farcast origin holds` lists them", reason="no_hold")
    return found[0]


def _read(tx: Transaction, where: str, values: tuple[Value, ...]) -> list[Held]:
    ids = f"SELECT id FROM hold {where}"  # noqa: S608 - our own clauses
    rows = tx.execute(
        f"SELECT id, month, account, rule, evidence, held_ms, until_ms FROM hold {where} "  # noqa: S608
        "ORDER BY month DESC, id",
        values,
    ).fetchall()
    parts: dict[str, dict[str, int]] = {}
    query = f"SELECT hold, payee, cents FROM hold_part WHERE hold IN ({ids}) ORDER BY hold, payee"  # noqa: S608
    for name, payee, cents in tx.execute(query, values):
        parts.setdefault(name, {})[payee] = cents
    steps: dict[str, dict[str, tuple[int, str]]] = {}
    query = f"SELECT hold, kind, at_ms, note FROM hold_step WHERE hold IN ({ids})"  # noqa: S608
    for name, kind, at_ms, note in tx.execute(query, values):
        steps.setdefault(name, {})[kind] = (at_ms, note)
    return [_held(row, parts.get(row[0], {}), steps.get(row[0], {})) for row in rows]


def _held(row: Row, cents: dict[str, int], steps: dict[str, tuple[int, str]]) -> Held:
    name, month, account, rule, evidence, held_ms, until_ms = row
    state: State = "held"
    for one in ("appealed", "released", "denied"):
        state = one if one in steps else state
    decided = steps.get("released") or steps.get("denied")
    return Held(
        name, month, bytes(account), rule, json.loads(evidence), cents, held_ms, until_ms, state,
        steps["appealed"][1] if "appealed" in steps else "", decided[0] if decided else None,
    )  # fmt: skip


def _step(tx: Transaction, hold: Held, kind: State, at_ms: int, note: str) -> Held:
    tx.execute(
        "INSERT INTO hold_step (hold, kind, at_ms, note) VALUES (?, ?, ?, ?)", (hold.id, kind, at_ms, note)
    )
    decided_ms = None if kind == "appealed" else at_ms
    return hold._replace(state=kind, note=note or hold.note, decided_ms=decided_ms)


def _refuse_decided(hold: Held) -> None:
    if hold.state in ("released", "denied"):
        raise UsageError(f"hold {hold.id} is {hold.state} already, which stands", reason=hold.state)


def _memo(hold: Held) -> str:
    return f"hold {hold.id} of {hold.month}, rule {hold.rule}"


def _time(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms // 1_000, UTC):%Y-%m-%dT%H:%M:%SZ}"
