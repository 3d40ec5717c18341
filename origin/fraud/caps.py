"""Attacks on the caps: more devices, no pause, pulses from far between, and volumes that stand out."""

from __future__ import annotations

from ...protocol.pulse import ACTIVE, RETURN, START
from ...protocol.rules import DAY_MS, HOUR_MS
from .audience import TOWN, VILLAGE
from .device import SESSION_MS, STEP_MS
from .scenario import ENDLESS, Limit, Off, Scenario, Stage
from .world import BEGIN_DAY, FEE_CENTS

_DAYS = (BEGIN_DAY, BEGIN_DAY + 1)
_GREEDY = 4
_ANY_START = 2
"""The version of the rules under which every return began a session."""


def _split(stage: Stage) -> Limit:
    """Watch on four devices at once."""
    world = stage.world
    account = world.join()
    for number in range(4):
        pulses = world.device(account, number).binge(world.bait, BEGIN_DAY * DAY_MS + HOUR_MS, 12 * HOUR_MS)
        world.carried(pulses, (BEGIN_DAY + 1) * DAY_MS, world.crooked)
    return Limit(ms=stage.rules.day_cap_ms, spent_cents=FEE_CENTS)


def _never_stop(stage: Stage) -> Limit:
    """Play for twelve hours without a pause, two days in a row."""
    world = stage.world
    device = world.device(world.join())
    for day in _DAYS:
        pulses = device.watch(world.bait, day * DAY_MS + 8 * HOUR_MS, 12 * HOUR_MS)
        world.carried(pulses, day * DAY_MS + 21 * HOUR_MS, world.crooked)
    return Limit(ms=2 * stage.rules.session_cap_ms, spent_cents=FEE_CENTS)


def _press_again(stage: Stage) -> Limit:
    """Play all day, and press return every five hours, which is no break."""
    world = stage.world
    device = world.device(world.join())
    for day in _DAYS:
        start_ms, length_ms = day * DAY_MS + 4 * HOUR_MS, 15 * HOUR_MS
        pulses = [device.beat(world.bait, start_ms, 0, state=START)]
        pulses += [
            device.beat(
                world.bait, start_ms + past_ms, STEP_MS, state=ACTIVE if past_ms % SESSION_MS else RETURN
            )
            for past_ms in range(STEP_MS, length_ms + 1, STEP_MS)
        ]
        world.carried(pulses, start_ms + length_ms, world.crooked)
    return Limit(ms=2 * stage.rules.session_cap_ms, spent_cents=FEE_CENTS)


def _doze(stage: Stage) -> Limit:
    """Wake for one pulse just after each five minutes, and claim two of them."""
    world = stage.world
    device, gap_ms = world.device(world.join()), 300_001
    for day in _DAYS:
        start_ms, length_ms = day * DAY_MS + HOUR_MS, 20 * HOUR_MS
        pulses = [device.beat(world.bait, start_ms, 0, state=START)]
        pulses += [
            device.beat(world.bait, at_ms, STEP_MS)
            for at_ms in range(start_ms + gap_ms, start_ms + length_ms, gap_ms)
        ]
        world.carried(pulses, start_ms + length_ms, world.relays[0])
    return Limit(ms=0, spent_cents=FEE_CENTS)


def _never_sleep(stage: Stage) -> Limit:
    """Watch almost as much as may be, on three days in a row."""
    world = stage.world
    device = world.device(world.join())
    for day in (*_DAYS, BEGIN_DAY + 2):
        pulses = device.binge(world.bait, day * DAY_MS + HOUR_MS, 15 * HOUR_MS + HOUR_MS // 2)
        world.carried(pulses, (day + 1) * DAY_MS, world.crooked)
    return Limit(ms=0, spent_cents=FEE_CENTS)


def _stand_out(stage: Stage) -> Limit:
    """Let a few paid accounts watch six times what people watch."""
    world = stage.world
    for _ in range(_GREEDY):
        device = world.device(world.join())
        for day in _DAYS:
            pulses = device.watch(world.bait, day * DAY_MS + HOUR_MS, 4 * HOUR_MS)
            world.carried(pulses, day * DAY_MS + 6 * HOUR_MS, world.crooked)
    return Limit(ms=0, spent_cents=_GREEDY * FEE_CENTS)


SCENARIOS = (
    Scenario(
        "cap-splitting",
        "one account watches on four devices at once",
        "16 hours a day and account, all devices together",
        VILLAGE, _split, Off({"day_cap_ms": ENDLESS}),
    ),
    Scenario(
        "no-pause",
        "a player runs for twelve hours without a pause",
        "six hours a session; the rest is cut",
        VILLAGE, _never_stop, Off({"session_cap_ms": ENDLESS}),
    ),
    Scenario(
        "session-seam",
        "somebody presses return every five hours and plays on",
        "only after a break of more than five minutes does a session of the same title begin anew",
        VILLAGE, _press_again, Off({"v": _ANY_START}),
    ),
    Scenario(
        "gap-seam",
        "a phone wakes just after each five minutes and claims two",
        "after a gap of five minutes a pulse claims nothing",
        VILLAGE, _doze, Off({"gap_ms": ENDLESS}),
    ),
    Scenario(
        "round-the-clock",
        "a bot watches fifteen and a half hours on three days in a row",
        "three days in a row near the cap: held, with evidence, until somebody has looked",
        VILLAGE, _never_sleep, Off({"near_cap_ms": ENDLESS}),
    ),
    Scenario(
        "greedy-farm",
        "paid bots watch six times what people watch",
        "more than three times the median volume: held, with evidence, until somebody has looked",
        TOWN, _stand_out, Off({"median_factor": ENDLESS}),
    ),
)  # fmt: skip
