"""The page of a report: plots and plain tables that print well, no script, nothing loaded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial

from jinja2 import Environment, StrictUndefined

from ...protocol.identity import peer_id
from ...protocol.leaves import Leaves
from ...protocol.statement import Statement, digest
from ...protocol.tables import payouts
from .plots import Pair, Part, bars, columns, flow, pairs

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Settlement {{ s.month }}</title>
<style>
:root { --ink: #17212b; --soft: #5b6875; --line: #d9dee3; --paper: #fff; --card: #f5f7f9; }
:root { --c1: #2563a8; --c2: #7a8794; --c3: #2f8f83; --c4: #9a6fb0; --c5: #d08a1d; --c6: #b4492f;
--c7: #4f7f3a; }
@media (prefers-color-scheme: dark) {
:root { --ink: #e6ebf0; --soft: #9aa7b4; --line: #33404d; --paper: #12181f; --card: #1b232c; }
:root { --c1: #6aa5e8; --c2: #8b98a5; --c3: #5cc0b2; --c4: #c39ad8; --c5: #e6b055; --c6: #e58a70;
--c7: #92c27a; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
body { margin: 2rem auto; max-width: 50rem; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin: 0 0 .25rem; line-height: 1.2; }
h2 { font-size: 1.15rem; margin: 0 0 .75rem; }
p { margin: .5rem 0; } .soft { color: var(--soft); }
section { margin-top: 2.25rem; }
.key { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem;
margin: 1.25rem 0 0; }
.key div { background: var(--card); border-radius: .5rem; padding: .6rem .8rem; }
.key dt { color: var(--soft); font-size: .85rem; }
.key dd { font-size: 1.25rem; font-variant-numeric: tabular-nums; margin: 0; }
table { border-collapse: collapse; width: 100%; }
th { color: var(--soft); font-weight: 600; font-size: .85rem; }
th, td { text-align: left; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line); }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td:last-child, th:last-child { padding-right: 0; }
code { font-size: .85em; overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; margin: .5rem 0 1rem; overflow: visible; }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
.grid { stroke: var(--line); } .ribbon { opacity: .28; } .over { fill: transparent; }
.c1 { fill: var(--c1); } .c2 { fill: var(--c2); } .c3 { fill: var(--c3); } .c4 { fill: var(--c4); }
.c5 { fill: var(--c5); } .c6 { fill: var(--c6); } .c7 { fill: var(--c7); }
.scroll { overflow-x: auto; }
@page { size: A4; margin: 16mm 15mm; }
@media print {
:root { --ink: #000; --soft: #444; --line: #bbb; --paper: #fff; --card: #f3f3f3;
--c1: #2563a8; --c2: #7a8794; --c3: #2f8f83; --c4: #9a6fb0; --c5: #d08a1d; --c6: #b4492f; --c7: #4f7f3a; }
* { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
body { margin: 0; padding: 0; max-width: none; font-size: 10pt; line-height: 1.35; }
th, td { padding-top: .12rem; padding-bottom: .12rem; }
h2 { break-after: avoid; } svg, tr, .key { break-inside: avoid; } section { margin-top: 1.5rem; }
thead { display: table-header-group; } .scroll { overflow: visible; }
}
</style>
</head>
<body>
<h1>Settlement {{ s.month }}</h1>
<p class="soft">As of {{ as_of }} UTC, in {{ s.rules.currency }}. {{ s.accounts }}
{{ "account" if s.accounts == 1 else "accounts" }} watched {{ hours(s.viewed_ms) }} hours in {{ s.pulses }}
counted pulses.</p>
<dl class="key">
{% for name, cents in key %}<div><dt>{{ name }}</dt><dd>{{ money(cents) }}</dd></div>
{% endfor %}</dl>
<section>
<h2>Where the money goes</h2>
{{ flow|safe }}
<div class="scroll"><table>
<thead><tr><th>Item</th><th class="n">Amount</th><th class="n">Share</th></tr></thead>
{% for part in parts %}<tr><td>{{ part.name }}</td><td class="n">{{ money(part.amount) }}</td>
<td class="n">{{ percent(part.amount) }}</td></tr>
{% endfor %}</table></div>
<p>Revenue {{ money(s.revenue_cents) }}{% if s.brought_cents %} and {{ money(s.brought_cents) }} brought
forward{% endif %}{% if s.deficit_cents %}, short by {{ money(s.deficit_cents) }}{% endif %}. The
per-payer cap is {{ "on" if s.payers_known else "off, because income is not booked per account" }}.</p>
</section>
<section>
<h2>Payees</h2>
<div class="scroll"><table>
<thead><tr><th>Payee</th><th class="n">Paid</th><th class="n">Part of all</th></tr></thead>
{% for payee, cents in paid %}<tr><td>{{ payee }}</td><td class="n">{{ money(cents) }}</td>
<td class="n">{{ of_paid(cents) }}</td></tr>
{% else %}<tr><td colspan="3">Nobody is paid this month.</td></tr>
{% endfor %}</table></div>
{% if more %}<p>{{ more }} more payees are in creators.csv.</p>{% endif %}
</section>
{% if gaps %}<section>
<h2>Pooled against each account's own money</h2>
<p>What the payees with the widest gaps get out of the common pool, and what they would get if every
account's money were split by its own viewing alone. Who gets far more out of the pool is watched by
accounts that pay little for how much they watch.</p>
{{ gaps|safe }}
</section>
{% endif %}<section>
<h2>Viewed hours by day</h2>
{{ days|safe }}
<div class="scroll"><table>
<thead><tr><th>Day</th><th class="n">Viewers</th><th class="n">Hours</th></tr></thead>
{% for day in s.days %}<tr><td>{{ day.day }}</td><td class="n">{{ day.viewers or few }}</td>
<td class="n">{{ hours(day.viewed_ms) }}</td></tr>
{% else %}<tr><td colspan="3">Nothing was watched.</td></tr>
{% endfor %}</table></div>
<p class="soft">Days with {{ few }} viewers are added up as one.</p>
</section>
{% if s.relays %}<section>
<h2>Relay pay</h2>
{{ relays|safe }}
<div class="scroll"><table>
<thead><tr><th>Relay</th><th class="n">GB served</th><th class="n">Pay</th></tr></thead>
{% for relay in shown_relays %}<tr><td><code>{{ name(relay.relay) }}</code></td>
<td class="n">{{ gigabytes(relay.kbytes) }}</td><td class="n">{{ money(relay.cents) }}</td></tr>
{% endfor %}</table></div>
{% if more_relays %}<p>{{ more_relays }} more relays are in relays.csv.</p>{% endif %}
</section>
{% endif %}{% if s.flags or s.uncounted %}<section>
<h2>Held and not counted</h2>
<div class="scroll"><table>
<thead><tr><th>Reason</th><th class="n">How many</th><th class="n">What</th></tr></thead>
{% for flag in s.flags %}<tr><td>flagged: {{ flag.rule }}</td><td class="n">{{ flag.accounts }} accounts</td>
<td class="n">{{ money(flag.held_cents) }} held</td></tr>
{% endfor %}{% for item in s.uncounted %}<tr><td>not counted: {{ item.code }}</td>
<td class="n">{{ item.pulses }} pulses</td><td class="n">{{ seconds(item.ms) }} s</td></tr>
{% endfor %}</table></div>
</section>
{% endif %}<section>
<h2>Proof</h2>
<p>Statement <code>{{ name_of }}</code> over {{ s.leaves }} leaves and the first {{ s.log_size }} entries of
the intake log. Check it with <code>farcast verify DIR</code>: the origin's public key is all it needs.</p>
</section>
</body>
</html>
"""
_PAYEES_SHOWN = 100
_RELAYS_SHOWN = 40
_PAYEES_DRAWN = 6
_GAPS_DRAWN = 12
_RELAYS_DRAWN = 12


