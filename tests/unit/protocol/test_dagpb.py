"""The dag-pb codec: its canonical bytes, round trips, and protobuf that is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.cid import RAW, Cid
from farcast.protocol.dagpb import LINK_LIMIT, NAME_LIMIT_BYTES, Link, decode, encode, fields
from farcast.protocol.errors import RemoteError

links = st.lists(
    st.builds(
        Link, st.text(max_size=20), st.builds(Cid.of, st.just(RAW), st.binary()), st.integers(0, 2**62)
    ),
    max_size=6,
)


def test_links_come_before_data_and_hash_name_size_in_this_order() -> None:
    cid = Cid.of(RAW, b"")
    link = b"\x0a\x24" + cid.encode() + b"\x12\x01n\x18\x05"
    assert encode([Link("n", cid, 5)], b"data") == b"\x12" + bytes((len(link),)) + link + b"\x0a\x04data"


@given(links, st.binary(max_size=40))
def test_a_node_comes_back(items: list[Link], data: bytes) -> None:
    assert decode(encode(items, data)) == (tuple(items), data)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_node_or_a_remote_error(data: bytes) -> None:
    try:
        found, _ = decode(data)
    except RemoteError:
        return
    assert len(found) <= LINK_LIMIT


def test_every_wire_type_that_protobuf_still_has_is_read() -> None:
    message = b"\x08\x05" + b"\x12\x01x" + b"\x1d1234" + b"\x2112345678"
    assert list(fields(message)) == [(1, 5), (2, b"x"), (3, b"1234"), (4, b"12345678")]


CID = Cid.of(RAW, b"").encode()


@pytest.mark.parametrize(
    "link",
    [
        b"",
        b"\x0a\x25" + CID + b"\0",  # a byte behind the CID
        b"\x0a\x24" + CID + b"\x0a\x24" + CID,
        b"\x0a\x24" + CID + b"\x12\x01\xff",  # a name that is not UTF-8
        b"\x0a\x24" + CID + b"\x12\x81\x08" + b"n" * (NAME_LIMIT_BYTES + 1),
        b"\x0a\x24" + CID + b"\x1a\x00",  # a size as bytes
        b"\x0a\x24" + CID + b"\x20\x00",  # an unknown field
        b"\x0a\x24" + CID[:-1],
    ],
)
def test_a_link_that_is_none_is_refused(link: bytes) -> None:
    size = len(link)
    prefix = b"\x12" + (bytes((size,)) if size < 128 else bytes((size & 127 | 128, size >> 7)))
    with pytest.raises(RemoteError) as caught:
        decode(prefix + link)
    assert caught.value.reason == "malformed"
