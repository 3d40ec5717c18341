"""Which pulses go to whom."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.mesh import carry as module
from farcast.mesh.carry import Carrier
from farcast.mesh.neighbours import Neighbour
from farcast.protocol.ports import SpooledPulse


def pulses(count: int, *, size: int = 300, tid: int = 1) -> list[SpooledPulse]:
    name = tid.to_bytes(16, "big")
    return [SpooledPulse(name, seq, bytes(size), b"ticket", 0, own=True) for seq in range(1, count + 1)]


def neighbour(seed: int, *, uplink: bool = False) -> Neighbour:
    return Neighbour(bytes([seed]) * 32, "10.0.0.1", 7_433, uplink, 0.0)


def test_those_with_an_uplink_are_chosen_alone_else_everybody() -> None:
    carrier = Carrier()
    plain, up = neighbour(1), neighbour(2, uplink=True)
    assert carrier.choose([up, plain]) == [up]
    assert carrier.choose([plain, neighbour(3)]) == [plain, neighbour(3)]
    assert len(carrier.choose([neighbour(seed) for seed in range(50)])) == module.ROUND_NEIGHBOURS


def test_what_was_handed_is_not_handed_again_within_a_minute_and_then_ever_more_rarely() -> None:
    carrier, waiting = Carrier(), pulses(3)
    times: list[float] = []
    for now in range(600):
        load = carrier.load(b"a", waiting, float(now))
        if load:
            assert load == waiting
            carrier.handed(b"a", load, float(now))
            times.append(now)
    assert times == [0, 60, 180, 420]


def test_what_one_neighbour_took_is_still_offered_to_another() -> None:
    carrier, waiting = Carrier(), pulses(3)
    carrier.handed(b"a", waiting, 0.0)
    assert carrier.load(b"b", waiting, 1.0) == waiting


@settings(max_examples=40)
@given(st.integers(0, 500), st.integers(100, 4_000))
def test_a_post_is_bounded_and_rounds_reach_every_pulse_once(count: int, size: int) -> None:
    carrier, waiting, got = Carrier(), pulses(count, size=size), list[SpooledPulse]()
    while load := carrier.load(b"a", waiting, 0.0):
        assert len(load) <= module.POST_PULSES
        assert sum(len(item.pulse) for item in load) <= module.POST_BYTES
        carrier.handed(b"a", load, 0.0)
        got += load
    assert got == waiting


def test_acks_are_asked_for_in_turn_and_not_too_often() -> None:
    carrier = Carrier()
    waiting = [item for tid in range(40) for item in pulses(2, tid=tid)]
    asked = [carrier.tids_to_ask(b"a", waiting, now) for now in (0.0, 1.0, 2.0, 3.0)]
    assert [len(tids) for tids in asked] == [16, 16, 8, 0]
    assert len({tid for tids in asked for tid in tids}) == 40
    assert carrier.tids_to_ask(b"a", waiting, 15.0) == asked[0]


def test_beacons_are_asked_for_every_ten_minutes_of_each() -> None:
    carrier = Carrier()
    assert carrier.wants_beacons(b"a", 0.0)
    assert not carrier.wants_beacons(b"a", 599.0)
    assert carrier.wants_beacons(b"b", 1.0)
    assert carrier.wants_beacons(b"a", 600.0)


def test_what_is_remembered_is_bounded() -> None:
    carrier, waiting = Carrier(), pulses(module.REMEMBERED_PULSES + 10)
    carrier.handed(b"a", waiting, 0.0)
    assert carrier.load(b"a", waiting, 0.0) == waiting[:10]
    for seed in range(module.REMEMBERED_NEIGHBOURS):
        carrier.handed(seed.to_bytes(2, "big"), waiting[:1], 0.0)
    assert carrier.load(b"a", waiting[-1:], 0.0) == waiting[-1:]
