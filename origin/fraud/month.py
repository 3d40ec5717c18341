"""A month of the simulated world, settled by the real rules, and what it paid to whom."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

from ...protocol.rules import DAY_MS
from ...protocol.statement import pack_tickets
from ...protocol.ticket import DAY_GRACE_MS
from ..money.credit import Credit, carry_in, credit
from ..money.flags import flagged
from ..money.settlement import Books, Log, Outcome, settle
from ..money.viewing import Viewing, sum_up
from ..pulses.admission import month_bounds_ms
from ..pulses.evidence import Evidence, log_root
from .world import CROOK, FIRST_DAY, MONTH, NEXT_MONTH, Step, World

_DAYS = range(FIRST_DAY - 1, FIRST_DAY + 62)
_NO_DIGEST = bytes(32)


class Month(NamedTuple):
    """One settled month.

    ``flagged``: the accounts whose money it holds; ``received_cents``: what the attacker got;
    ``fresh_cents``: the pool without what was carried here; ``leaves`` and ``tickets``: the log's, as
    a report names them.
    """

    outcome: Outcome
    viewing: Viewing
    flagged: frozenset[bytes]
    received_cents: int
    fresh_cents: int
    leaves: list[bytes]
    tickets: bytes

    def counted_ms(self, account: bytes, titles: Sequence[bytes]) -> int:
        """Return what counted for an account's viewing of these titles, late pulses included."""
        return sum(
            accounts.get(account, 0)
            for sums in (self.viewing.ms, self.viewing.carried_ms)
            for (title, _), accounts in sums.items()
            if title in titles
        )


def close_months(
    world: World, *, booked: bool, months: int = 1, log: list[bytes] | None = None
) -> list[Month]:
    """Settle the first month as it stood five minutes after its end, then with ``months`` 2 the next one.

    Each month brings every account's fee. ``log``: another one than what the origin tells.
    """
    evidence = Evidence(world.told() if log is None else log, world.office, _DAYS)
    closed = _close_ms(MONTH)
    then = _credits(world, evidence, evidence.size_at(closed), MONTH)
    settled = [_settle(world, MONTH, evidence, (then, [], [], []), None, booked=booked)]
    if months > 1:
        size = evidence.size_at(_close_ms(NEXT_MONTH))
        now = _credits(world, evidence, size, MONTH)
        late = carry_in(then, now)
        current = _credits(world, evidence, size, NEXT_MONTH)
        settled.append(
            _settle(world, NEXT_MONTH, evidence, (current, late, now, then), settled[0], booked=booked)
        )
    return settled


def _close_ms(month: str) -> int:
    return month_bounds_ms(month)[1] + DAY_GRACE_MS


def _credits(world: World, evidence: Evidence, size: int, month: str) -> list[Credit]:
    start_ms, end_ms = month_bounds_ms(month)
    days = range(start_ms // DAY_MS, end_ms // DAY_MS)
    facts = evidence.facts(size, range(days.start - 1, days.stop), world.titles.get)
    return [item for item in credit(facts, world.rules) if item.fact.day in days]


def _settle(
    world: World,
    month: str,
    evidence: Evidence,
    credits_: tuple[list[Credit], list[Credit], list[Credit], list[Credit]],
    before: Month | None,
    *,
    booked: bool,
) -> Month:
    current, late, now, then = credits_
    viewing = sum_up(
        current, late, [item.fact for item in now], [item.fact for item in then], world.titles, world.rules
    )
    size = evidence.size_at(_close_ms(month))
    tickets = pack_tickets(evidence.stored(size))
    revenue = sum(world.fees.values())
    known = booked and Step.PAYERS not in world.lacks
    books = Books(
        revenue_cents=revenue,
        costs_cents=0,
        contributions={account: cents for account, cents in world.fees.items() if cents} if known else {},
        brought_cents=before.outcome.statement.carried_cents if before else 0,
        previous=before.outcome.digest if before else _NO_DIGEST,
    )
    log = Log(size, log_root(evidence.leaves[:size]), sha256(tickets).digest())
    outcome = settle(
        month, _close_ms(month), viewing, world.titles, books, world.relay_keys(), log, world.rules
    )
    statement = outcome.statement
    received = sum(line.paid_cents for line in outcome.lines if line.payee == CROOK)
    received += sum(line.cents for line in statement.relays if line.relay == world.crooked.key)
    return Month(
        outcome,
        viewing,
        frozenset(flagged(viewing.days, world.rules)),
        received,
        statement.pool_cents - statement.brought_cents,
        evidence.leaves[:size],
        tickets,
    )
