"""The closing of a month: settled from intake log and ledger, posted, and reported."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, Protocol

from msgspec.structs import replace

from ...protocol.errors import LocalError, UsageError
from ...protocol.identity import Identity
from ...protocol.manifest import Manifest
from ...protocol.merkle import HASH_BYTES
from ...protocol.rules import DAY_MS, Rules
from ...protocol.statement import HEAD, pack_tickets
from ...protocol.tables import payouts, settlement_json
from ...protocol.ticket import TicketOffice
from ..pulses.admission import month_bounds_ms, month_of
from ..pulses.columns import COLUMNS, Columns
from ..pulses.evidence import log_root
from ..pulses.intake import SEGMENTS
from ..pulses.segments import read_entries
from . import holds
from .earnings import Look
from .ledger import Ledger, Settled
from .reckoning import Reckoning
from .report import Report, write_report
from .running import RunningMonth, open_running
from .schedule import close_of
from .settlement import Books, Log, Outcome, settle
from .takings import booked_months
from .tally import Ask, Earlier, open_tally
from .titles import Titles
from .transaction import NOTHING, Transaction
from .viewing import Viewing

CARRY_MONTHS = 2
"""Settled months whose late pulses may still come in: the late window reaches into one other."""
_RELAY_NAME_BYTES = 16
_EVER_MS = 2**62
_MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")


class Result(NamedTuple):
    """A settlement run: what came out, and whether this run posted it (else dry, or posted before)."""

    outcome: Outcome
    posted: bool

    def json(self) -> dict[str, object]:
        """Return the settlement as commands print it: bounded, however many payees there are."""
        statement = self.outcome.statement
        found = settlement_json(statement, self.outcome.lines)
        payees = len(payouts(self.outcome.lines))
        return {
            **found,
            "paid_cents": statement.paid_cents,
            "brought_cents": statement.brought_cents,
            "capped_cents": statement.capped_cents,
            "payees": payees,
            "payouts_listed": bool(found["payouts"]) or not payees,
        }


class Source(Protocol):
    """The intake log as a settlement asks it: from columns (``Tally``) or raw (``Reckoning``)."""

    @property
    def titles(self) -> Mapping[bytes, Manifest]:
        """The titles it has met."""
        ...

    def size_at(self, as_of_ms: int) -> int:
        """Return how many entries the log had at ``as_of_ms``."""
        ...

    def months(self, size: int) -> set[str]:
        """Return the months that the first ``size`` entries hold pulses of."""
        ...

    def leaves(self, size: int) -> list[bytes]:
        """Return the leaf hashes of the first ``size`` entries."""
        ...

    def stored(self, size: int, days: range) -> dict[bytes, int]:
        """Return how many distinct pulses of each ticket of ``days`` the first ``size`` entries hold."""
        ...

    def viewing(
        self, days: range, size: int, earlier: Sequence[Earlier], settled_size: int, rules: Rules
    ) -> Viewing:
        """Return what the month of ``days`` comes to, and what late pulses add to ``earlier`` ones."""
        ...


class Closing:
    """Settles months of one origin, each once; every method blocks.

    ``manifests`` finds a manifest by the SHA-256 digest of its block, ``relays`` maps the keys of
    the relays that may be paid to each one's first key, ``payee_of`` names who is paid for a relay,
    ``rules`` gives those that hold for a month;
    ``intake`` is the folder the ``Intake`` writes.
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
        rules: Callable[[str], Rules],
        payee_of: Callable[[bytes], str] = lambda _: "",
    ) -> None:
        self._segments = intake / SEGMENTS
        self.columns = Columns(self._segments, intake / COLUMNS, office, manifests)
        self._ledger = ledger
        self._reports = reports
        self._office = office
        self._identity = settlement
        self._manifests = manifests
        self._relays = relays
        self._rules = rules
        self._payee_of = payee_of
        self._running = RunningMonth()
        self.holds = holds.Holds(ledger)

    def settle(
        self,
        month: str,
        *,
        now_ms: int,
        as_of_ms: int | None = None,
        dry_run: bool = False,
        from_raw: bool = False,
    ) -> Result:
        """Settle ``month`` as of five minutes after its end, or as of an earlier ``as_of_ms``.

        Settling again with the same inputs changes nothing. ``from_raw`` computes it a second time
        from the log alone, without columns, and posts only where both agree.

        Raises:
            UsageError: the month is no month, still open, out of order, settled with another
                result, or without booked revenue; nothing is posted then.
            LocalError: ``columns`` where columns and log disagree; nothing is posted then.

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
        relays = self._relays()
        rules = self._rules(month)
        books = self._ledger.books(month, as_of_ms)
        if rules.mode == "per_payer" and not books.contributions:
            message = "[money] mode per_payer needs every revenue booking to name its --account"
            raise UsageError(message, reason="no_payers")
        with self._source() as source:
            size = source.size_at(as_of_ms)
            _refuse_gaps(month, before, source.months(size))
            outcome = self._compute(month, as_of_ms, size, source, before, books, relays, rules).outcome
        if from_raw:
            raw = self._reckoning(month, before)
            again = self._compute(month, as_of_ms, size, raw, before, books, relays, rules).outcome
            _refuse_difference(outcome, again, self.columns.folder)
        settled = next((item for item in history if item.month == month), None)
        if settled is not None:
            known = replace(outcome.statement, as_of_ms=settled.as_of_ms)
            if known == settled.statement:
                outcome = outcome._replace(statement=known)
        if dry_run:
            return Result(outcome, posted=False)

        def record(tx: Transaction) -> None:
            holds.record(tx, month, outcome.holds, now_ms, rules.appeal_ms)

        return Result(
            outcome, self._ledger.post_settlement(outcome, self._relays(), self._payee_of, also=record)
        )

    def difference(self, outcome: Outcome) -> dict[str, tuple[int, int]]:
        """Return, of each account where they differ, what is posted of a month and what this would post."""
        return self._ledger.difference(outcome, self._relays(), self._payee_of)

    def has_report(self, month: str) -> bool:
        """Say whether a month's report is written."""
        return self.report_at(month) is not None

    def report_at(self, month: str) -> Path | None:
        """Return where a month's report lies, None where it is not written."""
        folder = self._reports / month
        return folder if (folder / HEAD).is_file() else None

    def open_months(self) -> tuple[str, ...]:
        """Return the months behind the last settled one that have pulses or bookings."""
        history = self._ledger.settlements()
        last = history[-1].month if history else ""
        with self._source() as source:
            seen = source.months(source.size_at(_EVER_MS))
        with self._ledger.reading() as tx:
            found = seen | booked_months(tx)
        return tuple(sorted(month for month in found if month > last))

    def look(self, month: str, now_ms: int) -> Look:
        """Return a month as it would be settled now, or as it was; nothing is posted.

        Without booked revenue there is nothing to share yet, and the relays' pay is all there is.

        Raises:
            UsageError: for a month to come.

        """
        if now_ms < month_bounds_ms(month)[0]:
            raise UsageError(f"{month} has not begun")
        history = self._ledger.settlements()
        before = [item for item in history if item.month < month]
        settled = next((item for item in history if item.month == month), None)
        if settled is not None:
            with self._source() as source:
                return self._again(settled, before, source)._replace(settled=True)
        rules, as_of_ms = self._rules(month), min(now_ms, close_ms(month))
        relays = self._relays()
        try:
            books, known = self._ledger.books(month, as_of_ms), True
        except UsageError as error:
            if error.reason != "no_revenue":
                raise
            brought = before[-1].statement.carried_cents if before else 0
            books, known = Books(0, 0, {}, brought, before[-1].digest if before else NOTHING), False
        titles = Titles(self._manifests)
        with open_running(self.columns, titles) as tally:
            size = tally.size_at(as_of_ms)
            viewing = self._running.viewing(tally, _ask(month, before, rules), size)
        log = Log(size, bytes(HASH_BYTES), bytes(HASH_BYTES))  # nobody is told them before it is settled
        outcome = settle(
            month, as_of_ms, viewing, titles.found, books, _names(relays), log, rules, first_keys=relays
        )
        return Look(outcome, viewing, titles.found, settled=False, revenue_known=known)

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
        with self._source() as source:
            outcome = self._again(settled, before, source).outcome
            leaves = source.leaves(statement.log_size)
            tickets = pack_tickets(source.stored(statement.log_size, _reach(month, before)))
        if outcome.digest != settled.digest:
            message = (
                f"the intake log and ledger no longer give what was posted for {month}; restore a backup"
            )
            raise LocalError(message, reason="not_reproducible")
        previous = before[-1].statement if before else None
        report = Report(outcome.statement, outcome.lines, b"".join(leaves), tickets, previous)
        return write_report(self._reports, report, self._identity)

    def _again(self, settled: Settled, before: list[Settled], source: Source) -> Look:
        """Compute a settled month once more from what was settled then."""
        statement = settled.statement
        return self._compute(
            settled.month, settled.as_of_ms, statement.log_size, source, before,
            self._ledger.books(settled.month, settled.as_of_ms),
            {key: line.relay for line in statement.relays for key in (line.relay, *line.keys)},
            statement.rules,
        )  # fmt: skip

    @contextmanager
    def _source(self) -> Generator[Source]:
        with open_tally(self.columns, Titles(self._manifests)) as tally:
            yield tally

    def _reckoning(self, month: str, before: list[Settled]) -> Reckoning:
        titles = Titles(self._manifests)
        return Reckoning(lambda: read_entries(self._segments), self._office, _reach(month, before), titles)

    def _compute(
        self,
        month: str,
        as_of_ms: int,
        size: int,
        source: Source,
        before: list[Settled],
        books: Books,
        relays: Mapping[bytes, bytes],
        rules: Rules,
    ) -> Look:
        viewing = source.viewing(*_ask(month, before, rules).at(size))
        tickets = pack_tickets(source.stored(size, _reach(month, before)))
        log = Log(size, log_root(source.leaves(size)), sha256(tickets).digest())
        titles = source.titles
        outcome = settle(
            month, as_of_ms, viewing, titles, books, _names(relays), log, rules, first_keys=relays
        )
        return Look(outcome, viewing, titles, settled=False)


