"""Frames out of bytes that come in any pieces."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.mesh.inbox import FIRST_BYTES, ROOM_BYTES, Inbox
from farcast.protocol.errors import RemoteError
from farcast.protocol.sharing import FRAME_LIMIT_BYTES, HEAD_BYTES


def framed(kind: int, body: bytes) -> bytes:
    return (len(body) + 1).to_bytes(4, "big") + bytes((kind,)) + body


def put(inbox: Inbox, data: bytes) -> list[tuple[int, bytes]]:
    """Receive bytes as a loop does: as many at once as there is room."""
    heard: list[tuple[int, bytes]] = []
    at = 0
    while at < len(data):
        room = inbox.room()
        size = min(len(room), len(data) - at)
        assert size > 0
        room[:size] = data[at : at + size]
        at += size
        heard += [(kind, bytes(body)) for kind, body in inbox.frames(size)]
    return heard


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 255),
            st.one_of(st.integers(0, 20), st.sampled_from([FIRST_BYTES, 65_544, FRAME_LIMIT_BYTES])),
        ),
        max_size=5,
    ),
    st.lists(st.integers(1, 300_000), min_size=1, max_size=8),
)
def test_whatever_pieces_bytes_come_in_every_frame_is_heard_once_and_in_order(
    shapes: list[tuple[int, int]], cuts: list[int]
) -> None:
    frames = [(kind, bytes((place,)) * size) for place, (kind, size) in enumerate(shapes)]
    inbox, heard, at = Inbox(), list[tuple[int, bytes]](), 0
    data = b"".join(framed(kind, body) for kind, body in frames)
    for turn in range(len(data)):
        end = at + max(cuts[turn % len(cuts)], len(data) // 64)
        heard += put(inbox, data[at:end])
        at = end
        if at >= len(data):
            break
    assert heard == frames
    assert len(inbox.room()) in (FIRST_BYTES, ROOM_BYTES)


def test_a_frame_of_no_kind_or_longer_than_any_may_be_is_refused_before_it_comes() -> None:
    for length in (0, FRAME_LIMIT_BYTES + 2, 2**32 - 1):
        with pytest.raises(RemoteError) as caught:
            put(Inbox(), length.to_bytes(4, "big") + b"\0")
        assert caught.value.reason == "too_large"


def test_a_stranger_costs_little_memory_until_it_sends_a_long_frame() -> None:
    inbox = Inbox()
    assert len(inbox.room()) == FIRST_BYTES
    assert put(inbox, framed(1, b"n" * 16)) == [(1, b"n" * 16)]
    assert len(inbox.room()) == FIRST_BYTES
    assert put(inbox, framed(9, b"d" * 65_544)[:HEAD_BYTES]) == []
    assert len(inbox.room()) == ROOM_BYTES - HEAD_BYTES