def page(statement: Statement, leaves: Leaves, as_of: str) -> bytes:
    """Write ``index.html``; ``as_of`` is the settlement's time for people."""
    s = statement
    paid = sorted(payouts(leaves).items(), key=lambda item: (-item[1], item[0]))
    most = sorted(s.relays, key=lambda line: (-line.cents, line.relay))
    money = partial(_fixed, unit=100, places=2)
    hours = partial(_fixed, unit=3_600_000, places=1)
    parts = _parts(s)
    dated = [(day.day, day.viewed_ms) for day in s.days if day.day[:1].isdigit()]
    gaps = _gaps(s, leaves) if s.payers_known else []
    text = Environment(autoescape=True, undefined=StrictUndefined).from_string(_PAGE).render(
        s=s,
        as_of=as_of,
        name_of=digest(s).hex(),
        key=[
            ("Revenue", s.revenue_cents),
            ("Pool", s.pool_cents),
            ("Paid to payees", s.paid_cents),
            ("Held in escrow", s.held_cents),
        ],
        flow=_flow(s, paid, money) if s.revenue_cents + s.brought_cents else "",
        parts=parts,
        percent=partial(_percent, whole=sum(part.amount for part in parts)),
        of_paid=partial(_percent, whole=s.paid_cents),
        paid=paid[:_PAYEES_SHOWN],
        more=max(0, len(paid) - _PAYEES_SHOWN),
        gaps=pairs(gaps, money, "Pooled and per payer", ("pooled", "per payer")) if gaps else "",
        days=columns(dated, 3_600_000, partial(hours, places=0), "Hours by day") if dated else "",
        few=f"under {s.rules.group_viewers}",
        relays=bars([(_short(line.relay), line.cents) for line in most[:_RELAYS_DRAWN]], money, "Relay pay"),
        shown_relays=most[:_RELAYS_SHOWN],
        more_relays=max(0, len(most) - _RELAYS_SHOWN),
        name=peer_id,
        money=money,
        hours=hours,
        gigabytes=partial(_fixed, unit=1_000_000, places=3),
        seconds=partial(_fixed, unit=1_000, places=1),
    )  # fmt: skip
    return text.encode() + b"\n"


