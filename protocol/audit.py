"""The audit: every sum of a statement computed again from its own lines, by anybody."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress, count
from operator import add, gt, lt, ne

from .errors import RemoteError
from .leaves import Leaves, leaves_of
from .rules import relay_cents, reserve_cents
from .shares import apportion
from .statement import LEAVES, Line, Statement

REPORT = "report.json"
RELAYS = "relays.csv"


class AuditError(RemoteError):
    """A statement that contradicts itself; ``file`` and ``line`` (from 1, 0 for the whole) say where."""

    def __init__(self, file: str, line: int, sentence: str) -> None:
        """Name the place and the contradiction."""
        super().__init__(f"{file}{f' line {line}' if line else ''}: {sentence}", reason="bad_sum")
        self.file = file
        self.line = line


def audit(statement: Statement, lines: Sequence[Line]) -> None:
    """Check tree, order, apportionment and every total; ``Leaves`` a million at a time.

    Raises:
        AuditError: at the first contradiction.

    """
    leaves = leaves_of(lines)
    if len(leaves) != statement.leaves or leaves.root() != statement.leaves_root:
        raise AuditError(LEAVES, 0, "the leaves are not those of the signed root")
    _audit_lines(statement, leaves)
    _audit_relays(statement)
    for sentence, found, stated in _totals(statement, leaves):
        if found != stated:
            raise AuditError(REPORT, 0, f"{sentence}: {found} by the lines, {stated} stated")


def shares_of(
    pool_cents: int, weights: dict[tuple[bytes, str, str], int]
) -> dict[tuple[bytes, str, str], int]:
    """Apportion the pool platform -> payee -> month of viewing; keys are those three."""
    platforms: dict[bytes, int] = defaultdict(int)
    payees: dict[bytes, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    months: dict[tuple[bytes, str], dict[str, int]] = defaultdict(dict)
    for (platform, payee, month), weight in weights.items():
        platforms[platform] += weight
        payees[platform][payee] += weight
        months[platform, payee][month] = weight
    shares: dict[tuple[bytes, str, str], int] = {}
    for platform, platform_cents in apportion(pool_cents, platforms).items():
        for payee, payee_cents in apportion(platform_cents, payees[platform]).items():
            for month, cents in apportion(payee_cents, months[platform, payee]).items():
                shares[platform, payee, month] = cents
    return shares


def _audit_lines(statement: Statement, leaves: Leaves) -> None:
    for number, rising in enumerate(map(lt, leaves.payee, leaves.payee[1:]), 1):
        if not rising and leaves.key(number - 1) >= leaves.key(number):
            raise AuditError(LEAVES, number + 1, "the leaves are not in order, each once")
    if number := _first(map(gt, leaves.platform, leaves.platform[1:])):
        raise AuditError(LEAVES, number + 1, "the leaves are not in order, each once")
    if max(set(leaves.month), default="") > statement.month:
        number = _first(month > statement.month for month in leaves.month)
        raise AuditError(LEAVES, number, f"{leaves.month[number - 1]} was not over at {statement.month}")
    parts = map(add, map(add, leaves.paid_cents, leaves.held_cents), leaves.capped_cents)
    if number := _first(map(ne, parts, leaves.share_cents)):
        payee = leaves.payee[number - 1]
        raise AuditError(LEAVES, number, f"the share of {payee} is not paid + held + capped")
    pooled = statement.rules.mode == "pooled"
    due = leaves.pooled(statement.pool_cents) if pooled else leaves.per_payer_cents
    if number := _first(map(ne, due, leaves.share_cents)):
        place = number - 1
        sentence = (
            f"{leaves.payee[place]} is due {due[place]} cents by weight, not {leaves.share_cents[place]}"
        )
        raise AuditError(LEAVES, number, sentence)


def _first(wrong: Iterable[bool]) -> int:
    """Return the number of the first that is wrong, from 1; 0 for none."""
    return next(compress(count(1), wrong), 0)


def _audit_relays(statement: Statement) -> None:
    for number, line in enumerate(statement.relays, 2):  # the first line of the table is its head
        if line.cents != relay_cents(statement.rules, line.kbytes):
            raise AuditError(RELAYS, number, f"{line.kbytes} kB do not earn {line.cents} cents")


def _totals(s: Statement, leaves: Leaves) -> Iterator[tuple[str, int, int]]:
    surplus = s.revenue_cents - s.costs_cents - s.reserve_cents
    yield "relay pay", sum(line.cents for line in s.relays), s.relay_pay_cents
    yield "reserve", reserve_cents(s.rules, s.revenue_cents, s.costs_cents), s.reserve_cents
    yield "deficit", max(0, -surplus), s.deficit_cents
    yield "pool", max(0, surplus) + s.brought_cents, s.pool_cents
    yield "paid", sum(leaves.paid_cents), s.paid_cents
    yield "held", sum(leaves.held_cents), s.held_cents
    yield "held by flags", sum(line.held_cents for line in s.flags), s.held_cents
    yield "cut by the cap", sum(leaves.capped_cents), s.capped_cents
    undistributed = s.pool_cents - sum(leaves.share_cents)
    yield "carried over", undistributed + s.capped_cents, s.carried_cents
    spent = s.costs_cents + s.reserve_cents + s.paid_cents + s.held_cents + s.carried_cents
    yield "revenue", spent - s.brought_cents - s.deficit_cents, s.revenue_cents
    yield "viewed time", sum(line.viewed_ms for line in s.days), s.viewed_ms
