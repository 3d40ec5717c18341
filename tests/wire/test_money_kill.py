"""An origin killed at random between the first pulse and the last payout: same cents, same bytes."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from random import Random

import pytest

from farcast.origin.payout.order import HOUR_MS
from farcast.tests.wire import till
from farcast.tests.wire.payhouse import call
from farcast.tests.wire.test_payout import bank_process, fates

KILLS = 30
FATES = ("late", "twice", "500_after", "drop_after", "", "")

log = logging.getLogger(__name__)


@pytest.mark.timeout(240)
def test_a_month_killed_thirty_times_is_the_month_that_never_was(tmp_path: Path) -> None:
    with bank_process() as bank:
        lives(tmp_path, bank, Random(11), KILLS)


def lives(folder: Path, bank: str, rng: Random, kills: int) -> list[str]:
    """Live months until so many kills fell; returns a line about each kill."""
    lines: list[str] = []
    number = 0
    while len(lines) < kills:
        number += 1
        calm, home = folder / f"calm-{number}", folder / f"life-{number}"
        calm.mkdir()
        home.mkdir()
        call(bank, "/_reset", {})
        began_s = time.monotonic()
        expected = till.digest(till.finish(calm, bank, number, till.PAY_MS))
        whole_s = time.monotonic() - began_s
        call(bank, "/_reset", {})
        now_ms, fallen = till.PAY_MS, 0
        while len(lines) < kills and fallen < 8:
            fates(bank, *(rng.choice(FATES) for _ in range(2)))
            if not till.killed(home, bank, number, now_ms, rng.uniform(0, whole_s)):
                break
            fallen += 1
            lines.append(f"kill {len(lines) + 1}: {till.stands(home)}")
            log.info("%s", lines[-1])
            now_ms += HOUR_MS // 2
            call(bank, "/_clock", {"ms": HOUR_MS // 2})
        assert till.digest(till.finish(home, bank, number, now_ms)) == expected, lines[-fallen:]
    return lines
