"""The audit: every sum of a statement computed again from its own lines, by anybody."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from .errors import RemoteError
from .rules import relay_cents, reserve_cents
from .shares import apportion
from .statement import LEAVES, Line, Statement, lines_root

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
    """Check tree, order, apportionment and every total.

    Raises:
        AuditError: at the first contradiction.

    """
    if len(lines) != statement.leaves or lines_root(lines) != statement.leaves_root:
        raise AuditError(LEAVES, 0, "the leaves are not those of the signed root")
    _audit_lines(statement, lines)
    _audit_relays(statement)
    for sentence, found, stated in _totals(statement, lines):
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


def _audit_lines(statement: Statement, lines: Sequence[Line]) -> None:
    weights: dict[tuple[bytes, str, str], int] = {}
    last: tuple[bytes, str, str] | None = None
    for number, line in enumerate(lines, 1):
        key = (line.platform, line.payee, line.month)
        if last is not None and key <= last:
            raise AuditError(LEAVES, number, "the leaves are not in order, each once")
        if line.month > statement.month:
            raise AuditError(LEAVES, number, f"{line.month} was not over at {statement.month}")
        if line.share_cents != line.paid_cents + line.held_cents + line.capped_cents:
            raise AuditError(LEAVES, number, f"the share of {line.payee} is not paid + held + capped")
        weights[key] = line.weight
        last = key
    pooled = shares_of(statement.pool_cents, weights)
    for number, line in enumerate(lines, 1):
        key = (line.platform, line.payee, line.month)
        cents = pooled[key] if statement.rules.mode == "pooled" else line.per_payer_cents
        if cents != line.share_cents:
            sentence = f"{line.payee} is due {cents} cents by weight, not {line.share_cents}"
            raise AuditError(LEAVES, number, sentence)


def _audit_relays(statement: Statement) -> None:
    for number, line in enumerate(statement.relays, 2):  # the first line of the table is its head
        if line.cents != relay_cents(statement.rules, line.kbytes):
            raise AuditError(RELAYS, number, f"{line.kbytes} kB do not earn {line.cents} cents")


def _totals(s: Statement, lines: Sequence[Line]) -> Iterator[tuple[str, int, int]]:
    surplus = s.revenue_cents - s.costs_cents - s.reserve_cents
    yield "relay pay", sum(line.cents for line in s.relays), s.relay_pay_cents
    yield "reserve", reserve_cents(s.rules, s.revenue_cents, s.costs_cents), s.reserve_cents
    yield "deficit", max(0, -surplus), s.deficit_cents
    yield "pool", max(0, surplus) + s.brought_cents, s.pool_cents
    yield "paid", sum(line.paid_cents for line in lines), s.paid_cents
    yield "held", sum(line.held_cents for line in lines), s.held_cents
    yield "held by flags", sum(line.held_cents for line in s.flags), s.held_cents
    yield "cut by the cap", sum(line.capped_cents for line in lines), s.capped_cents
    undistributed = s.pool_cents - sum(line.share_cents for line in lines)
    yield "carried over", undistributed + s.capped_cents, s.carried_cents
    spent = s.costs_cents + s.reserve_cents + s.paid_cents + s.held_cents + s.carried_cents
    yield "revenue", spent - s.brought_cents - s.deficit_cents, s.revenue_cents
    yield "viewed time", sum(line.viewed_ms for line in s.days), s.viewed_ms
