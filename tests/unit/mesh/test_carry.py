# pyright: reportPrivateUsage=false
"""What is told to whom, and which pulses go where once they have answered."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.mesh import carry as module
from farcast.mesh.carry import Carrier
from farcast.mesh.neighbours import Neighbour
from farcast.protocol.codec import encode
from farcast.protocol.digest import DIGEST_LIMIT_BYTES, Digest, Held, Numbers, held, open_digest
from farcast.protocol.presence import NO_WAY
from farcast.protocol.ticket import MAX_SEQ


def ticket(number: int) -> bytes:
    return number.to_bytes(16, "big")


def waiting(*counts: int) -> dict[bytes, Numbers]:
    """Return tickets with so many pulses each."""
    return {ticket(tid): Numbers(list(range(1, count + 1)), []) for tid, count in enumerate(counts)}


def neighbour(seed: int, *, hops: int = NO_WAY) -> Neighbour:
    return Neighbour(bytes([seed]) * 32, "10.0.0.1", 7_433, hops, 0.0)


def test_one_that_is_nearer_is_chosen_and_where_no_way_is_known_everybody_for_what_waited_long() -> None:
    carrier = Carrier(b"me")
    plain, up = neighbour(1), neighbour(2, hops=0)
    assert carrier.choose([up, plain], 1, 0.0) == ([up], 0)
    assert carrier.choose([plain, neighbour(3)], NO_WAY, 0.0) == (
        [plain, neighbour(3)],
        module.PATIENCE_MS,
    )
    many = [neighbour(seed) for seed in range(50)]
    assert len(carrier.choose(many, NO_WAY, 0.0).neighbours) == module.ROUND_NEIGHBOURS
    assert carrier.choose([neighbour(1, hops=2), neighbour(4, hops=3)], 2, 0.0).neighbours == []


def test_of_those_as_near_each_has_its_turn_and_one_that_fails_is_passed_over() -> None:
    carrier = Carrier(b"me")
    near, far = [neighbour(seed, hops=1) for seed in range(4)], neighbour(9, hops=2)
    turns = [carrier.choose([far, *near], 3, turn * module.TURN_S).neighbours for turn in range(60)]
    assert {one.key for chosen in turns for one in chosen} == {one.key for one in near}
    assert carrier.choose(near, 2, 5.0) == carrier.choose([*reversed(near)], 2, module.TURN_S - 1)
    [first] = carrier.choose([far, *near], 3, 0.0).neighbours
    carrier.failed(first.key, [], 0.0)
    [second] = carrier.choose([far, *near], 3, 1.0).neighbours
    assert second != first
    for one in near:
        carrier.failed(one.key, [], 1.0)
    assert carrier.choose([far, *near], 3, 2.0).neighbours == [far]
    carrier.failed(far.key, [], 2.0)
    assert len(carrier.choose([far, *near], 3, 3.0).neighbours) == 1, "better than nobody"


def test_what_is_new_is_told_at_once_and_what_is_not_ever_more_rarely() -> None:
    carrier = Carrier()
    times = [now for now in range(1_000) if carrier.offer(b"a", waiting(3), float(now))]
    assert times == [0, 15, 45, 105, 225, 465, 705, 945]
    assert carrier.offer(b"a", waiting(4), 946.0) == [held(ticket(0), range(1, 5))]
    assert carrier.offer(b"a", waiting(5), 946.0 + module.NEWS_S - 1) == [held(ticket(0), range(1, 5))]
    assert carrier.offer(b"a", waiting(5), 946.0 + module.NEWS_S) == [held(ticket(0), range(1, 6))]
    assert carrier.offer(b"b", waiting(4), 947.0) == [held(ticket(0), range(1, 5))]


def test_on_an_open_way_acks_are_asked_for_soon_and_news_waits_until_it_is_worth_a_post() -> None:
    carrier = Carrier()
    told = {
        now: offered
        for now in range(200)
        if (offered := carrier.offer(b"a", waiting(3 + now // 60), float(now), is_open=True))
    }
    news = [now for now, offered in told.items() if offered != [held(ticket(0), range(1, 4))]]
    assert [*told][:4] == [0, 8, 24, 54]
    assert news[0] == module.NEWS_S, "until then the same three are asked about again"


def test_who_did_not_answer_is_told_again_soon() -> None:
    carrier = Carrier()
    now, times = 0.0, list[float]()
    while len(times) < 6:
        offered = carrier.offer(b"a", waiting(3), now)
        if offered:
            carrier.failed(b"a", offered, now)
            times.append(now)
        now += 1.0
    assert [later - earlier for earlier, later in pairwise(times)] == [15.0] * 5


def test_only_what_is_lacking_and_was_offered_is_handed_over() -> None:
    carrier = Carrier()
    offered = carrier.offer(b"a", waiting(5, 2), 0.0)
    lacking = [held(ticket(0), [2, 4, 9]), held(ticket(7), [1])]
    assert carrier.wanted(b"a", offered, lacking) == [(ticket(0), 2), (ticket(0), 4)]


@settings(max_examples=40)
@given(st.lists(st.integers(1, 500), min_size=1, max_size=30))
def test_posts_are_bounded_and_everything_lacking_gets_over_at_once_piece_by_piece(counts: list[int]) -> None:
    carrier, there = Carrier(), dict[bytes, set[int]]()
    everything = {tid: set(numbers.all) for tid, numbers in waiting(*counts).items()}
    for _ in range(sum(counts) // module.POST_PULSES + len(counts) + 1):
        offered = carrier.offer(b"a", waiting(*counts), 0.0)
        lacking: list[Held] = []
        for item in offered:
            missing = set(item.numbers()) - there.get(item.tid, set())
            lacking += [held(item.tid, missing)] if missing else []
        keys = carrier.wanted(b"a", offered, lacking)
        assert len(keys) == len(set(keys)) <= module.POST_PULSES
        for tid, seq in keys:
            there.setdefault(tid, set()).add(seq)
    assert there == everything
    assert carrier.offer(b"a", waiting(*counts), 0.0) == []


def test_many_tickets_are_told_in_turn_and_none_waits_for_ever() -> None:
    carrier = Carrier()
    many = waiting(*([2] * 1_000))
    told = [item.tid for _ in range(17) for item in carrier.offer(b"a", many, 0.0)]
    assert len(told) == len(set(told)) == 1_000
    again = [item.tid for _ in range(17) for item in carrier.offer(b"a", many, 15.0)]
    assert again == told


@settings(max_examples=20)
@given(st.lists(st.sets(st.integers(1, MAX_SEQ), min_size=1, max_size=900), min_size=1, max_size=80))
def test_a_digest_fits_its_limit_whatever_the_holes(tickets: list[set[int]]) -> None:
    carrier = Carrier()
    holes = {ticket(tid): Numbers(sorted(seqs), sorted(seqs)[::7]) for tid, seqs in enumerate(tickets)}
    worst = {**holes, ticket(999): Numbers(list(range(1, MAX_SEQ, 2)), list(range(1, MAX_SEQ, 2)))}
    offered = carrier.offer(b"a", worst, 0.0)
    data = encode(Digest(1, offered))
    assert len(data) <= DIGEST_LIMIT_BYTES
    assert open_digest(data).held == offered


def test_beacons_are_asked_for_every_ten_minutes_of_each() -> None:
    carrier = Carrier()
    assert carrier.wants_beacons(b"a", 0.0)
    assert not carrier.wants_beacons(b"a", 599.0)
    assert carrier.wants_beacons(b"b", 1.0)
    assert carrier.wants_beacons(b"a", 600.0)


def test_what_is_remembered_is_bounded() -> None:
    carrier = Carrier()
    many = waiting(*([1] * (module.REMEMBERED_TIDS + 64)))
    while carrier.offer(b"a", many, 0.0) and len(carrier._memories[b"a"].told) < module.REMEMBERED_TIDS:
        pass
    carrier.offer(b"a", many, 0.0)
    assert len(carrier._memories[b"a"].told) == module.REMEMBERED_TIDS
    for seed in range(module.REMEMBERED_NEIGHBOURS):
        carrier.offer(seed.to_bytes(2, "big"), many, 0.0)
    assert len(carrier._memories) == module.REMEMBERED_NEIGHBOURS
    assert b"a" not in carrier._memories
