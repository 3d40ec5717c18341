from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.node.http.paths import (
    CLOSED_PLACES,
    FIRM_S,
    LANES,
    PATHS,
    PAUSE_LIMIT_S,
    SOFT_S,
    TAMPERED_S,
    Carrier,
    Flight,
    Meter,
    Path,
    Paths,
)

TCP, QUIC = Carrier.TCP, Carrier.QUIC
MIB = 1 << 20
Rate = Callable[[int], float]
"""Bytes a second that so many flights of one carrier get together."""


def flat(megabits: float) -> Rate:
    """Return a carrier that brings the same however many blocks are asked for."""
    return lambda _: megabits * 125_000


def each(megabits: float, most: float = 90.0) -> Rate:
    """Return a carrier whose every connection brings so much, up to what the link carries."""
    return lambda flights: min(megabits * flights, most) * 125_000


@dataclass
class World:
    """A path in virtual time on which ``demand`` blocks are wanted at once."""

    rates: dict[Carrier, Rate]
    demand: int = 4
    path: Path = field(default_factory=Path)
    now: float = 100.0
    blocks: dict[Carrier, int] = field(default_factory=lambda: {TCP: 0, QUIC: 0})
    flying: list[tuple[Flight, list[float]]] = field(default_factory=list[tuple[Flight, list[float]]])

    def run(self, blocks: int) -> None:
        """Let so many blocks come."""
        while blocks:
            while len(self.flying) < self.demand:
                carrier = self.path.choose(self.now)
                if carrier is TCP and not self.path.has_lane():
                    break
                self.flying.append((self.path.begin(carrier, self.now), [float(MIB)]))
            shares = {
                carrier: self.rates[carrier](count) / count
                for carrier in Carrier
                if (count := sum(flight.carrier is carrier for flight, _ in self.flying))
            }
            step_s = min(left[0] / shares[flight.carrier] for flight, left in self.flying)
            self.now += step_s
            for flight, left in list(self.flying):
                came = min(shares[flight.carrier] * step_s, left[0])
                left[0] -= came
                self.path.arrived(flight, round(came), self.now)
                if left[0] < 1:
                    self.flying.remove((flight, left))
                    self.path.finish(flight, self.now)
                    self.blocks[flight.carrier] += 1
                    blocks -= 1
                    if not blocks:
                        break


def test_a_sender_that_paces_keeps_the_favourite_on_a_lossy_path() -> None:
    world = World({TCP: flat(84), QUIC: flat(4.7)})
    world.run(32)
    assert world.blocks == {TCP: 32, QUIC: 0}
    world.run(2_000)
    assert world.path.favourite is TCP
    assert world.blocks[QUIC] < 20
    assert world.path.lanes.limit == LANES[0]


def test_where_tcp_is_slow_quic_takes_over_within_a_few_blocks() -> None:
    world = World({TCP: flat(2), QUIC: flat(60)})
    world.run(40)
    assert world.path.favourite is QUIC
    assert world.blocks[TCP] < 20
    world.run(400)
    assert world.path.switches == 1


def test_a_path_that_recovers_is_noticed() -> None:
    world = World({TCP: flat(2), QUIC: flat(40)})
    world.run(200)
    assert world.path.favourite is QUIC
    world.rates[TCP] = flat(85)
    world.run(300)
    assert world.path.favourite is TCP


def test_a_favourite_that_collapses_is_doubted_again_although_the_rival_had_lost_often() -> None:
    world = World({TCP: flat(84), QUIC: flat(20)})
    world.run(3_000)
    world.rates[TCP] = flat(1)
    world.run(60)
    assert world.path.favourite is QUIC


@pytest.mark.parametrize(("alone", "lanes"), [(3.4, LANES[1]), (84.0, LANES[0])])
def test_more_connections_are_used_where_they_bring_more(alone: float, lanes: int) -> None:
    world = World({TCP: each(alone), QUIC: flat(4.7)}, demand=8)
    world.run(60)
    assert world.path.lanes.limit == lanes
    assert world.path.favourite is TCP


@settings(deadline=None)
@given(st.floats(1, 900), st.floats(1, 900), st.integers(1, 12))
def test_in_a_steady_world_the_clearly_faster_carrier_soon_carries_nearly_all(
    tcp: float, quic: float, demand: int
) -> None:
    world = World({TCP: flat(tcp), QUIC: flat(quic)}, demand=demand)
    world.run(400)
    assert world.path.switches <= 1
    before = dict(world.blocks)
    world.run(1_000)
    came = {carrier: world.blocks[carrier] - before[carrier] for carrier in Carrier}
    if quic > 2 * tcp and tcp < 12:
        assert came[QUIC] > 850
    if tcp > quic:
        assert came[TCP] > 850
    assert world.path.switches <= 1