def _parts(s: Statement) -> list[Part]:
    return [
        Part("Hub costs", s.booked_costs_cents, "c2"),
        Part("Relay pay", s.relay_pay_cents, "c3"),
        Part("Reserve", s.reserve_cents, "c4"),
        Part("Paid to payees", s.paid_cents, "c1"),
        Part("Held in escrow", s.held_cents, "c6"),
        Part("Carried over", s.forward_cents, "c7"),
        *_capped("Above the payers' cap", s),
    ]


def _capped(name: str, s: Statement) -> list[Part]:
    """Return what the per-payer cap cut and nobody gets, where it did."""
    return [Part(name, s.carried_cents - s.forward_cents, "c6")] if s.forward_cents < s.carried_cents else []


def _flow(s: Statement, paid: Sequence[tuple[str, int]], money: partial[str]) -> str:
    """Draw each cent from where it came to where it went; a deficit is a source of its own."""
    others = sum(cents for _, cents in paid[_PAYEES_DRAWN:])
    ends = [
        *(Part(payee, cents, "c1") for payee, cents in paid[:_PAYEES_DRAWN]),
        Part(f"{len(paid) - _PAYEES_DRAWN} other payees", others, "c1"),
        Part("held in escrow", s.held_cents, "c6"),
        Part("carried over", s.forward_cents, "c7"),
        *_capped("above the payers' cap", s),
    ]
    sources = [
        Part("Revenue", s.revenue_cents, "c5"),
        Part("Brought forward", s.brought_cents, "c7"),
        Part("Deficit", s.deficit_cents, "c6"),
    ]
    return flow(sources, [*_parts(s)[:3], Part("Pool", s.pool_cents, "c1")], ends, money)


def _gaps(s: Statement, leaves: Leaves) -> list[Pair]:
    """Return the payees with the widest gaps between what both modes give them, the widest first."""
    pooled: dict[str, int] = defaultdict(int)
    own: dict[str, int] = defaultdict(int)
    shares = leaves.share_cents if s.rules.mode == "pooled" else leaves.pooled(s.pool_cents)
    for payee, share, per_payer in zip(leaves.payee, shares, leaves.per_payer_cents, strict=True):
        pooled[payee] += share
        own[payee] += per_payer
    widest = sorted(pooled, key=lambda payee: (-abs(pooled[payee] - own[payee]), payee))[:_GAPS_DRAWN]
    return [Pair(payee, pooled[payee], own[payee]) for payee in widest]


def _short(key: bytes) -> str:
    name = peer_id(key)
    return f"{name[:8]}…{name[-8:]}"


def _fixed(number: int, unit: int, places: int) -> str:
    """Write ``number`` / ``unit`` with ``places`` decimals, cut rather than rounded, thousands parted."""
    whole, rest = divmod(number, unit)
    return f"{whole:,}.{rest * 10**places // unit:0{places}d}" if places else f"{whole:,}"


def _percent(part: int, whole: int) -> str:
    return f"{_fixed(part * 100, whole, 1)} %" if whole else "0.0 %"
