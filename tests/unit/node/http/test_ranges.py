from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.node.http.exchange import Answer
from farcast.node.http.ranges import FilePart, Span, cut, negotiate, parse_range, part_bytes

PARTS = [FilePart("a", 5, 10), FilePart("b", 0, 20), FilePart("c", 7, 1)]


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("bytes=0-0", Span(0, 1)),
        ("bytes=5-", Span(5, 95)),
        ("bytes=-5", Span(95, 5)),
        ("bytes=-500", Span(0, 100)),
        ("bytes=90-500", Span(90, 10)),
        ("Bytes=0-1", Span(0, 2)),
        ("bytes=100-", Span(0, 0)),
        ("bytes=-0", Span(100, 0)),
        ("bytes=5-4", None),
        ("bytes=-", None),
        ("bytes=0-1,5-6", None),
        ("items=0-1", None),
        ("bytes=a-b", None),
    ],
)
def test_a_range_is_read_as_the_rfc_says(text: str, span: Span | None) -> None:
    assert parse_range(text, 100) == span


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.data())
def test_a_cut_is_the_slice_of_the_whole(sizes: list[int], data: st.DataObject) -> None:
    parts = [FilePart(str(at), at, size) for at, size in enumerate(sizes)]
    whole = [(part.path, part.offset + at) for part in parts for at in range(part.length)]
    first = data.draw(st.integers(0, len(whole) - 1))
    length = data.draw(st.integers(1, len(whole) - first))
    kept = cut(parts, Span(first, length))
    assert [(part.path, part.offset + at) for part in kept for at in range(part.length)] == whole[
        first : first + length
    ]
    assert all(part.length for part in kept)


def test_a_range_of_file_parts_is_206_with_its_place() -> None:
    whole = Answer(200, {"etag": '"t"'}, PARTS)
    part = negotiate(whole, "GET", {"range": "bytes=8-11"})
    assert part.status == 206
    assert part.headers["content-range"] == "bytes 8-11/31"
    assert part.body == [FilePart("a", 13, 2), FilePart("b", 0, 2)]
    assert whole.status == 200
    assert part_bytes(PARTS) == 31


def test_an_unsatisfiable_range_is_416_with_the_size() -> None:
    part = negotiate(Answer(200, {}, PARTS), "GET", {"range": "bytes=31-"})
    assert (part.status, part.headers["content-range"], part.length) == (416, "bytes */31", 0)


def test_an_answer_to_a_range_beyond_the_end_is_kept_by_no_cache() -> None:
    whole = Answer(200, {"cache-control": "public, max-age=29030400, immutable"}, PARTS)
    assert negotiate(whole, "GET", {"range": "bytes=31-"}).headers["cache-control"] == "no-store"
    assert "immutable" in negotiate(whole, "GET", {"range": "bytes=0-0"}).headers["cache-control"]


def test_a_range_counts_for_get_alone_and_for_ranged_bodies_alone() -> None:
    wanted = {"range": "bytes=0-0"}
    assert negotiate(Answer(200, {}, PARTS), "HEAD", wanted).status == 200
    assert negotiate(Answer(200, {}, b"abc"), "GET", wanted).status == 200
    assert negotiate(Answer(404, {}, PARTS), "GET", wanted).status == 404
    assert negotiate(Answer(200, {"accept-ranges": "bytes"}, b"abc"), "GET", wanted).body == b"a"


@pytest.mark.parametrize("field", ['"t"', 'W/"t"', '"x", "t"', "*", ' "x" ,W/"t"'])
def test_a_matching_tag_is_304_without_body_or_its_headers(field: str) -> None:
    answer = Answer(200, {"etag": '"t"', "content-type": "x", "cache-control": "y"}, PARTS)
    kept = negotiate(answer, "GET", {"if-none-match": field, "range": "bytes=0-0"})
    assert (kept.status, kept.body) == (304, b"")
    assert kept.headers == {"etag": '"t"', "cache-control": "y"}


def test_another_tag_is_no_match_and_if_range_needs_the_same_strong_one() -> None:
    answer = Answer(200, {"etag": '"t"'}, PARTS)
    assert negotiate(answer, "GET", {"if-none-match": '"u"'}).status == 200
    assert negotiate(answer, "GET", {"range": "bytes=0-0", "if-range": '"t"'}).status == 206
    assert negotiate(answer, "GET", {"range": "bytes=0-0", "if-range": '"u"'}).status == 200
    weak = Answer(200, {"etag": 'W/"t"'}, PARTS)
    assert negotiate(weak, "GET", {"range": "bytes=0-0", "if-range": 'W/"t"'}).status == 200
