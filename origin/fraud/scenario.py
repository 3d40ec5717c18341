"""A scenario: what an attacker does, which rule stops it, and what that rule lets through at most."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from ...protocol.rules import Rules, relay_cents
from .audience import Evening, House
from .dice import Dice
from .month import Month
from .world import Step, World

ENDLESS = 1 << 40
"""A rule's number so large that the rule is off."""
ROUNDING_CENTS = 3
"""Largest remainder may give one cent more at each level: platform, payee, month of viewing."""


class Limit(NamedTuple):
    """What the rules let an attacker have at most.

    ``ms``: counted time of its title, None where only its payers bound it. ``payers``: the accounts
    through which it moves money, None where time alone bounds it. ``kbytes``: served by its relay.
    ``spent_cents``: what the attack costs, fees of its accounts included.
    """

    ms: int | None = None
    payers: tuple[bytes, ...] | None = None
    kbytes: int = 0
    spent_cents: int = 0

    def bound_cents(self, world: World, month: Month, rules: Rules) -> int:
        """Return the loss bound of a month: its share of the pool by time or by payers, and relay pay."""
        shares: list[int] = []
        if self.ms is not None:
            shares.append(_share(world, month, self.ms))
        if self.payers is not None:
            revenue = month.outcome.statement.revenue_cents
            brought = [world.fees[account] * month.fresh_cents // revenue for account in self.payers]
            shares.append(sum(brought) * rules.payer_factor)
        return min(shares, default=0) + relay_cents(rules, self.kbytes)


def _share(world: World, month: Month, ms: int) -> int:
    """Return what ``ms`` of the bait beside everybody else's viewing are worth."""
    if not ms:
        return 0
    others_ms = sum(
        sum(accounts.values())
        for sums in (month.viewing.ms, month.viewing.carried_ms)
        for (title, _), accounts in sums.items()
        if title in world.films
    )
    return month.outcome.statement.pool_cents * ms // (others_ms + ms) + ROUNDING_CENTS


class Stage(NamedTuple):
    """Where an attack is played: the world, chance, what its honest viewers did, and the rules as they are.

    ``rules`` are those of the run with its rule, from which the bound is computed in either run.
    """

    world: World
    dice: Dice
    evenings: list[Evening]
    rules: Rules


class Off(NamedTuple):
    """How a rule is switched off: numbers of the rules put out of reach, or a step the world lacks."""

    rules: Mapping[str, int | str] = {}
    lacks: frozenset[Step] = frozenset()


class Scenario(NamedTuple):
    """One attack; ``rules`` are numbers this scenario's origin has chosen otherwise than by default."""

    name: str
    story: str
    rule: str
    house: House
    attack: Callable[[Stage], Limit]
    off: Off
    rules: Mapping[str, int | str] = {}
    months: int = 1
