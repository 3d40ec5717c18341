"""What a swarm decides, one event at a time; whole LANs of them are in tests/sim."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.mesh.moves import Ask, Check, Cut, Fetch, Forget, Lack, Move, Refer, Sake, Send, Tell, Withdraw
from farcast.mesh.partner import ASKED_LIMIT_BLOCKS, OWED_LIMIT_UNITS, Unit
from farcast.mesh.swarm import BROKEN_CLAIMS, SUSPICIONS, UNASKED_LIMIT, UNIT_BYTES, UPLINK, Swarm
from farcast.mesh.watched import ANSWER_S, WATCHED_LIMIT

MIB = 1 << 20
OWN, SOURCE, OTHER = b"m" * 8, b"source", b"other"
M = TypeVar("M", bound=Move)


def moves(swarm: Swarm, kind: type[M]) -> list[M]:
    """Take what it decided of one kind."""
    return [move for move in swarm.take() if isinstance(move, kind)]


def bring(swarm: Swarm, giver: bytes, block: int, now: float) -> None:
    """Let all parts of a block come from one partner, and be right."""
    for part in range(swarm.parts(block)):
        assert swarm.arrived(giver, Unit(block, part), now)
    swarm.verified(block, now)


def test_what_nobody_brings_is_claimed_and_asked_of_one_who_has_everything() -> None:
    swarm = Swarm(OWN, [MIB] * 4)
    assert swarm.joined(SOURCE, range(4), 0.0)
    taken = swarm.take()
    asks = [move for move in taken if isinstance(move, Ask)]
    assert asks
    assert all(ask.peer == SOURCE and ask.parts == (0, 1, 2, 3) for ask in asks)
    [told] = [move for move in taken if isinstance(move, Tell)]
    assert told.claimed == tuple(ask.block for ask in asks) == tuple(swarm.claims)


def test_what_another_brings_is_asked_of_it_in_advance_and_passed_on_part_by_part() -> None:
    swarm = Swarm(OWN, [MIB] * 2)
    swarm.joined(OTHER, [], 0.0)
    swarm.heard(OTHER, [], [1], [], 0.0)
    [ask] = moves(swarm, Ask)
    assert (ask.peer, ask.block) == (OTHER, 1)
    swarm.joined(b"third", [], 0.0)
    swarm.asked(b"third", 1, [0, 1], 0.0)
    assert moves(swarm, Send) == []
    assert swarm.arrived(OTHER, Unit(1, 1), 0.1)
    assert moves(swarm, Send) == [Send(b"third", Unit(1, 1))]
    swarm.sent(b"third", 0.1)
    assert swarm.arrived(OTHER, Unit(1, 0), 0.2)
    assert moves(swarm, Send) == [Send(b"third", Unit(1, 0))]


def test_a_block_counts_only_once_it_is_verified() -> None:
    swarm = Swarm(OWN, [300_000])
    swarm.joined(SOURCE, [0], 0.0)
    swarm.take()
    swarm.arrived(SOURCE, Unit(0, 1), 0.1)
    assert moves(swarm, Check) == []
    swarm.arrived(SOURCE, Unit(0, 0), 0.1)
    assert moves(swarm, Check) == [Check(0)]
    assert swarm.lacks == 1
    swarm.verified(0, 0.2)
    assert swarm.lacks == 0
    [told] = moves(swarm, Tell)
    assert told.held == (0,)


def test_one_that_leaves_gives_back_what_was_asked_of_it_and_only_what_is_missing_is_asked_again() -> None:
    swarm = Swarm(OWN, [MIB])
    swarm.joined(SOURCE, [0], 0.0)
    swarm.arrived(SOURCE, Unit(0, 2), 0.1)
    swarm.take()
    swarm.left(SOURCE, 0.2)
    swarm.joined(b"spare", [0], 0.3)
    [ask] = moves(swarm, Ask)
    assert (ask.peer, ask.parts) == (b"spare", (0, 1, 3))


@pytest.mark.parametrize(("own", "other", "yields"), [(b"b", b"a", True), (b"a", b"b", False)])
def test_of_two_who_claim_one_block_of_two_sources_the_greater_key_gives_it_up(
    own: bytes,
    other: bytes,
    yields: bool,  # noqa: FBT001
) -> None:
    swarm = Swarm(own, [MIB])
    swarm.joined(SOURCE, [0], 0.0)
    swarm.joined(other, [], 0.0)
    swarm.joined(b"spare", [0], 0.0)
    swarm.take()
    swarm.heard(other, [], [0], [], 0.1)
    taken = swarm.take()
    assert (Withdraw(SOURCE, 0) in taken) == yields
    asks = [(move.peer, move.block) for move in taken if isinstance(move, Ask)]
    assert asks == ([(other, 0)] if yields else [])
    assert swarm.yielded == yields


def test_two_who_claim_one_block_of_one_source_leave_it_to_the_source() -> None:
    swarm = Swarm(b"b", [MIB])
    swarm.joined(SOURCE, [0], 0.0)
    swarm.joined(b"a", [], 0.0)
    swarm.take()
    swarm.heard(b"a", [], [0], [], 0.1)
    assert swarm.take() == []


def test_a_source_gives_a_block_to_one_claimant_and_sends_the_next_one_there_once() -> None:
    swarm = Swarm(SOURCE, [1_000] * 3, range(3))
    for key in (b"1", b"2", b"3"):
        swarm.joined(key, [], 0.0)
    swarm.asked(b"1", 0, [0], 0.0, sake=Sake.ALL)
    assert moves(swarm, Send) == [Send(b"1", Unit(0, 0))]
    swarm.asked(b"2", 0, [0], 0.1, sake=Sake.ALL)
    assert swarm.take() == [Refer(b"2", 0, b"1")]
    swarm.asked(b"2", 0, [0], 0.2, sake=Sake.ALL)  # it did not get it there
    assert swarm.take() == [Send(b"2", Unit(0, 0))]
    swarm.asked(b"3", 0, [0], 0.2)  # for itself
    assert swarm.take() == [Send(b"3", Unit(0, 0))]


@pytest.mark.parametrize("gone", ["left", "withdrawn", "whole", "urgent", "late"])
def test_nobody_is_sent_to_one_who_will_not_bring_it_or_kept_waiting(gone: str) -> None:
    swarm = Swarm(SOURCE, [1_000], [0])
    swarm.joined(b"1", [], 0.0)
    swarm.joined(b"2", [], 0.0)
    swarm.asked(b"1", 0, [0], 0.0, sake=Sake.ALL)
    match gone:
        case "left":
            swarm.left(b"1", 0.1)
        case "withdrawn":
            swarm.withdrawn(b"1", 0, 0.1)
        case "whole":
            swarm.heard(b"1", [0], [], [], 0.1)
        case _:
            pass
    swarm.take()
    sake = Sake.LATE if gone == "late" else Sake.ALL
    swarm.asked(b"2", 0, [0], 0.2, sake=sake, urgent=gone == "urgent")
    assert moves(swarm, Send) == [Send(b"2", Unit(0, 0))]


def test_one_sent_to_another_claims_no_longer_and_asks_there() -> None:
    swarm = Swarm(OWN, [1_000])
    swarm.joined(SOURCE, [0], 0.0)
    swarm.joined(OTHER, [], 0.0)
    swarm.asked(OTHER, 0, [0], 0.0)
    swarm.take()
    swarm.referred(SOURCE, 0, b"gone", 0.1)  # nobody here knows that one
    [ask] = moves(swarm, Ask)
    assert (ask.peer, ask.sake) == (SOURCE, Sake.ALL)
    swarm = Swarm(OWN, [1_000])
    swarm.joined(SOURCE, [0], 0.0)
    swarm.joined(OTHER, [], 0.0)
    swarm.joined(b"third", [], 0.0)
    swarm.asked(b"third", 0, [0], 0.0)
    swarm.take()
    swarm.referred(SOURCE, 0, OTHER, 0.1)
    taken = swarm.take()
    assert Lack(b"third", 0) in taken
    assert [(move.peer, move.sake) for move in taken if isinstance(move, Ask)] == [(OTHER, Sake.OWN)]
    assert Tell(OTHER, (), (), (0,)) in taken
    assert swarm.claims == []


def test_whoever_sends_this_box_away_twice_for_one_block_or_for_none_there_is_is_cut() -> None:
    for block, times in ((0, 2), (1, 1)):
        swarm = Swarm(OWN, [1_000])
        swarm.joined(SOURCE, [0], 0.0)
        for _ in range(times):
            assert not moves(swarm, Cut)
            swarm.referred(SOURCE, block, b"x", 0.1)
        assert moves(swarm, Cut) == [Cut(SOURCE, "malformed")]


def test_what_is_held_is_told_together_and_at_once_when_all_is_here() -> None:
    swarm = Swarm(OWN, [1_000] * 8)
    swarm.joined(SOURCE, range(8), 0.0)
    swarm.joined(OTHER, [], 0.0)
    told: list[int] = []
    for block in range(8):
        bring(swarm, SOURCE, block, 1.0 + block / 100)
        told += [len(move.held) for move in moves(swarm, Tell) if move.peer == OTHER and move.held]
    assert told == [1, 7]


def test_wrong_bytes_of_one_that_says_it_holds_the_block_end_it_for_good() -> None:
    swarm = Swarm(OWN, [1_000])
    swarm.joined(SOURCE, [0], 0.0)
    swarm.arrived(SOURCE, Unit(0, 0), 0.1)
    swarm.take()
    swarm.broken(0, 0.2)
    taken = swarm.take()
    assert Cut(SOURCE, "hash_mismatch") in taken
    assert Forget(0) in taken
    assert not swarm.joined(SOURCE, [0], 0.3)


def test_wrong_bytes_of_hearsay_are_asked_for_again_whole_from_a_holder_and_three_times_is_a_liar() -> None:
    swarm = Swarm(OWN, [1_000] * 8)
    swarm.joined(OTHER, [], 0.0)
    for block in range(SUSPICIONS):
        swarm.heard(OTHER, [], [block], [], 0.0)
        assert moves(swarm, Ask)
        swarm.arrived(OTHER, Unit(block, 0), 0.1)
        swarm.broken(block, 0.2)
        taken = swarm.take()
        cut = [move for move in taken if isinstance(move, Cut)]
        assert bool(cut) == (block == SUSPICIONS - 1)
        assert not [move for move in taken if isinstance(move, Ask)]  # it only claims it
    swarm.joined(SOURCE, range(8), 0.3)
    assert {ask.block for ask in moves(swarm, Ask)} >= set(range(SUSPICIONS))


def test_units_nobody_asked_for_are_refused_and_their_sender_cut() -> None:
    swarm = Swarm(OWN, [1_000])
    swarm.joined(OTHER, [], 0.0)
    for _ in range(UNASKED_LIMIT + 1):
        assert not swarm.arrived(OTHER, Unit(0, 0), 0.0)
    assert moves(swarm, Cut) == [Cut(OTHER, "unasked")]


def test_what_was_asked_for_and_withdrawn_may_still_come_and_counts_against_nobody() -> None:
    swarm = Swarm(OWN, [MIB] * (UNASKED_LIMIT + 1))
    swarm.joined(OTHER, [], 0.0)
    for block in range(UNASKED_LIMIT + 1):
        swarm.heard(OTHER, [], [block], [], 0.0)
        [ask] = moves(swarm, Ask)
        swarm.heard(OTHER, [], [], [block], 0.1)  # it gives the block up, and its units are on the wire
        for part in ask.parts:
            assert not swarm.arrived(OTHER, Unit(block, part), 0.2)
        assert not moves(swarm, Cut)
    for _ in range(UNASKED_LIMIT + 1):
        assert OTHER in swarm.partners
        swarm.arrived(OTHER, Unit(0, 0), 0.3)  # more than it was ever asked for
    assert moves(swarm, Cut) == [Cut(OTHER, "unasked")]


def test_bytes_that_were_not_kept_are_not_taken_for_the_units_they_were() -> None:
    swarm = Swarm(OWN, [1_000])
    swarm.joined(SOURCE, [0], 0.0)
    assert not swarm.arrived(SOURCE, Unit(0, 0), 0.1, kept=False)
    assert swarm.arrived(SOURCE, Unit(0, 0), 0.2)


def test_a_holder_that_sends_this_box_to_those_who_bring_nothing_is_the_one_that_is_not_believed() -> None:
    """The neighbour it names said nothing: its own claims are worth as much as before."""
    swarm = Swarm(OWN, [1_000] * 8)
    swarm.joined(SOURCE, range(8), 0.0)
    swarm.joined(OTHER, [], 0.0)
    now = 0.0
    for block in range(BROKEN_CLAIMS):
        swarm.take()
        swarm.referred(SOURCE, block, OTHER, now)
        assert [(ask.peer, ask.block) for ask in moves(swarm, Ask)] == [(OTHER, block)]
        if block:
            swarm.lacking(OTHER, block, now)  # it says that it was never given it
        else:
            while now < 4.5:  # it says nothing at all
                now += 0.05
                swarm._partners[SOURCE].heard_at = now  # which sends other blocks meanwhile
                swarm.tick(now)
    assert swarm._partners[OTHER].broken_claims == 0
    assert swarm._partners[SOURCE].broken_refers == BROKEN_CLAIMS
    swarm.take()
    swarm.referred(SOURCE, BROKEN_CLAIMS, OTHER, now)
    assert OTHER not in {ask.peer for ask in moves(swarm, Ask)}
    swarm.heard(OTHER, [], [BROKEN_CLAIMS + 1], [], now)
    assert BROKEN_CLAIMS + 1 in swarm._partners[OTHER].claims


def test_a_referral_that_was_right_makes_up_for_those_that_were_not() -> None:
    swarm = Swarm(OWN, [1_000] * 4)
    swarm.joined(SOURCE, range(4), 0.0)
    swarm.joined(OTHER, [], 0.0)
    swarm.referred(SOURCE, 0, OTHER, 0.1)
    swarm.lacking(OTHER, 0, 0.2)
    assert swarm._partners[SOURCE].broken_refers == 1
    swarm.referred(SOURCE, 1, OTHER, 0.3)
    swarm.heard(OTHER, [1], [], [], 0.4)
    assert swarm._partners[SOURCE].broken_refers == 0


def test_who_got_it_all_itself_is_asked_before_the_one_that_all_had_it_from() -> None:
    swarm = Swarm(OWN, [MIB] * 4)
    swarm.want(0.0, everything=False)
    swarm.joined(SOURCE, range(4), 0.0)
    swarm.joined(OTHER, [], 0.0)
    swarm.heard(OTHER, range(4), [], [], 0.1)
    swarm.take()
    swarm.want(0.2, everything=True)
    assert next(iter(moves(swarm, Ask))).peer == OTHER


@pytest.mark.parametrize("others", [0, 1])
def test_the_one_that_alone_has_everything_is_asked_twice_before_the_world_is(others: int) -> None:
    swarm = Swarm(OWN, [MIB] * 4)
    swarm.joined(SOURCE, range(4), 0.0)
    if others:
        swarm.joined(b"spare", range(4), 0.0)
    swarm.uplink(0.0, up=True)
    swarm.take()
    asked: list[tuple[float, bytes]] = []
    for tick in range(1, 200):
        now = tick / 20
        swarm.tick(now)
        if others:
            swarm._partners[b"spare"].heard_at = now  # it keeps sending
        taken = swarm.take()
        asked += [(now, move.peer) for move in taken if isinstance(move, Ask)]
        if fetched := [move for move in taken if isinstance(move, Fetch)]:
            break
    else:
        fetched, now = [], 10.0
    if others:
        assert not fetched
        assert swarm._partners[SOURCE].stalls >= 1
    else:
        assert {peer for when, peer in asked if when < now} == {SOURCE}
        assert 4.0 <= now <= 6.0


def hurried(own: bytes, others: Iterable[bytes], block: int = 0) -> Swarm:
    """Return the swarm of one of several viewers, with an uplink each, who is about to watch a block."""
    swarm = Swarm(own, [MIB] * 6)
    swarm.want(0.0, everything=False)
    for key in others:
        swarm.joined(key, [], 0.0)
    swarm.uplink(0.0, up=True)
    swarm.need([block], 0.0)
    return swarm


def test_whose_turn_a_block_is_fetches_it_at_once_and_the_next_ones_ask_it_first() -> None:
    assert moves(hurried(b"a", [b"b", b"c"]), Fetch) == [Fetch(0)]
    for own, others in ((b"b", [b"a", b"c"]), (b"c", [b"a", b"b"])):
        taken = hurried(own, others).take()
        assert [(move.peer, move.urgent) for move in taken if isinstance(move, Ask)] == [(b"a", True)]
        assert Fetch(0) not in taken


def test_who_is_told_that_nobody_before_it_brings_a_block_fetches_it_at_once() -> None:
    swarm = hurried(b"c", [b"a", b"b"])
    swarm.take()
    swarm.lacking(b"a", 0, 0.01)
    assert [ask.peer for ask in moves(swarm, Ask)] == [b"b"]
    swarm.lacking(b"b", 0, 0.02)
    assert moves(swarm, Fetch) == [Fetch(0)]


def test_one_that_does_not_answer_is_waited_for_no_longer_than_a_second() -> None:
    swarm, now = hurried(b"b", [b"a"]), 0.0
    swarm.take()
    while not (fetched := moves(swarm, Fetch)):
        now += 0.05
        swarm.tick(now)
        assert now < ANSWER_S + 0.2
    assert fetched == [Fetch(0)]
    assert now >= ANSWER_S


def test_a_claim_that_comes_after_its_maker_was_asked_costs_the_uplink_nothing() -> None:
    swarm, now = hurried(b"b", [b"a"]), 0.9
    swarm.take()
    swarm.heard(b"a", [], [0], [], now)
    while now < 1.9:  # it brings it slowly
        now += 0.05
        swarm.tick(now)
    assert not moves(swarm, Fetch)
    for part in range(4):
        assert swarm.arrived(b"a", Unit(0, part), now)
    assert moves(swarm, Check) == [Check(0)]


def test_who_told_another_that_it_does_not_bring_a_block_leaves_the_uplink_to_it() -> None:
    swarm = hurried(b"a", [b"b"], block=2)
    swarm.take()
    swarm.asked(b"b", 0, range(4), 0.1, urgent=True)
    assert Lack(b"b", 0) in swarm.take()
    swarm.need([0], 0.2)  # its own turn
    assert Fetch(0) not in swarm.take()
    swarm.heard(b"b", [], [0], [], 0.3)
    [ask] = [move for move in swarm.take() if isinstance(move, Ask)]
    assert (ask.peer, ask.block) == (b"b", 0)


def test_who_waits_for_an_answer_itself_does_not_send_those_behind_it_away() -> None:
    swarm = hurried(b"b", [b"a", b"c"])
    swarm.take()
    swarm.asked(b"c", 0, range(4), 0.1, urgent=True)
    swarm.lacking(b"a", 0, 0.2)
    taken = swarm.take()
    assert Fetch(0) in taken
    assert Lack(b"c", 0) not in taken
    swarm.fetched(0, 0.5)
    assert [(move.peer, move.unit.block) for move in moves(swarm, Send)] == [(b"c", 0)]


def test_who_watches_elsewhere_now_tells_those_who_wait_for_it() -> None:
    swarm = hurried(b"b", [b"a", b"c"])
    swarm.heard(b"a", [], [], [], 0.0)
    swarm.asked(b"c", 0, range(4), 0.1, urgent=True)
    swarm.lacking(b"a", 0, 0.2)
    swarm.failed(0, 0.3)
    swarm.take()
    swarm.need([5], 0.4)
    assert Lack(b"c", 0) in swarm.take()


def test_asking_for_what_is_not_here_for_nothing_there_is_or_for_too_much() -> None:
    swarm = Swarm(OWN, [MIB] * 200, range(1, 200))
    for key in (b"1", b"2", b"3", b"4"):
        swarm.joined(key, [], 0.0)
    swarm.asked(b"1", 0, [0], 0.0)
    swarm.asked(b"2", 0, [4], 0.0)
    swarm.asked(b"3", 200, [0], 0.0)
    for block in range(1, 2 + OWED_LIMIT_UNITS // 4):
        swarm.asked(b"4", block, range(4), 0.0)
    taken = swarm.take()
    assert Lack(b"1", 0) in taken
    assert [move for move in taken if isinstance(move, Cut)] == [
        Cut(b"2", "malformed"),
        Cut(b"3", "malformed"),
        Cut(b"4", "greedy"),
    ]


def test_a_claim_that_is_said_again_and_again_lasts_no_longer() -> None:
    swarm = Swarm(OWN, [MIB])
    swarm.joined(OTHER, [], 0.0)
    swarm.joined(SOURCE, [0], 0.0)
    swarm.heard(OTHER, [], [0], [], 0.0)
    swarm.take()
    for tenth in range(1, 200):
        swarm.heard(OTHER, [], [0], [], tenth / 10)
        swarm.tick(tenth / 10)
    assert swarm._partners[OTHER].broken_claims >= BROKEN_CLAIMS


def test_a_block_that_found_room_after_all_is_no_reason_to_give_up() -> None:
    swarm = Swarm(OWN, [1_000] * 2)
    swarm.joined(SOURCE, range(2), 0.0)
    swarm.spare(0, 0.1)
    swarm.fetched(0, 0.2)
    assert swarm.lacks == 1
    assert not swarm.hopeless


def test_a_claim_that_is_not_kept_is_taken_over() -> None:
    swarm = Swarm(OWN, [MIB])
    swarm.joined(OTHER, [], 0.0)
    swarm.heard(OTHER, [], [0], [], 0.0)
    swarm.joined(SOURCE, [0], 0.0)
    assert [ask.peer for ask in moves(swarm, Ask)] == [OTHER]
    now = 0.0
    while not (asks := moves(swarm, Ask)):
        now += 0.05
        swarm.tick(now)
        assert now < 8
    assert [ask.peer for ask in asks] == [SOURCE]


def test_what_the_uplink_did_not_bring_is_left_alone_until_it_is_asked_for_anew() -> None:
    swarm = Swarm(b"o" * 32, [100])
    swarm.want(0.0, everything=True)
    swarm.uplink(0.0, up=True)
    assert Fetch(0) in swarm.take()
    swarm.failed(0, 0.0)
    assert Fetch(0) not in swarm.take()
    swarm.retry(0.1)
    swarm.uplink(0.1, up=True)
    assert Fetch(0) in swarm.take()


def test_only_what_is_needed_is_brought_while_not_all_is_wanted() -> None:
    swarm = Swarm(OWN, [MIB] * 8)
    swarm.want(0.0, everything=False)
    swarm.joined(SOURCE, range(8), 0.0)
    swarm.uplink(0.0, up=True)
    assert moves(swarm, Ask) == []
    assert swarm.wake_at is None
    swarm.need([5], 0.1)
    [ask] = moves(swarm, Ask)
    assert (ask.block, ask.urgent) == (5, True)
    bring(swarm, SOURCE, 5, 0.2)
    assert moves(swarm, Ask) == []
    swarm.want(0.2, everything=True)
    assert moves(swarm, Ask)


def test_the_uplink_brings_what_no_neighbour_has_and_rests_when_it_fails() -> None:
    swarm = Swarm(OWN, [MIB] * 2)
    swarm.joined(SOURCE, [0, 1], 0.0)
    swarm.uplink(0.0, up=True)
    assert moves(swarm, Fetch) == []
    swarm.left(SOURCE, 0.1)
    assert {move.block for move in moves(swarm, Fetch)} == {0, 1}
    swarm.failed(0, 0.2)
    swarm.tick(0.3)
    assert moves(swarm, Fetch) == []
    swarm.tick(6.0)
    assert [move.block for move in moves(swarm, Fetch)] == [0]
    swarm.fetched(1, 6.1)
    assert swarm.lacks == 1


def test_a_block_that_was_evicted_is_told_to_whoever_waits_for_it() -> None:
    swarm = Swarm(OWN, [MIB], [0])
    swarm.joined(OTHER, [], 0.0)
    swarm.asked(OTHER, 0, range(4), 0.0)
    swarm.take()
    swarm.lost(0, 0.1)
    assert Lack(OTHER, 0) in swarm.take()
    assert swarm.lacks == 1


_KEYS = st.sampled_from([b"a", b"z", SOURCE, OTHER])
_BLOCKS = st.integers(-1, 8)
_LISTS = st.lists(_BLOCKS, max_size=4)
_EVENTS = st.one_of(
    st.tuples(st.just("joined"), _KEYS, st.lists(st.integers(0, 9), max_size=9)),
    st.tuples(st.just("left"), _KEYS),
    st.tuples(st.just("heard"), _KEYS, _LISTS, _LISTS, _LISTS),
    st.tuples(st.just("asked"), _KEYS, _BLOCKS, st.lists(st.integers(-1, 5), max_size=5)),
    st.tuples(st.just("withdrawn"), _KEYS, _BLOCKS),
    st.tuples(st.just("referred"), _KEYS, _BLOCKS, _KEYS),
    st.tuples(st.just("hurried"), _KEYS, _BLOCKS, st.lists(st.integers(-1, 5), max_size=5)),
    st.tuples(st.just("lacking"), _KEYS, _BLOCKS),
    st.tuples(st.just("arrived"), _KEYS, _BLOCKS, st.integers(-1, 4)),
    st.tuples(st.just("checked"), st.booleans()),
    st.tuples(st.just("need"), st.lists(st.integers(0, 7), max_size=4)),
    st.tuples(st.just("want"), st.booleans()),
    st.tuples(st.just("uplink"), st.booleans()),
    st.tuples(st.just("fetches"), st.booleans()),
    st.tuples(st.just("lost"), st.integers(0, 7)),
    st.tuples(st.just("tick"), st.floats(0, 3)),
)


@settings(max_examples=200)
@given(st.lists(_EVENTS, max_size=60))
def test_whatever_is_said_the_books_stay_true_and_nothing_grows(events: list[tuple[object, ...]]) -> None:
    swarm, now = Swarm(OWN, [1, 300_000, MIB, MIB, 5_000, 0, MIB, 2 * MIB]), 0.0
    checks: list[int] = []
    fetches: list[int] = []

    def done(
        pile: list[int], right: Callable[[int, float], None], wrong: Callable[[int, float], None]
    ) -> None:
        if pile:
            (right if event[1] else wrong)(pile.pop(), now)

    for event in events:
        name, *rest = event
        if name == "tick":
            now += float(str(rest[0]))
            swarm.tick(now)
        elif name == "arrived":
            swarm.arrived(rest[0], Unit(rest[1], rest[2]), now)  # type: ignore[arg-type]
        elif name == "checked":
            done(checks, swarm.verified, swarm.broken)
        elif name == "fetches":
            done(fetches, swarm.fetched, swarm.failed)
        elif name in ("want", "uplink"):
            word = {"want": "everything", "uplink": "up"}[str(name)]
            getattr(swarm, str(name))(now, **{word: rest[0]})
        else:
            urgent = {"urgent": True} if name == "hurried" else {}
            getattr(swarm, "asked" if urgent else str(name))(*rest, now, **urgent)
        for move in swarm.take():
            checks += [move.block] if isinstance(move, Check) else []
            fetches += [move.block] if isinstance(move, Fetch) else []
        _sound(swarm)


def _sound(swarm: Swarm) -> None:
    assert swarm.lacks == swarm.held.count(0)
    assert len(swarm._watched) <= WATCHED_LIMIT
    assert len(swarm._turns) <= 4 * 8
    for block, job in swarm._jobs.items():
        assert not swarm.held[block] or swarm._checking(block)
        assert job.giver in swarm._partners or swarm._checking(block)
    for key, partner in swarm._partners.items():
        awaited = [block for block, job in swarm._jobs.items() if job.giver == key]
        assert set(partner.asked) <= set(awaited)
        assert 0 <= partner.asked_bytes == sum(partner.asked.values())
        assert partner.lacks == partner.held.count(0)
        assert len(partner.asked) <= ASKED_LIMIT_BLOCKS + 16
        assert len(partner.owed) + len(partner.waits) <= OWED_LIMIT_UNITS
        assert len(partner.offers) <= 2 * 8
        assert set(partner.named) <= set(partner.claims)
        assert partner.credit_units >= 0


def test_a_unit_is_a_quarter_of_a_block() -> None:
    swarm = Swarm(OWN, [0, 1, UNIT_BYTES, UNIT_BYTES + 1, 2 * MIB])
    assert [swarm.parts(block) for block in range(5)] == [1, 1, 1, 2, 8]
    assert UPLINK not in swarm.partners


@pytest.mark.parametrize("held", [[], [0, 2]])
def test_it_says_what_is_held(held: Iterable[int]) -> None:
    swarm = Swarm(OWN, [1] * 3, held)
    assert [block for block, mark in enumerate(swarm.held) if mark] == list(held)
