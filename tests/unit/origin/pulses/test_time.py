"""When a pulse was: every bound of its time at the exact millisecond, through the real intake."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest

from farcast.origin.pulses.evidence import Evidence
from farcast.origin.pulses.segments import read_segments
from farcast.protocol.batch import Reject
from farcast.protocol.beacon import HOUR_MS
from farcast.protocol.identity import Identity
from farcast.protocol.ticket import DAY_MS
from farcast.tests.unit.origin.mint import (
    CARRIER,
    FIRST_DAY,
    OFFICE,
    RELAY,
    Shelf,
    Viewer,
    batch,
    open_intake,
    post,
    read,
)

SHELF = Shelf()
FILM = SHELF.add("film", {"ann": 10_000})
DAY = FIRST_DAY + 2
DAWN = DAY * DAY_MS
NOON = DAWN + 12 * HOUR_MS
DAYS = range(FIRST_DAY, FIRST_DAY + 30)
LATE = (FIRST_DAY + 40) * DAY_MS
"""Ten days after the month."""


@pytest.mark.parametrize(
    ("at_ms", "now_ms", "beacon", "code"),
    [
        pytest.param(NOON + 120_000, NOON, 0, "", id="120 s ahead"),
        pytest.param(NOON + 120_001, NOON, 0, "future", id="and a millisecond"),
        pytest.param(DAWN - 300_000, NOON, 0, "", id="five minutes before its day"),
        pytest.param(DAWN - 300_001, NOON, 0, "wrong_day", id="a millisecond earlier"),
        pytest.param(DAWN + DAY_MS + 299_999, NOON + DAY_MS, 0, "", id="five minutes after its day"),
        pytest.param(DAWN + DAY_MS + 300_000, NOON + DAY_MS, 0, "wrong_day", id="a millisecond later"),
        pytest.param(NOON, LATE, 0, "", id="ten days after its month"),
        pytest.param(NOON, LATE + 1, 0, "late", id="a millisecond later than that"),
        pytest.param(NOON, NOON + 1, NOON // HOUR_MS, "", id="the hour's beacon"),
        pytest.param(NOON - 120_000, NOON + 1, NOON // HOUR_MS, "", id="120 s before its beacon's hour"),
        pytest.param(NOON - 120_001, NOON + 1, NOON // HOUR_MS, "before_beacon", id="and a millisecond"),
        pytest.param(NOON + 60_000, NOON - 1, NOON // HOUR_MS, "before_beacon", id="a beacon not out yet"),
        pytest.param(NOON + 60_000, NOON, NOON // HOUR_MS, "", id="a beacon just out"),
        pytest.param(NOON, NOON + 9 * DAY_MS, 0, "", id="an old beacon, or none, bounds nothing more"),
    ],
)
@pytest.mark.parametrize("carrier", [None, RELAY, CARRIER], ids=["direct", "relay", "carrier"])
def test_the_origins_own_clock_draws_the_bounds_whoever_brings_it(
    tmp_path: Path, at_ms: int, now_ms: int, beacon: int, code: str, carrier: Identity | None
) -> None:
    intake = open_intake(tmp_path)
    viewer = Viewer(1, DAY)
    pulse = viewer.beat(FILM, at_ms - DAWN, 0, beacon=beacon)
    if carrier is None:
        ack = read(intake.post(post([viewer], [pulse]), now_ms))
    else:
        ack = read(intake.batch(batch(carrier, [viewer], [pulse], [at_ms]), now_ms))
    assert ack.tids[0].rejects == ([Reject(1, code)] if code else [])
    assert ack.tids[0].upto == (0 if code else 1)


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_the_receive_time_is_the_smallest_stamp_of_relays_and_origin_in_any_order(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    intake = open_intake(tmp_path)
    viewer = Viewer(1, DAY)
    pulse = viewer.beat(FILM, 6 * HOUR_MS, 0)
    ways: list[Callable[[int], bytes]] = [
        lambda now_ms: intake.post(post([viewer], [pulse]), now_ms),
        lambda now_ms: intake.batch(batch(CARRIER, [viewer], [pulse], [DAWN]), now_ms),
        lambda now_ms: intake.batch(batch(RELAY, [viewer], [pulse], [NOON - 5_000]), now_ms),
        lambda now_ms: intake.batch(batch(RELAY, [viewer], [pulse], [NOON - 9_000], 2), now_ms),
    ]
    for step, way in enumerate(order):
        ways[way](NOON + step)
    intake.batch(batch(RELAY, [viewer], [pulse], [LATE], 3), NOON + 9)  # a stamp of the future is no stamp
    [fact] = Evidence(read_segments(tmp_path / "intake" / "seg"), OFFICE, DAYS).facts(
        99, DAYS, SHELF.manifests.get
    )
    assert fact.received_ms == NOON - 9_000
