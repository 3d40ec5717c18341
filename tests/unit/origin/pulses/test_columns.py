# pyright: reportPrivateUsage=false
from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from farcast.origin.pulses.columns import Columns
from farcast.origin.pulses.intake import SEAL_EVERY_MS, Intake
from farcast.origin.pulses.part import Part
from farcast.origin.pulses.rows import MAX_NEW_RELAYS, Names, bucket_of
from farcast.protocol.errors import LocalError
from farcast.protocol.ticket import DAY_MS
from farcast.tests.unit.origin.mint import FIRST_DAY, OFFICE, Shelf, Viewer, account, open_intake, post

SHELF = Shelf()
FILM = SHELF.add("film", {"ann": 10_000})
HOUR_MS = 3_600_000


def columns(folder: Path) -> Columns:
    return Columns(folder / "intake" / "seg", folder / "intake" / "columns", OFFICE, SHELF.manifests.get)


def evening(intake: Intake, number: int, at_ms: int) -> None:
    """Post three pulses of an account of their own."""
    viewer = Viewer(number)
    intake._seal_due = at_ms // SEAL_EVERY_MS  # seals would be entries between these
    intake.post(post([viewer], viewer.watch(FILM, 2)), at_ms)


def hours(folder: Path, *numbers: int) -> Intake:
    intake = open_intake(folder)
    for number in numbers:
        evening(intake, number, (FIRST_DAY + 3) * DAY_MS + number * HOUR_MS)
    return intake


def spans(parts: list[Part]) -> list[tuple[str, int]]:
    """Return hour and rows of each part; the parts follow one another without a hole."""
    ends = [0, *(part.head.end for part in parts)]
    assert [part.head.first for part in parts] == ends[:-1]
    return [(part.head.segment[8:13], part.head.rows) for part in parts]


def test_hours_that_are_over_are_written_and_the_last_one_when_it_is_asked_for(tmp_path: Path) -> None:
    hours(tmp_path, 1, 2, 3)
    made = columns(tmp_path)
    covered = made.catch_up()
    assert len(list(made.folder.iterdir())) == 2
    with made.whole() as parts:
        assert spans(parts) == [("04T01", 3), ("04T02", 3), ("04T03", 3)]
        assert parts[1].head.end == covered
        assert [part.head.tickets for part in parts] == [0, 1, 2]
    assert len(list(made.folder.iterdir())) == 3
    with made.whole() as again:
        assert again == parts


def test_a_day_that_is_over_becomes_one_part(tmp_path: Path) -> None:
    intake = hours(tmp_path, 1, 2)
    made = columns(tmp_path)
    made.catch_up()
    evening(intake, 3, (FIRST_DAY + 3) * DAY_MS + 4 * HOUR_MS)
    evening(intake, 4, (FIRST_DAY + 4) * DAY_MS)
    with made.whole() as parts:
        assert spans(parts) == [("04T04", 9), ("05T00", 3)]
        assert parts[0].head.new_tickets == 3
        assert parts[0].head.new_titles == [FILM.hex()]
        assert parts[1].head.new_titles == []


def test_a_backlog_is_written_day_by_day(tmp_path: Path) -> None:
    hours(tmp_path, 1, 2, 3, 25, 26, 49)
    with columns(tmp_path).whole() as parts:
        assert spans(parts) == [("04T03", 9), ("05T02", 6), ("06T01", 3)]


def test_an_empty_log_has_an_empty_part(tmp_path: Path) -> None:
    open_intake(tmp_path)
    with columns(tmp_path).whole() as parts:
        assert [(part.head.rows, part.head.days) for part in parts] == [(0, {})]


def test_parts_of_another_log_and_what_a_crash_left_are_thrown_away(tmp_path: Path) -> None:
    hours(tmp_path, 1, 2, 3).close()
    made = columns(tmp_path)
    made.catch_up()
    (made.folder / "draft-1").mkdir()
    torn = made.folder / "000000000002-000000000099"
    torn.mkdir()
    (torn / "pulses.parquet").write_bytes(b"PAR1")
    with made.whole() as parts:
        assert spans(parts) == [("04T01", 3), ("04T02", 3), ("04T03", 3)]
    shutil.rmtree(made.segments)
    hours(tmp_path, 1, 4, 5, 6).close()
    with made.whole() as parts:
        assert spans(parts) == [("04T01", 3), ("04T04", 3), ("04T05", 3), ("04T06", 3)]
        assert not torn.exists()
        assert [path.name for path in made.folder.iterdir() if path.name.startswith("draft")] == []


def test_losing_the_folder_costs_time_only(tmp_path: Path) -> None:
    hours(tmp_path, 1, 2, 3)
    made = columns(tmp_path)
    with made.whole() as parts:
        before = [part.head for part in parts]
    shutil.rmtree(made.folder)
    with made.whole() as parts:
        assert [part.head for part in parts] == before


def test_a_disk_that_refuses_is_one_sentence(tmp_path: Path) -> None:
    hours(tmp_path, 1, 2)
    (tmp_path / "intake" / "columns").write_bytes(b"in the way")
    with pytest.raises(LocalError, match="columns"):
        columns(tmp_path).catch_up()


def test_a_damaged_part_is_one_sentence_with_the_mend(tmp_path: Path) -> None:
    hours(tmp_path, 1, 2, 3)
    made = columns(tmp_path)
    made.catch_up()
    first = min(made.folder.iterdir())
    (first / "tickets.parquet").write_bytes(b"PAR1 broken PAR1")
    with pytest.raises(LocalError, match="delete the folder"), made.whole():
        pass


def test_only_published_titles_and_so_many_new_relays_are_numbered() -> None:
    names = Names([], [], SHELF.manifests.get)
    assert (names.title(FILM), names.title(bytes(32)), names.title(FILM)) == (1, 0, 1)
    numbers = [names.relay(n.to_bytes(16, "big")) for n in range(MAX_NEW_RELAYS + 5)]
    assert numbers == [*range(1, MAX_NEW_RELAYS + 1), 0, 0, 0, 0, 0]
    names.next_part()
    assert names.relay(b"another") == MAX_NEW_RELAYS + 1


def test_buckets_spread_accounts() -> None:
    found = {bucket_of(account(number)) for number in range(4_000)}
    assert found == set(range(256))
