# pyright: reportPrivateUsage=false
"""What others tell is bounded in number, size, rate and age, whoever tells it; what is told is too."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.mesh.hints.hearsay import TAKEN, Hearsay, Rules, Teller
from farcast.protocol.codec import encode
from farcast.protocol.hint import HINT_LIMIT_BYTES, NEWS_LIMIT_BYTES, Hint, Topic, open_hint

NET = b"o" * 8
ANN: Teller = ("http", "ann")
BOB: Teller = ("http", "bob")


def hint(number: int, topic: Topic = "head", net: bytes = NET) -> bytes:
    """Return one well-formed hint among many."""
    return encode(Hint(1, net, topic, number.to_bytes(4, "big")))


def test_what_is_told_comes_out_once_and_under_its_topic() -> None:
    core = Hearsay(NET)
    assert core.hear(hint(1), ANN, 0.0) == TAKEN
    assert core.hear(hint(2, "relay"), ANN, 0.0) == TAKEN
    assert core.hear(hint(1), BOB, 1.0) == "duplicate"
    assert core.hear(hint(1), ("gossip", "x"), 1.0) == "duplicate"  # whichever way it came
    head = core.take("head", 1.0)
    assert head is not None
    assert (head.news, head.teller) == (b"\0\0\0\1", ANN)
    assert core.take("head", 1.0) is None
    assert core.take("relay", 1.0) is not None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "malformed"),
        (b"\xc1", "malformed"),
        (hint(1) + b"\0", "malformed"),
        (encode([1, NET, "price", b"x"]), "malformed"),
        (encode([2, NET, "head", b"x"]), "malformed"),
        (encode([1, NET, "head", b""]), "malformed"),
        (encode([1, NET, "head", b"x" * (NEWS_LIMIT_BYTES + 1)]), "malformed"),
        (b"\x94\xcc\x01" + hint(1)[2:], "not_canonical"),
        (b"x" * (HINT_LIMIT_BYTES + 1), "too_large"),
        (hint(1, net=b"p" * 8), "foreign"),
    ],
)
def test_what_is_no_hint_of_ours_has_its_reason(data: bytes, reason: str) -> None:
    core = Hearsay(NET)
    assert core.hear(data, ANN, 0.0) == reason
    assert core.take("head", 0.0) is None


def test_who_tells_nonsense_is_not_listened_to_for_a_while_and_others_are() -> None:
    rules = Rules()
    core = Hearsay(NET)
    assert [core.hear(b"", ANN, 0.0) for _ in range(4)] == ["malformed"] * rules.doubts + ["muted"]
    assert core.hear(hint(1), ANN, rules.muted_s - 1) == "muted"
    assert core.hear(hint(1), BOB, 1.0) == TAKEN
    assert core.hear(hint(2), ANN, rules.muted_s) == TAKEN


def test_doubts_are_forgotten_in_time() -> None:
    rules = Rules()
    core = Hearsay(NET)
    assert [core.doubt(ANN, at * rules.doubt_s) for at in range(10)] == [False] * 10
    assert [core.doubt(BOB, 0.0) for _ in range(3)] == [False, False, True]


def test_old_hints_are_not_looked_at() -> None:
    core = Hearsay(NET)
    core.hear(hint(1), ANN, 0.0)
    core.hear(hint(2), ANN, 30.0)
    found = core.take("head", 60.0)
    assert found is not None
    assert found.news == b"\0\0\0\2"
    assert core.take("head", 60.0) is None


def test_a_flood_by_one_way_leaves_the_other_open() -> None:
    core = Hearsay(NET)
    for number in range(5_000):
        core.hear(hint(number), ("gossip", str(number)), 0.0)
    assert core.hear(hint(9_999), ("gossip", "late"), 0.0) == "way_rate"
    assert core.hear(hint(9_999, "relay"), BOB, 0.0) == TAKEN


def test_what_is_told_goes_out_once_and_its_echo_is_known() -> None:
    core = Hearsay(NET)
    assert core.wake_at(0.0) is None
    assert core.tell("head", b"note", 0.0) == TAKEN
    assert core.tell("head", b"note", 0.0) == "duplicate"
    assert core.wake_at(0.0) == 0.0
    (data,) = core.tellings(0.0)
    assert open_hint(data) == Hint(1, NET, "head", b"note")
    assert core.tellings(0.0) == []
    assert core.hear(data, ANN, 1.0) == "duplicate"
    assert core.tell("head", b"x" * (NEWS_LIMIT_BYTES + 1), 0.0) == "too_large"
    assert core.tell("head", b"", 0.0) == "too_large"


def test_telling_is_paced_and_what_waited_too_long_is_not_told() -> None:
    rules = Rules()
    core = Hearsay(NET)
    for number in range(40):
        core.tell("head", number.to_bytes(2, "big"), 0.0)
    first = core.tellings(0.0)
    assert len(first) == rules.told_burst
    assert open_hint(first[0]).news == (40 - rules.waiting_limit).to_bytes(2, "big")  # the newest are kept
    assert core.wake_at(0.0) == pytest.approx(1.0)
    assert len(core.tellings(1.0)) == 1
    assert core.tellings(rules.waiting_s) == []
    assert core.wake_at(rules.waiting_s) is None


SMALL = Rules(
    seen_limit=20, waiting_limit=4, teller_burst=3, teller_per_s=0.2, tellers_limit=6, way_burst=8,
    way_per_s=1.0,
)  # fmt: skip
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["hear", "hear", "hear", "nonsense", "take", "tell", "doubt"]),
        st.integers(0, 40),
        st.integers(0, 12),
        st.floats(0, 20),
    ),
    max_size=150,
)


@given(EVENTS)
def test_nothing_grows_past_its_bound_and_nobody_gets_more_than_a_share(
    events: list[tuple[str, int, int, float]],
) -> None:
    core, now = Hearsay(NET, SMALL), 0.0
    taken: list[tuple[float, str, bytes]] = []
    told: list[float] = []
    for what, number, who, pause_s in events:
        now += pause_s
        teller: Teller = (("http", "gossip")[who % 2], str(who))
        if what == "hear":
            muted = core.is_muted(teller, now)
            if core.hear(hint(number), teller, now) == TAKEN:
                assert not muted
                taken.append((now, teller[0], hint(number)))
        elif what == "nonsense":
            assert core.hear(bytes([0xC1, number]), teller, now) != TAKEN
        elif what == "take":
            found = core.take("head", now)
            assert found is None or found.until > now
        elif what == "doubt":
            assert core.is_muted(teller, now) or core.doubt(teller, now) == core.is_muted(teller, now)
        else:
            core.tell("head", number.to_bytes(2, "big"), now)
            told += [now] * len(core.tellings(now))
        assert len(core._waiting["head"]) <= SMALL.waiting_limit
        assert len(core._outgoing) <= SMALL.waiting_limit
        assert len(core._seen) <= SMALL.seen_limit
        assert max(len(core._tellers), len(core._doubts), len(core._muted)) <= SMALL.tellers_limit
    for way in ("http", "gossip"):
        times = [at for at, its_way, _ in taken if its_way == way]
        _within(times, SMALL.way_burst, SMALL.way_per_s)
    _within(told, SMALL.told_burst, SMALL.told_per_s)


def _within(times: list[float], burst: int, per_s: float) -> None:
    """Check every stretch of time against a bucket's bound."""
    for first in range(len(times)):
        for last in range(first, len(times)):
            assert last - first + 1 <= burst + (times[last] - times[first]) * per_s + 1e-6


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 300)), max_size=60))
def test_the_same_hint_is_taken_once_in_a_while(events: list[tuple[int, float]]) -> None:
    core, now = Hearsay(NET), 0.0
    taken: dict[int, list[float]] = {}
    for number, pause_s in events:
        now += pause_s
        core.take("head", now)
        if core.hear(hint(number), (f"way {number}", "x"), now) == TAKEN:
            taken.setdefault(number, []).append(now)
    for times in taken.values():
        assert all(later - earlier >= Rules().seen_s for earlier, later in pairwise(times))


@given(st.binary(max_size=HINT_LIMIT_BYTES + 20))
def test_any_bytes_are_taken_or_have_a_reason(data: bytes) -> None:
    reason = Hearsay(NET).hear(data, ANN, 0.0)
    assert reason in {TAKEN, "malformed", "not_canonical", "too_large", "foreign"}
