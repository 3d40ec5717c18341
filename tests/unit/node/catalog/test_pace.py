from hypothesis import given
from hypothesis import strategies as st

from farcast.node.catalog.pace import QUIET_S, Pace

DAY_S = 86_400.0


def test_an_idle_box_looks_seldom_and_one_in_use_often() -> None:
    pace = Pace(30, 900)
    pace.looked(0, found=True)
    assert pace.pause_s(0) == 900
    assert not pace.saw(0, 5)
    assert pace.saw(1, 40), "use begins: a look is due at once"
    pace.looked(40, found=True)
    assert pace.pause_s(40) == 30
    assert not pace.saw(2, 45), "in use already"
    assert pace.pause_s(45 + QUIET_S) == 900


def test_use_right_after_a_look_waits_for_the_next() -> None:
    pace = Pace(30, 900)
    pace.saw(7, 0)
    pace.looked(0, found=True)
    assert not pace.saw(8, 20)
    assert pace.pause_s(20) == 30


def test_a_box_that_nobody_answers_asks_ever_less_often() -> None:
    pace, pauses = Pace(30, 900), list[float]()
    for _ in range(8):
        pace.looked(0, found=False)
        pauses.append(pace.pause_s(0))
    assert pauses == [30, 60, 120, 240, 480, 900, 900, 900]
    pace.looked(0, found=True)
    assert pace.pause_s(0) == 900


@given(
    st.floats(1, 3_600),
    st.floats(1, 86_400),
    st.lists(st.tuples(st.floats(0, 60), st.integers(0, 3), st.booleans()), max_size=200),
)
def test_looks_are_never_closer_than_the_poll_nor_further_than_the_idle_one(
    poll_s: float, idle_poll_s: float, steps: list[tuple[float, int, bool]]
) -> None:
    pace, now, uses, looked = Pace(poll_s, idle_poll_s), 0.0, 0, -DAY_S
    for step_s, more, found in steps:
        now += step_s
        uses += more
        due = pace.saw(uses, now) or now - looked >= pace.pause_s(now)
        if due:
            assert now - looked >= poll_s
            pace.looked(now, found=found)
            looked = now
        assert now - looked <= max(poll_s, idle_poll_s)
