"""Earnings: a settlement, or what it would be by now, as each relay and each payee sees it.

Pure, and made from the outcome alone that is posted and reported, so that command, page and metric
show the report's numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ...protocol.earnings import MAX_TITLES, MonthEarnings, PayeeEarning, RelayEarning, TitleViewed
from ...protocol.manifest import Manifest
from ...protocol.statement import CodeLine
from .settlement import Outcome
from .viewing import Viewing


class Look(NamedTuple):
    """A month as computed now; ``settled`` where it is the one that was posted."""

    outcome: Outcome
    viewing: Viewing
    titles: Mapping[bytes, Manifest]
    settled: bool
    revenue_known: bool = True


class Earnings(NamedTuple):
    """Everybody's earnings of a month; relays by their first key."""

    month: str
    settled: bool
    as_of_ms: int
    revenue_known: bool
    currency: str
    cents_per_gb: int
    relays: Mapping[bytes, RelayEarning]
    payees: Mapping[str, PayeeEarning]

    def largest(self, count: int) -> list[str]:
        """Return the payees with the largest shares, in order of their names."""
        ranked = sorted(self.payees, key=lambda name: (-self.payees[name].share_cents, name))
        return sorted(ranked[:count])

    def of(self, relays: Iterable[bytes], payees: Iterable[str]) -> MonthEarnings:
        """Return the part of these relays and payees; whoever earned nothing has a line of zeros."""
        return MonthEarnings(
            self.month,
            self.settled,
            self.as_of_ms,
            self.revenue_known,
            [self.relays.get(key, RelayEarning(key, 0, 0, self.cents_per_gb, 0)) for key in relays],
            [self.payees.get(payee, PayeeEarning(payee, [], 0, 0, 0, 0, [])) for payee in payees],
        )


def earnings(look: Look, first_keys: Mapping[bytes, bytes]) -> Earnings:
    """Return the earnings of a month; ``first_keys`` names a relay that has changed its key."""
    statement = look.outcome.statement
    return Earnings(
        statement.month,
        look.settled,
        statement.as_of_ms,
        look.revenue_known,
        statement.rules.currency,
        statement.rules.relay_cents_per_gb,
        _relays(look, first_keys),
        _payees(look),
    )


def _relays(look: Look, first_keys: Mapping[bytes, bytes]) -> dict[bytes, RelayEarning]:
    rate = look.outcome.statement.rules.relay_cents_per_gb
    found: dict[bytes, RelayEarning] = {}
    for line in look.outcome.statement.relays:
        key = first_keys.get(line.relay, line.relay)
        before = found.get(key, RelayEarning(key, 0, 0, rate, 0))
        found[key] = RelayEarning(
            key,
            before.kbytes + line.kbytes,
            before.over_kbytes + line.over_kbytes,
            rate,
            before.cents + line.cents,
        )
    return found


def _payees(look: Look) -> dict[str, PayeeEarning]:
    sums: dict[str, tuple[int, int, int, int]] = defaultdict(lambda: (0, 0, 0, 0))
    for line in look.outcome.lines:
        share, paid, held, capped = sums[line.payee]
        sums[line.payee] = (
            share + line.share_cents,
            paid + line.paid_cents,
            held + line.held_cents,
            capped + line.capped_cents,
        )
    viewed = _viewed(look)
    cut: dict[str, dict[str, CodeLine]] = defaultdict(dict)
    for (digest, code), sum_ in look.viewing.cut_titles.items():
        for payee in look.titles[digest].payees if digest in look.titles else ():
            before = cut[payee.payee].get(code, CodeLine(code, 0, 0))
            cut[payee.payee][code] = CodeLine(code, before.pulses + sum_.pulses, before.ms + sum_.ms)
    found: dict[str, PayeeEarning] = {}
    for name in sorted({*sums, *cut}):
        share, paid, held, capped = sums[name]
        uncounted = [line for _, line in sorted(cut[name].items())]
        found[name] = PayeeEarning(name, viewed.get(name, []), share, paid, held, capped, uncounted)
    return found


def _viewed(look: Look) -> dict[str, list[TitleViewed]]:
    """Return each payee's titles, all versions of one together, those watched most first."""
    ms: dict[bytes, int] = defaultdict(int)
    for sums in (look.viewing.ms, look.viewing.carried_ms):
        for (digest, _), accounts in sums.items():
            ms[digest] += sum(accounts.values())
    found: dict[str, dict[tuple[str, int], int]] = defaultdict(lambda: defaultdict(int))
    for digest, viewed_ms in ms.items():
        manifest = look.titles[digest]
        for payee in manifest.payees:
            found[payee.payee][manifest.title, payee.points] += viewed_ms
    return {
        payee: [
            TitleViewed(title, viewed_ms, points)
            for (title, points), viewed_ms in sorted(titles.items(), key=lambda item: (-item[1], item[0]))
        ][:MAX_TITLES]
        for payee, titles in found.items()
    }
