"""The ladder's rules, one by one, and then under every sequence of faults hypothesis can think of."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.node.ladder.budget import Budget
from farcast.node.ladder.flight import Cancel, Effect, GiveUp, Start, Switched
from farcast.node.ladder.health import Tuning
from farcast.node.ladder.ladder import Ladder
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.ports import Cost, Source, TierName

CDN = Source(TierName.CDN, "cdn", "https://cdn.example")
RELAYS = [Source(TierName.RELAY, f"relay{n}", f"10.0.0.{n}:7433", bytes([n]) * 32) for n in range(3)]
MESH = Source(TierName.MESH, "neighbour", "192.168.0.9:7433", b"\x77" * 32)
SKY = Source(TierName.SATELLITE, "carousel", "239.255.74.35:7435")
BLOCK = 100_000


def cid(number: int) -> Cid:
    return Cid.of(RAW, number.to_bytes(8, "big"))


def ladder(*sources: Source, watched: bool = True, metered: frozenset[TierName] = frozenset()) -> Ladder:
    made = Ladder()
    for tier in TierName:
        ours = [source for source in sources if source.tier is tier]
        made.set_sources(
            tier, ours, 0.0, watched=watched, cost=Cost.METERED if tier in metered else Cost.FREE
        )
    return made


def starts(effects: list[Effect]) -> list[Start]:
    return [effect for effect in effects if isinstance(effect, Start)]


def serve(made: Ladder, number: int, now: float, took: float = 0.02) -> Start:
    """Serve one block without trouble and return its only flight."""
    made.want(cid(number), now, size_bytes=BLOCK)
    (start,) = starts(made.take())
    made.progressed(start.flight, 1, now + took / 2)
    assert made.received(start.flight, BLOCK, now + took)
    made.take()
    return start


def run_until(made: Ladder, end: float) -> list[tuple[float, Effect]]:
    """Tick at every wake until ``end``; returns what was decided and when."""
    found: list[tuple[float, Effect]] = []
    while (wake := made.wake_at) is not None and wake <= end:
        made.tick(wake)
        found += [(wake, effect) for effect in made.take()]
    return found


def test_the_first_tier_is_asked_first_and_only_once() -> None:
    made = ladder(MESH, *RELAYS, CDN)
    made.want(cid(1), 0.0)
    made.want(cid(1), 0.0)
    (start,) = starts(made.take())
    assert start.source == CDN
    assert not start.hedge


def test_a_refused_connection_moves_on_at_once_and_the_failover_says_why() -> None:
    made = ladder(CDN, RELAYS[0])
    assert serve(made, 0, 0.0).source == CDN
    made.want(cid(1), 1.0)
    (first,) = starts(made.take())
    made.failed(first.flight, "unreachable", 1.001)
    (second,) = starts(made.take())
    assert second.source == RELAYS[0]
    assert made.received(second.flight, BLOCK, 1.051)
    assert made.take() == [Switched(TierName.CDN, TierName.RELAY, "unreachable", 51)]


def test_a_hanging_tier_is_hedged_within_a_quarter_second_and_then_left() -> None:
    made = ladder(CDN, RELAYS[0])
    serve(made, 0, 0.0)
    made.want(cid(1), 1.0, size_bytes=BLOCK)
    made.take()
    (at, hedge), *_ = [(at, one) for at, one in run_until(made, 1.3) if isinstance(one, Start)]
    assert at <= 1.25
    assert isinstance(hedge, Start)
    assert hedge.source == RELAYS[0]
    assert hedge.hedge
    made.received(hedge.flight, BLOCK, 1.35)
    assert Cancel(hedge.flight - 1) in made.take()
    made.want(cid(2), 1.4)
    assert starts(made.take())[0].source == RELAYS[0], "the hanging tier is in its back-off"


def test_two_hanging_tiers_leave_the_third_to_start_within_300_ms() -> None:
    made = ladder(CDN, RELAYS[0], MESH)
    made.want(cid(1), 0.0, size_bytes=BLOCK)
    made.take()
    begun = [(at, one.source) for at, one in run_until(made, 0.31) if isinstance(one, Start)]
    assert [source for _, source in begun] == [RELAYS[0], MESH]
    assert begun[-1][0] <= 0.301


def test_the_players_buffer_shortens_the_hedge_delay() -> None:
    made = ladder(CDN, RELAYS[0])
    made.want(cid(1), 0.0, size_bytes=BLOCK, buffer_s=0.3)
    made.take()
    at = next(at for at, one in run_until(made, 0.3) if isinstance(one, Start))
    assert at <= 0.101


def test_a_trickle_is_left_for_a_faster_source() -> None:
    made = ladder(CDN, RELAYS[0])
    for number in range(4):
        serve(made, number, float(number))
    made.want(cid(9), 10.0, size_bytes=BLOCK)
    (slow,) = starts(made.take())
    assert slow.source == CDN
    found: list[Effect] = []
    now = 10.0
    for step in range(1, 40):  # 10 kB/s
        now = 10.0 + step / 100
        made.progressed(slow.flight, step * 100, now)
        made.tick(now)
        found += made.take()
        if starts(found):
            break
    (hedge,) = starts(found)
    assert hedge.source == RELAYS[0]
    assert now <= 10.25
    made.received(hedge.flight, BLOCK, now + 0.05)
    assert Switched(TierName.CDN, TierName.RELAY, "slow", round((now + 0.05 - 10) * 1000)) in made.take()


def test_wrong_bytes_ban_the_source_for_that_block_and_after_three_blocks_for_a_day() -> None:
    made = ladder(CDN, RELAYS[0])
    for number in range(3):
        made.want(cid(number), float(number))
        (first,) = starts(made.take())
        assert first.source == CDN
        made.corrupt(first.flight, float(number))
        (second,) = starts(made.take())
        assert second.source == RELAYS[0]
        made.received(second.flight, BLOCK, number + 0.1)
        made.take()
    made.want(cid(7), 80_000.0)
    assert starts(made.take())[0].source == RELAYS[0]
    made.want(cid(8), 86_403.0)
    assert starts(made.take())[0].source == CDN
    made.want(cid(0), 86_404.0)
    assert starts(made.take())[0].source == RELAYS[0], "its own lie is never asked for again"


def test_a_block_refused_is_not_asked_there_again_but_the_source_stays_up() -> None:
    made = ladder(CDN, RELAYS[0])
    made.want(cid(1), 0.0)
    (first,) = starts(made.take())
    made.failed(first.flight, "refused", 0.01, status=404)
    assert starts(made.take())[0].source == RELAYS[0]
    made.cancelled(cid(1))
    made.take()
    made.want(cid(1), 1.0)
    assert starts(made.take())[0].source == RELAYS[0]
    made.want(cid(2), 1.0)
    assert starts(made.take())[0].source == CDN


def test_a_busy_source_is_left_alone_for_as_long_as_it_said() -> None:
    made = ladder(CDN, RELAYS[0])
    made.want(cid(1), 0.0)
    made.failed(starts(made.take())[0].flight, "refused", 0.0, status=429, retry_after_s=20.0)
    made.take()
    made.want(cid(2), 19.0)
    assert starts(made.take())[0].source == RELAYS[0]
    made.want(cid(3), 20.5)
    assert starts(made.take())[0].source == CDN


def test_a_recovered_better_tier_serves_again_within_15_seconds() -> None:
    made = ladder(CDN, RELAYS[0])
    now, number, back = 0.0, 0, 60.0
    while now < 90.0:
        number += 1
        made.want(cid(number), now, size_bytes=BLOCK, buffer_s=8.0)
        served = False
        at = now
        while not served:
            for start in starts(made.take()):
                if start.source != CDN or at >= back:
                    made.received(start.flight, BLOCK, at + 0.02)
                    served = True
                    break
            if not served:
                assert made.wake_at is not None
                at = made.wake_at
                made.tick(at)
        assert at - now <= 0.3
        for effect in made.take():
            if isinstance(effect, Switched) and effect.after is TierName.CDN:
                assert effect.cause == "recovered"
                assert back <= at <= back + 15.0
                return
        now += 2.0
    raise AssertionError("the CDN was never used again")


def test_a_metered_tier_is_asked_last_and_never_hedged_onto() -> None:
    made = ladder(CDN, RELAYS[0], MESH, metered=frozenset({TierName.CDN}))
    made.want(cid(1), 0.0, size_bytes=BLOCK)
    assert starts(made.take())[0].source == RELAYS[0]
    hedges = [one for _, one in run_until(made, 0.9) if isinstance(one, Start)]
    assert [one.source for one in hedges] == [MESH]
    left = run_until(made, 10.0)
    assert [type(one) for _, one in left[:3]] == [Cancel, Cancel, Start], "it is left for, never doubled"
    assert left[2][0] <= 1.1
    later = [one for _, one in left if isinstance(one, Start)]
    assert later[0].source == CDN
    assert not later[0].hedge


def test_a_prefetch_is_not_hedged_until_a_player_asks_for_the_block() -> None:
    made = ladder(CDN, RELAYS[0])
    made.want(cid(1), 0.0, urgent=False)
    assert len(starts(made.take())) == 1
    assert not run_until(made, 2.0)
    made.want(cid(1), 2.0)
    assert starts(made.take())[0].source == RELAYS[0]


def test_the_satellite_is_waited_for_beside_the_others_and_alone_when_they_are_gone() -> None:
    made = ladder(SKY)
    made.want(cid(1), 0.0)
    assert starts(made.take())[0].source == SKY
    assert not [one for _, one in run_until(made, 29.0) if isinstance(one, Start | Cancel)]
    made.pushed(cid(1), TierName.SATELLITE, BLOCK, 29.5)
    assert made.wake_at is None
    both = ladder(CDN, SKY)
    both.want(cid(2), 0.0)
    assert starts(both.take())[0].source == CDN
    waiting = [one for _, one in run_until(both, 0.5) if isinstance(one, Start)]
    assert [one.source for one in waiting] == [SKY]
    assert not waiting[0].hedge


def test_a_block_nobody_has_is_given_up_at_the_deadline_with_the_reason() -> None:
    made = ladder(CDN)
    made.want(cid(1), 0.0)
    made.failed(starts(made.take())[0].flight, "refused", 0.0, status=404)
    given: list[Effect] = []
    for _ in range(1_000):
        wake = made.wake_at
        if wake is None:
            break
        made.tick(wake)
        for effect in made.take():
            if isinstance(effect, Start):
                made.failed(effect.flight, "refused", wake, status=404)
            else:
                given.append(effect)
    assert given == [GiveUp(cid(1), "missing")]
    lonely = ladder()
    lonely.want(cid(1), 0.0)
    assert [one for _, one in run_until(lonely, 31.0)] == [GiveUp(cid(1), "unreachable")]


def test_with_no_budget_left_a_late_flight_is_replaced_and_not_doubled() -> None:
    made = ladder(CDN, RELAYS[0], watched=False)
    huge = Budget.FREE_BYTES + 1
    made.want(cid(1), 0.0, size_bytes=huge)
    (first,) = starts(made.take())
    effects = [one for _, one in run_until(made, 1.0)]
    assert effects[0] == Cancel(first.flight)
    assert starts(effects)[0].source == RELAYS[0]
    assert not starts(effects)[0].hedge


def test_relays_keep_their_blocks_and_load_spreads_over_them() -> None:
    made = ladder(*RELAYS)
    chosen = {n: serve(made, n, float(n)).source for n in range(60)}
    assert set(chosen.values()) == set(RELAYS)
    again = ladder(*reversed(RELAYS))
    assert {n: serve(again, n, float(n)).source for n in range(3)} == {n: chosen[n] for n in range(3)}


def test_what_failed_on_one_network_is_asked_on_another() -> None:
    made = ladder(CDN, RELAYS[0])
    made.want(cid(1), 0.0)
    made.failed(starts(made.take())[0].flight, "unreachable", 0.0)
    made.take()
    made.network("home", 0.1)
    made.want(cid(2), 0.1)
    assert starts(made.take())[0].source == CDN
    made.network("", 0.1)
    made.want(cid(3), 0.1)
    assert starts(made.take())[0].source == RELAYS[0]


def test_a_late_good_answer_after_the_winner_changes_nothing() -> None:
    made = ladder(CDN, RELAYS[0])
    made.want(cid(1), 0.0, size_bytes=BLOCK)
    (first,) = starts(made.take())
    hedge = next(one for _, one in run_until(made, 0.3) if isinstance(one, Start))
    assert made.received(hedge.flight, BLOCK, 0.3)
    made.take()
    assert not made.received(first.flight, BLOCK, 0.31)
    made.failed(first.flight, "unreachable", 0.31)
    made.corrupt(first.flight, 0.31)
    made.progressed(first.flight, 5, 0.31)
    assert made.take() == []


# -- every sequence of faults


@dataclass
class Fault:
    """How one source behaves from ``since`` on: good, refuse, missing, hang, trickle, corrupt, busy."""

    since: float
    kind: str


@dataclass
class World:
    """Sources with scripted faults, driven on a heap; collects what the properties are about."""

    made: Ladder
    script: dict[Source, list[Fault]]
    now: float = 0.0
    order: int = 0
    heap: list[tuple[float, int, str, int, int]] = field(
        default_factory=list[tuple[float, int, str, int, int]]
    )
    flights: dict[int, Start] = field(default_factory=dict[int, Start])
    ejected: dict[Source, float] = field(default_factory=dict[Source, float])
    refused: dict[tuple[Cid, Source], float] = field(default_factory=dict[tuple[Cid, Source], float])
    lied: set[tuple[Cid, Source]] = field(default_factory=set[tuple[Cid, Source]])
    ended: dict[Cid, str] = field(default_factory=dict[Cid, str])
    begun: dict[int, float] = field(default_factory=dict[int, float])
    arrived: dict[int, int] = field(default_factory=dict[int, int])
    wasted: int = 0
    delivered: int = 0

    def kind(self, source: Source) -> str:
        """Say how a source behaves now."""
        current = "good"
        for fault in self.script.get(source, []):
            if fault.since <= self.now:
                current = fault.kind
        return current

    def at(self, delay: float, event: str, flight: int, value: int = 0) -> None:
        """Let something happen to a flight later."""
        self.order += 1
        heapq.heappush(self.heap, (self.now + delay, self.order, event, flight, value))

    def carry_out(self) -> None:
        """Do what the ladder decided, and check that it was allowed to."""
        for effect in self.made.take():
            match effect:
                case Start(flight=flight, cid=block, source=source):
                    assert self.now >= self.ejected.get(source, 0.0), "asked within its back-off"
                    assert self.now >= self.refused.get((block, source), 0.0), "asked again after a refusal"
                    assert (block, source) not in self.lied, "asked again after wrong bytes"
                    same = [one for one in self.flights.values() if one[1:3] == (block, source)]
                    assert not same, "two flights to one source"
                    self.flights[flight] = effect
                    self.begun[flight] = self.now
                    self.begin(flight, self.kind(source))
                case Cancel(flight=flight):
                    start = self.flights.pop(flight)
                    if start.cid in self.ended:
                        self.wasted += self.arrived.get(flight, 0)
                case GiveUp(cid=block):
                    self.ended[block] = "given up"
                case Switched():
                    assert effect.before is not effect.after

    def begin(self, flight: int, kind: str) -> None:
        """Schedule what a source of this kind does with a request."""
        if kind in ("good", "corrupt"):
            self.at(0.02, "progress", flight, BLOCK // 2)
            self.at(0.04, kind, flight)
        elif kind == "trickle":
            for step in range(1, 200):
                self.at(step * 0.1, "progress", flight, step * 500)
            self.at(20.0, "good", flight)
        elif kind != "hang":
            self.at(0.005, kind, flight)

    def eject(self, flight: int, source: Source) -> None:
        """Expect no request for a second; a flight begun before the last ejection adds nothing."""
        if self.begun[flight] >= self.ejected.get(source, 0.0) - 1.0:
            self.ejected[source] = self.now + 1.0

    def happen(self, event: str, flight: int, value: int) -> None:
        """Tell the ladder what became of a flight."""
        start = self.flights.get(flight)
        if start is None:
            return
        if event == "progress":
            self.arrived[flight] = value
            self.made.progressed(flight, value, self.now)
            return
        del self.flights[flight]
        if event == "good":
            if self.made.received(flight, BLOCK, self.now):
                self.ended[start.cid] = "served"
                self.delivered += BLOCK
            assert self.ended[start.cid] == "served", "only a probe that lost comes too late"
            self.ejected.pop(start.source, None)
        elif event == "corrupt":
            self.lied.add((start.cid, start.source))
            self.made.corrupt(flight, self.now)
        elif event == "missing":
            self.refused[start.cid, start.source] = self.now + 2.0
            self.made.failed(flight, "refused", self.now, status=404)
        elif event == "busy":
            self.eject(flight, start.source)
            self.made.failed(flight, "refused", self.now, status=503)
        else:
            self.eject(flight, start.source)
            self.made.failed(flight, "unreachable", self.now)

    def run(self, end: float) -> None:
        """Run the heap until ``end``."""
        while True:
            self.carry_out()
            wake = self.made.wake_at
            due = self.heap[0][0] if self.heap else float("inf")
            step = min(due, wake if wake is not None else float("inf"))
            if step > end:
                self.now = end
                return
            self.now = max(step, self.now)
            if due <= step:
                _, _, event, flight, value = heapq.heappop(self.heap)
                self.happen(event, flight, value)
            else:
                self.made.tick(self.now)


KINDS = st.sampled_from(["good", "refuse", "missing", "hang", "trickle", "corrupt", "busy"])
FAULTS = st.lists(st.builds(Fault, st.floats(0, 60), KINDS), max_size=5).map(
    lambda faults: sorted(faults, key=lambda fault: fault.since)
)
ALL = [CDN, *RELAYS, MESH]


@settings(max_examples=60, deadline=None)
@given(
    script=st.fixed_dictionaries(dict.fromkeys(ALL, FAULTS)),
    gaps=st.lists(st.floats(0, 6), min_size=1, max_size=15),
    watched=st.booleans(),
)
def test_every_block_ends_no_back_off_is_broken_and_the_budget_holds(
    script: dict[Source, list[Fault]],
    gaps: list[float],
    watched: bool,  # noqa: FBT001 - drawn by hypothesis
) -> None:
    world = World(ladder(*ALL, watched=watched), script)
    wanted: list[Cid] = []
    for number, gap in enumerate(gaps):
        world.run(world.now + gap)
        wanted.append(cid(number))
        world.made.want(wanted[-1], world.now, title="film", size_bytes=BLOCK, buffer_s=4.0)
    world.run(world.now + 31.0)
    assert set(world.ended) == set(wanted)
    assert world.made.wake_at is None
    assert not world.flights
    assert world.wasted <= max(Budget.FREE_BYTES, world.delivered * 3 // 100)


@settings(max_examples=60, deadline=None)
@given(
    script=st.fixed_dictionaries(dict.fromkeys([CDN, *RELAYS], FAULTS)),
    gaps=st.lists(st.floats(0, 6), min_size=1, max_size=15),
)
def test_while_one_unmetered_tier_is_good_every_block_comes_within_400_ms(
    script: dict[Source, list[Fault]], gaps: list[float]
) -> None:
    world = World(ladder(*ALL), script)
    for number, gap in enumerate(gaps):
        world.run(world.now + gap)
        asked_at = world.now
        world.made.want(cid(number), asked_at, title="film", size_bytes=BLOCK, buffer_s=4.0)
        world.run(asked_at + 0.4)
        assert world.ended.get(cid(number)) == "served"


def relayed(*, origin: Source | None = None) -> Ladder:
    """Return a relay's ladder: equals first, then the CDN, with the origin behind it."""
    made = Ladder(order=(TierName.RELAY, TierName.CDN, TierName.MESH, TierName.SATELLITE), patient=False)
    made.set_sources(TierName.RELAY, RELAYS, 0.0, own=b"\x40" * 32)
    made.set_sources(TierName.CDN, [CDN], 0.0, reserve=[origin or ORIGIN])
    return made


