"""Two days of a small village: films from a carousel through 20 % loss, pulses home, each exactly once."""

from __future__ import annotations

from collections import Counter

from farcast.tests.sim.day import TODAY
from farcast.tests.sim.week import DRAIN_DAYS, LOSS, Week


def test_every_film_is_seen_at_every_box_and_every_pulse_is_counted_once() -> None:
    week = Week(2, boxes=5, days=2)
    week.run()
    assert len(week.films) == 2
    assert week.unseen == 0
    assert len(week.made) > 5 * 2 * 45
    days = range(TODAY, TODAY + week.days + DRAIN_DAYS)
    counted = week.treasury.counted(days, {film.digest: film for film in week.films})
    assert Counter((one.fact.tid, one.fact.seq) for one in counted) == dict.fromkeys(week.made, 1)
    assert sum(one.ms for one in counted) == sum(home.signed_ms for home in week.homes)
    assert week.treasury.verdicts["duplicate"] > 0, "answers were lost"
    assert sum(home.borrowed for home in week.homes) > 0, "boxes were off while films were on air"
    assert set(week.treasury.verdicts) == {"stored", "duplicate"}
    assert abs(week.lost / (week.lost + week.heard) - LOSS) < 0.01
