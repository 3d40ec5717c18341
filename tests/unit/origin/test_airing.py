"""How often a title comes on the carousel, and how people are told."""

from __future__ import annotations

from farcast.origin.airing import NEW_MS, Listed, by_priority, described, facts, span
from farcast.satellite.carousel import Carousel
from farcast.satellite.rota import Feature, Planned

DAY_MS = 86_400_000


def test_new_and_popular_titles_weigh_more_and_the_newest_is_first() -> None:
    now_ms = 100 * DAY_MS
    titles = [
        Listed("old", now_ms - 50 * DAY_MS, 0),
        Listed("loved", now_ms - 60 * DAY_MS, 9_000),
        Listed("liked", now_ms - NEW_MS, 3_000),
        Listed("new", now_ms - DAY_MS, 0),
        Listed("hit", now_ms - 2 * DAY_MS, 9_000),
    ]
    rows = [("new", 4.0), ("hit", 40.0), ("liked", 4.0), ("old", 1.0), ("loved", 10.0)]
    assert by_priority(titles, now_ms) == rows
    assert by_priority(titles[::-1], now_ms) == rows
    assert by_priority([], now_ms) == []


def test_people_are_told_what_is_on_air_and_when_the_rest_comes() -> None:
    carousel = Carousel(b"o" * 8, 1_000_000, 0.2)
    plans = [Planned(at, f"t{at}", 1_280_000, 1_000, 1_280) for at in range(10)]
    carousel.update([], [Feature(plan.label, (plan,)) for plan in plans])
    told = facts(carousel.status(), 20, 3)
    titles = told["titles"]
    assert [row["title"] for row in titles] == [f"t{at}" for at in range(10)]
    assert [row["begins_in_s"] for row in titles[:3]] == [0, 14, 28]
    assert [row["whole_in_s"] for row in titles[:3]] == [14, 28, 42]
    lines = described(told)
    assert lines[0] == "1 Mbit/s, all titles once in 2 min"
    assert lines[1] == "t0: on air now, whole in 14 s"
    assert lines[2] == "t1: in 14 s, whole in 28 s"
    assert lines[-2:] == ["and 2 more titles", "3 blocks of titles are not in the store and are not sent"]
    carousel.paused = True
    paused = facts(carousel.status(), 20, 0)
    assert described(paused)[0] == "paused"
    assert described(paused)[2].endswith("a time too far off to tell")


def test_times_are_said_in_the_unit_that_fits() -> None:
    assert [span(at) for at in (0, 119, 150, 7_000, 7_200, None)] == [
        "0 s", "119 s", "2 min", "117 min", "2.0 h", "a time too far off to tell",
    ]  # fmt: skip