ORIGIN = Source(TierName.CDN, "origin", "10.0.0.100:7433", b"\x99" * 32)


def test_equals_are_asked_by_rendezvous_and_only_those_who_own_a_block_sooner() -> None:
    keys = [relay.key for relay in RELAYS] + [b"\x40" * 32]
    asked: list[tuple[int, Source]] = []
    for number in range(400):
        made = relayed()
        made.want(cid(number), 0.0)
        (start,) = starts(made.take())
        asked.append((number, start.source))
        for one in (start, *_fail_until_cdn(made, start)):
            assert one.source in (CDN, *RELAYS)
    owners = {source for _, source in asked}
    assert owners == {CDN, *RELAYS}, "this box owns some blocks itself, and fills those from the CDN"
    share = sum(source == CDN for _, source in asked) / len(asked)
    assert abs(share - 1 / len(keys)) < 0.08
    again = relayed()
    again.want(cid(0), 0.0)
    assert starts(again.take())[0].source == asked[0][1]


def _fail_until_cdn(made: Ladder, start: Start) -> list[Start]:
    """Let every relay asked refuse; returns who was asked besides, at most one relay more."""
    found: list[Start] = []
    while start.source != CDN:
        made.failed(start.flight, "refused", 0.001, status=404)
        (start,) = starts(made.take())
        found.append(start)
    assert len(found) <= 2
    return found


