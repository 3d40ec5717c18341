"""Canonical msgpack against the reference library, and what strict decoding refuses."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from farcast.protocol.codec import MESSAGE_LIMIT_BYTES, Message, decode, decode_all, encode
from farcast.protocol.errors import RemoteError

msgpack: Any = importlib.import_module("msgpack")  # it has no type stubs


class Inner(Message, frozen=True):
    """A part of the sample message."""

    name: str
    numbers: list[int]


class Sample(Message, frozen=True):
    """A message with every kind of field that wire messages have."""

    v: Literal[1]
    count: Annotated[int, Meta(ge=0, le=2**53 - 1)]
    data: Annotated[bytes, Meta(max_length=300)]
    inner: Inner | None
    more: list[Inner]


inners = st.builds(Inner, st.text(max_size=40), st.lists(st.integers(-(2**63), 2**64 - 1), max_size=20))
samples = st.builds(
    Sample,
    st.just(1),
    st.integers(0, 2**53 - 1),
    st.binary(max_size=300),
    st.none() | inners,
    st.lists(inners, max_size=3),
)


def plain(sample: Sample) -> list[object]:
    """Return a message as the arrays it is on the wire."""

    def part(inner: Inner) -> list[object]:
        return [inner.name, inner.numbers]

    inner = part(sample.inner) if sample.inner else None
    return [sample.v, sample.count, sample.data, inner, [part(item) for item in sample.more]]


@given(samples)
def test_a_message_is_the_array_that_the_reference_library_writes(sample: Sample) -> None:
    assert encode(sample) == msgpack.packb(plain(sample), use_bin_type=True)


@given(samples)
def test_a_message_comes_back(sample: Sample) -> None:
    assert decode(Sample, encode(sample)) == sample


@given(
    st.binary(max_size=100)
    | st.lists(st.integers() | st.binary() | st.none(), max_size=6).map(repr).map(str.encode)
)
def test_any_bytes_are_a_message_or_a_remote_error(data: bytes) -> None:
    try:
        sample = decode(Sample, data)
    except RemoteError:
        return
    assert encode(sample) == data


@given(samples, st.data())
def test_any_changed_byte_is_another_canonical_message_or_a_remote_error(
    sample: Sample, draw: st.DataObject
) -> None:
    data = bytearray(encode(sample))
    data[draw.draw(st.integers(0, len(data) - 1))] ^= draw.draw(st.integers(1, 255))
    try:
        other = decode(Sample, bytes(data))
    except RemoteError:
        return
    assert other != sample
    assert encode(other) == data


ROW: list[object] = [1, 5, b"", None, []]


def pack(value: object) -> bytes:
    return bytes(msgpack.packb(value, use_bin_type=True))


@pytest.mark.parametrize(
    "data",
    [
        b"\x95\x01\xcd\x00\x05\xc4\x00\xc0\x90",  # 5 in two bytes
        b"\xdc\x00\x05\x01\x05\xc4\x00\xc0\x90",  # a long array header
        b"\x95\x01\x05\xc5\x00\x00\xc0\x90",  # a long header of bytes
    ],
)
def test_a_second_encoding_of_a_message_is_refused(data: bytes) -> None:
    assert msgpack.unpackb(data) == [1, 5, b"", None, []]
    with pytest.raises(RemoteError) as caught:
        decode(Sample, data)
    assert caught.value.reason == "not_canonical"


@pytest.mark.parametrize(
    "value",
    [
        [1, 5, b"", None],  # a field missing
        [1, 5, b"", None, [], 0],  # a field too many
        [2, 5, b"", None, []],
        [1, -1, b"", None, []],
        [1, 2**53, b"", None, []],
        [1, 5.0, b"", None, []],
        [1, 5, "text", None, []],
        [1, 5, bytes(301), None, []],
        {"v": 1, "count": 5, "data": b"", "inner": None, "more": []},
        None,
    ],
)
def test_what_is_no_message_is_refused(value: object) -> None:
    with pytest.raises(RemoteError) as caught:
        decode(Sample, pack(value))
    assert caught.value.reason == "malformed"


@pytest.mark.parametrize("data", [b"", b"\xc1", pack(ROW) + b"\0", b"\x91" * 100_000])
def test_what_is_no_single_msgpack_value_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteError) as caught:
        decode(Sample, data)
    assert caught.value.reason == "malformed"


def test_a_message_over_its_limit_is_refused_unread() -> None:
    data = encode(Sample(1, 5, b"", None, []))
    assert decode(Sample, data, limit_bytes=len(data)).count == 5
    with pytest.raises(RemoteError) as caught:
        decode(Sample, data, limit_bytes=len(data) - 1)
    assert caught.value.reason == "too_large"
    with pytest.raises(RemoteError):
        decode(bytes, bytes(MESSAGE_LIMIT_BYTES + 1))


def one_by_one(rows: list[bytes]) -> list[Inner] | None:
    try:
        return [decode(Inner, row) for row in rows]
    except RemoteError:
        return None


@given(st.lists(inners, max_size=20))
def test_rows_are_decoded_as_each_by_itself(rows: list[Inner]) -> None:
    assert decode_all(Inner, [encode(row) for row in rows]) == rows


@given(st.lists(inners, min_size=1, max_size=6), st.data())
def test_rows_are_refused_where_any_is_that_is_whatever_their_bytes_are_together(
    rows: list[Inner], draw: st.DataObject
) -> None:
    whole = b"".join(encode(row) for row in rows)
    if draw.draw(st.booleans()):
        place = draw.draw(st.integers(0, len(whole) - 1))
        whole = whole[:place] + draw.draw(st.binary(max_size=2)) + whole[place + 1 :]
    ends = sorted(draw.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    parts = [whole[start:end] for start, end in zip([0, *ends], [*ends, len(whole)], strict=True)]
    assert decode_all(Inner, parts) == one_by_one(parts)


def test_rows_of_which_one_has_a_second_encoding_or_is_too_long_are_refused() -> None:
    good, long = encode(Inner("a", [5])), b"\x92\xa1a\x91\xcd\x00\x05"
    assert decode_all(Inner, [good] * 70_000) == [Inner("a", [5])] * 70_000
    assert msgpack.unpackb(long) == ["a", [5]]
    assert decode_all(Inner, [good, long]) is None
    assert decode_all(Inner, [good, good], limit_bytes=len(good) - 1) is None


def test_threads_may_decode_a_type_for_the_first_time_side_by_side() -> None:
    program = """
import sys, threading
from typing import Annotated
import msgspec
from farcast.protocol import codec
sys.setswitchinterval(1e-6)
for _ in range(300):
    number, rest = Annotated[int, msgspec.Meta(ge=0)], {"bases": (codec.Message,), "frozen": True}
    inner = msgspec.defstruct("Inner", [("x", number)], **rest)
    kind = msgspec.defstruct("Kind", [("a", list[inner]), ("c", inner | None)], **rest)
    data, gate = msgspec.msgpack.encode([[[1]], [2]]), threading.Barrier(4)
    work = lambda: (gate.wait(), codec.decode(kind, data))
    threads = [threading.Thread(target=work) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
