"""The tally: a month's viewing counted from columns by DuckDB, a few buckets of accounts at a time.

``steps`` says what is plain and sums it; the rest comes back as facts and is judged by ``credit``.
Every sum is an integer and local to an account, so the number of passes and threads changes nothing.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ...protocol.manifest import Manifest
from ...protocol.rules import DAY_MS, Rules, relay_day_kbytes
from ...protocol.ticket import Holder
from ..pulses.admission import month_of
from ..pulses.columns import Columns
from ..pulses.duck import THREADS, duck, parquet
from ..pulses.evidence import Evidence
from ..pulses.part import Part
from ..pulses.segments import Place, read_entry
from . import steps, walk
from .credit import Before, Credit, Fact, cap_days, carry_in, credit, credit_run
from .rollup import roll_up, rollup_of
from .steps import Scope
from .titles import Titles
from .total import Total, bring
from .viewing import Sum, Viewing, title_kbytes

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

BUCKETS = 256
PASS_ROWS = 4_000_000
"""Rows a pass may hold: its sort stays within DuckDB's memory."""
ROLLED = 8
"""So many pulses whose tickets are rolled up take the room of one."""
ODD_ACCOUNTS = 512
"""Accounts judged from the log at a time."""
_FETCH = 20_000
_EVERYTHING = 2**62
"""A size no log has: whether a body is authentic is told by what came after it, too."""


class Earlier(NamedTuple):
    """A month settled before, whose late pulses may come in: its days and the rules it was settled with."""

    days: range
    rules: Rules


class Ask(NamedTuple):
    """What is asked of a month: its days and rules, and of which earlier months, settled at which size."""

    days: range
    earlier: Sequence[Earlier]
    settled_size: int
    rules: Rules

    def at(self, size: int) -> tuple[range, int, Sequence[Earlier], int, Rules]:
        """Return it as a ``Source`` is asked for the viewing, at a size of the log."""
        return self.days, size, self.earlier, self.settled_size, self.rules


class _Row(NamedTuple):
    """A body as ``steps.bodies`` tells it."""

    account: bytes
    device: int
    run: int
    prev_time: int | None
    prev_at: int | None
    tid: bytes
    day: int
    seq: int
    at: int
    cum: int
    delta: int
    state: int
    manifest: int
    late: int
    then_late: int | None
    served: tuple[int | None, ...]


