"""A film goes round a LAN of namespaces, every link 100 Mbit/s; the cores' own figures are in tests/sim."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from farcast.tests.lab.village import Village

pytestmark = pytest.mark.lab
Need = Callable[..., str]

MIB = 8
WATCHED_MIB = 24
ONE_COPY = 1.05
"""With the heads of Ethernet, IP, TCP and TLS."""
FETCHED_COPY = 1.13
"""And what TCP sends again: HTTP leaves its rate to BBR, which fills the link's queue."""


@pytest.fixture(autouse=True)
def _namespaces(need: Need) -> None:
    for program in ("ip", "tc", "nft"):
        need(program)
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")


def test_four_boxes_bring_a_film_from_one_at_little_more_than_one_copy(tmp_path: Path) -> None:
    with Village(4, MIB, tmp_path) as village:
        village.go([1, 2, 3, 4])
        outcome = village.outcome([1, 2, 3, 4])
    assert all(box["whole"] for box in outcome.boxes)
    assert outcome.copies < 2 * ONE_COPY


def test_one_that_dies_and_one_that_is_slow_hold_nobody_and_a_late_one_catches_up(tmp_path: Path) -> None:
    with Village(5, MIB, tmp_path) as village:
        village.switch.rate(2, 10e6)
        village.go([1, 2, 3, 4])
        time.sleep(0.5)
        village.kill(1)
        village.go([5])
        outcome = village.outcome([3, 4, 5])
        assert all(box["whole"] for box in outcome.boxes)
        assert outcome.copies < 3 * ONE_COPY
        [slow] = village.outcome([2]).boxes
        assert slow["whole"]
    assert slow["seconds"] > 1.5 * outcome.seconds


@pytest.mark.parametrize("apart_s", [0.0, 0.06])
def test_three_who_watch_one_film_cost_their_uplink_one_copy(tmp_path: Path, apart_s: float) -> None:
    """Also where one has begun, alone, on the first blocks when the next one comes."""
    with Village(3, WATCHED_MIB, tmp_path, roles=("uplink", "viewer")) as village:
        for host in (1, 2, 3):
            village.go([host])
            time.sleep(apart_s)
        outcome = village.outcome([1, 2, 3])
    assert all(box["whole"] for box in outcome.boxes)
    fetched_bytes = sum(box["by_uplink"] for box in outcome.boxes)
    assert fetched_bytes <= 1.05 * (WATCHED_MIB << 20)
    assert outcome.copies <= 1.05 * FETCHED_COPY
