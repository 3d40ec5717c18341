"""Attacks that want one minute counted more than once: replays, second bodies, other forms of a signature."""

from __future__ import annotations

from collections.abc import Callable

from ...protocol.codec import decode, encode
from ...protocol.identity import Identity, Signed
from ...protocol.ports import SpooledPulse
from ...protocol.pulse import PulseSigner
from ...protocol.rules import DAY_MS, HOUR_MS
from ...protocol.ticket import Holder
from .audience import KBYTES, VILLAGE
from .device import Device, stretch
from .scenario import ENDLESS, Limit, Off, Scenario, Stage
from .world import BEGIN_DAY, FEE_CENTS, MONTH_END_MS, Step

MORNING_MS = BEGIN_DAY * DAY_MS + 9 * HOUR_MS
_COPIES = 10
_BRANCHES = 4
_LATE_DAYS = 12
_ORDER = 2**252 + 27742317777372353535851937790883648493
"""Of the group of Ed25519 (RFC 8032 section 5.1): S + this is the same point, another number."""
_NEUTRAL = bytes([1]) + bytes(31)
"""A point of small order: as a key it accepts one signature for every message, without libsodium's rule."""


def _copy(stage: Stage, device: Device, pulses: list[SpooledPulse], number: int) -> list[SpooledPulse]:
    """Return a copy of one hour's pulses: the same bytes, or what counts as new where copies count."""
    if Step.COPIES in stage.world.lacks:
        return _twin(stage, device, number).watch(stage.world.bait, pulses[0].seen_ms, HOUR_MS)
    return stage.dice.shuffled(pulses)


def _twin(stage: Stage, device: Device, number: int) -> Device:
    """Return another device of the account: what one device signs twice for one hour counts once anyway."""
    return stage.world.device(device.account, number + 1)


def _replay(stage: Stage) -> Limit:
    world = stage.world
    device = world.device(world.join())
    pulses = device.watch(world.bait, MORNING_MS, HOUR_MS)
    world.carried(pulses, MORNING_MS + HOUR_MS, world.crooked)
    for number in range(1, _COPIES):
        copy, at_ms = _copy(stage, device, pulses, number), MORNING_MS + (number + 1) * HOUR_MS
        if number % 2:
            world.posted(copy, at_ms)
        else:
            world.carried(copy, at_ms, world.crooked)
    return Limit(ms=HOUR_MS, spent_cents=FEE_CENTS)


