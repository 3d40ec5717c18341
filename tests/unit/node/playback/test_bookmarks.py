from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.node.playback.bookmarks import BOOKMARKS_KEPT, Bookmark, Bookmarks
from farcast.protocol.errors import StoreFullError

HOUR_MS = 3_600_000


def mark(
    title: str, position_ms: int = HOUR_MS // 2, *, duration_ms: int = HOUR_MS, at_ms: int = 1
) -> Bookmark:
    return Bookmark(title, position_ms, duration_ms, at_ms)


def test_a_place_survives_a_restart_in_a_file_of_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "bookmarks.json"
    Bookmarks(path).note(mark("film"))
    assert Bookmarks(path).place("film") == mark("film")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("position_ms", [0, 59_000, HOUR_MS - 59_000, HOUR_MS, 2 * HOUR_MS])
def test_a_place_near_either_end_is_none_and_ends_an_earlier_one(tmp_path: Path, position_ms: int) -> None:
    marks = Bookmarks(tmp_path / "bookmarks.json")
    marks.note(mark("film"))
    marks.note(mark("film", position_ms))
    assert marks.place("film") is None
    assert marks.newest() == []


def test_the_newest_come_first_and_the_oldest_leave(tmp_path: Path) -> None:
    marks = Bookmarks(tmp_path / "bookmarks.json")
    for number in range(BOOKMARKS_KEPT + 5):
        marks.note(mark(f"film-{number}"))
    marks.note(mark("film-7", HOUR_MS // 3))
    titles = [one.title for one in marks.newest()]
    assert titles[:2] == ["film-7", f"film-{BOOKMARKS_KEPT + 4}"]
    assert len(titles) == BOOKMARKS_KEPT
    assert "film-0" not in titles
    assert Bookmarks(tmp_path / "bookmarks.json").newest() == marks.newest()


def test_one_or_all_can_be_forgotten_and_nothing_stays_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "bookmarks.json"
    marks = Bookmarks(path)
    marks.note(mark("secret"))
    marks.note(mark("other"))
    marks.forget("secret")
    assert "secret" not in path.read_text()
    marks.clear()
    assert marks.newest() == []
    assert not path.exists()
    marks.clear()


@pytest.mark.parametrize("data", ["", "{", "[1]", '[{"title": "x"}]', "\0" * 300_000])
def test_a_damaged_file_begins_anew(tmp_path: Path, data: str) -> None:
    path = tmp_path / "bookmarks.json"
    path.write_text(data)
    marks = Bookmarks(path)
    assert marks.newest() == []
    marks.note(mark("film"))
    assert json.loads(path.read_text())[0]["title"] == "film"


def test_a_disk_that_takes_nothing_is_a_sentence(tmp_path: Path) -> None:
    marks = Bookmarks(tmp_path / "gone" / "bookmarks.json")
    with pytest.raises(StoreFullError, match="make room"):
        marks.note(mark("film"))


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_what_is_kept_lies_inside_the_film(position_ms: int, duration_ms: int) -> None:
    marks = Bookmarks(Path("/nonexistent/bookmarks.json"))
    one = Bookmark("film", position_ms, duration_ms, 1)
    try:
        marks.note(one)
    except StoreFullError:
        assert 0 < position_ms < duration_ms
    else:
        assert marks.place("film") is None