def close_ms(month: str) -> int:
    """Return when a month may be settled: five minutes after its end, when its tickets are over.

    Raises:
        UsageError: for anything but ``YYYY-MM``.

    """
    if not _MONTH.fullmatch(month):
        raise UsageError(f"{month!r} is no month; write it as 2026-11")
    return close_of(month)


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


def _reach(month: str, before: list[Settled]) -> range:
    """Return the days a settlement looks at: its month, the one before, and those late pulses may reach."""
    start = min(_days(item).start for item in (month, *(item.month for item in before[-CARRY_MONTHS:])))
    first = _days(month_of(_days(month).start - 1)).start
    return range(min(start, first) - 1, _days(month).stop)


def _ask(month: str, before: list[Settled], rules: Rules) -> Ask:
    earlier = [Earlier(_days(item.month), item.statement.rules) for item in before[-CARRY_MONTHS:]]
    return Ask(_days(month), earlier, before[-1].statement.log_size if before else 0, rules)


def _names(relays: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    return {key[:_RELAY_NAME_BYTES]: key for key in relays}


def _refuse_gaps(month: str, before: list[Settled], seen: set[str]) -> None:
    last = before[-1].month if before else ""
    missing = min((item for item in seen if last < item < month), default=None)
    if missing is not None:
        raise UsageError(
            f"{missing} has pulses but is not settled; settle it before {month}", reason="out_of_order"
        )


def _refuse_difference(outcome: Outcome, again: Outcome, columns: Path) -> None:
    if outcome.digest != again.digest:
        name, other = outcome.digest.hex()[:16], again.digest.hex()[:16]
        message = (
            f"columns and intake log disagree on {outcome.statement.month}: digest {name} from columns, "
            f"{other} from the log; delete {columns} and settle again"
        )
        raise LocalError(message, reason="columns")
