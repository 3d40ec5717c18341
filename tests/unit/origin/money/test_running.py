"""A month kept up to date, pulse by pulse, is the month counted anew, at every size of the log."""

from __future__ import annotations

from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.origin.money.running import Running, RunningMonth, open_running
from farcast.origin.money.tally import Ask, Earlier, open_tally
from farcast.origin.money.titles import Titles
from farcast.origin.money.total import Total
from farcast.origin.pulses.columns import Columns
from farcast.origin.pulses.intake import Intake
from farcast.protocol.rules import DAY_MS, HOUR_MS, Rules
from farcast.tests.unit.origin.mint import FIRST_DAY, OFFICE, Viewer, open_intake, post
from farcast.tests.unit.origin.money.test_tally import BEFORE, DAYS, SHELF, TITLES, World, rules_of

MINUTE = 60_000


def people(random: Random, hostile: float) -> World:
    """Several accounts that watch on many days of a month, some without a pause over midnight."""
    made = World(random, hostile)
    for number in range(1, 7):
        first = random.randrange(FIRST_DAY - 2, FIRST_DAY + 4)
        for day in range(first, first + random.choice([2, 5, 8])):
            if random.random() < 0.8:
                made.watch(number, random.choice([0, 0, 1]), day)
    for day in range(FIRST_DAY + 1, FIRST_DAY + random.choice([1, 5])):  # all day, every day
        viewer = Viewer(9, day)
        made.viewers.append(viewer)
        for at_ms in range(0, DAY_MS, 4 * MINUTE):
            made.beat(viewer, TITLES[0], at_ms, random.choice([MINUTE, 2 * MINUTE]), 2)
    return made


def deliver(world: World, intake: Intake, columns: Columns, random: Random) -> list[int]:
    """Let everything come in; returns sizes of the log at which somebody looks."""
    world.deliver(intake)
    with open_tally(columns, Titles(SHELF.manifests.get)) as tally:
        total = tally.size_at(2**60)
    return [*sorted(random.randrange(total + 1) for _ in range(5)), total, total]


@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.002, 0.02]))
@settings(max_examples=12, deadline=None)
def test_a_month_that_is_followed_is_the_month_counted_anew(seed: int, hostile: float) -> None:
    random = Random(seed)
    with TemporaryDirectory() as name:
        folder = Path(name)
        intake = open_intake(folder)
        columns = Columns(folder / "intake" / "seg", folder / "columns", OFFICE, SHELF.manifests.get)
        sizes = deliver(people(random, hostile), intake, columns, random)
        intake.close()
        ask = Ask(DAYS, [Earlier(BEFORE, rules_of(random))], random.randrange(sizes[0] + 1), rules_of(random))
        kept = RunningMonth()
        for size in sizes:
            with open_running(columns, Titles(SHELF.manifests.get)) as running:
                found = kept.viewing(running, ask, size)
                # kept sums go on changing, so each look is compared at once
                assert found == running.viewing(*ask.at(size))


def test_what_came_in_costs_its_own_accounts_and_days(tmp_path: Path) -> None:
    """A new evening of one of many accounts is counted over three days, and no other account at all."""
    intake = open_intake(tmp_path)
    columns = Columns(tmp_path / "intake" / "seg", tmp_path / "columns", OFFICE, SHELF.manifests.get)
    viewers = [Viewer(number, FIRST_DAY + day) for number in range(1, 8) for day in range(10)]
    for viewer in viewers:
        viewer.watch(TITLES[0], 5)
    for day in range(10):
        of_day = [viewer for viewer in viewers if viewer.day == FIRST_DAY + day]
        pulses = [pulse for viewer in of_day for pulse in viewer.pulses]
        intake.post(post(of_day, pulses), (FIRST_DAY + day) * DAY_MS + 2 * HOUR_MS)
    ask, kept = Ask(DAYS, [], 0, Rules()), RunningMonth()
    with open_running(columns, Titles(SHELF.manifests.get)) as running:
        kept.viewing(running, ask, running.size_at(2**60))
    late = Viewer(3, FIRST_DAY + 9, salt=1)
    late.watch(TITLES[1], 7, from_ms=20 * HOUR_MS)
    intake.post(post([late], late.pulses), (FIRST_DAY + 9) * DAY_MS + 21 * HOUR_MS)
    intake.close()
    counted: list[tuple[range, int, int]] = []

    class Watched(Running):
        def _count(self, days: range, since: int, size: int, rules: Rules) -> Total:
            total = super()._count(days, since, size, rules)
            counted.append(
                (days, since, len({account for watched in total.ms.values() for account in watched}))
            )
            return total

    with open_running(columns, Titles(SHELF.manifests.get)) as running:
        running.__class__ = Watched
        found = kept.viewing(running, ask, running.size_at(2**60))
        watched = range(FIRST_DAY + 8, DAYS.stop)
        assert counted == [(watched, FIRST_DAY + 6, 1)] * 2
        running.__class__ = Running
        assert found == running.viewing(*ask.at(running.size_at(2**60)))
    assert sum(sum(accounts.values()) for accounts in found.ms.values()) == (7 * 10 * 5 + 7) * MINUTE
