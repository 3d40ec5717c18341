# pyright: reportPrivateUsage=false
"""Whatever comes over a channel is an answer or one refusal, and never more than a little of it is taken."""

from __future__ import annotations

import asyncio
import struct
from typing import Any, cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from hypothesis import given
from hypothesis import strategies as st

from farcast.node.dish.channel import Channel
from farcast.node.http.address import HostPort
from farcast.protocol.errors import RemoteError

MESSAGE = b"how it stands"


class Line:
    """A connection whose other end has said all it will."""

    def __init__(self, said: bytes) -> None:
        self.reader = asyncio.StreamReader()
        self.reader.feed_data(said)
        self.reader.feed_eof()
        self.sent = bytearray()

    def write(self, data: bytes) -> None:
        """Keep what is sent."""
        self.sent += data

    async def drain(self) -> None:
        """Nothing waits."""


def answer(code: bytes = b"0", *, packed: int = 0, status: bytes = b"200") -> bytes:
    """Return what a server says to the first call."""
    there = H2Connection(H2Configuration(client_side=False, header_encoding=None))
    here = H2Connection(H2Configuration(client_side=True))
    here.initiate_connection()
    here.send_headers(1, [(":method", "POST"), (":scheme", "http"), (":path", "/x"), (":authority", "x")])
    there.initiate_connection()
    there.receive_data(here.data_to_send())
    there.send_headers(1, [(b":status", status), (b"content-type", b"application/grpc")])
    there.send_data(1, struct.pack(">BI", packed, len(MESSAGE)) + MESSAGE)
    there.send_headers(1, [(b"grpc-status", code)], end_stream=True)
    return there.data_to_send()


def hear(said: bytes) -> bytes | str:
    """Return the answer to a call, or the reason why there is none."""

    async def call() -> bytes:
        line = Line(said)
        channel = Channel(HostPort("x", 1))
        channel._reader, channel._writer = line.reader, cast("Any", line)
        channel._h2.initiate_connection()
        return await channel.call("x", b"how?")

    try:
        return asyncio.run(call())
    except RemoteError as error:
        return error.reason


def test_an_answer_is_the_first_message_of_a_call_that_went_well() -> None:
    assert hear(answer()) == MESSAGE
    assert hear(answer(b"12")) == "grpc"
    assert hear(answer(status=b"404")) == "grpc"
    assert hear(answer(packed=1)) == "malformed", "nothing was said of packing"
    assert hear(answer()[:-20]) == "unreachable"


@given(st.data())
def test_an_answer_that_was_tampered_with_is_one_refusal(data: st.DataObject) -> None:
    said = bytearray(answer())
    for _ in range(data.draw(st.integers(1, 4))):
        said[data.draw(st.integers(0, len(said) - 1))] = data.draw(st.integers(0, 255))
    heard = hear(bytes(said))
    assert isinstance(heard, bytes) or heard in ("grpc", "malformed", "unreachable", "oversized")
