"""A trial: one scenario with one seed, played through the real rules, with its rule or without."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from msgspec.structs import replace

from ...protocol.rules import Rules
from .audience import attend, fill
from .dice import Dice
from .inspection import refused
from .month import Month, close_months
from .scenario import Scenario, Stage
from .world import BEGIN_DAY, NEXT_BEGIN_DAY, Step, World

_MS = 1_000


@dataclass(frozen=True, slots=True)
class Result:
    """What came out; ``lost_ms`` is what honest viewers watched that did not count or is held."""

    scenario: str
    seed: int
    rule: str
    with_rule: bool
    spent_cents: int
    received_cents: int
    bound_cents: int
    viewers: int
    viewed_ms: int
    lost_ms: int
    flags: dict[str, int]
    held_cents: int

    @property
    def return_cents(self) -> int:
        """What the attacker is left with."""
        return self.received_cents - self.spent_cents

    def json(self) -> dict[str, object]:
        """Return the result as the command prints it."""
        return {
            "scenario": self.scenario,
            "seed": self.seed,
            "rule": self.rule,
            "with_rule": self.with_rule,
            "attacker": {
                "spent_cents": self.spent_cents,
                "received_cents": self.received_cents,
                "return_cents": self.return_cents,
            },
            "bound_cents": self.bound_cents,
            "honest": {
                "viewers": self.viewers,
                "viewed_seconds": self.viewed_ms // _MS,
                "lost_seconds": -(-self.lost_ms // _MS),
            },
            "flags": [{"rule": rule, "count": count} for rule, count in sorted(self.flags.items())],
            "held_cents": self.held_cents,
        }


def play(scenario: Scenario, seed: int, *, with_rule: bool = True) -> Result:
    """Play a scenario once: honest viewers and attacker in one world, then the settlement."""
    rules = replace(Rules(), **scenario.rules)
    dice = Dice(seed, scenario.name)
    if with_rule:
        world = World(dice, rules)
    else:
        world = World(dice, replace(rules, **scenario.off.rules), scenario.off.lacks)
    evenings = fill(world, dice, scenario.house, BEGIN_DAY)
    if scenario.months > 1:
        honest = list(world.played_ms)
        evenings += attend(world, dice, honest, scenario.house, NEXT_BEGIN_DAY)
    limit = scenario.attack(Stage(world, dice, evenings, rules))
    world.run()
    booked, count = scenario.house.booked, scenario.months
    months = close_months(world, booked=booked, months=count)
    if world.keeps_acks and Step.AUDIT not in world.lacks and refused(world, months[0]):
        months = close_months(world, booked=booked, months=count, log=world.log)
    bound = limit.bound_cents(world, months[0], rules)
    flags: Counter[str] = Counter()
    for month in months:
        flags.update({line.rule: line.accounts for line in month.outcome.statement.flags})
    return Result(
        scenario=scenario.name,
        seed=seed,
        rule=scenario.rule,
        with_rule=with_rule,
        spent_cents=limit.spent_cents,
        received_cents=sum(month.received_cents for month in months),
        bound_cents=bound,
        viewers=len(world.played_ms),
        viewed_ms=sum(world.played_ms.values()),
        lost_ms=_lost_ms(world, months),
        flags=dict(flags),
        held_cents=sum(month.outcome.statement.held_cents for month in months),
    )


def _lost_ms(world: World, months: list[Month]) -> int:
    """Return what honest accounts watched that is not paid for: not counted, or held."""
    lost_ms = 0
    for account, played_ms in world.played_ms.items():
        paid_ms = sum(
            month.counted_ms(account, world.films) for month in months if account not in month.flagged
        )
        lost_ms += max(0, played_ms - paid_ms)
    return lost_ms
