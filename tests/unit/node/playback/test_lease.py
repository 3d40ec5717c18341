from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from farcast.node.playback.lease import CLOCK_SLACK_MS, KEYS_KEPT, REFUSED_MS, RETRY_MS, Leases, Refusal
from farcast.protocol.contentkey import Lease

ID, KEY = b"i" * 16, b"k" * 16
RECHECK_MS = 600_000
NOW_MS = 1_790_000_000_000
DAY_MS = 86_400_000
REVOKED = Refusal("revoked", "this account has been revoked", final=True)
SILENCE = Refusal("unreachable", "nobody answers", final=False)


def lease(now_ms: int = NOW_MS, until_ms: int = NOW_MS + 14 * DAY_MS) -> Lease:
    return Lease(ID, KEY, now_ms, until_ms)


def test_a_key_is_asked_for_at_once_used_until_its_end_and_checked_in_between() -> None:
    leases = Leases(RECHECK_MS)
    assert leases.due(ID, NOW_MS)
    assert leases.usable(ID, NOW_MS) is None
    leases.asked(ID, NOW_MS)
    assert not leases.due(ID, NOW_MS + RETRY_MS - 1)
    leases.granted(lease())
    assert leases.usable(ID, NOW_MS) == KEY
    assert not leases.due(ID, NOW_MS + RECHECK_MS - 1)
    assert leases.due(ID, NOW_MS + RECHECK_MS)
    end_ms = NOW_MS + 14 * DAY_MS
    assert leases.usable(ID, end_ms - 1) == KEY
    assert leases.usable(ID, end_ms) is None
    assert leases.lapsed(ID, end_ms)
    assert not leases.lapsed(ID, end_ms - 1)


def test_a_final_refusal_takes_the_key_and_silence_does_not() -> None:
    leases = Leases(RECHECK_MS)
    leases.granted(lease())
    leases.refused(ID, SILENCE, NOW_MS + RECHECK_MS)
    assert leases.usable(ID, NOW_MS + RECHECK_MS) == KEY
    leases.refused(ID, REVOKED, NOW_MS + RECHECK_MS)
    assert leases.usable(ID, NOW_MS + RECHECK_MS) is None
    assert leases.refusal(ID) == REVOKED
    assert not leases.due(ID, NOW_MS + RECHECK_MS + REFUSED_MS - 1)
    assert leases.due(ID, NOW_MS + RECHECK_MS + REFUSED_MS)
    leases.granted(lease(NOW_MS + DAY_MS, NOW_MS + 2 * DAY_MS))
    assert leases.refusal(ID) is None


def test_who_does_not_answer_is_asked_ever_more_seldom() -> None:
    leases, now_ms, waits = Leases(RECHECK_MS), NOW_MS, list[int]()
    for _ in range(10):
        leases.refused(ID, SILENCE, now_ms)
        wait_ms = next(ms for ms in range(0, RECHECK_MS + 1, 1_000) if leases.due(ID, now_ms + ms))
        waits.append(wait_ms)
        now_ms += wait_ms
    assert waits[:4] == [RETRY_MS, 2 * RETRY_MS, 4 * RETRY_MS, 8 * RETRY_MS]
    assert waits == sorted(waits)
    assert waits[-1] == RECHECK_MS


def test_a_clock_turned_back_does_not_make_a_key_last_longer() -> None:
    leases = Leases(RECHECK_MS)
    leases.granted(lease())
    assert leases.usable(ID, NOW_MS - CLOCK_SLACK_MS) == KEY
    assert leases.usable(ID, NOW_MS - CLOCK_SLACK_MS - 1) is None


def test_a_key_from_the_disk_may_be_used_and_is_checked_at_once() -> None:
    leases = Leases(RECHECK_MS)
    leases.restore(lease())
    assert leases.usable(ID, NOW_MS + DAY_MS) == KEY
    assert leases.due(ID, NOW_MS + DAY_MS)
    assert leases.older(ID, NOW_MS + DAY_MS, DAY_MS - 1)
    assert not leases.older(ID, NOW_MS + DAY_MS, DAY_MS)


def test_what_is_kept_is_bounded() -> None:
    leases = Leases(RECHECK_MS)
    for number in range(KEYS_KEPT + 10):
        leases.granted(Lease(number.to_bytes(16, "big"), KEY, NOW_MS, NOW_MS + DAY_MS))
    assert len(leases) == KEYS_KEPT


class Story(RuleBasedStateMachine):
    """Any order of grants, refusals and silences, against what may be used written down plainly."""

    def __init__(self) -> None:
        super().__init__()
        self.leases = Leases(RECHECK_MS)
        self.now_ms = NOW_MS
        self.held: Lease | None = None
        self.asks: list[int] = []

    @rule(ms=st.integers(0, 3 * DAY_MS))
    def wait(self, ms: int) -> None:
        """Let time pass."""
        self.now_ms += ms

    @rule(days=st.integers(0, 14), answer=st.sampled_from(["yes", "no", "silence"]))
    def use(self, days: int, answer: str) -> None:
        """Want the key: the origin gives it for some days, refuses it, or is silent."""
        if not self.leases.due(ID, self.now_ms):
            return
        assert all(self.now_ms - at_ms >= min(RETRY_MS, RECHECK_MS) for at_ms in self.asks[-1:])
        self.leases.asked(ID, self.now_ms)
        self.asks.append(self.now_ms)
        if answer == "yes":
            self.held = lease(self.now_ms, self.now_ms + days * DAY_MS)
            self.leases.granted(self.held)
        else:
            self.leases.refused(ID, REVOKED if answer == "no" else SILENCE, self.now_ms)
            self.held = None if answer == "no" else self.held

    @invariant()
    def it_is_usable_exactly_while_it_should_be(self) -> None:
        """The key holds from its grant to its end, unless the origin took it back."""
        held = self.held is not None and self.now_ms < self.held.until_ms
        assert (self.leases.usable(ID, self.now_ms) is not None) == held


TestStory = Story.TestCase
TestStory.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
