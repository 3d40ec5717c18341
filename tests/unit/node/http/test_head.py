from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.node.http.head import CHUNKED, HEAD_LIMIT_BYTES, decode_segment, parse_head, split_target
from farcast.protocol.errors import RefusedError

PLAIN = b"GET /a/b?x=1 HTTP/1.1\r\nHost: box:1\r\nAccept:  */* \r\n\r\n"


def test_a_plain_head_is_split_into_its_parts() -> None:
    head = parse_head(PLAIN + b"rest")
    assert head is not None
    assert (head.method, head.path, head.query, head.host) == ("GET", "/a/b", "x=1", "box:1")
    assert head.headers["accept"] == "*/*"
    assert (head.keep_alive, head.length, head.size) == (True, 0, len(PLAIN))


def test_an_unfinished_head_asks_for_more_at_every_cut() -> None:
    assert all(parse_head(PLAIN[:at]) is None for at in range(len(PLAIN)))


@pytest.mark.parametrize(
    "lines",
    [
        b"GET /  HTTP/1.1\r\nHost: a",
        b"GET / HTTP/2.0\r\nHost: a",
        b"GET /\r\nHost: a",
        b"GET / HTTP/1.1\nHost: a",
        b"GET / HTTP/1.1\r\nHost: a\r\n folded: b",
        b"GET / HTTP/1.1\r\nHost: a\r\nX : b",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\nY: c",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00",
        b"GET / HTTP/1.1\r\nHost: a\r\nno-colon",
        b"GET / HTTP/1.1\r\nHost: a\r\n: empty",
        b"GET / HTTP/1.1",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b",
        b"GET / HTTP/1.1\r\nHost: a b",
        b"GET / HTTP/1.1\r\nHost: a/b",
        b"GET a HTTP/1.1\r\nHost: a",
        b"GET * HTTP/1.1\r\nHost: a",
        b"GET /#f HTTP/1.1\r\nHost: a",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \xb2",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity",
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked",
    ],
)
def test_an_ambiguous_head_is_refused_with_400(lines: bytes) -> None:
    with pytest.raises(RefusedError) as caught:
        parse_head(lines + b"\r\n\r\n")
    assert caught.value.status == 400


def test_a_head_that_never_ends_is_refused_early() -> None:
    with pytest.raises(RefusedError) as caught:
        parse_head(b"GET / HTTP/1.1\r\nX: " + b"a" * HEAD_LIMIT_BYTES)
    assert caught.value.status == 431
    with pytest.raises(RefusedError) as caught:
        parse_head(b"GET / HTTP/1.1\n\n")
    assert caught.value.status == 400


def test_more_fields_than_the_limit_are_refused() -> None:
    fields = b"".join(b"X%d: a\r\n" % at for at in range(64))
    with pytest.raises(RefusedError) as caught:
        parse_head(b"GET / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n")
    assert caught.value.status == 431


def test_the_version_and_connection_options_decide_about_keep_alive() -> None:
    def keeps(line: bytes, options: bytes = b"") -> bool:
        head = parse_head(b"GET / HTTP/" + line + b"\r\nHost: a\r\n" + options + b"\r\n")
        assert head is not None
        return head.keep_alive

    assert keeps(b"1.1")
    assert not keeps(b"1.1", b"Connection: x, Close\r\n")
    assert not keeps(b"1.0")
    assert keeps(b"1.0", b"Connection: Keep-Alive\r\n")


def test_a_body_is_announced_by_length_or_chunks() -> None:
    sized = parse_head(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n")
    chunked = parse_head(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n")
    assert sized is not None
    assert chunked is not None
    assert (sized.length, chunked.length) == (12, CHUNKED)


def test_an_absolute_target_names_the_host() -> None:
    head = parse_head(b"GET http://Other:80/p?q HTTP/1.1\r\nHost: a\r\n\r\n")
    assert head is not None
    assert (head.host, head.path, head.query) == ("other:80", "/p", "q")
    assert split_target("https://h?q=1", "x") == ("/", "q=1", "h")


def test_repeated_list_fields_are_joined() -> None:
    head = parse_head(b"GET / HTTP/1.1\r\nHost: a\r\nIf-None-Match: a\r\nif-none-match: b\r\n\r\n")
    assert head is not None
    assert head.headers["if-none-match"] == "a, b"


@pytest.mark.parametrize("segment", ["..", ".", "%2e%2E", "a%2Fb", "%00", "%ff"])
def test_a_segment_that_could_be_read_otherwise_is_refused(segment: str) -> None:
    with pytest.raises(RefusedError):
        decode_segment(segment)


def test_segments_are_decoded_once() -> None:
    assert split_target("/a%20b/%252e/", "h").segments == ("a b", "%2e", "")


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_a_head_or_unfinished_or_refused(data: bytes) -> None:
    for sample in (
        data,
        b"GET / HTTP/1.1\r\n" + data + b"\r\n\r\n",
        b"GET /" + data + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    ):
        with suppress(RefusedError):
            head = parse_head(sample)
            if head is not None:
                split = split_target(head.target, head.host)
                assert len(split.segments) == split.path.count("/")
                assert len(split.parameters) <= split.query.count("&") + 1
