"""Bundles, descriptors and packets of the carousel."""

from __future__ import annotations

from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.codec import encode
from farcast.protocol.errors import RemoteError
from farcast.protocol.generation import (
    BUNDLE_LIMIT_BYTES,
    FEC_ID_BYTES,
    HEADER_BYTES,
    GenerationDescriptor,
    Item,
    describe,
    is_vouched,
    origin_id,
    pack_bundle,
    pack_packet,
    parse_packet,
    read_descriptor,
    seal_descriptor,
    unpack_bundle,
)
from farcast.protocol.identity import Identity

CATALOG = Identity(b"c" * 32)
ORIGIN = origin_id(CATALOG.key)

items = st.lists(
    st.builds(
        Item,
        kind=st.sampled_from(["trust", "checkpoint", "entries", "directory", "beacon", "ack", "block"]),
        name=st.text(max_size=40),
        data=st.binary(max_size=200),
    ),
    max_size=20,
)


@given(items)
def test_a_bundle_comes_back_as_it_was(given_items: list[Item]) -> None:
    assert unpack_bundle(pack_bundle(given_items)) == given_items


@given(st.binary(max_size=400))
def test_any_bytes_are_a_bundle_or_a_remote_error(data: bytes) -> None:
    try:
        found = unpack_bundle(data)
    except RemoteError:
        return
    assert pack_bundle(found) == data


def test_a_bundle_beyond_the_limit_is_neither_made_nor_read() -> None:
    with pytest.raises(RemoteError, match="split it"):
        pack_bundle([Item("block", "x", bytes(BUNDLE_LIMIT_BYTES))])
    with pytest.raises(RemoteError) as caught:
        unpack_bundle(bytes(BUNDLE_LIMIT_BYTES + 1))
    assert caught.value.reason == "too_large"


def test_a_bundle_of_too_many_items_is_refused() -> None:
    many = [["ack", "", b""]] * 65_537
    with pytest.raises(RemoteError) as caught:
        unpack_bundle(encode([1, many]))
    assert caught.value.reason == "malformed"


def test_an_item_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(RemoteError):
        unpack_bundle(encode([1, [["virus", "", b""]]]))


def test_the_number_of_a_generation_is_the_start_of_its_digest() -> None:
    described = describe(b"bundle", ORIGIN, 1_280, 5)
    assert described.number == int.from_bytes(sha256(b"bundle").digest()[:8], "big")
    assert described.symbols == 1


def test_a_sealed_descriptor_fits_a_packet_and_is_vouched_for_by_its_key_only() -> None:
    data = seal_descriptor(describe(b"bundle", ORIGIN, 1_280, 5), CATALOG)
    assert len(data) <= 160
    assert read_descriptor(data) == describe(b"bundle", ORIGIN, 1_280, 5)
    assert is_vouched(data, [b"x" * 32, CATALOG.key])
    assert not is_vouched(data, [Identity(b"o" * 32).key])


@pytest.mark.parametrize(
    "change", [{"number": 7}, {"length": 20_000_000, "symbol_bytes": 64}], ids=["number", "symbols"]
)
def test_a_descriptor_that_contradicts_itself_is_refused(change: dict[str, int]) -> None:
    described: GenerationDescriptor = msgspec.structs.replace(describe(b"b", ORIGIN, 1_280, 5), **change)
    with pytest.raises(RemoteError) as caught:
        read_descriptor(seal_descriptor(described, CATALOG))
    assert caught.value.reason == "bad_descriptor"


@pytest.mark.parametrize("symbol_bytes", [0, 63, 100, 1_472])
def test_a_descriptor_with_an_odd_symbol_size_is_refused(symbol_bytes: int) -> None:
    described = msgspec.structs.replace(describe(b"b", ORIGIN, 1_280, 5), symbol_bytes=symbol_bytes)
    with pytest.raises(RemoteError):
        read_descriptor(seal_descriptor(described, CATALOG))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_descriptor_or_a_remote_error(data: bytes) -> None:
    with pytest.raises(RemoteError):
        read_descriptor(data)


@given(
    st.binary(min_size=8, max_size=8),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**40),
    st.booleans(),
    st.binary(min_size=FEC_ID_BYTES + 1, max_size=60),
)
def test_a_packet_header_comes_back(
    origin: bytes,
    number: int,
    seq: int,
    is_descriptor: bool,  # noqa: FBT001 - drawn by hypothesis
    body: bytes,
) -> None:
    data = pack_packet(origin, number, seq, body, is_descriptor=is_descriptor)
    assert len(data) - len(body) == HEADER_BYTES
    assert parse_packet(data) == (origin, number, seq % 2**31, is_descriptor, body)


def test_header_and_fec_id_take_at_most_26_bytes() -> None:
    assert HEADER_BYTES + FEC_ID_BYTES <= 26


@given(st.binary(max_size=64))
def test_any_bytes_are_a_packet_or_a_remote_error(data: bytes) -> None:
    try:
        packet = parse_packet(data)
    except RemoteError:
        return
    assert data.startswith(b"F\x01")
    assert len(packet.body) > FEC_ID_BYTES
