"""A few seconds of ``make soak ONLY=kill``: the whole system, every role killed at random moments."""

from __future__ import annotations

import pytest

from farcast.tests.soak.kill import run

SEEDS = 2
KILLS_S = 3.0


@pytest.mark.timeout(240)
def test_every_pulse_with_a_receipt_is_acked_and_counted_once_whoever_is_killed() -> None:
    assert run(SEEDS, kills_s=KILLS_S)