def _two_relays(stage: Stage) -> Limit:
    world = stage.world
    relays = (world.crooked, *world.relays)
    for _ in range(2):
        device = world.device(world.join())
        served = world.crooked.served(KBYTES)
        pulses = device.watch(world.bait, MORNING_MS, HOUR_MS, served=served)
        for number in range(_COPIES):
            copy = _copy(stage, device, pulses, number) if number else pulses
            world.carried(copy, MORNING_MS + (number + 1) * HOUR_MS, relays[number % len(relays)])
    kbytes = 2 * (HOUR_MS // 120_000) * KBYTES
    return Limit(ms=2 * HOUR_MS, kbytes=kbytes, spent_cents=2 * FEE_CENTS)


def _late_replay(stage: Stage) -> Limit:
    """Replay into the late window of a settled month, and come with new pulses after it."""
    world = stage.world
    device = world.device(world.join())
    pulses = device.watch(world.bait, MORNING_MS, HOUR_MS)
    world.carried(pulses, MORNING_MS + HOUR_MS, world.crooked)
    for number in range(1, _COPIES):
        world.posted(_copy(stage, device, pulses, number), MONTH_END_MS + number * DAY_MS // 2)
    fresh = world.device(device.account, 1).binge(world.bait, MORNING_MS, 4 * HOUR_MS)
    world.posted(fresh, MONTH_END_MS + _LATE_DAYS * DAY_MS)
    return Limit(ms=HOUR_MS, spent_cents=2 * FEE_CENTS)


def _equivocate(stage: Stage) -> Limit:
    """Sign several chains under the same numbers, each for other hours of the day."""
    world = stage.world
    device = world.device(world.join())
    branches: list[list[SpooledPulse]] = []
    for number in range(_BRANCHES):
        start_ms = MORNING_MS + number * 3 * HOUR_MS
        if Step.COPIES in world.lacks:
            branches.append(device.watch(world.bait, start_ms, 2 * HOUR_MS, ticket=number))
        else:
            branches.append(stretch(device.stolen(BEGIN_DAY), world.bait, start_ms, 2 * HOUR_MS))
    for number, branch in enumerate(branches):
        world.carried(branch, MORNING_MS + (number + 1) * 3 * HOUR_MS, world.crooked)
    return Limit(ms=0, spent_cents=FEE_CENTS)


def _corners(stage: Stage) -> Limit:
    """Bring one's own hour again in every form that some verifier takes for another valid signature."""
    world = stage.world
    device = world.device(world.join())
    pulses = device.watch(world.bait, MORNING_MS, HOUR_MS)
    world.carried(pulses, MORNING_MS + HOUR_MS, world.crooked)
    for number in range(1, _COPIES):
        again = _twin(stage, device, number).watch(world.bait, MORNING_MS, HOUR_MS)
        if Step.SIGNATURES not in world.lacks:
            again = _FORMS[number % len(_FORMS)](stage, device, pulses)
        world.posted(again, MORNING_MS + (number + 1) * HOUR_MS)
    return Limit(ms=HOUR_MS, spent_cents=FEE_CENTS)


Form = Callable[[Stage, Device, list[SpooledPulse]], list[SpooledPulse]]


def _malleated(stage: Stage, device: Device, pulses: list[SpooledPulse]) -> list[SpooledPulse]:
    del stage, device
    return [_signed_again(item, _plus_order) for item in pulses]


def _not_canonical(stage: Stage, device: Device, pulses: list[SpooledPulse]) -> list[SpooledPulse]:
    """Write the length of the signature in two bytes where msgpack's shortest form has one."""
    del stage, device
    short, long = b"\xc4\x40", b"\xc5\x00\x40"
    return [item._replace(pulse=long.join(item.pulse.rsplit(short, 1))) for item in pulses]


def _cross_protocol(stage: Stage, device: Device, pulses: list[SpooledPulse]) -> list[SpooledPulse]:
    """Sign the next bodies as receipts, with the very key of the ticket."""
    del pulses
    key = device.session(BEGIN_DAY)
    signer = device.stolen(BEGIN_DAY)
    more = stretch(signer, stage.world.bait, MORNING_MS + 2 * HOUR_MS, HOUR_MS)
    return [_signed_again(item, lambda body, _: key.sign("receipt", body)) for item in more]


def _small_order(stage: Stage, device: Device, pulses: list[SpooledPulse]) -> list[SpooledPulse]:
    """Name a key of small order in a ticket, under which R = it, S = 0 signs every message."""
    del pulses
    world, tid = stage.world, stage.dice.bytes(16)
    grant = world.office.issue(tid, BEGIN_DAY, _NEUTRAL, Holder(device.account, 1))
    signer = PulseSigner(grant.ticket, grant.key, Identity(stage.dice.bytes(32)))
    more = stretch(signer, world.bait, MORNING_MS + 2 * HOUR_MS, HOUR_MS)
    return [_signed_again(item, lambda _body, _sig: _NEUTRAL + bytes(32)) for item in more]


_FORMS: tuple[Form, ...] = (_malleated, _not_canonical, _cross_protocol, _small_order)


def _plus_order(body: bytes, sig: bytes) -> bytes:
    del body
    return sig[:32] + (int.from_bytes(sig[32:], "little") + _ORDER).to_bytes(32, "little")


def _signed_again(item: SpooledPulse, sign: Callable[[bytes, bytes], bytes]) -> SpooledPulse:
    signed = decode(Signed, item.pulse)
    return item._replace(pulse=encode(Signed(signed.body, sign(signed.body, signed.sig))))


_ONCE = Off(lacks=frozenset({Step.COPIES}))
SCENARIOS = (
    Scenario(
        "replay",
        "one hour's pulses come ten times, in any order, by relay and directly",
        "a pulse counts once by ticket, number and hash of its body",
        VILLAGE, _replay, _ONCE,
    ),
    Scenario(
        "two-relays",
        "several relays report the same viewing and ask to be paid for it",
        "the signed body names who served; who brings it earns nothing, and it counts once",
        VILLAGE, _two_relays, _ONCE,
    ),
    Scenario(
        "late-replay",
        "pulses of a settled month come again in its late window, and new ones after it",
        "a carry-in is only what a month gained since it was settled; after ten days nothing is taken",
        VILLAGE, _late_replay, Off({"late_window_ms": ENDLESS}, frozenset({Step.COPIES})), months=2,
    ),
    Scenario(
        "equivocation",
        "one key signs four chains under the same numbers, each for other hours",
        "of several bodies under one number only one that alone is linked to counts",
        VILLAGE, _equivocate, _ONCE,
    ),
    Scenario(
        "signature-corners",
        "S plus the group order, longer encodings, receipts' signatures, keys of small order",
        "one encoding, one rule of verification, one domain for each kind of message",
        VILLAGE, _corners, Off(lacks=frozenset({Step.SIGNATURES})),
    ),
)  # fmt: skip
