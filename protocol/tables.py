"""The readable files of a report, each derived byte for byte from statement and lines."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from .audit import RELAYS, REPORT, shares_of
from .identity import peer_id
from .rules import rules_hash
from .statement import Line, Statement, digest

_ESCAPES = {"-": "--", ".": "-d", "_": "-u"}


def settlement_json(statement: Statement, lines: Sequence[Line]) -> dict[str, object]:
    """Return the settlement as commands print it; payouts are payees only, costs include relay pay."""
    return {
        "revenue_cents": statement.revenue_cents,
        "costs_cents": statement.costs_cents,
        "relay_pay_cents": statement.relay_pay_cents,
        "reserve_cents": statement.reserve_cents,
        "pool_cents": statement.pool_cents,
        "held_cents": statement.held_cents,
        "carried_cents": statement.carried_cents,
        "payouts": [{"payee": payee, "cents": cents} for payee, cents in payouts(lines).items()],
    }


def payouts(lines: Iterable[Line]) -> dict[str, int]:
    """Return what each payee is paid over all platforms, sorted by payee; nobody with nothing."""
    paid: dict[str, int] = defaultdict(int)
    for line in lines:
        paid[line.payee] += line.paid_cents
    return {payee: cents for payee, cents in sorted(paid.items()) if cents}


def report_json(statement: Statement, lines: Sequence[Line]) -> bytes:
    """Write ``report.json``: inputs, rules, totals and reason codes."""
    s = statement
    rules = {field: getattr(s.rules, field) for field in s.rules.__struct_fields__}
    report = {
        "month": s.month,
        "as_of_ms": s.as_of_ms,
        "currency": s.rules.currency,
        "digest": digest(s).hex(),
        "previous": s.previous.hex(),
        "settlement": settlement_json(s, lines),
        "booked_costs_cents": s.booked_costs_cents,
        "deficit_cents": s.deficit_cents,
        "brought_cents": s.brought_cents,
        "paid_cents": s.paid_cents,
        "capped_cents": s.capped_cents,
        "per_payer_cap": "on" if s.payers_known else "off: income is not booked per account",
        "per_payer_cents": sum(line.per_payer_cents for line in lines),
        "viewing": {"accounts": s.accounts, "pulses": s.pulses, "viewed_ms": s.viewed_ms},
        "uncounted": [{"code": c.code, "pulses": c.pulses, "ms": c.ms} for c in s.uncounted],
        "intake_log": {"size": s.log_size, "root": s.log_root.hex()},
        "leaves": {"size": s.leaves, "root": s.leaves_root.hex()},
        "rules_sha256": rules_hash(s.rules).hex(),
        "rules": rules,
    }
    return (json.dumps(report, indent=2) + "\n").encode()


def platforms_csv(_: Statement, lines: Sequence[Line]) -> bytes:
    """Write ``platforms.csv``: one row per publisher."""
    sums: dict[bytes, list[int]] = {}
    for line in lines:
        row = sums.setdefault(line.platform, [0] * 5)
        parts = (line.weight, line.share_cents, line.paid_cents, line.held_cents, line.capped_cents)
        sums[line.platform] = [total + part for total, part in zip(row, parts, strict=True)]
    head = "platform,weight,share_cents,paid_cents,held_cents,capped_cents"
    return _csv(head, ([peer_id(key), *row] for key, row in sorted(sums.items())))


def creators_csv(statement: Statement, lines: Sequence[Line]) -> bytes:
    """Write ``creators.csv``: one row per leaf, with what it would be worth in either mode."""
    pooled = shares_of(statement.pool_cents, {(x.platform, x.payee, x.month): x.weight for x in lines})
    head = (
        "platform,payee,month,weight,share_cents,paid_cents,held_cents,capped_cents,"
        "pooled_cents,per_payer_cents"
    )
    return _csv(
        head,
        (
            [
                peer_id(x.platform), x.payee, x.month, x.weight, x.share_cents, x.paid_cents, x.held_cents,
                x.capped_cents, pooled[x.platform, x.payee, x.month], x.per_payer_cents,
            ]
            for x in lines
        ),
    )  # fmt: skip


def relays_csv(statement: Statement, _: Sequence[Line]) -> bytes:
    """Write ``relays.csv``: what each relay served and earned."""
    rows = ([peer_id(x.relay), x.kbytes, x.cents, x.over_kbytes] for x in statement.relays)
    return _csv("relay,kbytes,cents,over_kbytes", rows)


def daily_csv(statement: Statement, _: Sequence[Line]) -> bytes:
    """Write ``daily_traffic.csv``; days with few viewers are merged as ``other``."""
    few = f"<{statement.rules.group_viewers}"
    rows = ([d.day, d.viewers or few, d.pulses, d.viewed_ms] for d in statement.days)
    return _csv("day,viewers,pulses,viewed_ms", rows)


def flags_csv(statement: Statement, _: Sequence[Line]) -> bytes:
    """Write ``flags.csv``: counts and held cents only."""
    return _csv("rule,accounts,held_cents", ([f.rule, f.accounts, f.held_cents] for f in statement.flags))


def beancount(statement: Statement, lines: Sequence[Line]) -> bytes:
    """Write ``month.beancount``: the month's movements with a balance assertion on every account."""
    s, day = statement, f"{statement.month}-01"
    payees: dict[str, int] = defaultdict(int)
    held: dict[str, int] = defaultdict(int)
    for line in lines:
        payees[line.payee] += line.paid_cents
        held[line.payee] += line.held_cents
    booked = [
        ("Assets:Received", s.revenue_cents - s.booked_costs_cents),
        ("Income:Revenue", -s.revenue_cents),
        ("Expenses:Costs", s.booked_costs_cents),
    ]
    settled = [
        ("Expenses:Pool", s.revenue_cents - s.booked_costs_cents),
        *[(f"Liabilities:Relay:R{peer_id(r.relay)}", -r.cents) for r in s.relays],
        ("Equity:Reserve", -s.reserve_cents),
        *[(f"Liabilities:Payee:P{_escaped(payee)}", -cents) for payee, cents in sorted(payees.items())],
        *[(f"Liabilities:Held:P{_escaped(payee)}", -cents) for payee, cents in sorted(held.items())],
        ("Equity:Carried", s.brought_cents - s.carried_cents),
        ("Equity:Deficit", s.deficit_cents),
    ]
    accounts = [name for name, _ in (*booked, *settled)]
    text = [
        f'option "title" "Farcast settlement {s.month}"',
        f'option "operating_currency" "{s.rules.currency}"',
        'option "inferred_tolerance_default" "*:0"',
        "",
        *[f"{day} open {name} {s.rules.currency}" for name in accounts],
        "",
    ]
    for title, postings in (("Booked", booked), ("Settlement", settled)):
        text.append(f'{day} * "{title} {s.month}"')
        text += [f"  {name}  {_money(cents)} {s.rules.currency}" for name, cents in postings]
        text.append("")
    for name, cents in (*booked, *settled):
        text.append(f"{s.month}-02 balance {name}  {_money(cents)} {s.rules.currency}")
    return ("\n".join(text) + "\n").encode()


Writer = Callable[[Statement, Sequence[Line]], bytes]
TABLES: Mapping[str, Writer] = {
    REPORT: report_json,
    "platforms.csv": platforms_csv,
    "creators.csv": creators_csv,
    RELAYS: relays_csv,
    "daily_traffic.csv": daily_csv,
    "flags.csv": flags_csv,
    "month.beancount": beancount,
}


def _csv(head: str, rows: Iterable[Sequence[object]]) -> bytes:
    """Join rows whose cells never need quoting: numbers, ids, dates and codes (RFC 4180, with LF)."""
    return "".join(f"{line}\n" for line in (head, *(",".join(map(str, row)) for row in rows))).encode()


def _money(cents: int) -> str:
    whole, rest = divmod(abs(cents), 100)
    return f"{'-' if cents < 0 else ''}{whole}.{rest:02d}"


def _escaped(payee: str) -> str:
    """Spell a payee in the letters a beancount account may have, one spelling for each."""
    return "".join(_ESCAPES.get(letter, letter) for letter in payee)
