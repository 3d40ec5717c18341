"""The running month: its total kept, and brought up to date by the pulses that came in since.

What a pulse changes is its account's alone, and from its own day on: so of the accounts that new
entries name, two days and the days since are counted as they were and as they are, and the difference
is what came in. An account of which that does not hold (its pulses are late by days, a session reaches
back beyond them, or only the log itself tells of it) is counted whole, as it was and as it is.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import NamedTuple

from ...protocol.manifest import Manifest
from ..pulses.columns import Columns
from ..pulses.duck import THREADS, duck, parquet
from . import steps
from .tally import Ask, Tally
from .titles import Titles
from .total import Total
from .viewing import Viewing

CONTEXT_DAYS = 2
"""Days before those that are counted: a run that begins within them is judged as in the whole month."""
MANY = 2
"""Where one in so many accounts is to be counted whole, all are."""
KEPT_SUMS = 500_000
"""A larger total, of some 120 MB, is not kept: it is counted anew each time."""
_ROWS = 20_000


class Running(Tally):
    """A tally that brings a total of some earlier size of the log up to date."""

    def find(self, title: bytes) -> Manifest | None:
        """Return a title's manifest, where it is known by now."""
        return self._titles.find(title)

    def leaf(self, entry: int) -> bytes:
        """Return the leaf hash of an entry, nothing where there is none."""
        found = self._db.execute("SELECT leaf FROM frames WHERE entry = ?", [entry]).fetchone()
        return bytes(found[0]) if found else b""

    def follow(self, total: Total, ask: Ask, then: int, size: int) -> bool:
        """Bring ``total``, of the first ``then`` entries, up to the first ``size``.

        False, and nothing done, where counting everything again is no more work: most accounts would
        be counted whole, or a relay is at its bound on a day of an earlier month.
        """
        named, fresh = self._named(then, size)
        months = [month for month in ask.earlier if any(day in _reach(month.days) for day in fresh)]
        if any(self._is_bounded(month, size, ask.rules) for month in months):
            return False
        ask = ask._replace(earlier=months)
        first = max(ask.days.start, max(named.values(), default=0) - 1)
        whole = {account for account, day in named.items() if day < first or account in total.odd}
        recent = set(named) - whole
        since = first - CONTEXT_DAYS
        if since < ask.days.start:
            whole, recent = set(named), set[bytes]()
        if recent:
            with self._only(recent):
                whole |= self._reaching(ask, first, since, (then, size))
                recent -= whole
        (known,) = self._db.execute("SELECT count(DISTINCT account) FROM tickets").fetchone() or (0,)
        if len(whole) * MANY > known:
            return False
        days, rules = range(first, ask.days.stop), ask.rules
        if recent:
            with self._only(recent):
                total.exchange(*(self._count(days, since, at, rules) for at in (then, size)))
        if whole:
            free = [False] * len(months)
            with self._only(whole):
                total.exchange(*(self._total(ask, at, free) for at in (then, size)))
        return True

    def _named(self, then: int, size: int) -> tuple[dict[bytes, int], set[int]]:
        """Return the accounts that entries from ``then`` to before ``size`` name, and all days these tell of.

        Each account comes with the first day that is touched.
        """
        parts = [part for part in self._parts if part.head.end > then and part.head.first < size]
        if not parts:
            return {}, set()
        query = steps.named(parquet(part.pulses for part in parts), then, size)
        days = {day for part in parts for day in part.head.days}
        return dict(self._db.execute(query).fetchall()), days

    def _reaching(self, ask: Ask, first: int, since: int, sizes: Iterable[int]) -> set[bytes]:
        """Return which of the chosen accounts the days from ``since`` on do not tell enough of."""
        found: set[bytes] = set()
        self._read(range(since, ask.days.stop))
        for size in sizes:
            for scope in self._scopes(range(since, ask.days.stop), size, ask.rules):
                self._walk(scope, ask.rules)
                query = steps.reaching(first, since)
                found.update(account for (account,) in self._db.execute(query).fetchall())
        return found

    @contextmanager
    def _only(self, accounts: Iterable[bytes]) -> Generator[None]:
        """See the tickets and pulses of these accounts alone for a while."""
        run, listed = self._db.execute, list(accounts)
        (known,) = run("SELECT count(DISTINCT account) FROM tickets").fetchone() or (1,)
        run("CREATE OR REPLACE TEMP TABLE chosen (account BLOB)")
        for start in range(0, len(listed), _ROWS):
            run("INSERT INTO chosen SELECT unnest($1)", [listed[start : start + _ROWS]])
        theirs = "SELECT * FROM tickets SEMI JOIN chosen USING (account)"
        run(f"CREATE OR REPLACE TEMP TABLE chosen_tickets AS {theirs}")
        run("CREATE OR REPLACE TEMP VIEW tickets AS SELECT * FROM chosen_tickets")
        self._share = min(1.0, len(listed) / max(1, known))
        self._chosen = True
        try:
            yield
        finally:
            self._show_all()


class _Kept(NamedTuple):
    ask: Ask
    size: int
    leaf: bytes
    total: Total


class RunningMonth:
    """The total of one month at the size of the log it was last asked at; one caller at a time."""

    def __init__(self) -> None:
        self._kept: _Kept | None = None

    def viewing(self, tally: Running, ask: Ask, size: int) -> Viewing:
        """Return what the month comes to as the first ``size`` entries tell it."""
        kept, self._kept = self._kept, None  # what fails halfway is not gone on with
        total = None
        if kept is not None and _goes_on(kept, tally, ask, size):
            total = kept.total if tally.follow(kept.total, ask, kept.size, size) else None
        if total is None:
            total = tally.total(ask, size)
        for title in {title for title, _ in (*total.ms, *total.carried_ms)} - tally.titles.keys():
            tally.find(title)
        if total.entries <= KEPT_SUMS:
            self._kept = _Kept(ask, size, tally.leaf(size - 1), total)
        return total.viewing(ask.rules)


def _goes_on(kept: _Kept, tally: Running, ask: Ask, size: int) -> bool:
    """Say whether the same is asked of the same log, grown; a title that nobody knew may be known now."""
    return (
        kept.ask == ask
        and kept.size <= size
        and kept.leaf == tally.leaf(kept.size - 1)
        and not any(code == "unknown_title" and tally.find(title) for title, code in kept.total.cut_titles)
    )


def _reach(days: range) -> range:
    return range(days.start - 1, days.stop)


@contextmanager
def open_running(
    columns: Columns, titles: Titles, *, threads: int = THREADS, passes: int | None = None
) -> Generator[Running]:
    """Open the whole log as columns; as ``open_tally``."""
    with columns.whole() as parts, duck(columns.folder, threads=threads) as db:
        yield Running(columns, parts, db, titles, passes)
