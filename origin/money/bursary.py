"""The bursary: rules, holds and earnings of one origin as its commands see them, and the clerk's ways."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property

from prometheus_client import CollectorRegistry

from ...protocol.earnings import EarningsAnswer, earnings_json
from ...protocol.errors import LocalError, UsageError
from ...protocol.rules import Rules
from ..action import Actions, Result
from ..roster import Roster
from .clerk import Clerk
from .closing import close_ms
from .earningsbook import EarningsBook
from .holds import Holds, Waiting
from .rulebook import Version
from .schedule import month_at
from .treasury import Treasury

log = logging.getLogger(__name__)

BEGINNING = "the beginning"
LISTED_PAYEES = 100
"""Of more payees, `origin earnings` without a name lists those who earned most: an answer has a bound."""


class Bursary:
    """Answers for the money of one origin beside booking and settling; every method blocks."""

    def __init__(
        self,
        treasury: Treasury,
        roster: Roster,
        clock_ms: Callable[[], int],
        registry: CollectorRegistry,
    ) -> None:
        self._treasury = treasury
        self._roster = roster
        self._clock_ms = clock_ms
        self._registry = registry
        self.clerk: Clerk | None = None
        """Who settles by itself; set by an origin that runs."""

    def open(self) -> None:
        """Open the books and note the rules, before several threads ask for them."""
        now_ms = self._clock_ms()
        newest = self.note_rules(now_ms)
        if newest.month > month_at(now_ms):
            log.warning("[money] was changed: those rules hold from %s on", newest.month)
        _ = self._treasury.closing

    @property
    def actions(self) -> Actions:
        """What the office does by these names."""
        return {
            "rules": self.rules,
            "holds": self.list_holds,
            "hold_appeal": self.appeal,
            "hold_release": self.release,
            "hold_deny": self.deny,
            "earnings": self.earnings,
        }

    @cached_property
    def book(self) -> EarningsBook:
        """The earnings."""
        treasury = self._treasury
        return EarningsBook(
            lambda: treasury.closing,
            lambda: treasury.ledger,
            treasury.log_size,
            self._roster.paid,
            self._registry,
        )

    @property
    def holds(self) -> Holds:
        """What is held."""
        return self._treasury.closing.holds

    # -- commands

    def rules(self) -> Result:
        """Show the rules of this month, and those that a change of ``[money]`` brings from the next on."""
        now_ms = self._clock_ms()
        newest = self.note_rules(now_ms)
        month = month_at(now_ms)
        versions = self._treasury.rulebook.versions()
        holding = [version for version in versions if version.month <= month][-1]
        return {
            **_version(holding),
            "month": month,
            "next": _version(newest) if _is_coming(newest, month, holding) else None,
            "versions": len(versions),
        }

    def list_holds(self, month: str | None = None) -> Result:
        """List what is held, and how much of it waits for somebody."""
        if month is not None:
            close_ms(month)
        now_ms = self._clock_ms()
        return {
            "holds": [hold.json() for hold in self.holds.list(month)],
            "waiting": self.holds.waiting(now_ms)._asdict(),
        }

    def appeal(self, hold: str, note: str) -> Result:
        """Note what is said against a hold."""
        return self.holds.appeal(hold, note, self._clock_ms()).json()

    def release(self, hold: str) -> Result:
        """Pay what is held to its payees."""
        return self.holds.release(hold, self._clock_ms()).json()

    def deny(self, hold: str) -> Result:
        """Keep what is held from its payees, and from everybody else."""
        return self.holds.deny(hold, self._clock_ms()).json()

    def earnings(
        self, month: str | None = None, payee: str | None = None, relay: str | None = None
    ) -> Result:
        """Show what relays and payees earn: this month so far and the newest settled one, or one month."""
        now_ms = self._clock_ms()
        self._know_rules(now_ms)
        if month is not None:
            close_ms(month)
        keys = None if relay is None else [self._relay(relay)]
        months = [month] if month else self.book.months(now_ms)
        found = [self.book.of(one, now_ms) for one in months]
        parts = [
            one.of(
                keys if keys is not None else [] if payee else one.relays,
                [payee] if payee else [] if keys is not None else one.largest(LISTED_PAYEES),
            )
            for one in found
        ]
        answer = EarningsAnswer(1, self._treasury.rules.currency, parts)
        return {**earnings_json(answer), "payees": max(len(one.payees) for one in found)}

    def viewed(self) -> dict[str, int]:
        """Return the counted milliseconds of each title, in this month and the newest settled one."""
        found: dict[str, int] = {}
        if self._treasury.log_size():
            for month in self.book.months(now_ms := self._clock_ms()):
                once: dict[str, int] = {}
                for payee in self.book.of(month, now_ms, wait=False).payees.values():
                    once |= {one.title: one.viewed_ms for one in payee.titles}
                found = {title: found.get(title, 0) + once.get(title, 0) for title in {*found, *once}}
        return found

    def refresh(self) -> None:
        """Bring the metrics of earnings up to date."""
        now_ms = self._clock_ms()
        self._know_rules(now_ms)
        self.book.refresh(now_ms)

    def note_rules(self, now_ms: int) -> Version:
        """Note what ``[money]`` wants; returns the newest version."""
        return self._treasury.rulebook.note(self._treasury.rules, now_ms)

    def _know_rules(self, now_ms: int) -> list[Version]:
        """Return every version; what ``[money]`` wants is noted only where nothing is yet."""
        return self._treasury.rulebook.versions() or [self.note_rules(now_ms)]

    def facts(self) -> Result:
        """Return what ``origin status`` says of holds and rules; None where the ledger does not answer."""
        if not self._treasury.begun:
            return {"holds": Waiting(0, 0, 0, 0)._asdict(), "rules": None, "money_warnings": []}
        try:
            now_ms = self._clock_ms()
            versions, waiting = self._know_rules(now_ms), self.holds.waiting(now_ms)
        except LocalError as error:
            return {"holds": None, "rules": None, "money_warnings": [str(error)]}
        warnings: list[str] = [self.clerk.trouble] if self.clerk and self.clerk.trouble else []
        month, newest = month_at(now_ms), versions[-1]
        holding = [version for version in versions if version.month <= month][-1]
        if _is_coming(newest, month, holding):
            warnings.append(
                f"[money] was changed: those rules hold from {newest.month} on (`farcast origin rules`)"
            )
        if waiting.appealed or waiting.expired:
            warnings.append(
                f"{waiting.appealed} appealed holds and {waiting.expired} whose appeal window is over wait "
                "for somebody to decide: run `farcast origin holds`"
            )
        return {
            "holds": waiting._asdict(),
            "rules": {"version": holding.number, "since": holding.month or BEGINNING},
            "money_warnings": warnings,
        }

    # -- the clerk's ways

    def last_settled(self) -> str:
        """Return the newest settled month, empty where there is none."""
        return self.book.newest_settled()

    def transactions(self) -> int:
        """Return how many transactions the ledger has."""
        return self._treasury.ledger.head()[0]

    def open_months(self) -> tuple[str, ...]:
        """Return the months behind it that have pulses or bookings."""
        return self._treasury.closing.open_months()

    def has_report(self, month: str) -> bool:
        """Say whether a month's report is written."""
        return self._treasury.closing.has_report(month)

    def close_month(self, month: str, now_ms: int) -> bool:
        """Settle a closed month; False where it was settled already."""
        self.note_rules(now_ms)
        return self._treasury.closing.settle(month, now_ms=now_ms).posted

    def write_report(self, month: str) -> None:
        """Write a settled month's report."""
        try:
            self._treasury.report(month, self._clock_ms())
        except LocalError as error:
            if error.reason != "report" or not self.has_report(month):
                raise  # else another process has just put the same report there

    def waiting(self, now_ms: int) -> Waiting:
        """Say which holds wait for somebody to decide."""
        return self.holds.waiting(now_ms)

    def _relay(self, name: str) -> bytes:
        """Return the first key of the relay with this id, or its unique beginning or end."""
        found = [
            relay.key
            for relay in self._roster.relays()
            if name and (relay.peer_id.startswith(name) or relay.peer_id.endswith(name))
        ]
        if len(found) != 1:
            what = f"{len(found)} relays of this origin fit" if found else "no relay of this origin fits"
            raise UsageError(f"{what} {name!r}; `farcast origin relays` lists them")
        return found[0]


def _is_coming(newest: Version, month: str, holding: Version) -> bool:
    return newest.month > month and newest.rules != holding.rules


def _version(version: Version) -> Result:
    return {
        "version": version.number,
        "sha256": version.hash.hex(),
        "since": version.month or BEGINNING,
        "rules": rules_json(version.rules),
    }


def rules_json(rules: Rules) -> Result:
    """Return rules as commands print them."""
    return {field: getattr(rules, field) for field in rules.__struct_fields__ if field != "v"}
