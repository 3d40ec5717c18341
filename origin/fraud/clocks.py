"""Attacks on time: days that were not watched, clocks that run, minutes that are claimed twice."""

from __future__ import annotations

from ...protocol.beacon import HOUR_MS
from ...protocol.pulse import MAX_DELTA_MS, START
from ...protocol.rules import DAY_MS
from ...protocol.ticket import DAY_GRACE_MS
from .audience import VILLAGE
from .scenario import ENDLESS, Limit, Off, Scenario, Stage
from .world import BEGIN_DAY, FEE_CENTS, LATENCY_MS, Step

_MORNING_MS = 9 * HOUR_MS
_TODAY = BEGIN_DAY + 2
_FAST = 8
_BEAT_MS = 15_000
_AHEAD_MS = 118_000
"""How far a clock may be off and its pulses still be live, a little less."""
_DRIFT_MS = 234_000
_MIDNIGHT_MS = 270_000


def _back_date(stage: Stage) -> Limit:
    """Join late, and claim the days and hours before."""
    world = stage.world
    device, now_ms = world.device(world.join()), _TODAY * DAY_MS + 20 * HOUR_MS
    for day in (BEGIN_DAY, BEGIN_DAY + 1):
        mine = day if Step.TICKETS in world.lacks else _TODAY
        world.posted(device.watch(world.bait, day * DAY_MS + _MORNING_MS, 5 * HOUR_MS, day=mine), now_ms)
    newest = device.watch(
        world.bait, _TODAY * DAY_MS + _MORNING_MS, 3 * HOUR_MS, ticket=1, beacon=now_ms // HOUR_MS
    )
    world.posted(newest, now_ms)
    return Limit(ms=0, spent_cents=FEE_CENTS)


