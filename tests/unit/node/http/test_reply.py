from __future__ import annotations

from farcast.node.http.exchange import Answer, FilePart
from farcast.node.http.reply import KEY_LIMIT_BYTES, REPLIES_KEPT, REPLY_S, Replies, Reply

PARTS = [FilePart("/b", 0, 10)]
KEY = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def _reply(answer: Answer | None = None, *, keep: bool = True, bodiless: bool = False) -> Reply:
    return Reply(answer or Answer(200, {"etag": '"e"'}, PARTS), size=len(KEY), keep=keep, bodiless=bodiless)


def test_a_head_is_made_once_a_second() -> None:
    reply = _reply()
    first = "Thu, 01 Jan 1970 00:00:00 GMT"
    head = reply.head(first)
    assert head == (
        b"HTTP/1.1 200 OK\r\nserver: farcast\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT"
        b'\r\netag: "e"\r\ncontent-length: 10\r\n\r\n'
    )
    assert reply.head(first) is head
    assert b"00:00:01" in reply.head("Thu, 01 Jan 1970 00:00:01 GMT")


def test_what_has_no_body_says_how_long_it_would_be() -> None:
    head = _reply(bodiless=True)
    assert (head.length, head.parts) == (0, ())
    assert b"content-length: 10\r\n" in head.head("x")
    unchanged = _reply(Answer(304, {}, b""))
    assert b"content-length" not in unchanged.head("x")
    assert b"connection: close\r\n\r\n" in _reply(keep=False).head("x")


def test_small_bodies_go_out_with_the_head() -> None:
    reply = _reply(Answer(200, {}, b"body"))
    assert reply.head("x").endswith(b"\r\n\r\nbody")
    assert reply.length == 4


def test_a_reply_is_found_by_the_bytes_that_asked_alone_or_with_more_behind() -> None:
    replies, reply = Replies(lambda: 1), _reply()
    replies.keep(KEY, reply)
    assert replies.find(KEY) is reply
    assert replies.find(KEY + KEY) is reply
    assert replies.find(KEY[:-1]) is None
    assert replies.find(KEY.replace(b"a", b"b")) is None


def test_replies_hold_until_their_time_is_over() -> None:
    replies, reply = Replies(lambda: 1), _reply()
    replies.begin(10.0)
    replies.keep(KEY, reply)
    replies.begin(9.9 + REPLY_S)
    assert replies.find(KEY) is reply
    replies.begin(10.0 + REPLY_S)
    assert replies.find(KEY) is None


def test_replies_hold_until_their_epoch_is_over() -> None:
    epochs = iter(["old", "old", "new", "new"])
    replies, reply = Replies(lambda: next(epochs)), _reply()
    assert replies.begin(1.0) == "old"
    replies.keep(KEY, reply)
    replies.begin(2.0)
    assert replies.find(KEY) is reply
    assert replies.begin(3.0) == "new"
    assert replies.find(KEY) is None
    replies.keep(KEY, reply)
    replies.begin(4.0)
    assert replies.find(KEY) is reply


def test_memory_is_bounded() -> None:
    replies = Replies(lambda: 1)
    replies.keep(b"x" * KEY_LIMIT_BYTES + KEY, _reply())
    replies.keep(KEY, _reply(Answer(200, {}, b"a body in memory")))
    assert not replies.kept
    for number in range(3 * REPLIES_KEPT):
        replies.keep(b"%d" % number, _reply())
        assert len(replies.kept) <= REPLIES_KEPT
    replies.clear()
    assert not replies.kept
