"""Which new titles come in before anybody asks: most wanted first, within room and budgets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farcast.relay.demand import HALF_LIFE_MS, HOUR_MS, NEW_MS, Candidate, Demand, Portion, portions

NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000


def fresh(title: str, publisher: str = "p", size: int = 100, *, held: int = 0, age_ms: int = 0) -> Candidate:
    return Candidate(title, publisher, NOW_MS - age_ms, size, held)


def unbounded(_: str) -> int | None:
    return None


def test_requests_fade_by_half_each_day_and_the_hour_is_all_that_is_told() -> None:
    made = Demand()
    made.asked("film", NOW_MS, 8)
    assert made.expected("film", NOW_MS + HALF_LIFE_MS) == 4.0
    made.asked("film", NOW_MS + HALF_LIFE_MS)
    assert made.expected("film", NOW_MS + HALF_LIFE_MS) == 5.0
    assert made.expected("other", NOW_MS) == 0.0
    hour = made.last_hour_ms("film")
    assert hour is not None
    assert hour % HOUR_MS == 0
    assert 0 <= NOW_MS + HALF_LIFE_MS - hour < HOUR_MS
    assert made.last_hour_ms("other") is None


def test_memory_is_bounded_and_the_longest_unasked_is_forgotten() -> None:
    made = Demand(limit=2)
    for title in ("a", "b", "a", "c"):
        made.asked(title, NOW_MS)
    assert len(made) == 2
    assert made.expected("b", NOW_MS) == 0.0
    assert made.expected("a", NOW_MS) == 2.0


def test_the_most_wanted_comes_first_and_old_titles_are_left_to_be_asked_for() -> None:
    demand = Demand()
    demand.asked("wanted", NOW_MS, 50)
    found = portions(
        [fresh("new"), fresh("wanted"), fresh("old", age_ms=NEW_MS + 1), fresh("whole", held=100)],
        demand, NOW_MS, 1_000, unbounded,
    )  # fmt: skip
    assert found == [Portion("wanted", 100), Portion("new", 100)]


def test_a_publisher_whose_titles_are_watched_goes_before_one_whose_are_not() -> None:
    demand = Demand()
    demand.asked("hit", NOW_MS, 100)
    candidates = [fresh("quiet", "q"), fresh("next", "h"), fresh("hit", "h", held=100, age_ms=NEW_MS * 2)]
    assert [one.title for one in portions(candidates, demand, NOW_MS, 1_000, unbounded)] == ["next", "quiet"]


def test_newer_goes_before_older() -> None:
    candidates = [fresh("older", age_ms=5 * DAY_MS), fresh("newer", age_ms=DAY_MS)]
    found = portions(candidates, Demand(), NOW_MS, 1_000, unbounded)
    assert [one.title for one in found] == ["newer", "older"]


def test_room_and_budgets_cut_the_portions() -> None:
    demand = Demand()
    demand.asked("a", NOW_MS, 9)
    candidates = [fresh("a", "p", 100), fresh("b", "q", 100), fresh("c", "out", 100)]
    budgets: dict[str, int | None] = {"p": 60, "q": None, "out": 0}
    assert portions(candidates, demand, NOW_MS, 90, budgets.get) == [Portion("a", 60), Portion("b", 30)]
    assert portions(candidates, demand, NOW_MS, -5, budgets.get) == []


CANDIDATES = st.lists(
    st.builds(
        Candidate,
        st.uuids().map(str),
        st.sampled_from("pqr"),
        st.integers(NOW_MS - 2 * NEW_MS, NOW_MS + DAY_MS),
        st.integers(0, 1_000),
        st.integers(0, 1_000),
    ),
    max_size=20,
)


@given(CANDIDATES, st.integers(-10, 5_000), st.dictionaries(st.sampled_from("pqr"), st.integers(-10, 2_000)))
def test_no_plan_ever_exceeds_room_budget_or_what_is_missing(
    candidates: list[Candidate], room: int, budgets: dict[str, int]
) -> None:
    demand = Demand()
    for number, one in enumerate(candidates[::2]):
        demand.asked(one.title, NOW_MS, number)
    found = portions(candidates, demand, NOW_MS, room, budgets.get)
    by_title = {one.title: one for one in candidates}
    assert sum(one.size_bytes for one in found) <= max(room, 0)
    assert len({one.title for one in found}) == len(found)
    for portion in found:
        assert 0 < portion.size_bytes <= by_title[portion.title].missing_bytes
    for publisher, budget in budgets.items():
        taken = sum(one.size_bytes for one in found if by_title[one.title].publisher == publisher)
        assert taken <= max(budget, 0)
