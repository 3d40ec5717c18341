from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from qh3.quic.packet import encode_quic_retry, encode_quic_version_negotiation

from farcast.node.http.quic.ids import Ids, negotiation, read_ids, retry

IDS = st.binary(max_size=20)


def test_ids_are_read_from_long_and_short_headers() -> None:
    long = b"\xc3\x00\x00\x00\x01\x03abc\x02xy\x41\x00" + b"t" * 256 + b"rest"
    assert read_ids(long) == Ids(1, b"abc", b"xy", initial=True, token=b"t" * 256)
    assert read_ids(b"\xe3" + long[1:]) == Ids(1, b"abc", b"xy", initial=False, token=b"")
    assert read_ids(b"\x40" + b"12345678" + b"more") == Ids(0, b"12345678", b"", initial=False, token=b"")


@given(IDS, IDS, st.binary(max_size=300), st.integers(min_value=0, max_value=15))
def test_an_initial_of_any_ids_and_token_is_read_as_it_was_written(
    destination: bytes, source: bytes, token: bytes, low: int
) -> None:
    sized = bytes((len(destination),)) + destination + bytes((len(source),)) + source
    head = bytes((0xC0 | low,)) + b"\0\0\0\1" + sized + (0x4000 | len(token)).to_bytes(2, "big") + token
    assert read_ids(head + b"rest") == Ids(1, destination, source, initial=True, token=token)
    for end in range(len(head)):  # cut anywhere, it is no datagram at all
        assert read_ids(head[:end]) is None


@settings(deadline=None)
@given(
    st.binary(max_size=80),
    st.sampled_from(
        [b"", b"\xc0", b"\xc0\x00\x00\x00\x01", b"\xc0\x00\x00\x00\x02", b"\xff\xff\xff\xff\xff"]
    ),
)
def test_any_datagram_has_ids_that_are_in_it_or_is_none(data: bytes, prefix: bytes) -> None:
    datagram = prefix + data
    ids = read_ids(datagram)
    if ids is None:
        return
    assert ids.destination in datagram
    assert ids.source in datagram
    assert ids.token in datagram
    assert ids.initial or not ids.token
    if ids.version == 1:
        assert max(len(ids.destination), len(ids.source)) <= 20
    if not ids.version and not datagram[0] & 0x80:
        assert len(ids.destination) == 8


@given(IDS, IDS, st.binary(min_size=8, max_size=8), st.binary(min_size=1, max_size=100))
def test_a_retry_is_the_one_that_another_implementation_writes(
    destination: bytes, source: bytes, fresh: bytes, token: bytes
) -> None:
    ids = Ids(1, destination, source, initial=True, token=b"")
    theirs = encode_quic_retry(
        version=1, source_cid=fresh, destination_cid=source, original_destination_cid=destination,
        retry_token=token,
    )  # fmt: skip
    assert retry(ids, fresh, token) == theirs


@given(IDS, IDS)
def test_a_version_negotiation_is_the_one_that_another_implementation_writes(
    destination: bytes, source: bytes
) -> None:
    ids = Ids(7, destination, source, initial=False, token=b"")
    theirs = encode_quic_version_negotiation(
        source_cid=destination, destination_cid=source, supported_versions=[1]
    )
    assert negotiation(ids)[0] & 0x80  # the other bits of the first byte are anybody's
    assert negotiation(ids)[1:] == theirs[1:]
