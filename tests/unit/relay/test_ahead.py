"""Which segments come next, and that each is named once however many watch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.relay.ahead import Ahead, following


@pytest.mark.parametrize(
    ("path", "after"),
    [
        ("v0/seg-00007.m4s", ["v0/seg-00008.m4s", "v0/seg-00009.m4s"]),
        ("v0/part-1/seg-04009.m4s", ["v0/part-1/seg-04010.m4s", "v0/part-1/seg-04011.m4s"]),
        ("seg-00099.m4s", ["seg-00100.m4s", "seg-00101.m4s"]),
        ("9.ts", ["10.ts", "11.ts"]),
        ("v0/index.m3u8", []),
        ("v0/init.mp4", ["v0/init.mp5"][:0]),
        ("poster", []),
        ("v0/seg-00001", []),
    ],
)
def test_the_numbers_go_on_in_the_same_folder_and_width(path: str, after: list[str]) -> None:
    assert following(path, 2) == after


def test_a_segment_is_named_once_in_a_while() -> None:
    made = Ahead(2, again_s=30.0)
    assert made.asked("film", "v0/seg-00001.m4s", 0.0) == ["v0/seg-00002.m4s", "v0/seg-00003.m4s"]
    assert made.asked("film", "v0/seg-00001.m4s", 1.0) == []
    assert made.asked("film", "v0/seg-00002.m4s", 2.0) == ["v0/seg-00004.m4s"]
    assert made.asked("other", "v0/seg-00001.m4s", 2.0) == ["v0/seg-00002.m4s", "v0/seg-00003.m4s"]
    assert made.asked("film", "v0/seg-00001.m4s", 40.0) == ["v0/seg-00002.m4s", "v0/seg-00003.m4s"]
    assert Ahead(0).asked("film", "v0/seg-00001.m4s", 0.0) == []


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30), st.floats(0, 5)), max_size=120))
def test_what_is_named_is_bounded_ahead_of_what_was_asked_and_not_named_twice_in_its_time(
    asked: list[tuple[str, int, float]],
) -> None:
    made, now, last = Ahead(2, again_s=10.0, limit=1_000), 0.0, dict[tuple[str, str], float]()
    for title, number, step in asked:
        now += step
        for path in made.asked(title, f"seg-{number:05d}.m4s", now):
            assert path in following(f"seg-{number:05d}.m4s", 2)
            assert now - last.get((title, path), float("-inf")) >= 10.0
            last[title, path] = now
    small = Ahead(2, limit=5)
    for title, number, _ in asked:
        small.asked(title, f"seg-{number:05d}.m4s", 0.0)
        assert len(small) <= 5