def test_a_request_that_came_from_an_equal_goes_to_none() -> None:
    for number in range(20):
        made = relayed()
        made.want(cid(number), 0.0, shun=frozenset({TierName.RELAY}))
        assert [start.source for start in starts(made.take())] == [CDN]


def test_a_flight_to_an_equal_is_not_waited_for_by_one_who_came_from_an_equal() -> None:
    number = next(number for number in range(50) if _first(number) != CDN)
    made = relayed()
    made.want(cid(number), 0.0)
    made.take()
    made.want(cid(number), 0.0, shun=frozenset({TierName.RELAY}))
    assert [start.source for start in starts(made.take())] == [CDN]


def _first(number: int) -> Source:
    made = relayed()
    made.want(cid(number), 0.0)
    return starts(made.take())[0].source


def test_the_origin_is_asked_where_its_cdn_may_not_be() -> None:
    made = relayed()
    shun = frozenset({TierName.RELAY})
    made.want(cid(1), 0.0, shun=shun)
    (start,) = starts(made.take())
    made.failed(start.flight, "refused", 0.001, status=404)
    (second,) = starts(made.take())
    assert second.source == ORIGIN


def test_a_relay_gives_up_at_once_where_cdn_and_origin_lack_a_block() -> None:
    made = relayed()
    made.want(cid(1), 0.0, shun=frozenset({TierName.RELAY}))
    for source in (CDN, ORIGIN):
        (start,) = starts(made.take())
        assert start.source == source
        made.failed(start.flight, "refused", 0.001, status=404)
    assert made.take() == [GiveUp(cid(1), "missing")]


