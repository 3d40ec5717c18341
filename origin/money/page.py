"""The page of a report: plain tables and bars that print well, no script, nothing loaded."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from jinja2 import Environment, StrictUndefined

from ...protocol.identity import peer_id
from ...protocol.statement import Line, Statement, digest
from ...protocol.tables import payouts

_BAR_WIDTH = 240
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Settlement {{ s.month }}</title>
<style>
body { font: 16px/1.45 system-ui, sans-serif; color: #111; }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #ccc; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
code { font-size: .85em; overflow-wrap: anywhere; }
svg { display: block; } rect { fill: #2b6cb0; }
.scroll { overflow-x: auto; }
@media print { body { margin: 0; max-width: none; font-size: 11px; } section { break-inside: avoid; } }
</style>
</head>
<body>
<h1>Settlement {{ s.month }}</h1>
<p>As of {{ as_of }} UTC, in {{ s.rules.currency }}. {{ s.accounts }} accounts watched
{{ hours(s.viewed_ms) }} hours in {{ s.pulses }} counted pulses.</p>
<section>
<h2>Where the money goes</h2>
<table>
<tr><th>Item</th><th class="n">Amount</th><th>Share</th></tr>
{% for name, cents in flow %}<tr><td>{{ name }}</td><td class="n">{{ money(cents) }}</td>
<td>{{ bar(cents, largest) }}</td></tr>
{% endfor %}</table>
<p>Revenue {{ money(s.revenue_cents) }}{% if s.brought_cents %} and {{ money(s.brought_cents) }} brought
forward{% endif %}{% if s.deficit_cents %}, short by {{ money(s.deficit_cents) }}{% endif %}. The
per-payer cap is {{ "on" if s.payers_known else "off, because income is not booked per account" }}.</p>
</section>
<section>
<h2>Payees</h2>
<div class="scroll"><table>
<tr><th>Payee</th><th class="n">Paid</th><th>Part of all</th></tr>
{% for payee, cents in paid %}<tr><td>{{ payee }}</td><td class="n">{{ money(cents) }}</td>
<td>{{ bar(cents, top) }}</td></tr>
{% else %}<tr><td colspan="3">Nobody is paid this month.</td></tr>
{% endfor %}</table></div>
{% if more %}<p>{{ more }} more payees are in creators.csv.</p>{% endif %}
</section>
<section>
<h2>Days</h2>
<div class="scroll"><table>
<tr><th>Day</th><th class="n">Viewers</th><th class="n">Hours</th><th>Viewed</th></tr>
{% for day in s.days %}<tr><td>{{ day.day }}</td><td class="n">{{ day.viewers or few }}</td>
<td class="n">{{ hours(day.viewed_ms) }}</td><td>{{ bar(day.viewed_ms, busiest) }}</td></tr>
{% else %}<tr><td colspan="4">Nothing was watched.</td></tr>
{% endfor %}</table></div>
</section>
{% if s.relays %}<section>
<h2>Relays</h2>
<div class="scroll"><table>
<tr><th>Relay</th><th class="n">GB served</th><th class="n">Pay</th></tr>
{% for relay in s.relays %}<tr><td><code>{{ name(relay.relay) }}</code></td>
<td class="n">{{ gigabytes(relay.kbytes) }}</td><td class="n">{{ money(relay.cents) }}</td></tr>
{% endfor %}</table></div>
</section>
{% endif %}{% if s.flags or s.uncounted %}<section>
<h2>Held and not counted</h2>
<table>
<tr><th>Reason</th><th class="n">How many</th><th class="n">What</th></tr>
{% for flag in s.flags %}<tr><td>flagged: {{ flag.rule }}</td><td class="n">{{ flag.accounts }} accounts</td>
<td class="n">{{ money(flag.held_cents) }} held</td></tr>
{% endfor %}{% for item in s.uncounted %}<tr><td>not counted: {{ item.code }}</td>
<td class="n">{{ item.pulses }} pulses</td><td class="n">{{ seconds(item.ms) }} s</td></tr>
{% endfor %}</table>
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


def page(statement: Statement, lines: Sequence[Line], as_of: str) -> bytes:
    """Write ``index.html``; ``as_of`` is the settlement's time for people."""
    s = statement
    paid = sorted(payouts(lines).items(), key=lambda item: (-item[1], item[0]))
    flow = [
        ("Paid to payees", s.paid_cents),
        ("Held in escrow", s.held_cents),
        ("Carried over", s.carried_cents),
        ("Hub costs", s.booked_costs_cents),
        ("Relay pay", s.relay_pay_cents),
        ("Reserve", s.reserve_cents),
    ]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    bar = environment.from_string(
        '<svg width="{{ width }}" height="12" role="img" aria-label="{{ percent }} %">'
        '<rect width="{{ filled }}" height="12"></rect></svg>'
    )

    def draw(part: int, whole: int) -> object:
        share = part / whole if whole else 0.0
        filled = round(share * _BAR_WIDTH)
        return bar.make_module({"width": _BAR_WIDTH, "filled": filled, "percent": round(share * 100)})

    text = environment.from_string(_PAGE).render(
        s=s,
        as_of=as_of,
        name_of=digest(s).hex(),
        flow=flow,
        largest=max(cents for _, cents in flow),
        paid=paid[:_PAYEES_SHOWN],
        more=max(0, len(paid) - _PAYEES_SHOWN),
        top=paid[0][1] if paid else 0,
        busiest=max((day.viewed_ms for day in s.days), default=0),
        few=f"under {s.rules.group_viewers}",
        bar=draw,
        name=peer_id,
        money=partial(_fixed, unit=100, places=2),
        hours=partial(_fixed, unit=3_600_000, places=1),
        gigabytes=partial(_fixed, unit=1_000_000, places=3),
        seconds=partial(_fixed, unit=1_000, places=1),
    )
    return text.encode() + b"\n"


def _fixed(number: int, unit: int, places: int) -> str:
    """Write ``number`` / ``unit`` with ``places`` decimals, cut rather than rounded."""
    whole, rest = divmod(number, unit)
    return f"{whole}.{rest * 10**places // unit:0{places}d}"
