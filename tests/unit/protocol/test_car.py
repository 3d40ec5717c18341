"""CARv1: what is written is read again, and nothing unverified comes out."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol import car
from farcast.protocol.cid import DAG_PB, IDENTITY, RAW, Cid, varint
from farcast.protocol.errors import RemoteError
from farcast.protocol.unixfs import BLOCK_LIMIT_BYTES

BLOCK = (Cid.of(RAW, b"film"), b"film")
blocks_lists = st.lists(st.binary(max_size=100).map(lambda data: (Cid.of(RAW, data), data)), max_size=8)


def whole(roots: list[Cid], blocks: list[tuple[Cid, bytes]]) -> bytes:
    return car.header(roots) + b"".join(car.section(*block) for block in blocks)


@given(blocks_lists, st.integers(1, 40))
def test_what_is_written_is_read_again_however_it_is_cut(blocks: list[tuple[Cid, bytes]], step: int) -> None:
    roots = [cid for cid, _ in blocks]
    data = whole(roots, blocks)
    reader = car.Reader()
    found = [block for at in range(0, len(data), step) for block in reader.push(data[at : at + step])]
    reader.finish()
    assert found == blocks
    assert reader.roots == tuple(roots)


@given(st.lists(st.tuples(st.binary(max_size=50), st.sampled_from([0, 1])), max_size=6))
def test_what_is_read_is_written_again_byte_for_byte(parts: list[tuple[bytes, int]]) -> None:
    blocks = [(Cid(DAG_PB, sha256(data).digest(), version=version), data) for data, version in parts]
    data = whole([cid for cid, _ in blocks], blocks)
    reader = car.Reader()
    found = reader.push(data)
    assert found == blocks
    assert whole(list(reader.roots or ()), found) == data


def test_the_header_is_the_one_of_the_specification() -> None:
    root = Cid.of(DAG_PB, b"x")
    expected = b"\xa2eroots\x81\xd8\x2a\x58\x25\x00" + root.encode() + b"gversion\x01"
    assert car.header([root]) == varint(len(expected)) + expected


def test_many_roots_and_identity_blocks_are_read() -> None:
    roots = [Cid.of(RAW, bytes((number % 256, number // 256))) for number in range(300)]
    identity = Cid(RAW, b"inside", IDENTITY)
    reader = car.Reader()
    assert reader.push(whole(roots, [(identity, b"inside")])) == [(identity, b"inside")]
    assert reader.roots == tuple(roots)


def test_version_0_names_are_read() -> None:
    cid = Cid.of(DAG_PB, b"old")
    name = b"\x12\x20" + cid.digest
    body = b"\xa2eroots\x81\xd8\x2a\x58\x23\x00" + name + b"gversion\x01"
    reader = car.Reader()
    data = varint(len(body)) + body + varint(len(name) + 3) + name + b"old"
    assert reader.push(data) == [(cid, b"old")]
    assert reader.roots == (cid,)


def test_a_block_with_another_hash_is_refused() -> None:
    with pytest.raises(RemoteError) as caught:
        car.Reader().push(whole([], [(BLOCK[0], b"Film")]))
    assert caught.value.reason == "hash_mismatch"


@given(st.integers(0))
def test_a_car_cut_anywhere_but_between_blocks_is_noticed(cut: int) -> None:
    data = whole([BLOCK[0]], [BLOCK])
    cut %= len(data)
    reader = car.Reader()
    reader.push(data[:cut])
    if cut == len(car.header([BLOCK[0]])):
        reader.finish()
        return
    with pytest.raises(RemoteError) as caught:
        reader.finish()
    assert caught.value.reason == "truncated"


@pytest.mark.parametrize(
    "data",
    [
        b"\x00",
        varint(car.HEADER_LIMIT_BYTES + 1),
        b"\xff" * 9,
        bytes.fromhex("0aa16776657273696f6e02"),  # the pragma of CARv2
        b"\x0a\xa1gversion\x01",  # no roots
        b"\x08\xa1eroots\x80",  # no version
        b"\x12\xa2eroots\x80gversion\x01\x00",  # a byte behind it
        b"\x11\xa2eroots\x80eroots\x80\x01\x01\x01",
        b"\x11\xa2eroots\xa0gversion\x01",
        b"\x12\xa2eroots\x81\x01gversion\x01",
        b"\x0b\xa2eroots\x9b\xff\xff\xff",
        b"\x14\xa2eroots\x81\xd8\x2a\x41\x00gversion\x01",
        b"\x11\xa2erootz\x80gversion\x01",
        b"\x01\xa2",
    ],
)
def test_a_header_of_another_kind_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteError) as caught:
        car.Reader().push(data)
    assert caught.value.reason == "malformed"


@pytest.mark.parametrize(
    "section",
    [
        b"\x00",
        varint(BLOCK_LIMIT_BYTES + car.CID_LIMIT_BYTES + 1),
        b"\x03\x01\x55\x12",
        b"\x20" + BLOCK[0].encode(),  # the section ends inside its CID
    ],
)
def test_a_section_that_holds_no_block_is_refused(section: bytes) -> None:
    with pytest.raises(RemoteError) as caught:
        car.Reader().push(car.header([]) + section)
    assert caught.value.reason == "malformed"


def test_a_car_over_its_limit_is_refused() -> None:
    data = whole([], [BLOCK])
    assert car.Reader(limit_bytes=len(data)).push(data) == [BLOCK]
    with pytest.raises(RemoteError) as caught:
        car.Reader(limit_bytes=len(data) - 1).push(data)
    assert caught.value.reason == "too_large"


@given(st.binary(max_size=200) | st.binary(max_size=200).map(car.header([BLOCK[0]]).__add__))
def test_any_bytes_give_verified_blocks_or_a_remote_error(data: bytes) -> None:
    reader = car.Reader()
    try:
        blocks = reader.push(data)
        reader.finish()
    except RemoteError:
        return
    assert all(cid.matches(block) for cid, block in blocks)


@given(st.data())
def test_any_changed_byte_gives_a_remote_error_or_the_same_block(draw: st.DataObject) -> None:
    data = bytearray(whole([BLOCK[0]], [BLOCK]))
    data[draw.draw(st.integers(0, len(data) - 1))] ^= draw.draw(st.integers(1, 255))
    reader = car.Reader()
    try:
        blocks = reader.push(bytes(data))
        reader.finish()
    except RemoteError:
        return
    assert all(cid.matches(block) for cid, block in blocks)
