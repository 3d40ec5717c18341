"""The rulebook: which rules hold for which month, kept in the books and never changed there.

``[money]`` says what is wanted. The first rules hold from the beginning; a change of them holds from
the month after the one in which the origin first saw it, so that nobody's viewing is judged by rules
made after it.
"""

from __future__ import annotations

from typing import NamedTuple

from ...protocol.codec import decode, encode
from ...protocol.errors import UsageError
from ...protocol.rules import DAY_MS, Rules, rules_hash
from ..pulses.admission import month_bounds_ms, month_of
from .database import Schema, Step
from .ledger import Ledger
from .transaction import Transaction

SCHEMA = Schema(
    "rulebook",
    (
        Step(
            "0001_rulebook",
            (
                """CREATE TABLE rulebook (
                     version INTEGER NOT NULL PRIMARY KEY, month TEXT NOT NULL, noted_ms INTEGER NOT NULL,
                     rules BLOB NOT NULL) STRICT""",
            ),
            append_only=("rulebook",),
        ),
    ),
)
RULES_LIMIT_BYTES = 4_096


class Version(NamedTuple):
    """One version of the rules: the month it holds from (empty: the beginning), and when it was noted."""

    number: int
    month: str
    noted_ms: int
    rules: Rules

    @property
    def hash(self) -> bytes:
        """The rules' name, as in a report."""
        return rules_hash(self.rules)


class Rulebook:
    """The versions of one origin's rules, in its ledger; every method blocks."""

    def __init__(self, ledger: Ledger) -> None:
        """Open or make the table."""
        self._ledger = ledger
        ledger.prepare(SCHEMA)

    def note(self, wanted: Rules, now_ms: int) -> Version:
        """Note what is wanted now, unless it is the newest version; returns the newest."""
        newest = self.versions()[-1:]
        if newest and newest[0].rules == wanted:
            return newest[0]
        with self._ledger.transaction() as tx:
            return _note(tx, wanted, now_ms)

    def versions(self) -> list[Version]:
        """Return every version, the oldest first."""
        with self._ledger.reading() as tx:
            return _versions(tx)

    def at(self, month: str) -> Rules:
        """Return the rules that hold for a month: the newest version that begins by then.

        Raises:
            UsageError: ``no_rules`` where none was ever noted.

        """
        holding = [version for version in self.versions() if version.month <= month]
        if not holding:
            raise UsageError("no rules are noted yet; run `farcast origin rules`", reason="no_rules")
        return holding[-1].rules


def _note(tx: Transaction, wanted: Rules, now_ms: int) -> Version:
    """Append a version; another process may have done so since the caller looked."""
    known = _versions(tx)
    if known and known[-1].rules == wanted:
        return known[-1]
    # a clock set back must not put a version before one that is known
    month = max(_next_month(now_ms), known[-1].month) if known else ""
    version = Version(len(known) + 1, month, now_ms, wanted)
    tx.execute(
        "INSERT INTO rulebook (version, month, noted_ms, rules) VALUES (?, ?, ?, ?)",
        (version.number, month, now_ms, encode(wanted)),
    )
    return version


def _versions(tx: Transaction) -> list[Version]:
    rows = tx.execute("SELECT version, month, noted_ms, rules FROM rulebook ORDER BY version").fetchall()
    return [
        Version(number, month, noted_ms, decode(Rules, bytes(data), limit_bytes=RULES_LIMIT_BYTES))
        for number, month, noted_ms, data in rows
    ]


def _next_month(now_ms: int) -> str:
    month = month_of(now_ms // DAY_MS)
    return month_of(month_bounds_ms(month)[1] // DAY_MS)