def test_a_relay_goes_on_trying_where_the_origin_is_only_away() -> None:
    made = relayed()
    made.want(cid(1), 0.0, shun=frozenset({TierName.RELAY}))
    (start,) = starts(made.take())
    made.failed(start.flight, "refused", 0.001, status=404)
    (start,) = starts(made.take())
    made.failed(start.flight, "unreachable", 0.002)
    effects = run_until(made, 40.0)
    assert [one for _, one in effects if isinstance(one, GiveUp)] == [GiveUp(cid(1), "unreachable")]
    assert any(isinstance(one, Start) and one.source == ORIGIN for _, one in effects)


def test_an_equal_has_a_second_before_the_cdn_is_asked_too() -> None:
    number = next(number for number in range(50) if _first(number) != CDN)
    made = relayed()
    made.want(cid(number), 0.0)
    made.take()
    begun = [(at, one.source) for at, one in run_until(made, 3.0) if isinstance(one, Start)]
    assert 1.0 <= begun[0][0] <= 1.05
    assert begun[0][1] != _first(number)


def test_a_radio_is_asked_last_for_what_a_viewer_waits_for_and_for_nothing_else() -> None:
    made = Ladder()
    made.set_sources(TierName.RELAY, RELAYS[:1], 0.0, watched=True, cost=Cost.METERED)
    made.set_sources(TierName.MESH, [MESH], 0.0, watched=True, cost=Cost.RADIO)
    made.want(cid(1), 0.0, size_bytes=BLOCK)
    (first,) = starts(made.take())
    assert first.source == RELAYS[0], "what is paid for is still quicker"
    assert not [one for _, one in run_until(made, 0.9) if isinstance(one, Start)], "no copy where bytes cost"
    made.failed(first.flight, "unreachable", 0.95)
    (second,) = starts(made.take())
    assert second.source == MESH
    assert not [one for _, one in run_until(made, 9.0) if isinstance(one, Cancel)], "a radio may be silent"
    made.received(second.flight, BLOCK, 9.5)
    made.take()
    made.want(cid(2), 9.6, urgent=False)
    assert MESH not in [start.source for start in starts(made.take())], "nothing is prefetched over it"


