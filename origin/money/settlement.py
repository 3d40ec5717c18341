"""The settlement S(month): viewing and books in, a statement exact to the cent out.

Pure: no clock, no disk, integers only. The same inputs in any order give the same bytes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from ...protocol.audit import audit, shares_of
from ...protocol.manifest import Manifest
from ...protocol.rules import DAY_MS, Rules, relay_cents, reserve_cents
from ...protocol.shares import apportion
from ...protocol.statement import (
    CodeLine,
    DayLine,
    FlagLine,
    Line,
    RelayLine,
    Statement,
    digest,
    lines_root,
)
from .flags import Flag, Hold, flagged, holds_of
from .viewing import Viewing

OTHER_DAYS = "other"

Leaf = tuple[bytes, str, str]
"""Platform, payee, month of viewing."""


class Books(NamedTuple):
    """The money of the month: booked sums, each account's own contribution, what was carried here.

    ``contributions`` is empty unless every revenue booking named an account: then the cap is off.
    """

    revenue_cents: int
    costs_cents: int
    contributions: Mapping[bytes, int]
    brought_cents: int
    previous: bytes


class Log(NamedTuple):
    """What of the intake log was settled: its first ``size`` entries, and the tickets among them."""

    size: int
    root: bytes
    tickets_hash: bytes


class Outcome(NamedTuple):
    """A settlement: the statement, its lines and name, and what is held of whom (no part of the name)."""

    statement: Statement
    lines: tuple[Line, ...]
    holds: tuple[Hold, ...] = ()

    @property
    def digest(self) -> bytes:
        """The statement's name."""
        return digest(self.statement)


def settle(
    month: str,
    as_of_ms: int,
    viewing: Viewing,
    titles: Mapping[bytes, Manifest],
    books: Books,
    relays: Mapping[bytes, bytes],
    log: Log,
    rules: Rules,
) -> Outcome:
    """Settle ``month``; ``relays`` maps the first 16 bytes of a relay's key to the key.

    Raises:
        AuditError: never for these inputs; the outcome audits itself before anybody sees it.

    """
    relay_lines = _relay_lines(viewing, relays, rules)
    relay_pay = sum(line.cents for line in relay_lines)
    costs = books.costs_cents + relay_pay
    reserve = reserve_cents(rules, books.revenue_cents, costs)
    surplus = books.revenue_cents - costs - reserve
    pool = max(0, surplus) + books.brought_cents
    weights = _weights(viewing, titles)
    flags = flagged(viewing.days, rules)
    split = _Split(pool, weights, books, rules)
    capped = split.capped()
    lines = split.lines(capped, frozenset(flags))
    holds = holds_of(flags, split.parts(capped, flags))
    days, viewers, pulses, viewed_ms = _audience(viewing, rules)
    statement = Statement(
        v=1,
        month=month,
        as_of_ms=as_of_ms,
        previous=books.previous,
        rules=rules,
        revenue_cents=books.revenue_cents,
        booked_costs_cents=books.costs_cents,
        relay_pay_cents=relay_pay,
        reserve_cents=reserve,
        deficit_cents=max(0, -surplus),
        brought_cents=books.brought_cents,
        pool_cents=pool,
        paid_cents=sum(line.paid_cents for line in lines),
        held_cents=sum(line.held_cents for line in lines),
        carried_cents=pool - sum(line.paid_cents + line.held_cents for line in lines),
        capped_cents=sum(line.capped_cents for line in lines),
        payers_known=bool(books.contributions),
        accounts=viewers,
        pulses=pulses,
        viewed_ms=viewed_ms,
        relays=relay_lines,
        days=days,
        flags=_flag_lines(flags, holds),
        uncounted=[CodeLine(code, cut.pulses, cut.ms) for code, cut in sorted(viewing.cut.items())],
        leaves=len(lines),
        leaves_root=lines_root(lines),
        log_size=log.size,
        log_root=log.root,
        tickets_hash=log.tickets_hash,
    )
    audit(statement, lines)
    return Outcome(statement, lines, holds)