def _future_date(stage: Stage) -> Limit:
    """Claim the whole day ahead at once, and leave."""
    world = stage.world
    now_ms = BEGIN_DAY * DAY_MS + _MORNING_MS
    device = world.device(world.join())
    pulses = device.watch(world.bait, now_ms, 5 * HOUR_MS, beacon=now_ms // HOUR_MS)
    pulses += device.watch(world.bait, now_ms + 6 * HOUR_MS, 5 * HOUR_MS, beacon=now_ms // HOUR_MS)
    world.posted(pulses, now_ms + LATENCY_MS)
    world.carried(pulses, now_ms + 2 * LATENCY_MS, world.crooked)
    return Limit(ms=stage.rules.live_window_ms + stage.rules.slack_ms, spent_cents=FEE_CENTS)


def _run_fast(stage: Stage) -> Limit:
    """Let the clock gain four minutes in an hour that stay live, then let it run eight times as fast."""
    world = stage.world
    device = world.device(world.join())
    start_ms = BEGIN_DAY * DAY_MS + _MORNING_MS
    own_ms = start_ms - _AHEAD_MS
    pulses = [device.beat(world.bait, own_ms, 0, state=START)._replace(seen_ms=start_ms)]
    for passed_ms in range(60_000, HOUR_MS + 1, 60_000):
        at_ms = start_ms + passed_ms
        now_ms = at_ms - _AHEAD_MS + _DRIFT_MS * passed_ms // HOUR_MS
        pulses.append(device.beat(world.bait, now_ms, now_ms - own_ms)._replace(seen_ms=at_ms))
        own_ms = now_ms
    for passed_ms in range(_BEAT_MS, HOUR_MS + 1, _BEAT_MS):
        own_ms += _BEAT_MS * _FAST
        at_ms = start_ms + HOUR_MS + passed_ms
        beat = device.beat(world.bait, own_ms, _BEAT_MS * _FAST, beacon=at_ms // HOUR_MS)
        pulses.append(beat._replace(seen_ms=at_ms))
    world.carried(pulses, start_ms + 2 * HOUR_MS, world.relays[0])
    most_ms = 2 * HOUR_MS + 2 * stage.rules.live_window_ms + stage.rules.slack_ms
    return Limit(ms=most_ms, spent_cents=FEE_CENTS)


def _outrun(stage: Stage) -> Limit:
    """Claim the most a pulse may claim, eight times as often as a heartbeat comes."""
    world = stage.world
    device = world.device(world.join())
    start_ms = BEGIN_DAY * DAY_MS + _MORNING_MS
    pulses = [device.beat(world.bait, start_ms, 0, state=START)]
    pulses += [
        device.beat(world.bait, start_ms + passed_ms, MAX_DELTA_MS)
        for passed_ms in range(_BEAT_MS, HOUR_MS + 1, _BEAT_MS)
    ]
    world.carried(pulses, start_ms + HOUR_MS, world.relays[0])
    return Limit(ms=HOUR_MS + 2 * stage.rules.slack_ms, spent_cents=FEE_CENTS)


def _borrow_days(stage: Stage) -> Limit:
    """Watch one day on three devices, under its own ticket and those of the days beside it."""
    world = stage.world
    account = world.join()
    start_ms = BEGIN_DAY * DAY_MS + 8 * HOUR_MS
    for number, day in enumerate((BEGIN_DAY, BEGIN_DAY - 1, BEGIN_DAY + 1)):
        own_ms = start_ms if Step.DAYS not in world.lacks else day * DAY_MS + 8 * HOUR_MS
        pulses = world.device(account, number).binge(world.bait, own_ms, 12 * HOUR_MS, day=day)
        world.carried(pulses, _eve(2), world.crooked)
    seam = world.device(account, 3)  # nine minutes around midnight, under both days' tickets
    for day in (BEGIN_DAY, BEGIN_DAY + 1):
        twice = seam.watch(world.bait, (BEGIN_DAY + 1) * DAY_MS - _MIDNIGHT_MS, 2 * _MIDNIGHT_MS, day=day)
        world.carried(twice, _eve(2), world.crooked)
    return Limit(ms=stage.rules.day_cap_ms + 4 * DAY_GRACE_MS, spent_cents=FEE_CENTS)


def _delay(stage: Stage) -> Limit:
    """Make up whole days at night and send them late, so that no relay's clock bounds them."""
    world = stage.world
    account = world.join()
    for day in (BEGIN_DAY, BEGIN_DAY + 1):
        for number in range(2):
            made_up = world.device(account, number).binge(world.bait, day * DAY_MS + HOUR_MS, 15 * HOUR_MS)
            world.posted(made_up, (day + 1) * DAY_MS + _MORNING_MS)
    return Limit(ms=2 * stage.rules.day_cap_ms, spent_cents=FEE_CENTS)


def _eve(days: int) -> int:
    return (BEGIN_DAY + days) * DAY_MS + _MORNING_MS


SCENARIOS = (
    Scenario(
        "back-dating",
        "a late joiner claims days before it had tickets, and hours before the beacon it names",
        "tickets are for today and later; a pulse lies in its ticket's day and after its beacon",
        VILLAGE, _back_date, Off(lacks=frozenset({Step.TICKETS})),
    ),
    Scenario(
        "future-dating",
        "the whole day ahead is claimed in one minute",
        "a pulse more than two minutes ahead of its receipt is refused for good",
        VILLAGE, _future_date, Off({"live_window_ms": ENDLESS}),
    ),
    Scenario(
        "clock-skew",
        "the clock gains what stays live, then runs eight times as fast",
        "a stretch claims no more than its receive times allow, and two live windows",
        VILLAGE, _run_fast, Off({"live_window_ms": ENDLESS}),
    ),
    Scenario(
        "overclaiming",
        "every fifteen seconds a pulse claims two minutes",
        "playback outruns the wall clock by two seconds a stretch at most",
        VILLAGE, _outrun, Off({"slack_ms": ENDLESS}),
    ),
    Scenario(
        "day-boundary",
        "one day is claimed under the tickets of three, and midnight under two",
        "a pulse lies in its ticket's day, five minutes more on either side",
        VILLAGE, _borrow_days, Off(lacks=frozenset({Step.DAYS})),
    ),
    Scenario(
        "delayed-pulses",
        "made-up days are sent late, where only their own clock tells the time",
        "16 hours a day and account, by the ticket's day, whenever a pulse comes",
        VILLAGE, _delay, Off({"day_cap_ms": ENDLESS}),
    ),
)  # fmt: skip
