"""The settlement S(month): viewing and books in, a statement exact to the cent out.

Pure: no clock, no disk, integers only. The same inputs in any order give the same bytes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import NamedTuple

from ...protocol.audit import audit
from ...protocol.manifest import Manifest
from ...protocol.rules import DAY_MS, Rules, relay_cents, reserve_cents
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
from .split import Split, Weights
from .viewing import Viewing

OTHER_DAYS = "other"


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
    *,
    first_keys: Mapping[bytes, bytes] | None = None,
) -> Outcome:
    """Settle ``month``; ``relays`` maps the first 16 bytes of a relay's key to the key.

    ``first_keys`` names the relay behind each key that is not its first: it has one line.

    Raises:
        AuditError: never for these inputs; the outcome audits itself before anybody sees it.

    """
    relay_lines = _relay_lines(viewing, relays, first_keys or {}, rules)
    relay_pay = sum(line.cents for line in relay_lines)
    costs = books.costs_cents + relay_pay
    reserve = reserve_cents(rules, books.revenue_cents, costs)
    surplus = books.revenue_cents - costs - reserve
    pool = max(0, surplus) + books.brought_cents
    flags = flagged(viewing.days, rules)
    split = Split(pool, Weights(viewing, titles), books.contributions, rules)
    cut = split.capped(_caps(books, pool - books.brought_cents, rules)) if books.contributions else {}
    held = split.held(flags, cut)
    lines = tuple(split.lines(cut, held))
    parts = ((leaf[1], account, cents) for leaf, part in held.items() for account, cents in part.items())
    holds = holds_of(flags, parts)
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
        uncounted=[CodeLine(code, sum_.pulses, sum_.ms) for code, sum_ in sorted(viewing.cut.items())],
        leaves=len(lines),
        leaves_root=lines_root(lines),
        log_size=log.size,
        log_root=log.root,
        tickets_hash=log.tickets_hash,
    )
    audit(statement, lines)
    return Outcome(statement, lines, holds)


def _caps(books: Books, fresh_cents: int, rules: Rules) -> dict[bytes, int]:
    """Return the most each account may move: so many times what it brought into the pool itself."""
    revenue = max(1, books.revenue_cents)
    return {
        account: rules.payer_factor * (cents * fresh_cents // revenue)
        for account, cents in books.contributions.items()
    }


def _relay_lines(
    viewing: Viewing, relays: Mapping[bytes, bytes], first_keys: Mapping[bytes, bytes], rules: Rules
) -> list[RelayLine]:
    """Return each relay's pay: what the month's pulses name, and what late ones add to earlier months."""
    served: Counter[bytes] = Counter()
    over: Counter[bytes] = Counter()
    further: dict[bytes, list[bytes]] = defaultdict(list)
    for prefix, key in sorted(relays.items()):
        relay = first_keys.get(key, key)
        kbytes = viewing.kbytes.get(prefix, 0) + viewing.carried_kbytes.get(prefix, 0)
        served[relay] += kbytes
        over[relay] += viewing.over_kbytes.get(prefix, 0)
        if kbytes and key != relay:
            further[relay].append(key)
    return [
        RelayLine(key, kbytes, relay_cents(rules, kbytes), over[key], further[key])
        for key, kbytes in sorted(served.items())
        if kbytes
    ]


def _flag_lines(flags: Mapping[bytes, Flag], holds: Iterable[Hold]) -> list[FlagLine]:
    accounts = Counter(flag.rule for flag in flags.values())
    held: Counter[str] = Counter()
    for hold in holds:
        held[hold.rule] += sum(hold.cents.values())
    return [FlagLine(rule, accounts[rule], held[rule]) for rule in sorted(accounts)]


def _audience(viewing: Viewing, rules: Rules) -> tuple[list[DayLine], int, int, int]:
    """Return the days with small ones merged, and accounts, pulses and milliseconds in all."""
    viewers: dict[int, AbstractSet[bytes]] = {}
    pulses: dict[int, int] = defaultdict(int)
    viewed: dict[int, int] = defaultdict(int)
    for sums in (viewing.days, viewing.carried_days):
        for day, accounts in sums.items():
            viewers[day] = viewers[day] | accounts.keys() if day in viewers else accounts.keys()
            pulses[day] += sum(sum_.pulses for sum_ in accounts.values())
            viewed[day] += sum(sum_.ms for sum_ in accounts.values())
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