@given(st.lists(st.sampled_from(["tcp", "quic", "wait", "use"]), max_size=60))
def test_a_closed_carrier_is_left_alone_while_the_other_is_open(steps: list[str]) -> None:
    path, now = Path(), 0.0
    for step in steps:
        match step:
            case "tcp":
                path.fails(TCP, SOFT_S, now)
            case "quic":
                path.fails(QUIC, FIRM_S, now)
            case "wait":
                now += 7
            case _:
                carrier = path.choose(now)
                assert not path.closed(carrier, now) or path.closed(carrier.other, now)
                path.finish(path.begin(carrier, now), now)


@given(st.lists(st.tuples(st.sampled_from(["begin", "arrive", "finish", "leave"]), st.floats(0, 5))))
def test_whatever_happens_to_flights_none_is_counted_for_ever(steps: list[tuple[str, float]]) -> None:
    path, now, flying = Path(), 0.0, list[Flight]()
    for step, passed_s in [*steps, *[("leave", 0.0)] * len(steps)]:
        now += passed_s
        if step == "begin":
            flying.append(path.begin(path.choose(now), now))
        elif flying:
            flight = flying[0]
            if step == "arrive":
                path.arrived(flight, MIB, now)
                continue
            del flying[0]
            (path.finish if step == "finish" else path.leave)(flight, now)
            path.leave(flight, now)  # a flight ends once
            path.finish(flight, now)
    assert not flying
    assert path.has_lane()
    assert all(meter.flights == 0 and meter.busy_s >= 0 for meter in path.meters.values())


def test_pauses_double_up_to_an_hour_and_end_with_success() -> None:
    path, now = Path(), 0.0
    lengths = list[float]()
    for _ in range(14):
        path.fails(TCP, SOFT_S, now)
        path.fails(TCP, SOFT_S, now)  # one that was under way at the same time
        start = now
        while path.closed(TCP, now):
            now += 1
        lengths.append(now - start)
    assert lengths[:4] == [2, 4, 8, 16]
    assert lengths[-1] == PAUSE_LIMIT_S
    path.works(TCP)
    path.fails(TCP, SOFT_S, now)
    assert path.closed(TCP, now + 1)
    assert not path.closed(TCP, now + 2)
    path.fails(TCP, TAMPERED_S, now + 1)  # worse news outlast a short pause
    assert path.closed(TCP, now + TAMPERED_S)


def test_a_rival_whose_trial_is_left_at_once_has_not_lost() -> None:
    world = World({TCP: flat(8), QUIC: flat(60)}, demand=1)
    while (carrier := world.path.choose(world.now)) is TCP:
        world.run(1)
    flight = world.path.begin(carrier, world.now)
    world.path.leave(flight, world.now + 0.01)
    assert world.path.choose(world.now + 0.01) is QUIC
    flight = world.path.begin(QUIC, world.now)
    world.path.leave(flight, world.now + 30)  # half a minute without a block is an answer
    assert world.path.choose(world.now + 30) is TCP


def test_only_a_trials_block_is_soon_wanted_from_the_favourite_too() -> None:
    world = World({TCP: flat(8), QUIC: flat(60)}, demand=1)
    while world.path.choose(world.now) is TCP:
        world.run(1)
        flight = world.path.begin(TCP, world.now)
        assert world.path.patience_s(flight) is None
        world.path.leave(flight, world.now)
    trial = world.path.begin(QUIC, world.now)
    patience_s = world.path.patience_s(trial)
    assert patience_s is not None
    assert 2.9 < patience_s < 3.3  # three times a block of 1 MiB at 1 MB/s
    assert world.path.patience_s(world.path.begin(TCP, world.now)) is None


def test_an_honest_no_says_nothing_about_the_carrier() -> None:
    path = Path()
    for now in range(20):
        path.finish(path.begin(TCP, float(now)), float(now))
    assert path.meters[TCP].rate is None
    assert path.choose(99) is TCP


def test_a_meter_counts_only_while_something_is_asked_for() -> None:
    meter = Meter()
    for start in (0.0, 1_000.0, 5_000.0):
        meter.begin(start)
        meter.add(4 * MIB, start + 1)
        meter.end(start + 1)
    assert meter.rate == 4 * MIB


def test_a_network_on_which_only_udp_fails_is_remembered() -> None:
    paths = Paths()
    for place in range(CLOSED_PLACES):
        assert not paths.at("hotel", place, 0).closed(QUIC, 0)
        paths.udp_failed("hotel", place)
    assert paths.at("hotel", "new", 0).closed(QUIC, 0)
    assert not paths.at("home", "new", 0).closed(QUIC, 0)
    paths.udp_works("hotel")
    assert not paths.at("hotel", "newer", 0).closed(QUIC, 0)


def test_what_is_remembered_is_bounded_and_the_used_stays() -> None:
    paths = Paths()
    kept = paths.at("home", "used", 0)
    for place in range(3 * PATHS):
        paths.at("home", place, 0)
        paths.udp_failed(str(place), place)
        assert paths.at("home", "used", 0) is kept
    assert len(paths) == PATHS
    assert (paths.favouring(TCP), paths.favouring(QUIC)) == (PATHS, 0)
