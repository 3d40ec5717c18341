"""Our head parser against aiohttp's, which reads what we hand over: no request is understood differently."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import suppress
from typing import NamedTuple

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser, RawRequestMessage
from hypothesis import example, given, settings
from hypothesis import strategies as st

from farcast.node.http.head import CHUNKED, parse_head
from farcast.protocol.errors import RefusedError

NEXT = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n"
"""What follows a head: whoever reads it as anything but the next request was smuggled something."""

ends = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\r\n", b"\r\n\r\n", b""])
methods = st.sampled_from([b"GET", b"HEAD", b"POST", b"get", b"OPTIONS", b"G ET", b"", b"GET\t", b"PRI"])
targets = st.one_of(
    st.sampled_from(
        [
            b"/", b"/a/b?x=1", b"/a%2fb", b"/ipfs/b?format=raw", b"http://h/p", b"https://H:1/p?q", b"*",
            b"h:80",            b"/a#f", b"//x/y", b"/a b", b"", b"/\x80", b"/\x00", b"/..", b"http://h", b"HTTP://u@h/",
        ]
    ),
    st.binary(max_size=12).map(lambda tail: b"/" + tail),
)  # fmt: skip
versions = st.sampled_from(
    [b"HTTP/1.1"] * 8 + [b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"http/1.1", b"HTTP/1.1 ", b""]
)
names = st.sampled_from(
    [
        b"Host", b"host", b"Content-Length", b"content-length", b"Transfer-Encoding", b"TRANSFER-ENCODING",
        b"Connection", b"Range", b"X", b"X-Y", b"Content-Length ", b" Host", b"Transfer-Encoding\t", b"",
        b"Transfer_Encoding", b"Te", b"Trailer", b"Expect", b"Upgrade", b"Content-\x00Length", b"Sec-X\xff",
    ]
)  # fmt: skip
colons = st.sampled_from([b":", b": "] * 5 + [b" :", b"", b"::", b":\t", b":\x0b", b":\xa0"])
values = st.one_of(
    st.sampled_from(
        [
            b"a", b"a:1", b"[::1]:80", b"0", b"5", b"05", b"+5", b"-1", b"5,5", b"5 5", b"0x5", b"5\t",
            b"\x0b5",
            b"chunked", b"Chunked", b"identity", b"gzip, chunked", b"chunked, chunked", b"chunked;q=1",
            b"xchunked", b"close", b"keep-alive", b"close, x", b"bytes=0-1", b"", b"\x00", b"a\rb", b"a\nb",
            b"\xff\xfe", b"\xc2\xb2", b"100-continue", b"99999999999999999999",
            b"chunked\r\n folded", b"websocket",
        ]
    ),
    st.binary(max_size=8),
)  # fmt: skip
fields = st.lists(st.tuples(names, colons, values, ends).map(b"".join), max_size=5).map(b"".join)
heads = st.tuples(
    methods, st.sampled_from([b" "] * 9 + [b"  ", b"\t"]), targets,
    st.sampled_from([b" "] * 9 + [b"  ", b""]),
    versions, ends, st.sampled_from([b"Host: a\r\n", b"Host: a\r\n", b""]), fields, ends,
).map(b"".join)  # fmt: skip


class Understood(NamedTuple):
    """What a request is, to whoever serves it."""

    method: str
    target: str
    host: str | None
    wanted: str | None
    length: int
    keep_alive: bool


@pytest.fixture(scope="module")
def loop() -> Generator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def _ours(data: bytes) -> tuple[Understood, int] | None:
    try:
        head = parse_head(data)
    except RefusedError:
        return None
    if head is None:
        return None
    headers = head.headers
    host, wanted = headers.get("host"), headers.get("range")
    return Understood(head.method, head.target, host, wanted, head.length, head.keep_alive), head.size


def _theirs(data: bytes, loop: asyncio.AbstractEventLoop) -> list[RawRequestMessage] | None:
    """Return the requests aiohttp reads; None where it refuses any of it."""
    parser = HttpRequestParser(BaseProtocol(loop), loop, 2**16)
    try:
        messages, _, _ = parser.feed_data(data)
    except HttpProcessingError:
        return None
    return [message for message, _ in messages]


def _latin(text: str | None) -> str | None:
    """Return what aiohttp decoded as UTF-8 the way we do, byte by byte."""
    return None if text is None else text.encode("utf-8", "surrogateescape").decode("latin-1")


def _understood(message: RawRequestMessage) -> Understood:
    headers = message.headers
    length = CHUNKED if message.chunked else int(headers.get("Content-Length", "0"))
    return Understood(
        message.method,
        message.path,
        _latin(headers.get("Host")),
        _latin(headers.get("Range")),
        length,
        not message.should_close,
    )


@settings(max_examples=1_500, deadline=None)
@given(heads)
@example(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n")
@example(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 05\r\n\r\n")
@example(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
@example(b"GET http://h/p HTTP/1.1\r\nHost:\x80\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rTransfer-Encoding: chunked\r\n\r\n")
def test_what_both_accept_both_understand_alike(loop: asyncio.AbstractEventLoop, data: bytes) -> None:
    ours = _ours(data)
    if ours is None:
        return
    understood, size = ours
    theirs = _theirs(data[:size], loop)
    if theirs is None:
        return
    assert len(theirs) == 1, "a head we take as whole is whole to aiohttp, and nothing more"
    assert _understood(theirs[0]) == understood


@settings(max_examples=700, deadline=None)
@given(heads)
def test_the_next_request_begins_where_both_say(loop: asyncio.AbstractEventLoop, data: bytes) -> None:
    ours = _ours(data + NEXT)
    if ours is None:
        return
    understood, size = ours
    if understood.length or not understood.keep_alive:
        return  # a body, or nothing, follows
    rest = (data + NEXT)[size:]
    theirs = _theirs(data + NEXT, loop)
    if theirs is None:
        return
    after = _ours(rest)
    if after is None:
        with suppress(RefusedError):
            assert parse_head(rest) is None
        return
    assert len(theirs) > 1
    assert _understood(theirs[1]) == after[0]


def test_ordinary_heads_are_accepted_by_both(loop: asyncio.AbstractEventLoop) -> None:
    """So that the two tests above compare something."""
    for data in (
        b"GET /ipfs/b?format=raw HTTP/1.1\r\nHost: 127.0.0.1:7433\r\nRange: bytes=0-99\r\n\r\n",
        b"POST /v1/pulses HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
    ):
        ours, theirs = _ours(data), _theirs(data, loop)
        assert ours is not None
        assert theirs
        assert _understood(theirs[0]) == ours[0]
