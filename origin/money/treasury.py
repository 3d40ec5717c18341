"""The treasury: intake, ledger and settlement of one origin, opened when they are first needed."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from ...node.home import write_whole
from ...node.settings import Settings
from ...protocol.errors import UsageError
from ...protocol.manifest import Manifest
from ...protocol.rules import HOUR_MS, Rules
from ...protocol.ticket import TicketOffice
from ..keys import Keys
from ..pulses.admission import Frame
from ..pulses.exhibits import exhibits
from ..pulses.intake import SEGMENTS, Intake
from ..pulses.segments import read_segments
from ..roster import Roster
from .closing import Closing, close_ms, parse_as_of
from .ledger import Ledger

BOOKING_KEY_BYTES = 16

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
        self._intake_settings = settings.intake
        self.rules = rules_of(settings)
        self.tickets = TicketOffice(keys.ticket, keys.ticket_secret)
        self.watch: Callable[[Frame], None] = lambda _: None
        """Hears of every frame in the intake's log; set it before ``intake`` is first asked for."""

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
        )

    @cached_property
    def ledger(self) -> Ledger:
        """The books."""
        return Ledger(self._home / "ledger.db")

    def close(self) -> None:
        """Close what was opened."""
        self.__dict__.pop("closing", None)
        for name in ("intake", "ledger"):
            part = self.__dict__.pop(name, None)
            if part is not None:
                part.close()

    def book(
        self, kind: str, cents: int, account: bytes | None, note: str, now_ms: int, month: str | None = None
    ) -> Result:
        """Book income, perhaps of one account, or a cost, of this month or an earlier open ``month``.

        Raises:
            UsageError: for another kind, a month to come, or what the ledger refuses.

        """
        key = secrets.token_bytes(BOOKING_KEY_BYTES)
        if month is not None and close_ms(month) > close_ms(_month(now_ms)):
            raise UsageError(f"{month} has not begun; book it when it has")
        if kind == "revenue":
            self.ledger.book_revenue(cents, now_ms, key, memo=note, account=account, month=month or "")
        elif kind == "cost" and account is None:
            self.ledger.book_cost(cents, now_ms, key, memo=note, month=month or "")
        else:
            raise UsageError("book `revenue`, perhaps with --account, or `cost`")
        settled = {item.month for item in self.ledger.settlements()}
        open_month = month or _month(now_ms)
        if open_month in settled:  # settled before its end: what comes later counts for the next
            open_month = _month(close_ms(open_month))
        return {"kind": kind, "cents": cents, "note": note, "month": open_month}

    def settle(self, month: str | None, as_of: str | None, now_ms: int, *, dry_run: bool) -> Result:
        """Settle a month: by default that of ``as_of``, or else the one before this one.

        Raises:
            UsageError: as ``Closing.settle``, or where ``as_of`` is no instant.

        """
        as_of_ms = None if as_of is None else parse_as_of(as_of, now_ms)
        chosen = month or (_month_before(now_ms) if as_of_ms is None else _month(as_of_ms))
        result = self.closing.settle(chosen, now_ms=now_ms, as_of_ms=as_of_ms, dry_run=dry_run)
        return {
            **result.json(),
            "month": result.outcome.statement.month,
            "posted": result.posted,
            "dry_run": dry_run,
        }

    def report(self, month: str | None, now_ms: int) -> Result:
        """Write a settled month's report directory; raises as ``Closing.report``."""
        del now_ms
        folder = self.closing.report(month)
        return {"month": folder.name, "folder": str(folder)}

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
    def closing(self) -> Closing:
        """What settles months and writes their reports."""
        return Closing(
            self._home / "intake",
            self.ledger,
            self._home / "reports",
            self.tickets,
            self._keys.settlement,
            self._manifests,
            self._roster.paid,
            self.rules,
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
    )


def _month(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1_000, UTC):%Y-%m}"


def _month_before(now_ms: int) -> str:
    first = datetime.fromtimestamp(now_ms / 1_000, UTC).replace(day=1)
    return f"{first - timedelta(days=1):%Y-%m}"
