"""The closing of a month: settled from intake log and ledger, posted, and reported."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from ...protocol.errors import LocalError, UsageError
from ...protocol.identity import Identity
from ...protocol.manifest import Manifest
from ...protocol.rules import DAY_MS, Rules
from ...protocol.statement import pack_tickets
from ...protocol.tables import settlement_json
from ...protocol.ticket import DAY_GRACE_MS, TicketOffice
from ..pulses.admission import month_bounds_ms, month_of
from ..pulses.evidence import Evidence, Manifests, log_root
from ..pulses.intake import SEGMENTS
from ..pulses.segments import read_segments
from .credit import Credit, carry_in, credit
from .ledger import Ledger, Settled
from .report import Report, write_report
from .settlement import Books, Log, Outcome, settle
from .viewing import sum_up

CARRY_MONTHS = 2
"""Settled months whose late pulses may still come in: the late window reaches into one other."""
_RELAY_NAME_BYTES = 16
_MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")


class Result(NamedTuple):
    """A settlement run: what came out, and whether this run posted it (else dry, or posted before)."""

    outcome: Outcome
    posted: bool

    def json(self) -> dict[str, object]:
        """Return the settlement as commands print it."""
        return settlement_json(self.outcome.statement, self.outcome.lines)


class Closing:
    """Settles months of one origin, each once; every method blocks.

    ``manifests`` finds a manifest by the SHA-256 digest of its block, ``relays`` maps the keys of
    the relays that may be paid to each one's first key; ``intake`` is the folder the ``Intake`` writes.
    """

    def __init__(
        self,
        intake: Path,
        ledger: Ledger,
        reports: Path,
        office: TicketOffice,
        settlement: Identity,
        manifests: Callable[[bytes], Manifest | None],
        relays: Callable[[], Mapping[bytes, bytes]],
        rules: Rules,
    ) -> None:
        self._segments = intake / SEGMENTS
        self._ledger = ledger
        self._reports = reports
        self._office = office
        self._identity = settlement
        self._manifests = manifests
        self._relays = relays
        self._rules = rules

    def settle(
        self, month: str, *, now_ms: int, as_of_ms: int | None = None, dry_run: bool = False
    ) -> Result:
        """Settle ``month`` as of five minutes after its end, or as of an earlier ``as_of_ms``.

        Settling again with the same inputs changes nothing.

        Raises:
            UsageError: the month is no month, still open, out of order, settled with another
                result, or without booked revenue; nothing is posted then.

        """
        closes_ms = close_ms(month)
        if as_of_ms is None and now_ms < closes_ms:
            message = f"{month} is still open until 00:05 UTC of the 1st; settle it so far with --as-of TIME"
            raise UsageError(message, reason="still_open")
        if as_of_ms is not None and as_of_ms > now_ms:
            raise UsageError("--as-of lies in the future", reason="still_open")
        as_of_ms = closes_ms if as_of_ms is None else min(as_of_ms, closes_ms)
        if as_of_ms < month_bounds_ms(month)[0]:
            raise UsageError(f"--as-of lies before {month} begins", reason="still_open")
        history = self._ledger.settlements()
        before = [item for item in history if item.month < month]
        evidence = self._evidence(month, before)
        size = evidence.size_at(as_of_ms)
        _refuse_gaps(month, before, evidence.months(size))
        relays = {key[:_RELAY_NAME_BYTES]: key for key in self._relays()}
        books = self._ledger.books(month, as_of_ms)
        if self._rules.mode == "per_payer" and not books.contributions:
            message = "[money] mode per_payer needs every revenue booking to name its --account"
            raise UsageError(message, reason="no_payers")
        outcome = self._compute(month, as_of_ms, size, evidence, before, books, relays, self._rules)
        settled = next((item for item in history if item.month == month), None)
        if settled is not None:
            known = replace(outcome.statement, as_of_ms=settled.as_of_ms)
            if known == settled.statement:
                outcome = Outcome(known, outcome.lines)
        if dry_run:
            return Result(outcome, posted=False)
        return Result(outcome, self._ledger.post_settlement(outcome, self._relays()))

    def report(self, month: str | None = None) -> Path:
        """Compute a settled month again from the raw log and write its report directory.

        Raises:
            UsageError: where the month is not settled.
            LocalError: ``not_reproducible`` where log and ledger no longer give what was posted.

        """
        history = self._ledger.settlements()
        if month is None and history:
            month = history[-1].month
        settled = next((item for item in history if item.month == month), None)
        if settled is None or month is None:
            message = f"{month or 'the first month'} is not settled yet; run `farcast origin settle`"
            raise UsageError(message, reason="not_settled")
        statement = settled.statement
        before = [item for item in history if item.month < month]
        evidence = self._evidence(month, before)
        outcome = self._compute(
            month, settled.as_of_ms, statement.log_size, evidence, before,
            self._ledger.books(month, settled.as_of_ms),
            {line.relay[:_RELAY_NAME_BYTES]: line.relay for line in statement.relays}, statement.rules,
        )  # fmt: skip
        if outcome.digest != settled.digest:
            message = (
                f"the intake log and ledger no longer give what was posted for {month}; restore a backup"
            )
            raise LocalError(message, reason="not_reproducible")
        report = Report(
            outcome.statement,
            outcome.lines,
            b"".join(evidence.leaves[: statement.log_size]),
            pack_tickets(evidence.stored(statement.log_size)),
        )
        return write_report(self._reports, report, self._identity)

    def _evidence(self, month: str, before: list[Settled]) -> Evidence:
        """Read the log with an eye on the month, the one before it, and those late pulses may reach."""
        reach = [month, *(item.month for item in before[-CARRY_MONTHS:])]
        start = min(_days(item).start for item in reach)
        first = _days(month_of(_days(month).start - 1)).start
        return Evidence(
            read_segments(self._segments), self._office, range(min(start, first) - 1, _days(month).stop)
        )

    def _compute(
        self,
        month: str,
        as_of_ms: int,
        size: int,
        evidence: Evidence,
        before: list[Settled],
        books: Books,
        relays: dict[bytes, bytes],
        rules: Rules,
    ) -> Outcome:
        titles = _Titles(self._manifests)
        current = _month_credits(evidence, month, size, titles.find, rules)
        carried: list[Credit] = []
        settled: list[Credit] = []
        late: list[Credit] = []
        for item in before[-CARRY_MONTHS:]:
            then = _month_credits(
                evidence, item.month, before[-1].statement.log_size, titles.find, item.statement.rules
            )
            now = _month_credits(evidence, item.month, size, titles.find, item.statement.rules)
            carried += carry_in(then, now)
            settled += then
            late += now
        viewing = sum_up(
            current,
            carried,
            [item.fact for item in late],
            [item.fact for item in settled],
            titles.found,
            rules,
        )
        tickets = pack_tickets(evidence.stored(size))
        log = Log(size, log_root(evidence.leaves[:size]), sha256(tickets).digest())
        return settle(month, as_of_ms, viewing, titles.found, books, relays, log, rules)


class _Titles:
    """The manifests a settlement has met."""

    def __init__(self, manifests: Manifests) -> None:
        self._manifests = manifests
        self.found: dict[bytes, Manifest] = {}

    def find(self, digest: bytes) -> Manifest | None:
        manifest = self.found.get(digest) or self._manifests(digest)
        if manifest is not None:
            self.found[digest] = manifest
        return manifest


def close_ms(month: str) -> int:
    """Return when a month may be settled: five minutes after its end, when its tickets are over.

    Raises:
        UsageError: for anything but ``YYYY-MM``.

    """
    if not _MONTH.fullmatch(month):
        raise UsageError(f"{month!r} is no month; write it as 2026-11")
    return month_bounds_ms(month)[1] + DAY_GRACE_MS


def parse_as_of(text: str, now_ms: int) -> int:
    """Read a time like ``2026-11-21T10:00:00Z``; a whole second means its end, though never the future.

    Raises:
        UsageError: where it is no time with a zone.

    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no time; write it as 2026-11-21T10:00:00Z") from error
    if at.tzinfo is None:
        raise UsageError(f"{text!r} names no zone; end it with Z for UTC")
    at_ms = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    end_ms = at_ms if at.microsecond else at_ms + 999
    return max(at_ms, min(end_ms, now_ms))


def _days(month: str) -> range:
    start_ms, end_ms = month_bounds_ms(month)
    return range(start_ms // DAY_MS, end_ms // DAY_MS)


def _month_credits(
    evidence: Evidence, month: str, size: int, manifests: Manifests, rules: Rules
) -> list[Credit]:
    """Return the credits of a month's tickets; the day before is read too, for sessions that go on."""
    days = _days(month)
    facts = evidence.facts(size, range(days.start - 1, days.stop), manifests)
    return [item for item in credit(facts, rules) if item.fact.day in days]


def _refuse_gaps(month: str, before: list[Settled], seen: set[str]) -> None:
    last = before[-1].month if before else ""
    missing = min((item for item in seen if last < item < month), default=None)
    if missing is not None:
        raise UsageError(
            f"{missing} has pulses but is not settled; settle it before {month}", reason="out_of_order"
        )