def test_another_network_asks_anew_for_what_was_under_way_and_blames_nobody() -> None:
    made = ladder(CDN, RELAYS[0])
    made.want(cid(1), 0.0, size_bytes=BLOCK)
    (first,) = starts(made.take())
    made.network("train", 0.2)
    cancel, again = made.take()
    assert cancel == Cancel(first.flight)
    assert isinstance(again, Start)
    assert again.source == CDN
    assert not again.hedge
    made.network("train", 0.3)
    assert not made.take()


def test_a_box_that_lies_is_banned_on_every_network_and_an_address_only_where_it_did() -> None:
    for liar, elsewhere in ((RELAYS[0], False), (CDN, True)):
        made = ladder(liar, MESH)
        for number in range(3):
            made.want(cid(number), 0.0)
            (start,) = starts(made.take())
            assert start.source == liar
            made.corrupt(start.flight, 0.0)
            made.cancelled(cid(number))
            made.take()
        made.want(cid(4), 1.0)
        assert starts(made.take())[0].source == MESH
        made.network("hotel", 2.0)
        made.take()
        made.want(cid(5), 2.0)
        assert (starts(made.take())[0].source == liar) is elsewhere


def test_sound_that_still_comes_does_not_bring_back_a_source_too_slow_for_the_picture() -> None:
    made = ladder(CDN, RELAYS[0])
    for number in range(4):
        serve(made, number, float(number))
    made.want(cid(10), 10.0, size_bytes=1 << 20)
    (slow,) = starts(made.take())
    made.progressed(slow.flight, 1_000, 10.02)
    (hedge,) = (one for _, one in run_until(made, 10.4) if isinstance(one, Start))
    made.received(hedge.flight, 1 << 20, 10.5)
    made.take()
    made.want(cid(11), 12.0, size_bytes=20_000)
    (sound,) = starts(made.take())
    assert sound.source == CDN, "its back-off is over"
    made.progressed(sound.flight, 20_000, 12.02)
    made.received(sound.flight, 20_000, 12.03)
    made.take()
    assert not made.sources_up(TierName.CDN, 12.1)
    made.want(cid(12), 12.1, size_bytes=1 << 20)
    (picture,) = starts(made.take())
    made.progressed(picture.flight, 1 << 20, 12.12)
    made.received(picture.flight, 1 << 20, 12.13)
    assert made.sources_up(TierName.CDN, 12.2) == 1


