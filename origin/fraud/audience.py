"""The audience: honest viewers, with the clocks, links and habits that honest people have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...protocol.ports import SpooledPulse
from ...protocol.rules import DAY_MS, HOUR_MS
from .device import STEP_MS, Device
from .dice import Dice
from .world import FEE_CENTS, World

CLOCK_OFF_MS = 55_000
KBYTES = 33_000
"""What a relay brings between two pulses of a film of a gigabyte an hour."""
WEEK_MS = 7 * DAY_MS
HURRY_MS = 20_000
EVENING_H = (16, 22)
"""The hour in which people begin; the last of them watch past midnight."""


class House(NamedTuple):
    """How many honest viewers there are, for how many days, and how long each watches a day.

    ``booked``: whether revenue is booked by account, so that the per-payer cap holds.
    """

    viewers: int
    days: int
    minutes: int
    booked: bool


TOWN = House(viewers=32, days=2, minutes=30, booked=True)
"""Enough accounts for the rule of the median."""
VILLAGE = House(viewers=12, days=3, minutes=40, booked=False)
"""Too few for the median, and revenue that names no account: rules of time stand alone here."""


class Evening(NamedTuple):
    """One sitting of one honest viewer: whose, with what, when it ended, and the pulses signed for it."""

    account: bytes
    device: Device
    title: bytes
    end_ms: int
    pulses: list[SpooledPulse]


def fill(world: World, dice: Dice, house: House, first_day: int) -> list[Evening]:
    """Open the honest accounts and let them watch from ``first_day`` on; everything is sent."""
    accounts = [world.join(fee_cents=FEE_CENTS, honest=True) for _ in range(house.viewers)]
    return attend(world, dice, accounts, house, first_day)


def attend(
    world: World, dice: Dice, accounts: Sequence[bytes], house: House, first_day: int
) -> list[Evening]:
    """Let accounts watch on the days of ``house``; every third clock is off by up to 55 s."""
    evenings: list[Evening] = []
    for number, account in enumerate(accounts):
        off_ms = dice.between(-CLOCK_OFF_MS, CLOCK_OFF_MS) if number % 3 == 0 else 0
        device = world.device(account, clock_off_ms=off_ms)
        for day in range(first_day, first_day + house.days):
            evening = sit(world, dice, device, house, day)
            _send(world, dice, evening, way=number % len(_WAYS))
            evenings.append(evening)
    return evenings


def sit(world: World, dice: Dice, device: Device, house: House, day: int) -> Evening:
    """Let a device's owner watch one film for an evening; nothing is sent yet."""
    start_ms = day * DAY_MS + dice.between(*EVENING_H) * HOUR_MS + dice.between(0, HOUR_MS)
    steps = dice.between(house.minutes * 7 // 10, house.minutes * 13 // 10) * 60_000 // STEP_MS
    title = world.films[dice.between(0, len(world.films) - 1)]
    served = world.relays[0].served(KBYTES)
    pulses = device.watch(title, start_ms, steps * STEP_MS, served=served)
    world.played_ms[device.account] += steps * STEP_MS
    return Evening(device.account, device, title, start_ms + steps * STEP_MS, pulses)


def _send(world: World, dice: Dice, evening: Evening, way: int) -> None:
    _WAYS[way](world, dice, evening)


def _live(world: World, dice: Dice, evening: Evening) -> None:
    """A relay has every pulse at once; now and then another one brings them too."""
    world.carried(evening.pulses, evening.end_ms + HURRY_MS, world.relays[0])
    if dice.one_in(3):
        world.carried(evening.pulses, evening.end_ms + HOUR_MS, world.relays[1])


def _flaky(world: World, dice: Dice, evening: Evening) -> None:
    """Pieces get lost, come again much later, in another order and by another way."""
    pieces = [evening.pulses[start : start + 8] for start in range(0, len(evening.pulses), 8)]
    for piece in dice.shuffled(pieces):
        if dice.one_in(3):
            world.posted(piece, evening.end_ms + dice.between(1, 30) * HOUR_MS)
        else:
            world.carried(piece, evening.end_ms + dice.between(1, 300_000), world.relays[dice.between(0, 1)])


def _offline(world: World, dice: Dice, evening: Evening) -> None:
    """Behind a one-way satellite: a neighbour with an uplink takes them home within the week."""
    world.posted(dice.shuffled(evening.pulses), evening.end_ms + dice.between(DAY_MS, WEEK_MS))


_WAYS = (_live, _flaky, _live, _live, _offline)
