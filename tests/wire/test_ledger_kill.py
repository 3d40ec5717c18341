from __future__ import annotations

import random
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from farcast.origin.money import bookings
from farcast.origin.money.ledger import Ledger

BOOKINGS = 200
KILLS = 3
SCRIPT = """
import sys
from pathlib import Path
from farcast.origin.money import bookings
from farcast.origin.money.ledger import Ledger
place, count = sys.argv[1], int(sys.argv[2])
ledger = Ledger(Path(place) if place.startswith("/") else place)
for number in range(count):
    if ledger.book(bookings.tip(number + 10, "ann"), number, str(number).encode()):
        print(number, flush=True)
"""


def booked(place: Path | str, upto: int) -> Ledger:
    """Return open books with the first so many bookings, made in peace."""
    ledger = Ledger(place)
    for number in range(upto):
        ledger.book(bookings.tip(number + 10, "ann"), number, str(number).encode())
    return ledger


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_books_of_a_killed_process_go_on_where_it_was(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    place = tmp_path / "ledger.db" if kind == "sqlite" else request.getfixturevalue("postgres").fresh()
    dice = random.Random(2_026)
    for _ in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(place), str(BOOKINGS)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        with process.stdout:
            said = [int(process.stdout.readline()) for _ in range(dice.randrange(1, 12))]
            time.sleep(dice.random() / 500)
            process.kill()
            said += [int(line) for line in process.stdout.read().splitlines()]
        process.wait(10)
        with closing(Ledger(place)) as ledger:
            there = ledger.verify_chain()
            print(f"killed behind booking {said[-1]}, {there} are there")  # noqa: T201 - the seed hits it
            assert said[-1] + 1 <= there <= said[-1] + 2  # nothing acknowledged is lost, nothing is half
    with (
        closing(booked(place, BOOKINGS)) as ledger,
        closing(booked(tmp_path / "undisturbed.db", BOOKINGS)) as undisturbed,
    ):
        assert ledger.head() == undisturbed.head()
        assert ledger.balances() == undisturbed.balances()
