"""Attacks by those who carry and serve: relays that forge, inflate or drop, and keys that were stolen."""

from __future__ import annotations

from functools import partial

from ...protocol.identity import Identity
from ...protocol.ports import SpooledPulse
from ...protocol.pulse import PulseSigner
from ...protocol.rules import DAY_MS, HOUR_MS, relay_day_kbytes
from .audience import VILLAGE, Evening, sit
from .device import BREAK_MS, stretch
from .scenario import ENDLESS, Limit, Off, Scenario, Stage
from .world import BEGIN_DAY, CROOK, FEE_CENTS, TITLE_BYTES, Step

_MORNING_MS = 9 * HOUR_MS
_VICTIMS = 6
_ROBBED = 3
_LOOT_DAYS = 5
_PULSE_KBYTES = 100_000_000
_LIBRARY = 20
_LIBRARY_BYTES = 100_000_000_000
_LINE_BYTES_S = 10_000_000


def _known(stage: Stage, count: int) -> list[Evening]:
    """Return evenings of the first day that end early enough for more to be claimed on it."""
    tonight = [one for one in stage.evenings if one.end_ms // DAY_MS == BEGIN_DAY]
    return sorted(tonight, key=lambda one: one.end_ms)[:count]


def _forge(stage: Stage) -> Limit:
    """Write pulses in the name of those whose pulses come by: after theirs, and under their numbers."""
    world, dice = stage.world, stage.dice
    for evening in _known(stage, _VICTIMS):
        own = evening.device.signer(BEGIN_DAY)
        forgers = [evening.device.stolen(BEGIN_DAY)]
        if Step.SIGNATURES not in world.lacks:
            key, name = dice.bytes(32), Identity(dice.bytes(32))
            forgers = [
                PulseSigner(own.ticket, key, name, seq=own.seq, cum_ms=own.cum_ms, prev=own.prev),
                PulseSigner(own.ticket, key, world.crooked.identity),
            ]
        for signer in forgers:
            forged = stretch(signer, world.bait, evening.end_ms + BREAK_MS, HOUR_MS)
            world.carried(forged, evening.end_ms - 1, world.crooked)
            world.posted(forged, evening.end_ms + 2 * HOUR_MS)
    return Limit(ms=0)


def _inflate(stage: Stage) -> Limit:
    """Watch an hour, and sign that one's own relay brought a hundred gigabytes every two minutes."""
    world = stage.world
    served = world.crooked.served(_PULSE_KBYTES)
    pulses = world.device(world.join()).watch(
        world.bait, BEGIN_DAY * DAY_MS + _MORNING_MS, HOUR_MS, served=served
    )
    world.carried(pulses, BEGIN_DAY * DAY_MS + 11 * HOUR_MS, world.crooked)
    return Limit(ms=HOUR_MS, kbytes=TITLE_BYTES // 1_000, spent_cents=FEE_CENTS)


def _collude(stage: Stage) -> Limit:
    """Flip through a large library of one's own, each title whole from one's own relay, every day."""
    world = stage.world
    library = [world.publish(f"library {number}", CROOK, _LIBRARY_BYTES) for number in range(_LIBRARY)]
    device = world.device(world.join())
    served = world.crooked.served(_LIBRARY_BYTES // 1_000)
    days = range(BEGIN_DAY, BEGIN_DAY + 3)
    for day in days:
        pulses: list[SpooledPulse] = []
        for number, title in enumerate(library):
            start_ms = day * DAY_MS + _MORNING_MS + number * 2 * BREAK_MS
            pulses += device.watch(title, start_ms, 120_000, served=served)
        world.carried(pulses, (day + 1) * DAY_MS, world.crooked)
    kbytes = len(days) * relay_day_kbytes(stage.rules)
    return Limit(ms=len(days) * _LIBRARY * 120_000, kbytes=kbytes, spent_cents=FEE_CENTS)


def _rob(stage: Stage) -> Limit:
    """Take the session key of a day from boxes whose people have gone to bed, and go on in their name."""
    world = stage.world
    for evening in _known(stage, _ROBBED):
        start_ms = evening.end_ms + BREAK_MS
        left_ms = (BEGIN_DAY + 1) * DAY_MS - start_ms
        loot = stretch(evening.device.stolen(BEGIN_DAY), world.bait, start_ms, min(left_ms, 5 * HOUR_MS))
        world.carried(loot, (BEGIN_DAY + 1) * DAY_MS, world.crooked)
        if Step.TICKETS in world.lacks:
            thief = world.device(evening.account, 9)
            for day in range(BEGIN_DAY + 1, BEGIN_DAY + 1 + _LOOT_DAYS):
                more = thief.binge(world.bait, day * DAY_MS + HOUR_MS, 8 * HOUR_MS)
                world.carried(more, day * DAY_MS + 10 * HOUR_MS, world.crooked)
    return Limit(ms=_ROBBED * stage.rules.day_cap_ms)


def _drop(stage: Stage) -> Limit:
    """Promise other viewers to carry their pulses, and throw them away; one's own come home."""
    world, dice = stage.world, stage.dice
    fans_ms = _fans(stage)
    for _ in range(12):
        device = world.device(world.join(honest=True))
        for day in range(BEGIN_DAY, BEGIN_DAY + 3):
            evening = sit(world, dice, device, VILLAGE, day)
            if Step.ACKS not in world.lacks:
                world.later(evening.end_ms + HOUR_MS, partial(_again, stage, evening))
    return Limit(ms=fans_ms)


def _again(stage: Stage, evening: Evening) -> None:
    """Hand to another relay what no ack has covered for an hour, as a viewer's box does."""
    waiting = [item for item in evening.pulses if not stage.world.acked(item)]
    if waiting:
        now_ms = evening.end_ms + HOUR_MS
        stage.world.carried(waiting, now_ms, stage.world.relays[1], [now_ms] * len(waiting))


def _cheat(stage: Stage) -> Limit:
    """Be the origin, and leave half of the others' viewers out of the log that is settled."""
    world = stage.world
    fans_ms = _fans(stage)
    world.keeps_acks = True
    world.withheld = frozenset(list(world.played_ms)[::2])
    return Limit(ms=fans_ms)


def _fans(stage: Stage) -> int:
    """Let four people watch the bait because they like it; returns for how long."""
    world = stage.world
    for _ in range(4):
        device = world.device(world.join())
        for day in range(BEGIN_DAY, BEGIN_DAY + 3):
            start_ms = day * DAY_MS + 18 * HOUR_MS
            pulses = device.watch(world.bait, start_ms, HOUR_MS)
            world.carried(pulses, start_ms + HOUR_MS, world.crooked)
    return 4 * 3 * HOUR_MS


SCENARIOS = (
    Scenario(
        "relay-forgery",
        "a relay writes pulses for its own title in the name of those it carries for",
        "a pulse needs its ticket's session key and ticket key, which no relay ever has",
        VILLAGE, _forge, Off(lacks=frozenset({Step.SIGNATURES})),
    ),
    Scenario(
        "kbytes-inflation",
        "a viewer signs that its own relay brought a hundred gigabytes every two minutes",
        "nobody is served more of a title in a day than the title has",
        VILLAGE, _inflate, Off(lacks=frozenset({Step.SIZES})),
    ),
    Scenario(
        "collusion",
        "viewer, relay and publisher are one: a library of large titles is served whole every day",
        "a relay is paid for no more in a day than its line can carry",
        VILLAGE, _collude, Off({"relay_bytes_s": ENDLESS}), {"relay_bytes_s": _LINE_BYTES_S},
    ),
    Scenario(
        "key-theft",
        "the keys of a day are stolen from three boxes and used until midnight",
        "a session key is good for one UTC day and for 16 hours of it",
        VILLAGE, _rob, Off(lacks=frozenset({Step.TICKETS})),
    ),
    Scenario(
        "relay-drops",
        "a relay throws away what viewers of other titles hand to it",
        "a viewer deletes on the origin's ack alone, and hands on elsewhere what has none",
        VILLAGE, _drop, Off(lacks=frozenset({Step.ACKS})),
    ),
    Scenario(
        "origin-cheats",
        "the origin is the thief: it leaves half of the others' viewers out of its settlement",
        "whoever kept an ack can show that the settled log is not the one that was acked",
        VILLAGE, _cheat, Off(lacks=frozenset({Step.AUDIT})),
    ),
)  # fmt: skip
