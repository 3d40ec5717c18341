"""A month kept up to date, pulse by pulse, is the month counted anew, at every size of the log."""

from __future__ import annotations

from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

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
    """A few accounts on several days of a month, a handful of pulses a day, at times all round the clock."""
    made = World(random, hostile)
    for number in range(1, 5):
        first = random.randrange(FIRST_DAY - 2, FIRST_DAY + 4)
        step_ms = random.choice([MINUTE, 5 * HOUR_MS])  # the latter without a gap, where the rules allow it
        for day in range(first, first + random.choice([2, 6])):
            viewer = Viewer(number, day, device=random.choice([0, 0, 1]))
            made.viewers.append(viewer)
            start_ms = random.choice([0, 12 * HOUR_MS, DAY_MS - 3 * MINUTE]) if step_ms == MINUTE else 0
            for beat in range(5):
                at_ms = start_ms + beat * step_ms + random.randrange(2 * MINUTE)
                delta_ms = random.choice([MINUTE, MINUTE, 0, 121_000])
                made.beat(viewer, random.choice(TITLES), at_ms, delta_ms, random.choice([1, 2, 2, 3, 4]))
    return made


def deliver(world: World, intake: Intake, columns: Columns, random: Random) -> list[int]:
    """Let everything come in; returns sizes of the log at which somebody looks."""
    world.deliver(intake)
    with open_tally(columns, Titles(SHELF.manifests.get)) as tally:
        total = tally.size_at(2**60)
    return [*sorted(random.randrange(total + 1) for _ in range(3)), total]


@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.002, 0.02]))
@settings(max_examples=8, deadline=None)
def test_a_month_that_is_followed_is_the_month_counted_anew(seed: int, hostile: float) -> None:
    random = Random(seed)
    with TemporaryDirectory() as name:
        folder = Path(name)
        intake = open_intake(folder)
        columns = Columns(folder / "intake" / "seg", folder / "columns", OFFICE, SHELF.manifests.get)
        sizes = deliver(people(random, hostile), intake, columns, random)
        intake.close()
        gap_ms = random.choice([300_000, 6 * HOUR_MS])
        rules, old = replace(rules_of(random), gap_ms=gap_ms), rules_of(random)
        ask = Ask(DAYS, [Earlier(BEFORE, old)], random.randrange(sizes[0] + 1), rules)
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
