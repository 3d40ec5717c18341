"""The readable files of a report, each derived byte for byte from statement and lines, in pieces."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain

from .audit import RELAYS, REPORT
from .identity import peer_id
from .leaves import Leaves
from .rules import rules_fields, rules_hash
from .statement import Line, Statement, digest

LISTED_PAYEES = 10_000
"""Of more payees, ``report.json`` and ``month.beancount`` give sums; ``creators.csv`` has them all."""

_ESCAPES = str.maketrans({"-": "--", ".": "-d", "_": "-u"})
_PIECE_ROWS = 4_096


def settlement_json(statement: Statement, lines: Sequence[Line]) -> dict[str, object]:
    """Return the settlement as commands print it; payouts are payees only, costs include relay pay.

    Of more than ``LISTED_PAYEES`` payees none is listed.
    """
    paid = payouts(lines)
    return _settlement(statement, paid if len(paid) <= LISTED_PAYEES else {})


def payouts(lines: Iterable[Line]) -> dict[str, int]:
    """Return what each payee is paid over all platforms, sorted by payee; nobody with nothing."""
    if isinstance(lines, Leaves):
        return _by_payee(lines.payee, lines.paid_cents)
    listed = list(lines)
    return _by_payee([line.payee for line in listed], [line.paid_cents for line in listed])


def report_json(statement: Statement, leaves: Leaves) -> Iterator[str]:
    """Write ``report.json``: inputs, rules, totals and reason codes."""
    s = statement
    listed = leaves.payees <= LISTED_PAYEES
    report = {
        "month": s.month,
        "as_of_ms": s.as_of_ms,
        "currency": s.rules.currency,
        "digest": digest(s).hex(),
        "previous": s.previous.hex(),
        "settlement": _settlement(s, payouts(leaves) if listed else {}),
        "payees": leaves.payees,
        "payouts_listed": listed,
        "booked_costs_cents": s.booked_costs_cents,
        "deficit_cents": s.deficit_cents,
        "brought_cents": s.brought_cents,
        "paid_cents": s.paid_cents,
        "capped_cents": s.capped_cents,
        "per_payer_cap": "on" if s.payers_known else "off: income is not booked per account",
        "per_payer_cents": sum(leaves.per_payer_cents),
        "viewing": {"accounts": s.accounts, "pulses": s.pulses, "viewed_ms": s.viewed_ms},
        "uncounted": [{"code": c.code, "pulses": c.pulses, "ms": c.ms} for c in s.uncounted],
        "intake_log": {"size": s.log_size, "root": s.log_root.hex()},
        "leaves": {"size": s.leaves, "root": s.leaves_root.hex()},
        "rules_sha256": rules_hash(s.rules).hex(),
        "rules": rules_fields(s.rules),
    }
    yield json.dumps(report, indent=2) + "\n"


def platforms_csv(_: Statement, leaves: Leaves) -> Iterator[str]:
    """Write ``platforms.csv``: one row per publisher."""
    columns = (
        leaves.weight, leaves.share_cents, leaves.paid_cents, leaves.held_cents, leaves.capped_cents,
    )  # fmt: skip
    rows = (
        [peer_id(leaves.platform[group.start])]
        + [sum(column[group.start : group.stop]) for column in columns]
        for group in leaves.platforms()
    )
    return _csv("platform,weight,share_cents,paid_cents,held_cents,capped_cents", rows)


def creators_csv(statement: Statement, leaves: Leaves) -> Iterator[str]:
    """Write ``creators.csv``: one row per leaf, with what it would be worth in either mode."""
    yield (
        "platform,payee,month,weight,share_cents,paid_cents,held_cents,capped_cents,"
        "pooled_cents,per_payer_cents\n"
    )
    names = {key: peer_id(key) for key in set(leaves.platform)}
    pooled = None if statement.rules.mode == "pooled" else leaves.pooled(statement.pool_cents)
    whole = leaves.paid_cents == leaves.share_cents  # nothing held or cut anywhere, as in most months
    for start in range(0, len(leaves), _PIECE_ROWS):
        piece = slice(start, start + _PIECE_ROWS)
        share = list(map(str, leaves.share_cents[piece]))
        rows = zip(
            map(names.__getitem__, leaves.platform[piece]),
            leaves.payee[piece],
            leaves.month[piece],
            map(str, leaves.weight[piece]),
            share,
            share if whole else map(str, leaves.paid_cents[piece]),
            map(str, leaves.held_cents[piece]),
            map(str, leaves.capped_cents[piece]),
            share if pooled is None else map(str, pooled[piece]),
            map(str, leaves.per_payer_cents[piece]),
            strict=True,
        )
        yield "\n".join(map(",".join, rows)) + "\n"


def relays_csv(statement: Statement, _: Leaves) -> Iterator[str]:
    """Write ``relays.csv``: what each relay served and earned."""
    names = ["kbytes", "cents"] if statement.rules.v == 1 else ["kbytes", "cents", "over_kbytes"]
    rows = ([peer_id(x.relay), *(getattr(x, name) for name in names)] for x in statement.relays)
    return _csv(",".join(["relay", *names]), rows)


def daily_csv(statement: Statement, _: Leaves) -> Iterator[str]:
    """Write ``daily_traffic.csv``; days with few viewers are merged as ``other``."""
    few = f"<{statement.rules.group_viewers}"
    rows = ([d.day, d.viewers or few, d.pulses, d.viewed_ms] for d in statement.days)
    return _csv("day,viewers,pulses,viewed_ms", rows)


def flags_csv(statement: Statement, _: Leaves) -> Iterator[str]:
    """Write ``flags.csv``: counts and held cents only."""
    return _csv("rule,accounts,held_cents", ([f.rule, f.accounts, f.held_cents] for f in statement.flags))


def beancount(statement: Statement, leaves: Leaves) -> Iterator[str]:
    """Write ``month.beancount``: the month's movements with a balance assertion on every account.

    More than ``LISTED_PAYEES`` payees are one account for each platform.
    """
    s, day = statement, f"{statement.month}-01"
    booked = [
        ("Assets:Received", s.revenue_cents - s.booked_costs_cents),
        ("Income:Revenue", -s.revenue_cents),
        ("Expenses:Costs", s.booked_costs_cents),
    ]
    settled = [
        ("Expenses:Pool", s.revenue_cents - s.booked_costs_cents),
        *[(f"Liabilities:Relay:R{peer_id(r.relay)}", -r.cents) for r in s.relays],
        ("Equity:Reserve", -s.reserve_cents),
        *_owed(leaves),
        ("Equity:Carried", s.brought_cents - s.forward_cents),
        *([("Equity:Capped", -capped)] if (capped := s.carried_cents - s.forward_cents) else []),
        ("Equity:Deficit", s.deficit_cents),
    ]
    currency = s.rules.currency
    yield (
        f'option "title" "Farcast settlement {s.month}"\n'
        f'option "operating_currency" "{currency}"\n'
        'option "inferred_tolerance_default" "*:0"\n\n'
    )
    for name, _ in chain(booked, settled):
        yield f"{day} open {name} {currency}\n"
    for title, postings in (("Booked", booked), ("Settlement", settled)):
        yield f'\n{day} * "{title} {s.month}"\n'
        for name, cents in postings:
            yield f"  {name}  {_money(cents)} {currency}\n"
    yield "\n"
    for name, cents in chain(booked, settled):
        yield f"{s.month}-02 balance {name}  {_money(cents)} {currency}\n"


Writer = Callable[[Statement, Leaves], Iterator[str]]
TABLES: Mapping[str, Writer] = {
    REPORT: report_json,
    "platforms.csv": platforms_csv,
    "creators.csv": creators_csv,
    RELAYS: relays_csv,
    "daily_traffic.csv": daily_csv,
    "flags.csv": flags_csv,
    "month.beancount": beancount,
}


def _settlement(statement: Statement, paid: Mapping[str, int]) -> dict[str, object]:
    return {
        "revenue_cents": statement.revenue_cents,
        "costs_cents": statement.costs_cents,
        "relay_pay_cents": statement.relay_pay_cents,
        "reserve_cents": statement.reserve_cents,
        "pool_cents": statement.pool_cents,
        "held_cents": statement.held_cents,
        "carried_cents": statement.carried_cents,
        "payouts": [{"payee": payee, "cents": cents} for payee, cents in paid.items()],
    }


def _by_payee(payees: Sequence[str], cents: Iterable[int]) -> dict[str, int]:
    """Return the sums by payee, sorted; nobody with nothing."""
    sums: dict[str, int] = defaultdict(int)
    for payee, part in zip(payees, cents, strict=True):
        if part:
            sums[payee] += part
    return dict(sorted(sums.items()))


def _owed(leaves: Leaves) -> Iterator[tuple[str, int]]:
    """Yield the accounts of what is owed to payees and held, each with its cents as a credit."""
    listed = leaves.payees <= LISTED_PAYEES
    for kind, cents in (("Payee", leaves.paid_cents), ("Held", leaves.held_cents)):
        if listed:
            for payee, part in _by_payee(leaves.payee, cents).items():
                yield f"Liabilities:{kind}:P{payee.translate(_ESCAPES)}", -part
        else:
            for group in leaves.platforms():
                name = peer_id(leaves.platform[group.start])
                yield f"Liabilities:{kind}:Of{name}", -sum(cents[group.start : group.stop])


def _csv(head: str, rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Join rows whose cells never need quoting: numbers, ids, dates and codes (RFC 4180, with LF)."""
    yield f"{head}\n"
    for row in rows:
        yield ",".join(map(str, row)) + "\n"


def _money(cents: int) -> str:
    whole, rest = divmod(abs(cents), 100)
    return f"{'-' if cents < 0 else ''}{whole}.{rest:02d}"
