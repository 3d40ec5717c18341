"""What a request asks for, and the heads of the answers, whatever a client sends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.node.ipfs.headers import HEAD_LIMIT_BYTES, block_headers, car_headers, disposition, with_path
from farcast.node.ipfs.terms import FORMS, Terms
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.errors import RefusedError
from farcast.protocol.traversal import Span

CID = Cid.of(RAW, b"film")
CAR = "application/vnd.ipld.car"
words = st.sampled_from(
    ["application/vnd.ipld.car", "application/vnd.ipld.raw", "application/json", "text/html", "*/*", ";",
     ",", "=", "q=0.5", "q=0", "q=x", "q=2", "version=1", "version=2", "order=dfs", "order=unk", "order",
     "dups=y", "dups=n", "dups=", " ", '"'],
)  # fmt: skip
accepts = st.lists(words, max_size=9).map("".join) | st.text(max_size=40)
queries = st.dictionaries(
    st.sampled_from(
        ["format", "dag-scope", "entity-bytes", "car-version", "car-order", "car-dups", "filename"]
    ),
    st.sampled_from(
        [
            "car",
            "raw",
            "json",
            "",
            "all",
            "entity",
            "block",
            "0:*",
            "-9:5",
            "9:-2",
            "1",
            "2",
            "dfs",
            "unk",
            "y",
            "n",
        ]
    )
    | st.text(max_size=6),
)


@given(queries, accepts)
def test_any_request_has_terms_or_is_refused(query: dict[str, str], accept: str) -> None:
    try:
        terms = Terms.of(query, accept)
    except RefusedError as error:
        assert error.status in (400, 406)  # noqa: PT017 - not every request is refused
        return
    assert terms.name in FORMS
    assert terms.span is None or terms.scope == "entity"
    if "format" in query:
        assert terms.name == query["format"]
    if terms.location is not None:  # what a cache files the answer under asks for the same
        again = Terms.of(dict(part.split("=", 1) for part in terms.location.split("&")), "")
        same = ("name", "scope", "span", "dups", "order")
        assert [getattr(again, name) for name in same] == [getattr(terms, name) for name in same]
        assert again.location is None


@given(st.text(max_size=400), queries, accepts, st.lists(st.text(min_size=1, max_size=80), max_size=9))
def test_any_head_is_small_and_clean(name: str, query: dict[str, str], accept: str, path: list[str]) -> None:
    try:
        terms = Terms.of(query, accept)
    except RefusedError:
        return
    make = (
        car_headers(CID, path, terms, name=name)
        if terms.name == "car"
        else block_headers(CID, terms, name=name)
    )
    headers = with_path(
        make, path, [CID] * (len(path) + 1), location=terms.location, here="/ipfs/" + "/".join(path)
    )
    assert sum(len(key) + len(value) + 4 for key, value in headers.items()) <= HEAD_LIMIT_BYTES
    for value in headers.values():
        assert value.isascii()
        assert value.isprintable()


@given(st.text(max_size=300))
def test_a_file_name_stays_inside_its_quotes(name: str) -> None:
    field = disposition(name)
    plain, _, _ = field.removeprefix('attachment; filename="').partition('"')
    assert field.startswith(f'attachment; filename="{plain}"')
    assert "\\" not in plain
    assert field.count('"') == 2


@pytest.mark.parametrize(
    ("first", "last", "size", "within"),
    [
        (0, None, 10, (0, 9)), (0, None, 0, None), (0, 0, 10, (0, 0)), (9, 9, 10, (9, 9)),
        (10, None, 10, None),
        (-3, None, 10, (7, 9)), (-30, None, 10, (0, 9)), (-30, -3, 10, (0, 7)), (2, -3, 10, (2, 7)),
        (8, -3, 10, None), (5, 99, 10, (5, 9)), (-5, 6, 10, (5, 6)), (-5, 4, 10, None),
        (-30, -20, 10, None),
    ],
)  # fmt: skip
def test_where_a_span_lies_in_a_file(
    first: int, last: int | None, size: int, within: tuple[int, int] | None
) -> None:
    assert Span(first, last).within(size) == within
