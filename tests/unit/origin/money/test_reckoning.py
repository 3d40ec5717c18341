"""``settle --from-raw``: the log read again in bounded memory, and a command that trusts neither side."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

from farcast.origin.cli import app
from farcast.origin.money import reckoning
from farcast.origin.money.closing import close_ms
from farcast.origin.money.reckoning import Reckoning
from farcast.origin.money.titles import Titles
from farcast.origin.pulses.admission import month_bounds_ms, month_of
from farcast.origin.pulses.segments import read_entries
from farcast.protocol.rules import DAY_MS, Rules
from farcast.tests.unit.origin.countinghouse import CountingHouse
from farcast.tests.unit.origin.mint import FIRST_DAY, OFFICE, Shelf, Viewer, open_intake, post

TODAY = int(datetime.now(UTC).timestamp() * 1_000) // DAY_MS
MONTH = month_of(month_bounds_ms(month_of(TODAY))[0] // DAY_MS - 1)
"""The month that is over by the clock the command reads."""


@pytest.fixture(scope="module")
def house(founded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real origin's home with a month of pulses: some of them late, some past midnight."""
    home = tmp_path_factory.mktemp("raw") / "home"
    shutil.copytree(founded, home)
    house = CountingHouse(home)
    first = month_bounds_ms(MONTH)[0] // DAY_MS
    house.now_ms = first * DAY_MS
    film, other = house.film("film", {"ann": 6_667, "bob": 3_333}), house.film("other", {"cat": 10_000})
    house.relay()
    for number in range(1, 7):
        for day in (0, 9, 10, 27):
            house.watch(number, film, 4, day=first + day, kbytes=70_000, late_ms=number * 30_000)
        house.watch(number, other, 3, day=first + 10, from_min=23 * 60 + 58)
    house.office.money.book("revenue", 99_999, month=MONTH)
    house.close()
    return home


def settled(home: Path, *options: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["settle", "--month", MONTH, *options, "--json", "--home", str(home)])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_command_finds_in_the_raw_log_what_the_columns_say(
    house: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []

    class Counted(Reckoning):
        def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 - handed on
            super().__init__(*arguments, **named)
            groups.append(self.groups)

    home = tmp_path / "home"
    shutil.copytree(house, home)
    monkeypatch.setattr("farcast.origin.money.closing.Reckoning", Counted)
    columns = settled(home, "--dry-run")
    assert groups == []
    whole = settled(home, "--dry-run", "--from-raw")
    monkeypatch.setattr(reckoning, "PASS_BYTES", 10_000)
    pieces = settled(home, "--dry-run", "--from-raw")
    assert groups[0] == 1 < groups[1]
    assert columns["digest"] == whole["digest"] == pieces["digest"]
    assert {row["payee"] for row in columns["payouts"]} == {"ann", "bob", "cat"}
    shutil.rmtree(home / "intake" / "columns")  # made again from the log, they say the same
    posted = settled(home, "--from-raw")
    assert (posted["digest"], posted["posted"]) == (columns["digest"], True)
    assert settled(home)["posted"] is False


@pytest.mark.parametrize(
    ("file", "halved"),
    [
        ("pulses", "SELECT * REPLACE (delta_ms // 2 AS delta_ms) FROM p"),
        ("rollup-*", "SELECT * REPLACE (ms // 2 AS ms) FROM p"),
    ],
)
def test_the_command_books_nothing_where_columns_and_log_disagree(
    house: Path, tmp_path: Path, file: str, halved: str
) -> None:
    home = tmp_path / "home"
    shutil.copytree(house, home)
    settled(home, "--dry-run")
    columns = home / "intake" / "columns"
    (spoilt, *_) = sorted(columns.rglob(f"{file}.parquet"))
    if file == "pulses":
        for rollup in columns.rglob("rollup-*"):
            rollup.unlink()  # it is made of the pulses again
    with duckdb.connect() as db:
        changed = db.read_parquet(str(spoilt)).query("p", halved)
        assert changed is not None
        changed.to_table("changed")
        db.table("changed").write_parquet(str(spoilt))
    arguments = ["settle", "--month", MONTH, "--from-raw", "--json", "--home", str(home)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert "columns and intake log disagree" in done.stderr
    assert str(home / "intake" / "columns") in done.stderr
    after = CountingHouse(home)
    after.now_ms = close_ms(MONTH)
    assert after.office.treasury.ledger.settlements() == []
    after.close()
    shutil.rmtree(home / "intake" / "columns")
    again = settled(home, "--from-raw")
    assert again["posted"] is True


def test_more_groups_of_accounts_need_less_memory_and_say_the_same(tmp_path: Path) -> None:
    shelf = Shelf()
    film = shelf.add("film", {"ann": 10_000})
    intake = open_intake(tmp_path)
    for number in range(24):
        viewer = Viewer(number)
        viewer.watch(film, 40)
        intake.post(post([viewer], viewer.pulses), (FIRST_DAY + 3) * DAY_MS)
    intake.close()
    days = range(FIRST_DAY, FIRST_DAY + 30)
    peaks: list[int] = []
    found: list[object] = []
    for pass_bytes in (1 << 30, 40_000):
        titles = Titles(shelf.manifests.get)
        raw = Reckoning(
            lambda: read_entries(tmp_path / "intake" / "seg"), OFFICE, days, titles, pass_bytes=pass_bytes
        )
        tracemalloc.start()
        found.append((raw.viewing(days, 24, [], 0, Rules()), raw.stored(24, days)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert found[0] == found[1]
    assert peaks[1] * 2 < peaks[0]
