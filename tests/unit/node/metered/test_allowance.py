"""A day's budget is spent once, whatever the clock is set to and however often the box starts."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.node.metered.allowance import DAY_MS, DAY_S, Allowance, Record

DAILY = 500_000_000
NOON = 20_700 * DAY_MS + DAY_MS // 2
HOUR_S = 3_600.0


def spend(allowance: Allowance, size_bytes: int, *, first: bool = False) -> bool:
    """Spend at once."""
    if not allowance.hold(size_bytes, first=first):
        return False
    allowance.settle(size_bytes, size_bytes)
    return True


def test_blocks_stop_before_the_end_and_what_comes_first_may_use_the_rest() -> None:
    allowance = Allowance(DAILY, None, NOON, 0.0)
    assert spend(allowance, 480_000_000)
    assert not spend(allowance, 1)
    assert spend(allowance, 20_000_000, first=True)
    assert not spend(allowance, 1, first=True)
    assert allowance.used_bytes == DAILY


def test_what_is_under_way_counts_until_it_is_known() -> None:
    allowance = Allowance(DAILY, None, NOON, 0.0)
    assert allowance.hold(300_000_000, first=False)
    assert not allowance.hold(200_000_000, first=False)
    allowance.settle(300_000_000, 100_000_000)
    assert allowance.hold(200_000_000, first=False)
    assert allowance.used_bytes == 300_000_000


def test_a_new_day_begins_at_midnight_and_after_a_time_off() -> None:
    allowance = Allowance(DAILY, None, NOON, 0.0)
    spend(allowance, 400_000_000)
    assert not allowance.look(NOON + DAY_MS // 2 - 1, DAY_S / 2, 0)
    assert allowance.look(NOON + DAY_MS // 2, DAY_S / 2, 0)
    assert allowance.used_bytes == 0
    spend(allowance, 100)
    kept = allowance.record(100)
    same_day = Allowance(DAILY, kept, NOON + DAY_MS // 2 + 3_600_000, 5.0)
    assert not same_day.look(NOON + DAY_MS // 2 + 3_600_000, 5.0, 0)
    assert same_day.used_bytes == 100
    next_day = Allowance(DAILY, kept, NOON + 2 * DAY_MS, 5.0)
    assert next_day.look(NOON + 2 * DAY_MS, 5.0, 0)


def test_a_clock_that_is_put_forward_gives_nothing_until_the_origin_or_a_day_says_so() -> None:
    allowance = Allowance(DAILY, None, NOON, 0.0)
    spend(allowance, 480_000_000)
    year = 365 * DAY_MS
    assert not allowance.look(NOON + year, 10.0, NOON)
    assert not allowance.look(NOON + 20_000, 20.0, NOON)
    assert not allowance.look(NOON + DAY_MS, DAY_S - 1, NOON), "midnight of a clock that was set is none"
    assert allowance.look(NOON + DAY_MS, DAY_S + 1, NOON), "a day has passed"
    spend(allowance, 480_000_000)
    assert allowance.look(NOON + DAY_MS + 1, DAY_S + 2, NOON + DAY_MS), "the origin signed tomorrow"
    assert not allowance.look(NOON + DAY_MS + 2, DAY_S + 3, NOON + DAY_MS)


def test_a_machine_without_a_clock_battery_is_well_again_with_the_first_checkpoint() -> None:
    kept = Record(20_700, DAILY, NOON, 100.0, even=True)
    allowance = Allowance(DAILY, kept, 1_000, 0.0)  # 1970
    assert not allowance.look(2_000, 1.0, NOON)
    assert not spend(allowance, 1)
    assert allowance.look(NOON + DAY_MS, 30.0, NOON + DAY_MS)
    assert not allowance.look(NOON + DAY_MS + 1_000, 31.0, NOON + DAY_MS)
    assert allowance.look(NOON + DAY_MS * 3 // 2, 31.0 + DAY_S / 2, NOON + DAY_MS), "its clock is right since"


class Life:
    """A box whose every byte is spent as soon as it may be, in a world with a true time."""

    def __init__(self) -> None:
        self.true_s = self.started_s = 0.0
        self.offset_ms = self.spent = 0
        self.allowance = Allowance(DAILY, None, NOON, 0.0)

    @property
    def true_ms(self) -> int:
        """The time it really is."""
        return NOON + int(self.true_s * 1_000)

    def restart(self) -> None:
        """Stop and start."""
        kept = self.allowance.record(self.allowance.used_bytes)
        self.started_s = self.true_s
        self.allowance = Allowance(DAILY, kept, self.true_ms + self.offset_ms, 0.0)

    def live(self, seconds: float, signed_ms: int) -> None:
        """Let time pass, and spend what there is."""
        self.true_s += seconds
        self.allowance.look(self.true_ms + self.offset_ms, self.true_s - self.started_s, signed_ms)
        while spend(self.allowance, DAILY // 5, first=True):
            self.spent += DAILY // 5

    @property
    def days(self) -> int:
        """How many midnights there were."""
        return self.true_ms // DAY_MS - NOON // DAY_MS


STEPS = st.sampled_from([1.0, 600.0, HOUR_S, 6 * HOUR_S])


@settings(max_examples=200)
@given(st.lists(st.tuples(STEPS, st.integers(-400, 400), st.booleans()), min_size=1, max_size=80))
def test_however_the_clock_is_set_while_the_box_runs_no_day_is_paid_twice(
    steps: list[tuple[float, int, bool]],
) -> None:
    life = Life()
    for seconds, days, sets in steps:
        if sets:
            life.offset_ms = days * DAY_MS // 3
        life.live(seconds, life.true_ms - DAY_MS // 4)
    assert life.spent <= DAILY * (1 + life.days + life.true_s // DAY_S + 1)


@settings(max_examples=100)
@given(st.lists(st.tuples(STEPS, st.booleans()), min_size=1, max_size=80))
def test_however_often_the_box_starts_each_day_has_one_budget(steps: list[tuple[float, bool]]) -> None:
    life = Life()
    for seconds, restarts in steps:
        life.live(seconds, 0)
        if restarts:
            life.restart()
            life.live(0.0, 0)
    assert life.spent == DAILY * (1 + life.days)
