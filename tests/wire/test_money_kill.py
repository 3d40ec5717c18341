"""An origin killed at random between the first pulse and the last payout: same cents, same bytes."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from farcast.tests.wire import till
from farcast.tests.wire.payhouse import bank_process

KILLS = 30


@pytest.mark.timeout(240)
def test_a_month_killed_thirty_times_is_the_month_that_never_was(tmp_path: Path) -> None:
    with bank_process() as bank:
        till.lives(tmp_path, bank, Random(11), KILLS)