class _Split:
    """The pool split over leaves and, within each leaf, over accounts: by the rules' mode, and by payer."""

    def __init__(
        self, pool_cents: int, weights: Mapping[Leaf, Mapping[bytes, int]], books: Books, rules: Rules
    ) -> None:
        self._pool_cents = pool_cents
        self._weights = weights
        self._books = books
        self._rules = rules
        self._sums = {leaf: sum(accounts.values()) for leaf, accounts in weights.items()}
        self._by_payer = self._split_by_payer()
        self.cents = self._by_payer if rules.mode == "per_payer" else self._split_pooled()

    def capped(self) -> dict[Leaf, dict[bytes, int]]:
        """Return what the per-payer cap cuts from each account's part of each leaf.

        No account moves more than ``payer_factor`` times what it brought into the pool itself.
        """
        cut: dict[Leaf, dict[bytes, int]] = defaultdict(dict)
        books = self._books
        if not books.contributions:
            return cut
        leaves = {_label(leaf): leaf for leaf in self.cents}
        fresh_cents = self._pool_cents - books.brought_cents
        for account, parts in _by_account(self.cents).items():
            brought = books.contributions.get(account, 0) * fresh_cents // max(1, books.revenue_cents)
            cap = self._rules.payer_factor * brought
            if sum(parts.values()) > cap:
                kept = apportion(cap, parts)
                for label, cents in parts.items():
                    cut[leaves[label]][account] = cents - kept[label]
        return cut

    def lines(
        self, capped: Mapping[Leaf, Mapping[bytes, int]], flagged: frozenset[bytes]
    ) -> tuple[Line, ...]:
        """Return the leaves in order; a flagged account's part is held, never paid or given to others."""
        lines: list[Line] = []
        for leaf in sorted(self.cents):
            accounts, cut = self.cents[leaf], capped.get(leaf, {})
            held = sum(accounts[a] - cut.get(a, 0) for a in accounts if a in flagged)
            share, cut_cents = sum(accounts.values()), sum(cut.values())
            lines.append(
                Line(
                    *leaf,
                    weight=self._sums[leaf],
                    share_cents=share,
                    paid_cents=share - held - cut_cents,
                    held_cents=held,
                    capped_cents=cut_cents,
                    per_payer_cents=sum(self._by_payer[leaf].values()),
                )
            )
        return tuple(lines)

    def parts(
        self, capped: Mapping[Leaf, Mapping[bytes, int]], flags: Mapping[bytes, Flag]
    ) -> Iterator[tuple[str, bytes, int]]:
        """Yield payee, account and what the cap leaves of each flagged account's part of each leaf."""
        for leaf, accounts in self.cents.items():
            cut = capped.get(leaf, {})
            for account in accounts.keys() & flags.keys():
                yield leaf[1], account, accounts[account] - cut.get(account, 0)

    def _split_pooled(self) -> dict[Leaf, dict[bytes, int]]:
        shares = shares_of(self._pool_cents, self._sums)
        return {leaf: apportion(shares[leaf], accounts) for leaf, accounts in self._weights.items()}

    def _split_by_payer(self) -> dict[Leaf, dict[bytes, int]]:
        """Split each account's part of the pool by its own viewing; who watched nothing moves nothing."""
        leaves = {_label(leaf): leaf for leaf in self._weights}
        watched = _by_account(self._weights)
        found = {leaf: dict.fromkeys(accounts, 0) for leaf, accounts in self._weights.items()}
        for account, cents in apportion(self._pool_cents, dict(self._books.contributions)).items():
            for label, part in apportion(cents, watched.get(account, {})).items():
                found[leaves[label]][account] = part
        return found


def _by_account(parts: Mapping[Leaf, Mapping[bytes, int]]) -> dict[bytes, dict[str, int]]:
    """Turn leaf -> account around."""
    turned: dict[bytes, dict[str, int]] = defaultdict(dict)
    for leaf, accounts in parts.items():
        for account, part in accounts.items():
            turned[account][_label(leaf)] = part
    return turned


def _label(leaf: Leaf) -> str:
    platform, payee, month = leaf
    return f"{platform.hex()} {payee} {month}"


def _weights(viewing: Viewing, titles: Mapping[bytes, Manifest]) -> dict[Leaf, dict[bytes, int]]:
    """Return viewed ms times basis points per leaf and account."""
    weights: dict[Leaf, dict[bytes, int]] = defaultdict(lambda: defaultdict(int))
    for sums in (viewing.ms, viewing.carried_ms):
        for (digest_, month, account), ms in sums.items():
            manifest = titles[digest_]
            for payee in manifest.payees:
                weights[manifest.publisher, payee.payee, month][account] += ms * payee.points
    return weights


def _relay_lines(viewing: Viewing, relays: Mapping[bytes, bytes], rules: Rules) -> list[RelayLine]:
    """Return each relay's pay: what the month's pulses name, and what late ones add to earlier months."""
    served = {
        key: viewing.kbytes.get(prefix, 0) + viewing.carried_kbytes.get(prefix, 0)
        for prefix, key in relays.items()
    }
    return [
        RelayLine(key, served[key], relay_cents(rules, served[key]), viewing.over_kbytes.get(key[:16], 0))
        for key in sorted(served)
        if served[key]
    ]


def _flag_lines(flags: Mapping[bytes, Flag], holds: Iterable[Hold]) -> list[FlagLine]:
    accounts = Counter(flag.rule for flag in flags.values())
    held: Counter[str] = Counter()
    for hold in holds:
        held[hold.rule] += sum(hold.cents.values())
    return [FlagLine(rule, accounts[rule], held[rule]) for rule in sorted(accounts)]


def _audience(viewing: Viewing, rules: Rules) -> tuple[list[DayLine], int, int, int]:
    """Return the days with small ones merged, and accounts, pulses and milliseconds in all."""
    viewers: dict[int, set[bytes]] = defaultdict(set)
    pulses: dict[int, int] = defaultdict(int)
    viewed: dict[int, int] = defaultdict(int)
    for sums in (viewing.days, viewing.carried_days):
        for (account, day), sum_ in sums.items():
            viewers[day].add(account)
            pulses[day] += sum_.pulses
            viewed[day] += sum_.ms
    lines = [
        DayLine(_date(day), len(viewers[day]), pulses[day], viewed[day])
        for day in sorted(viewers)
        if len(viewers[day]) >= rules.group_viewers
    ]
    small = [day for day in viewers if len(viewers[day]) < rules.group_viewers]
    if small:
        together = len(set[bytes]().union(*(viewers[day] for day in small)))
        shown = together if together >= rules.group_viewers else 0
        lines.append(DayLine(OTHER_DAYS, shown, sum(pulses[d] for d in small), sum(viewed[d] for d in small)))
    everybody = len(set[bytes]().union(*viewers.values()))
    return lines, everybody, sum(pulses.values()), sum(viewed.values())


def _date(day: int) -> str:
    return datetime.fromtimestamp(day * DAY_MS // 1_000, UTC).strftime("%Y-%m-%d")
