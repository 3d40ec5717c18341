"""Attacks by many accounts: free ones, cheap ones, and real people who are paid to let a title run."""

from __future__ import annotations

from ...protocol.rules import DAY_MS, HOUR_MS
from .audience import TOWN, VILLAGE
from .scenario import Limit, Off, Scenario, Stage
from .world import BEGIN_DAY, Step, World

_SYBILS = 12
_FARM = 8
_TRIAL_CENTS = 100
_BRIBED = 2
_BRIBE_CENTS = 300


def _watch(world: World, account: bytes, length_ms: int) -> None:
    """Let an account watch the bait live on the first two days, half of ``length_ms`` on each."""
    device = world.device(account, 1)
    for day in (BEGIN_DAY, BEGIN_DAY + 1):
        pulses = device.binge(world.bait, day * DAY_MS + HOUR_MS // 2, length_ms // 2)
        world.carried(pulses, day * DAY_MS + 16 * HOUR_MS, world.crooked)


def _sybils(stage: Stage) -> Limit:
    """Open accounts that pay nothing, and let each watch less than stands out."""
    accounts = tuple(stage.world.join(fee_cents=0) for _ in range(_SYBILS))
    for account in accounts:
        _watch(stage.world, account, 2 * HOUR_MS)
    return Limit(payers=accounts)


def _farm(stage: Stage) -> Limit:
    """Open accounts at a trial's price, and let each watch just less than stands out."""
    accounts = tuple(stage.world.join(fee_cents=_TRIAL_CENTS) for _ in range(_FARM))
    for account in accounts:
        _watch(stage.world, account, 2 * HOUR_MS + HOUR_MS // 2)
    return Limit(payers=accounts, spent_cents=_FARM * _TRIAL_CENTS)


def _bribe(stage: Stage) -> Limit:
    """Pay real subscribers for letting a title run while they are away."""
    accounts = tuple(stage.world.played_ms)[:_BRIBED]
    for account in accounts:
        _watch(stage.world, account, 28 * HOUR_MS)
    return Limit(payers=accounts, spent_cents=_BRIBED * _BRIBE_CENTS)


_UNBOOKED = Off(lacks=frozenset({Step.PAYERS}))
SCENARIOS = (
    Scenario(
        "sybil-viewers",
        "a dozen accounts that pay nothing watch one title",
        "an account moves no more than three times what it brought; nothing times three is nothing",
        TOWN, _sybils, _UNBOOKED,
    ),
    Scenario(
        "click-farm",
        "accounts at a trial's price watch just less than stands out",
        "an account moves no more than three times what it brought into the pool",
        TOWN, _farm, _UNBOOKED,
    ),
    Scenario(
        "bribery",
        "real subscribers are paid to let a title run day and night, in a pooled month",
        "an account moves no more than three times what it brought into the pool",
        VILLAGE._replace(booked=True), _bribe, _UNBOOKED,
    ),
)  # fmt: skip
