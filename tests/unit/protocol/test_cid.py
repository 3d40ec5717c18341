"""Content identifiers against the multiformats library and themselves."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import multiformats
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.cid import (
    DAG_CBOR,
    DAG_JSON,
    DAG_PB,
    DIGEST_LIMIT_BYTES,
    IDENTITY,
    PIECE_BYTES,
    RAW,
    SHA2_512,
    Cid,
    read_varint,
    varint,
)
from farcast.protocol.errors import RemoteError

codecs = st.sampled_from([RAW, DAG_PB, DAG_CBOR, DAG_JSON])
cids = st.builds(Cid.of, codecs, st.binary(max_size=64)) | st.builds(
    Cid, codecs, st.binary(max_size=DIGEST_LIMIT_BYTES), st.just(IDENTITY)
)


@given(codecs, st.binary(max_size=64))
def test_text_and_bytes_equal_those_of_multiformats(codec: int, data: bytes) -> None:
    cid = Cid.of(codec, data)
    oracle = multiformats.CID("base32", 1, codec, ("sha2-256", sha256(data).digest()))
    assert str(cid) == str(oracle)
    assert cid.encode() == bytes(oracle)


@pytest.mark.parametrize("base", ["base32", "base16", "base58btc"])
@given(codec=codecs, data=st.binary(max_size=64))
def test_every_base_of_multiformats_is_read(base: str, codec: int, data: bytes) -> None:
    oracle = multiformats.CID("base32", 1, codec, ("sha2-256", sha256(data).digest()))
    assert Cid.parse(oracle.encode(base)) == Cid.of(codec, data)


@given(st.binary(max_size=64))
def test_a_version_0_name_is_the_dag_pb_name_of_the_same_hash(data: bytes) -> None:
    oracle = multiformats.CID("base58btc", 0, "dag-pb", ("sha2-256", sha256(data).digest()))
    assert Cid.parse(str(oracle)) == Cid.of(DAG_PB, data)
    assert Cid.read(bytes(oracle)) == (Cid.of(DAG_PB, data), 34)
    with pytest.raises(RemoteError):
        Cid.decode(bytes(oracle))


@given(cids)
def test_a_cid_comes_back_from_text_and_bytes(cid: Cid) -> None:
    assert Cid.parse(str(cid)) == cid
    assert Cid.decode(cid.encode()) == cid
    assert Cid.read(b"--" + cid.encode() + b"--", 2) == (cid, 2 + len(cid.encode()))


def test_the_probe_of_the_gateway_specification_is_the_empty_identity_block() -> None:
    probe = Cid.parse("bafkqaaa")
    assert probe == Cid(RAW, b"", IDENTITY)
    assert probe.is_identity
    assert probe.matches(b"")
    assert not probe.matches(b"x")


def test_only_the_named_bytes_match() -> None:
    cid = Cid.of(RAW, b"film")
    assert cid.matches(b"film")
    assert not cid.matches(b"Film")
    assert not cid.is_identity
    assert not Cid(RAW, cid.digest, 0x1E).matches(b"film")


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
@pytest.mark.parametrize("look", [bytes, memoryview])
def test_a_hash_with_pauses_is_the_same_and_pauses_between_pieces(
    size: int, look: Callable[[bytes], bytes | memoryview]
) -> None:
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    cid = Cid.of(RAW, data)
    pauses: list[int] = []

    def pause() -> None:
        pauses.append(1)

    assert cid.matches(look(data), pause)
    assert len(pauses) == max(0, -(-size // PIECE_BYTES) - 1)
    assert not cid.matches(look(data + b"!"), pause)
    assert not cid.matches(look(b"!" + data[1:]), pause)


def test_a_longer_hash_of_old_data_is_checked_too() -> None:
    cid = Cid.parse(
        "bafkrgqhhyivzstcz3hhswshfjgy6ertgmnqeleynhwt4dlfsthi4hn7zgh4uvlsb5xncykzapi3ocd4lzogukir6ksdy6wzrnz6ohnv4aglcs"
    )
    assert cid.hash_code == SHA2_512
    assert not cid.matches(b"anything else")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "b",
        "bafk",
        "Qm",
        "k51qzi5uqu5dgutdk6i1ynyzgkqngpha5xpgia3a5qqp4jsh0u4csozksxel2r",
        "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvykv",  # stray bits at the end
        "BAFKREIHDWDCEFGH4DQKJV67UZCMW7OJEE6XEDZDETOJUZJEVTENXQUVYKU",
        "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku=",
        "QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMn0",  # 0 is no letter of base58
        "b" + "a" * 400,
        "z" + "9" * 299,
        "b\u0130",
    ],
)
def test_what_names_no_block_is_refused(text: str) -> None:
    with pytest.raises(RemoteError) as caught:
        Cid.parse(text)
    assert caught.value.reason == "malformed"


@pytest.mark.parametrize(
    "data",
    [
        b"\x01\x55\x12\x20" + bytes(31),
        b"\x01\x55\x12\x20" + bytes(33),
        b"\x01\x55\x12\x1f" + bytes(31),
        b"\x01\x55\x00\x81\x01" + bytes(129),
        b"\x01\xd5\x00\x12\x20" + bytes(32),  # a varint that could be shorter
        b"\x02\x55\x12\x20" + bytes(32),
        b"\x01\x55\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    ],
)
def test_bytes_that_are_no_canonical_cid_are_refused(data: bytes) -> None:
    with pytest.raises(RemoteError):
        Cid.decode(data)


@given(st.text(max_size=320) | st.text("abcdefghijklmnopqrstuvwxyz234567", max_size=80).map("b".__add__))
def test_any_text_is_a_cid_or_a_remote_error(text: str) -> None:
    try:
        cid = Cid.parse(text)
    except RemoteError:
        return
    assert Cid.parse(str(cid)) == cid


@given(st.binary(max_size=160) | st.binary(max_size=50).map(b"\x01\x55".__add__))
def test_any_bytes_are_a_cid_or_a_remote_error(data: bytes) -> None:
    try:
        cid = Cid.decode(data)
    except RemoteError:
        return
    assert cid.encode() == data


@given(st.integers(0, 2**63 - 1))
def test_a_varint_comes_back_and_is_read_in_one_form_only(number: int) -> None:
    data = varint(number)
    assert read_varint(data, 0) == (number, len(data))
    with pytest.raises(RemoteError):
        read_varint(data[:-1] + bytes((data[-1] | 0x80, 0)), 0)
