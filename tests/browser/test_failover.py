"""Real players on a real node whose tiers fail: a seeded tenth of the matrix; ``make soak`` plays all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from farcast.tests.browser.house import House
from farcast.tests.browser.matrix import Case, sample
from farcast.tests.browser.screen import SCREENS as BROWSER_PLAYERS
from farcast.tests.browser.trial import Outcome, Trial, attempt, come_back, why_not

CASE = "failover"
SEED = int(os.environ.get("FARCAST_FAILOVER_SEED") or 1)
SCREENS = Path(__file__).resolve().parents[2] / "build" / "screens"
STARTUP_MS = 1_000

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

Note = Callable[[str, object], None]
"""pytest's ``record_property``."""
ENOUGH = 21
"""Starts that a 95th percentile is taken of at least."""


@pytest.fixture(scope="session")
def startups() -> list[int]:
    """Gather how long each playback of the run took to begin."""
    return []


@pytest.mark.parametrize("case", sample(SEED), ids=str)
async def test_no_viewer_notices_that_a_tier_died(
    house: House, case: Case, startups: list[int], record_property: Note
) -> None:
    _try(house, case.player, str(case), record_property)
    outcome = await attempt(house, case, SCREENS / f"failover-{case}.png")
    _tell(outcome, record_property)
    if outcome.startup_ms is not None and case.player in BROWSER_PLAYERS:
        startups.append(outcome.startup_ms)
    assert not outcome.broken, outcome


async def test_playback_goes_on_by_itself_once_a_tier_is_back(house: House, record_property: Note) -> None:
    player = "hls.js tuned"  # the one that gives up soonest
    _try(house, player, f"{player} all tiers gone and back", record_property)
    outcome = await come_back(house, player)
    _tell(outcome, record_property)
    assert not outcome.broken, outcome


async def test_the_picture_moves_within_a_second(
    house: House, startups: list[int], record_property: Note
) -> None:
    _try(house, "hls.js", "start-up", record_property)
    while len(startups) < ENOUGH:
        startups.append(await Trial(house, "hls.js").start())
    ordered = sorted(startups)
    p95 = ordered[len(ordered) * 95 // 100]
    record_property(CASE, f"start-up p95 {p95} ms of {len(ordered)}, median {ordered[len(ordered) // 2]} ms")
    assert p95 < STARTUP_MS, ordered


def _try(house: House, player: str, what: str, record_property: Note) -> None:
    """Skip what cannot be tried here, with its reason."""
    reason = why_not(player, house)
    if reason:
        record_property(CASE, f"{what:<42} skipped: {reason}")
        pytest.skip(reason)


def _tell(outcome: Outcome, record_property: Note) -> None:
    record_property(CASE, str(outcome))
