"""The total: sums of viewing in the making, account by account, that can be taken back and added again.

Pure. Every sum is an integer and each account's part of it is its own, so a total may be built from
accounts in any order, and what some of them came to may be exchanged for what they come to now.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

from ...protocol.manifest import Manifest
from ...protocol.rules import Rules
from ..pulses.admission import month_of
from .credit import Credit
from .viewing import NO_SUM, RelayDay, Sum, Title, TitleCode, Viewing, bounded, brought, gained

K = TypeVar("K", bound=Hashable)


class Total:
    """What a month comes to.

    ``late`` and ``settled`` are what relays brought of earlier months, now and as settled; ``odd`` the
    accounts that only the log itself could tell.
    """

    def __init__(self) -> None:
        self.ms: dict[Title, dict[bytes, int]] = {}
        self.days: dict[int, dict[bytes, Sum]] = {}
        self.carried_ms: dict[Title, dict[bytes, int]] = {}
        self.carried_days: dict[int, dict[bytes, Sum]] = {}
        self.kbytes: dict[RelayDay, int] = defaultdict(int)
        self.late: dict[RelayDay, int] = defaultdict(int)
        self.settled: dict[RelayDay, int] = defaultdict(int)
        self.cut_titles: dict[TitleCode, Sum] = {}
        self.odd: set[bytes] = set()

    @property
    def entries(self) -> int:
        """How many sums it holds."""
        titles = sum(len(accounts) for part in (self.ms, self.carried_ms) for accounts in part.values())
        days = sum(len(accounts) for part in (self.days, self.carried_days) for accounts in part.values())
        return titles + days

    def add(self, credits_: Iterable[Credit]) -> None:
        """Add credits of the month itself."""
        for item in credits_:
            if item.ms:
                _watched(self.ms, self.days, item)
            for code, ms in item.cuts:
                self.lose(item.fact.manifest, code, ms, 1)

    def add_carried(self, credits_: Iterable[Credit]) -> None:
        """Add what late pulses bring to earlier months."""
        for item in credits_:
            _watched(self.carried_ms, self.carried_days, item)

    def lose(self, title: bytes, code: str, ms: int, pulses: int) -> None:
        """Add to what does not count of a title."""
        if pulses:
            _add(self.cut_titles, (title, code), ms, pulses)

    def exchange(self, old: Total, new: Total) -> None:
        """Take back what some accounts came to and add what they come to now."""
        for titles, before_, after_ in (
            (self.ms, old.ms, new.ms),
            (self.carried_ms, old.carried_ms, new.carried_ms),
        ):
            for title in {*before_, *after_}:
                accounts = titles.setdefault(title, {})
                _exchange(accounts, before_.get(title, {}), after_.get(title, {}))
                if not accounts:
                    del titles[title]
        for days, was, is_ in (
            (self.days, old.days, new.days),
            (self.carried_days, old.carried_days, new.carried_days),
        ):
            for day in {*was, *is_}:
                viewers = days.setdefault(day, {})
                _exchange_sums(viewers, was.get(day, {}), is_.get(day, {}))
                if not viewers:
                    del days[day]
        for sums, before, after in (
            (self.kbytes, old.kbytes, new.kbytes),
            (self.late, old.late, new.late),
            (self.settled, old.settled, new.settled),
        ):
            _exchange(sums, before, after)
        _exchange_sums(self.cut_titles, old.cut_titles, new.cut_titles)
        self.odd |= old.odd | new.odd

    def viewing(self, rules: Rules) -> Viewing:
        """Return the sums; they go on changing where the total does."""
        kbytes, over = bounded(self.kbytes, rules)
        cut: dict[str, Sum] = {}
        for (_, code), sum_ in self.cut_titles.items():
            _add(cut, code, sum_.ms, sum_.pulses)
        carried_kbytes = gained(bounded(self.late, rules)[0], bounded(self.settled, rules)[0])
        return Viewing(  # no copies: of a large month they would be half a gigabyte
            self.ms, self.days, self.carried_ms, self.carried_days, kbytes, carried_kbytes, cut, over,
            self.cut_titles,
        )  # fmt: skip


def bring(
    sums: dict[RelayDay, int], credits_: Iterable[Credit], titles: Mapping[bytes, Manifest], rules: Rules
) -> None:
    """Add what relays brought whole accounts."""
    for key, kbytes in brought((item.fact for item in credits_), titles, rules).items():
        sums[key] += kbytes


def _watched(titles: dict[Title, dict[bytes, int]], days: dict[int, dict[bytes, Sum]], item: Credit) -> None:
    fact = item.fact
    accounts = titles.setdefault((fact.manifest, month_of(fact.day)), {})
    accounts[fact.account] = accounts.get(fact.account, 0) + item.ms
    _add(days.setdefault(fact.day, {}), fact.account, item.ms, 1)


def _add(sums: dict[K, Sum], key: K, ms: int, pulses: int) -> None:
    before = sums.get(key)
    sums[key] = Sum(ms, pulses) if before is None else Sum(before.ms + ms, before.pulses + pulses)


def _exchange(sums: dict[K, int], old: Mapping[K, int], new: Mapping[K, int]) -> None:
    for key in {*old, *new}:
        left = sums.get(key, 0) - old.get(key, 0) + new.get(key, 0)
        if left:
            sums[key] = left
        else:
            sums.pop(key, None)


def _exchange_sums(sums: dict[K, Sum], old: Mapping[K, Sum], new: Mapping[K, Sum]) -> None:
    for key in {*old, *new}:
        was, before, after = (part.get(key, NO_SUM) for part in (sums, old, new))
        left = Sum(was.ms - before.ms + after.ms, was.pulses - before.pulses + after.pulses)
        if left.pulses:
            sums[key] = left
        else:
            sums.pop(key, None)