class Tally:
    """The whole intake log as columns, opened for one settlement; see ``open_tally``."""

    def __init__(
        self,
        columns: Columns,
        parts: Sequence[Part],
        db: DuckDBPyConnection,
        titles: Titles,
        passes: int | None,
    ) -> None:
        self._columns = columns
        self._parts = parts
        self._db = db
        self._titles = titles
        self._passes = passes
        self._names: list[bytes] = [bytes.fromhex(name) for part in parts for name in part.head.new_titles]
        self._relays = [bytes.fromhex(name) for part in parts for name in part.head.new_relays]
        self._chosen, self._share = False, 1.0
        """Whether some accounts alone are looked at, and which share of all they are."""
        self._show_all()
        db.execute(f"CREATE TEMP VIEW frames AS SELECT * FROM {parquet(part.frames for part in parts)}")
        rows = [
            f"({number}, {title_kbytes(manifest)})"
            for number, name in enumerate(self._names, 1)
            if (manifest := titles.find(name)) is not None
        ]
        db.execute("CREATE TEMP TABLE titles (manifest INTEGER, kbytes BIGINT)")
        for start in range(0, len(rows), 1_000):
            db.execute(f"INSERT INTO titles VALUES {', '.join(rows[start : start + 1_000])}")

    @property
    def titles(self) -> Mapping[bytes, Manifest]:
        """The titles it has met."""
        return self._titles.found

    def size_at(self, as_of_ms: int) -> int:
        """Return how many entries the log had at ``as_of_ms``."""
        found = self._db.execute("SELECT count(*) FROM frames WHERE at_ms <= ?", [as_of_ms]).fetchone()
        return int(found[0]) if found else 0

    def months(self, size: int) -> set[str]:
        """Return the months that the first ``size`` entries hold pulses of."""
        days = {day for part in self._parts for day, first in part.head.days.items() if first < size}
        return {month_of(day) for day in days}

    def leaves(self, size: int) -> list[bytes]:
        """Return the leaf hashes of the first ``size`` entries."""
        query = "SELECT leaf FROM frames WHERE entry < ? ORDER BY entry"
        return [leaf for (leaf,) in self._db.execute(query, [size]).fetchall()]

    def stored(self, size: int, days: range) -> dict[bytes, int]:
        """Return how many distinct pulses of each ticket of ``days`` the first ``size`` entries hold."""
        self._read(days)
        scope = _scope(days, size)
        found: dict[bytes, int] = dict(self._db.execute(steps.stored(scope)).fetchall())
        for evidence in self._told(scope, steps.doubtful(scope)):
            found.update(evidence.stored(size))
        return found

    def viewing(
        self, days: range, size: int, earlier: Sequence[Earlier], settled_size: int, rules: Rules
    ) -> Viewing:
        """Return what the month of ``days`` comes to as the first ``size`` entries tell it.

        What late pulses add to the months of ``earlier`` is what entries from ``settled_size`` on do.
        """
        return self.total(Ask(days, earlier, settled_size, rules), size).viewing(rules)

    def total(self, ask: Ask, size: int) -> Total:
        """Return the sums that ``viewing`` is made of."""
        return self._total(ask, size, [self._is_bounded(month, size, ask.rules) for month in ask.earlier])

    def _total(self, ask: Ask, size: int, bounded: Sequence[bool]) -> Total:
        total = self._count(ask.days, ask.days.start - 1, size, ask.rules)
        for month, everybody in zip(ask.earlier, bounded, strict=True):
            self._carry(month, 0 if everybody else ask.settled_size, ask, size, total)
        return total

    def _count(self, days: range, since: int, size: int, rules: Rules) -> Total:
        """Return what ``days`` come to; tickets from day ``since`` on are walked, as sessions go on."""
        total = Total()
        self._read(range(since, days.stop))
        newest = self._parts[-1].date  # parts of a day that goes on soon become another
        roll_up(self._db, [part for part in self._seen if part.date < newest], rules)
        for scope in self._scopes(range(since, days.stop), size, rules):
            self._pass(scope, days, rules, total)
        return total

    def _show_all(self) -> None:
        everything = parquet(part.tickets for part in self._parts)
        self._db.execute(f"CREATE OR REPLACE TEMP VIEW tickets AS SELECT * FROM {everything}")
        self._chosen, self._share = False, 1.0

    def slow(self) -> tuple[int, int]:
        """Return how many odd accounts and how many tickets of hard runs the last pass left to ``credit``."""
        found = self._db.execute("SELECT (SELECT count(*) FROM odd), (SELECT count(*) FROM hard)").fetchone()
        return (0, 0) if found is None else (int(found[0]), int(found[1]))

    def _read(self, days: range) -> None:
        """Look at the parts that hold pulses of ``days`` from now on; the last one at least."""
        found = [part for part in self._parts if any(day in days for day in part.head.days)]
        self._seen = found or self._parts[-1:]
        self._see("pulses", [part.pulses for part in self._seen])

    def _see(self, view: str, files: Sequence[Path]) -> None:
        """Show files as one table, of the chosen tickets alone where some are."""
        only = " SEMI JOIN chosen_tickets USING (ticket)" if self._chosen else ""
        self._db.execute(f"CREATE OR REPLACE TEMP VIEW {view} AS SELECT * FROM {parquet(files)}{only}")

    def _scopes(self, days: range, size: int, rules: Rules | None = None) -> Iterator[Scope]:
        """Yield the passes over what is read; with ``rules`` for walks, which rollups shorten."""
        rolled = self._rolled(size, rules) if rules else []
        rows = sum(part.head.rows for part in self._seen)
        rows -= sum(part.head.rows for part in rolled) * (ROLLED - 1) // ROLLED
        passes = self._passes or min(BUCKETS, -(-int(rows * self._share) // PASS_ROWS) or 1)
        for number in range(passes):
            first, end = number * BUCKETS // passes, (number + 1) * BUCKETS // passes
            if first < end:
                yield Scope(first, end - 1, days.start, days.stop - 1, size)

    def _rolled(self, size: int, rules: Rules) -> list[Part]:
        """Return which of the parts that are read have a rollup that holds for the first ``size`` entries."""
        return [part for part in self._seen if part.head.end <= size and rollup_of(part, rules).exists()]

    def _walk(self, scope: Scope, rules: Rules) -> None:
        """Bring each ticket into its place, and find the odd accounts."""
        run = self._db.execute
        rolled = self._rolled(scope.size, rules)
        if rolled:
            loose = [part.pulses for part in self._seen if part not in rolled]
            self._see("rolled", [rollup_of(part, rules) for part in rolled])
            if loose:
                self._see("loose", loose)
            run(walk.mixed(scope, "loose" if loose else None))
            any_mixed = run("SELECT count(*) FROM mixed").fetchone() != (0,)
            if any_mixed:
                run(walk.earlier(scope, walk.MIXED))
            run(walk.walk_rolled(scope, rules, any_mixed=any_mixed))
        else:
            run(walk.earlier(scope))
            run(walk.walk(scope, rules))
        run(steps.ride(scope, rules))
        run(steps.ODD)

    def _pass(self, scope: Scope, days: range, rules: Rules, total: Total) -> None:
        run = self._db.execute
        self._walk(scope, rules)
        run(steps.hard(rules))
        run(steps.plain(days.start))
        run(steps.brought(scope, days.start))
        run(steps.FULL_TITLES)
        month, names = month_of(days.start), [b"", *self._names]
        # no account is in two passes, and what is not plain comes after
        known: dict[bytes, bytes] = {}  # one object for an account, however many sums are its
        for number, account, ms in run(steps.BY_TITLE).fetchall():
            watched = total.ms.setdefault((names[int(number)], month), {})
            watched[known.setdefault(account, account)] = ms
        for account, day, ms, pulses in run(steps.BY_DAY).fetchall():
            total.days.setdefault(day, {})[known.setdefault(account, account)] = Sum(ms, pulses)
        for number, gap_ms, gaps, start_ms, starts in run(steps.CUT).fetchall():
            total.lose(names[int(number)], "gap", gap_ms, gaps)
            total.lose(names[int(number)], "start", start_ms, starts)
        brought = run(steps.BY_RELAY).fetchall()
        if run(steps.ANY_FULL).fetchone() != (0,):  # it reads every pulse once more
            brought += run(steps.capped_relays(scope)).fetchall()
        for number, day, kbytes in brought:
            total.kbytes[self._relays[number - 1], day] += kbytes
        for credits_ in self._hard(scope, rules):
            total.add(_within(credits_, days))
        total.odd.update(account for (account,) in run("SELECT account FROM odd").fetchall())
        for (facts,) in self._odd(scope, "SELECT account FROM odd", (scope.size,)):
            credits_ = _within(credit(facts, rules), days)
            total.add(credits_)
            bring(total.kbytes, credits_, self.titles, rules)

    def _hard(self, scope: Scope, rules: Rules) -> Iterator[list[Credit]]:
        """Yield the credits of each account's hard runs."""
        if self.slow()[1] == 0:
            return
        for _, rows in self._bodies(steps.hard_bodies(scope)):
            credits_: list[Credit] = []
            for _, of_run in groupby(rows, key=lambda row: (row.device, row.run)):
                run = list(of_run)
                prev = run[0]
                before = None
                if prev.prev_time is not None and prev.prev_at is not None:
                    before = Before(prev.prev_time, prev.prev_at)
                credits_ += credit_run([self._fact(row, row.late, ()) for row in run], before, rules)
            yield cap_days(credits_, rules)

    def _is_bounded(self, month: Earlier, size: int, pay: Rules) -> bool:
        """Say whether a relay might be at its bound on a day of an earlier month."""
        self._read(range(month.days.start - 1, month.days.stop))
        (most,) = self._db.execute(steps.busiest_relay(_scope(month.days, size))).fetchone() or (0,)
        return (most or 0) > relay_day_kbytes(pay)

    def _carry(self, month: Earlier, since: int, ask: Ask, size: int, total: Total) -> None:
        """Add what entries behind the settlement bring the accounts that entries from ``since`` on are about.

        The others gain nothing. A relay's bound is over all accounts: where it might bite, all of them
        are looked at.
        """
        days, then, pay = month.days, ask.settled_size, ask.rules
        self._read(range(days.start - 1, days.stop))
        for scope in self._scopes(range(days.start - 1, days.stop), size):
            self._db.execute(steps.changed(scope, since))
            groups = (
                self._both(list(rows))
                for _, rows in self._bodies(steps.bodies(scope, then, steps.changed_tickets(scope)))
            )
            odd = self._odd(scope, "SELECT account FROM changed WHERE strange", (then, size))
            for before, after in chain(groups, ((pair[0], pair[1]) for pair in odd)):
                old = _within(credit(before, month.rules), days)
                new = _within(credit(after, month.rules), days)
                total.add_carried(carry_in(old, new))
                bring(total.late, new, self.titles, pay)
                bring(total.settled, old, self.titles, pay)

    def _both(self, rows: list[_Row]) -> tuple[list[Fact], list[Fact]]:
        """Return an account's facts as they were told then, and as they are now."""
        items = [(row, self._served(row)) for row in rows]
        then = [self._fact(row, row.then_late, items_) for row, items_ in items if row.then_late is not None]
        return then, [self._fact(row, row.late, items_) for row, items_ in items]

    def _bodies(self, query: str) -> Iterator[tuple[bytes, Iterator[_Row]]]:
        cursor = self._db.execute(query)  # nothing else is asked meanwhile

        def rows() -> Iterator[_Row]:
            while found := cursor.fetchmany(_FETCH):
                for row in found:
                    yield _Row._make((*row[:15], row[15:]))

        yield from groupby(rows(), key=lambda row: row.account)

    def _fact(self, row: _Row, late: int, items: tuple[tuple[bytes, int], ...]) -> Fact:
        at_ms = row.day * DAY_MS + row.at
        name = row.tid + row.seq.to_bytes(2, "big")  # one body to a number here, so this names it
        return Fact(
            row.account, row.device, row.tid, row.day, row.seq, name, at_ms, at_ms + late, row.cum, row.delta,
            row.state, self._names[row.manifest - 1], items, "",
        )  # fmt: skip

    def _served(self, row: _Row) -> tuple[tuple[bytes, int], ...]:
        pairs = zip(row.served[::2], row.served[1::2], strict=True)
        return tuple(
            (self._relays[r - 1], kbytes) for r, kbytes in pairs if r is not None and kbytes is not None
        )

    def _odd(self, scope: Scope, query: str, sizes: tuple[int, ...]) -> Iterator[list[list[Fact]]]:
        """Yield the facts of accounts that only the log itself can tell, for each size of it."""
        days = range(scope.first_day, scope.last_day + 1)
        for evidence in self._told(scope, query):
            yield [evidence.facts(size, days, self._titles.find) for size in sizes]

    def _told(self, scope: Scope, query: str) -> Iterator[Evidence]:
        """Yield what the log itself tells of accounts, some at a time."""
        accounts = sorted(account for (account,) in self._db.execute(query).fetchall())
        days = range(scope.first_day, scope.last_day + 1)
        for start in range(0, len(accounts), ODD_ACCOUNTS):
            chosen = frozenset(accounts[start : start + ODD_ACCOUNTS])
            yield self._evidence(scope._replace(size=_EVERYTHING), chosen, days)

    def _evidence(self, scope: Scope, chosen: frozenset[bytes], days: range) -> Evidence:
        def ours(holder: Holder) -> bool:
            return holder.account in chosen

        evidence = Evidence((), self._columns.office, days, chosen=ours)
        accounts = "SELECT unnest([" + ", ".join(f"unhex('{a.hex()}')" for a in chosen) + "]) AS account"
        for entry, segment, start in self._db.execute(steps.entries(scope, accounts)).fetchall():
            found = read_entry(self._columns.segments, Place(segment, start))
            if found is not None:
                evidence.read(entry, found.payload)
        evidence.finish()
        return evidence


@contextmanager
def open_tally(
    columns: Columns, titles: Titles, *, threads: int = THREADS, passes: int | None = None
) -> Generator[Tally]:
    """Open the whole log as columns; ``passes`` over the buckets are chosen by the rows there are.

    Raises:
        LocalError: where log or disk fail.

    """
    with columns.whole() as parts, duck(columns.folder, threads=threads) as db:
        yield Tally(columns, parts, db, titles, passes)


def _scope(days: range, size: int) -> Scope:
    return Scope(0, BUCKETS - 1, days.start, days.stop - 1, size)


def _within(credits_: Iterable[Credit], days: range) -> list[Credit]:
    return [item for item in credits_ if item.fact.day in days]
