"""Flags: which accounts' money is held for a look, because of which rule, and what the rule saw.

Pure; a flag is no verdict. Nothing is forfeited by it: the money waits in escrow until somebody has
looked (``holds.py``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ...protocol.rules import Rules
from .viewing import ByDay

MEDIAN = "median"
NEAR_CAP = "near_cap"


class Flag(NamedTuple):
    """The first rule that flagged an account, and the numbers that every rule which did so saw."""

    rule: str
    evidence: Mapping[str, int]


class Hold(NamedTuple):
    """What is held of one account's part of a month: cents by payee, never nothing."""

    account: bytes
    rule: str
    evidence: Mapping[str, int]
    cents: Mapping[str, int]


def flagged(days: ByDay, rules: Rules) -> dict[bytes, Flag]:
    """Return the flagged accounts of a month.

    ``median``: more than ``median_factor`` times the median volume, once ``median_accounts``
    watched. ``near_cap``: at least ``near_cap_ms`` on ``near_cap_days`` days in a row.
    """
    totals: dict[bytes, int] = defaultdict(int)
    near: dict[bytes, list[int]] = defaultdict(list)
    for day, accounts in days.items():
        for account, sum_ in accounts.items():
            totals[account] += sum_.ms
            if sum_.ms >= rules.near_cap_ms:
                near[account].append(day)
    seen: dict[bytes, dict[str, dict[str, int]]] = defaultdict(dict)
    for account, evidence in _above_median(totals, rules):
        seen[account][MEDIAN] = evidence
    for account, full in near.items():
        first, length = _longest_run(full)
        if length >= rules.near_cap_days:
            run = {"first_day": first, "days": length, "at_least_ms": rules.near_cap_ms}
            seen[account][NEAR_CAP] = run
    return {
        account: Flag(next(iter(found)), {name: n for part in found.values() for name, n in part.items()})
        for account, found in seen.items()
    }


def holds_of(flags: Mapping[bytes, Flag], parts: Iterable[tuple[str, bytes, int]]) -> tuple[Hold, ...]:
    """Return what is held, by account; ``parts`` are payee, flagged account and cents."""
    cents: dict[bytes, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for payee, account, part in parts:
        if part:
            cents[account][payee] += part
    return tuple(
        Hold(account, *flags[account], dict(sorted(by_payee.items())))
        for account, by_payee in sorted(cents.items())
    )


def _above_median(totals: Mapping[bytes, int], rules: Rules) -> Iterable[tuple[bytes, dict[str, int]]]:
    ranked = sorted(totals.values())
    if len(ranked) < max(1, rules.median_accounts):
        return
    middle = len(ranked) // 2
    twice_ms = ranked[middle] * 2 if len(ranked) % 2 else ranked[middle - 1] + ranked[middle]
    for account, ms in totals.items():
        if 2 * ms > rules.median_factor * twice_ms:
            evidence = {"viewed_ms": ms, "median_ms": twice_ms // 2, "factor": rules.median_factor}
            yield account, {**evidence, "accounts": len(ranked)}


def _longest_run(days: Iterable[int]) -> tuple[int, int]:
    """Return where the longest run of consecutive days begins, the earliest of several, and its length."""
    best, first, last = (0, 0), 0, -2
    for day in sorted(days):
        first = first if day == last + 1 else day
        last = day
        if day - first + 1 > best[1]:
            best = (first, day - first + 1)
    return best