def test_a_probe_that_lost_may_still_prove_its_source_alive() -> None:
    made = ladder(CDN, RELAYS[0])
    made.want(cid(1), 0.0, size_bytes=BLOCK)
    made.failed(starts(made.take())[0].flight, "unreachable", 0.0)
    made.received(starts(made.take())[0].flight, BLOCK, 0.1)
    made.take()
    made.want(cid(2), 1.5, size_bytes=BLOCK)
    (probe,) = starts(made.take())
    assert probe.source == CDN
    (hedge,) = (one for _, one in run_until(made, 1.6) if isinstance(one, Start))
    made.received(hedge.flight, BLOCK, 1.65)
    assert Cancel(probe.flight) not in made.take(), "its connection may be on its way"
    made.progressed(probe.flight, BLOCK, 1.8)
    assert not made.received(probe.flight, BLOCK, 1.8)
    made.want(cid(3), 1.9)
    assert starts(made.take())[0].source == CDN


def test_a_block_that_is_being_verified_is_nobodys_lateness() -> None:
    made = ladder(CDN, RELAYS[0])
    made.want(cid(1), 0.0, size_bytes=BLOCK)
    (start,) = starts(made.take())
    made.progressed(start.flight, BLOCK, 0.05)
    made.landed(start.flight, 0.05)
    assert not [one for _, one in run_until(made, 5.0) if isinstance(one, Start)], "the disk is slow, not it"
    assert made.received(start.flight, BLOCK, 5.0)


def test_races_without_a_budget_cost_first_bytes_and_no_block() -> None:
    made = Ladder(Tuning(waste_percent=0))
    for source in (CDN, RELAYS[0], MESH):
        made.set_sources(source.tier, [source], 0.0, watched=True)
    huge = Budget.FREE_BYTES
    made.want(cid(1), 0.0, title="film", size_bytes=huge)
    (first,) = starts(made.take())
    others = [one for _, one in run_until(made, 0.6) if isinstance(one, Start)]
    assert [one.source for one in others] == [RELAYS[0], MESH]
    made.progressed(others[1].flight, 10_000, 0.61)
    assert not made.take(), "the others are silent and cost nothing"
    made.progressed(first.flight, 10_000, 0.62)
    assert made.take() == [Cancel(first.flight)], "one delivers already, and in time"
    made.received(others[1].flight, huge, 0.8)
    assert made.wasted_bytes <= Budget.RACE_BYTES
