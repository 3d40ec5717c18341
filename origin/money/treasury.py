"""The treasury: intake, ledger and settlement of one origin, opened when they are first needed."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from ...node.home import write_whole
from ...node.settings import Settings
from ...protocol.errors import UsageError
from ...protocol.manifest import Manifest
from ...protocol.rules import DAY_MS, HOUR_MS, Rules
from ...protocol.tables import LISTED_PAYEES
from ...protocol.ticket import TicketOffice
from ..keys import Keys
from ..pulses.admission import Frame
from ..pulses.exhibits import exhibits
from ..pulses.intake import SEGMENTS, Intake
from ..pulses.segments import read_segments
from ..roster import Roster
from . import bookings
from .bookings import Booking
from .closing import Closing, close_ms, parse_as_of
from .database import Place
from .ledger import Ledger
from .rulebook import Rulebook
from .soundness import Soundness

BOOKING_KEY_BYTES = 16
MONTHLY = ("revenue", "cost", "patron")
"""Bookings that may name the month they are for."""

Result = dict[str, Any]


class Treasury:
    """The money side of the origin at ``home``; every method blocks."""

    def __init__(
        self,
        home: Path,
        settings: Settings,
        keys: Keys,
        roster: Roster,
        manifests: Callable[[bytes], Manifest | None],
        registry: CollectorRegistry,
    ) -> None:
        self._home = home
        self._keys = keys
        self._roster = roster
        self._manifests = manifests
        self._registry = registry
        self._place: Place = settings.money.ledger or home / "ledger.db"
        self._patron_fee_points = settings.money.patron_fee_basis_points
        self._opening = threading.RLock()
        self._intake_settings = settings.intake
        self._reporting = threading.Lock()
        self.rules = rules_of(settings)
        self.tickets = TicketOffice(keys.ticket, keys.ticket_secret)
        self.watch: Callable[[Frame], None] = lambda _: None
        """Hears of every frame in the intake's log; set it before ``intake`` is first asked for."""
        self.revoked: Mapping[bytes, int] = {}
        """When accounts ended, by pseudonym; as ``watch`` it is set before ``intake`` is asked for."""

    @cached_property
    def intake(self) -> Intake:
        """The pulses; opening it reads the whole log."""
        return Intake(
            self._home / "intake",
            self.tickets,
            lambda: self._keys.keyring.ticket,
            self._keys.intake,
            self._roster.is_relay,
            self._registry,
            rules=self.rules,
            verify=self._intake_settings.verify,
            open_pulses=self._intake_settings.open_pulses,
            watch=self.watch,
            revoked=self.revoked,
        )

    @property
    def ledger(self) -> Ledger:
        """The books, in the home or in ``[money] ledger``."""
        with self._opening:  # several threads may be the first
            return self._ledger

    @cached_property
    def _ledger(self) -> Ledger:
        return Ledger(self._place, self.rules.currency)

    @property
    def begun(self) -> bool:
        """Whether there are books; a file that is not there yet is not made by looking."""
        return not isinstance(self._place, Path) or self._place.exists()

    def opened_ledger(self) -> Ledger:
        """Return the books, opened by one thread alone."""
        return self.ledger

    def check_ledger(self) -> Soundness | None:
        """Check all books; None where there are none yet. Raises ``LocalError`` where they do not open."""
        if isinstance(self._place, Path) and not self._place.exists():
            return None
        return self.ledger.check()

    @property
    def address(self) -> str:
        """The address of the PostgreSQL that has the books, empty where they are in the home."""
        return "" if isinstance(self._place, Path) else self._place

    def settled(self) -> dict[str, str]:
        """Return the digest of each settled month in hex."""
        if not self.begun:
            return {}
        return {item.month: item.digest.hex() for item in self.ledger.settlements()}

    def log_size(self) -> int:
        """Return how many entries the intake log has, -1 while it is not open here."""
        return self.intake.head()[0] if "intake" in self.__dict__ else -1

    def close(self) -> None:
        """Close what was opened."""
        for name in ("_closing", "_rulebook"):
            self.__dict__.pop(name, None)
        for name in ("intake", "_ledger"):
            part = self.__dict__.pop(name, None)
            if part is not None:
                part.close()

    def book(
        self,
        kind: str,
        cents: int,
        account: bytes | None,
        note: str,
        now_ms: int,
        month: str | None = None,
        *,
        payee: str = "",
        split: str = "",
    ) -> Result:
        """Book what came in or went out; of a ``refund``, ``cents`` is a transaction's number.

        Revenue and costs are of this month or an earlier open ``month``, a patron's sum is for any.

        Raises:
            UsageError: for another kind, a month to come, or what the ledger refuses.

        """
        if month is not None and close_ms(month) > close_ms(_month(now_ms)):
            raise UsageError(f"{month} has not begun; book it when it has")
        if month is not None and kind not in MONTHLY:
            raise UsageError(f"--month is for {', '.join(MONTHLY)}; a {kind} counts when it is booked")
        wanted = {"tip": "payee", "patron": "payee", "collaboration": "split"}.get(kind, "")
        if (bool(payee), bool(split)) != (wanted == "payee", wanted == "split"):
            message = f"--{wanted} is missing" if wanted else f"a {kind} takes neither --payee nor --split"
            raise UsageError(message + "; see `farcast origin book --help`")
        ledger, key, posted = self.ledger, secrets.token_bytes(BOOKING_KEY_BYTES), True
        if kind == "refund":
            booking, key = ledger.refund(cents, now_ms, note=note)
        else:
            if kind == "patron" and account is not None:  # once a month, however often it is booked
                key = b"\0".join((account, payee.encode(), (month or _month(now_ms)).encode()))
            booking = self._booking(kind, cents, account, note, month or _month(now_ms), payee, split)
            named = month if kind in ("revenue", "cost") else None
            posted = ledger.book(booking, now_ms, key, month=named or "")
        return {
            "kind": kind,
            "cents": booking.cents,
            "note": note,
            "month": self._counts_for(kind, month, now_ms),
            "transaction": ledger.number(kind, key),
            "posted": posted,
            "fee_cents": booking.more.get("fee_cents", 0),
            "payees": [
                {"payee": line.account.partition(":")[2], "cents": -line.cents}
                for line in booking.lines
                if line.account.startswith("payable:")
            ],
        }

    def _booking(
        self, kind: str, cents: int, account: bytes | None, note: str, month: str, payee: str, split: str
    ) -> Booking:
        if kind == "revenue":
            return bookings.revenue(cents, note, account)
        if kind == "cost" and account is None:
            return bookings.cost(cents, note)
        if kind == "tip":
            return bookings.tip(cents, payee, note, account)
        if kind == "patron":
            points = self._patron_fee_points
            return bookings.patron(cents, payee, month, note, account, fee_points=points)
        if kind == "collaboration":
            return bookings.collaboration(cents, bookings.parse_split(split), note, account)
        kinds = "`revenue`, `cost` (without --account), `tip`, `patron`, `collaboration` or `refund`"
        raise UsageError(f"book {kinds}, not {kind!r}")

    def _counts_for(self, kind: str, month: str | None, now_ms: int) -> str:
        """Return the month a booking counts for."""
        chosen = month or _month(now_ms)
        if kind in ("revenue", "cost", "refund"):
            settled = {item.month for item in self.ledger.settlements()}
            if chosen in settled:  # settled before its end: what comes later counts for the next
                return _month(close_ms(chosen))
        return chosen

    def entries(self, account: str | None, after: int) -> Result:
        """Return the postings of an account behind a transaction, or without one all balances."""
        ledger = self.ledger
        count, head = ledger.head()
        found: Result = {
            "ledger": ledger.name,
            "currency": self.rules.currency,
            "transactions": count,
            "head": head.hex(),
            "account": account,
        }
        if account is None:
            rows = [{"account": name, "cents": cents} for name, cents in ledger.balances().items()]
            return {**found, "balances": rows, "entries": []}
        entries = [
            {
                "transaction": entry.number,
                "at": f"{datetime.fromtimestamp(entry.at_ms / 1_000, UTC):%Y-%m-%dT%H:%M:%SZ}",
                "kind": entry.kind,
                "cents": entry.cents,
                "memo": entry.memo,
            }
            for entry in ledger.entries(account, after=after)
        ]
        balance = ledger.balances(account).get(account)
        if balance is None:
            message = f"the ledger has no account {account}; `farcast origin ledger` lists all"
            raise UsageError(message, reason="no_account")
        return {**found, "balances": [{"account": account, "cents": balance}], "entries": entries}

    def settle(
        self, month: str | None, as_of: str | None, now_ms: int, *, dry_run: bool, from_raw: bool = False
    ) -> Result:
        """Settle a month: by default that of ``as_of``, or else the one before this one.

        ``from_raw`` computes it from the intake log alone as well.

        Raises:
            UsageError: as ``Closing.settle``, or where ``as_of`` is no instant.

        """
        as_of_ms = None if as_of is None else parse_as_of(as_of, now_ms)
        chosen = month or (_month_before(now_ms) if as_of_ms is None else _month(as_of_ms))
        self.rulebook.note(self.rules, now_ms)
        result = self.closing.settle(
            chosen, now_ms=now_ms, as_of_ms=as_of_ms, dry_run=dry_run, from_raw=from_raw
        )
        difference = self.closing.difference(result.outcome) if dry_run else {}
        folder = self.closing.report_at(result.outcome.statement.month)
        return {
            **result.json(),
            "report": None if folder is None else str(folder),
            "differences": len(difference),
            "difference": [
                {"account": account, "posted_cents": posted, "would_post_cents": would}
                for account, (posted, would) in islice(difference.items(), LISTED_PAYEES)
            ],
            "month": result.outcome.statement.month,
            "digest": result.outcome.digest.hex(),
            "posted": result.posted,
            "dry_run": dry_run,
        }

    def report(self, month: str | None, now_ms: int) -> Result:
        """Write a settled month's report directory; raises as ``Closing.report``."""
        del now_ms
        with self._reporting:
            folder = self.closing.report(month)
        return {"month": folder.name, "folder": str(folder)}

    @property
    def rulebook(self) -> Rulebook:
        """Which rules hold for which month; what ``[money]`` wants now is noted by who acts on it."""
        with self._opening:
            return self._rulebook

    def evidence(self, folder: Path) -> Result:
        """Write what the intake log holds against anybody into ``folder``: evidence, a file for each case.

        Raises:
            UsageError: where the folder cannot be written.

        """
        rows: list[Result] = []
        segments = self._home / "intake" / SEGMENTS
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for one in exhibits(lambda: read_segments(segments), self.tickets, self._keys.intake):
                name = f"{one.tid.hex()}-{one.seq}.evidence" if one.evidence else ""
                if one.evidence:
                    write_whole(folder / name, one.evidence)
                rows.append(
                    {
                        "code": one.code,
                        "account": one.account.hex(),
                        "ticket": one.tid.hex(),
                        "day": f"{date(1970, 1, 1) + timedelta(days=one.day)}",
                        "seq": one.seq,
                        "file": name,
                    }
                )
        except OSError as error:
            raise UsageError(f"{folder} cannot be written: {error.strerror}") from error
        return {"folder": str(folder), "cases": rows}

    @cached_property
    def _rulebook(self) -> Rulebook:
        return Rulebook(self.ledger)

    @property
    def closing(self) -> Closing:
        """What settles months and writes their reports."""
        with self._opening:
            return self._closing

    @cached_property
    def _closing(self) -> Closing:
        return Closing(
            self._home / "intake",
            self.ledger,
            self._home / "reports",
            self.tickets,
            self._keys.settlement,
            self._manifests,
            self._roster.paid,
            self.rulebook.at,
            self._roster.payee_of,
        )


def rules_of(settings: Settings) -> Rules:
    """Return the rules of settlement as the settings give them."""
    money = settings.money
    return Rules(
        currency=money.currency,
        gap_ms=money.gap_s * 1_000,
        session_cap_ms=money.session_cap_h * HOUR_MS,
        day_cap_ms=money.day_cap_h * HOUR_MS,
        reserve_points=money.reserve_basis_points,
        reserve_base="surplus" if money.reserve_base == "net" else "revenue",
        relay_cents_per_gb=money.relay_cents_per_gb,
        mode=money.mode,
        median_factor=money.median_factor,
        median_accounts=money.median_accounts,
        near_cap_ms=money.day_cap_h * HOUR_MS - money.near_cap_min * 60_000,
        near_cap_days=money.near_cap_days,
        payer_factor=money.payer_factor,
        appeal_ms=money.appeal_days * DAY_MS,
        relay_bytes_s=money.relay_max_bps // 8,
    )


def _month(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1_000, UTC):%Y-%m}"


def _month_before(now_ms: int) -> str:
    first = datetime.fromtimestamp(now_ms / 1_000, UTC).replace(day=1)
    return f"{first - timedelta(days=1):%Y-%m}"
