"""dag-cbor and dag-json: what is written is read again, and any bytes give a document or a RemoteError."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol import dagcbor, dagjson
from farcast.protocol.cid import DAG_CBOR, RAW, Cid
from farcast.protocol.dagcbor import Document
from farcast.protocol.errors import RemoteError

LINK = Cid.of(RAW, b"film")


def named(data: bytes) -> Cid:
    return Cid.of(RAW, data)


documents: st.SearchStrategy[Document] = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 64), (1 << 64) - 1) | st.floats(allow_nan=False)
    | st.text(max_size=20) | st.binary(max_size=20) | st.binary(max_size=9).map(named),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(documents)
def test_what_is_written_is_read_again(document: Document) -> None:
    data = dagcbor.encode(document)
    assert dagcbor.decode(data) == document
    assert dagcbor.encode(dagcbor.decode(data)) == data


@pytest.mark.parametrize(
    ("document", "data"),
    [  # RFC 8949, appendix A
        (0, "00"), (23, "17"), (24, "1818"), (1000, "1903e8"), (1_000_000, "1a000f4240"),
        ((1 << 64) - 1, "1bffffffffffffffff"), (-1, "20"), (-1000, "3903e7"),
        (-(1 << 64), "3bffffffffffffffff"),
        (1.1, "fb3ff199999999999a"), (False, "f4"), (True, "f5"), (None, "f6"), (b"\1\2\3\4", "4401020304"),
        ("IETF", "6449455446"), ("\u6c34", "63e6b0b4"), ([1, [2, 3]], "8201820203"), ({}, "a0"),
        ({"a": 1, "b": [2, 3]}, "a26161016162820203"),
    ],
)  # fmt: skip
def test_the_examples_of_the_rfc(document: Document, data: str) -> None:
    assert dagcbor.encode(document).hex() == data
    assert dagcbor.decode(bytes.fromhex(data)) == document


def test_maps_are_ordered_by_length_and_then_by_bytes() -> None:
    ordered: dict[str, Document] = {"b": 1, "aa": 2, "ab": 3, "aaa": 4}
    assert dagcbor.encode(dict(reversed(ordered.items()))) == dagcbor.encode(ordered)
    assert list(dagcbor.decode(dagcbor.encode({"aa": 2, "b": 1}))) == ["b", "aa"]  # type: ignore[arg-type]


def test_older_writers_are_read() -> None:
    assert dagcbor.decode(bytes.fromhex("1800")) == 0  # a number in more bytes than it needs
    assert dagcbor.decode(bytes.fromhex("f93c00")) == 1.0  # a half
    assert dagcbor.decode(bytes.fromhex("a2626161016162 02")) == {"aa": 1, "b": 2}  # another order
    assert math.isnan(float(str(dagcbor.decode(bytes.fromhex("f97e00")))))


@pytest.mark.parametrize(
    "data",
    [
        "", "0000", "18", "1c", "1f", "5f", "7f", "9f", "bf", "ff", "f7", "f818", "61ff", "6261", "8201",
        "a10100", "a1616100ff", "a2616101616102", "9bffffffffffffffff", "bb7fffffffffffffff", "5affffffff",
        "c100", "d82a00", "d82a4100", "d82a420001", "d82a4101", "d82b4100", "d9ffff00",
        "d82a58260001551220" + "00" * 33, "81" * 70 + "00",
    ],
)  # fmt: skip
def test_what_is_no_dag_cbor_is_refused(data: str) -> None:
    with pytest.raises(RemoteError) as caught:
        dagcbor.decode(bytes.fromhex(data))
    assert caught.value.reason == "malformed"


def test_no_block_becomes_more_values_than_are_counted() -> None:
    many = dagcbor.ITEM_LIMIT
    assert dagcbor.decode(b"\x9a" + (many - 1).to_bytes(4, "big") + b"\xa0" * (many - 1)) == [{}] * (many - 1)
    with pytest.raises(RemoteError):
        dagcbor.decode(b"\x9a" + many.to_bytes(4, "big") + b"\xa0" * many)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_document_or_a_remote_error(data: bytes) -> None:
    for codec in (dagcbor, dagjson):
        try:
            codec.decode(data)
        except RemoteError:
            continue


@given(documents, st.data())
def test_a_changed_byte_is_a_document_or_a_remote_error(document: Document, draw: st.DataObject) -> None:
    data = bytearray(dagcbor.encode(document))
    data[draw.draw(st.integers(0, len(data) - 1))] ^= draw.draw(st.integers(1, 255))
    try:
        dagcbor.decode(bytes(data))
    except RemoteError:
        return


def test_links_and_bytes_in_json() -> None:
    text = {"a": {"/": str(LINK)}, "b": [{"/": {"bytes": "AQID"}}, 1.5, None, {"c": "/"}]}
    expected = {"a": LINK, "b": [b"\1\2\3", 1.5, None, {"c": "/"}]}
    assert dagjson.decode(json.dumps(text).encode()) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b'{"a":1,"a":2}', b"NaN", b"-Infinity", b'{"/":"nothing"}', b'{"/":1}', b'{"/":"x","a":1}',
        b'{"/":{"bytes":"***"}}', b'{"/":{"bytes":1}}', b'{"/":{"bytes":"","a":1}}', b"\xff", b"[" * 200_000,
        b"1" * 5_000,
    ],
)  # fmt: skip
def test_what_is_no_dag_json_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteError) as caught:
        dagjson.decode(data)
    assert caught.value.reason == "malformed"


def test_a_document_of_links_is_named_by_its_codec() -> None:
    data = dagcbor.encode({"film": LINK})
    assert str(Cid.of(DAG_CBOR, data)).startswith("bafyrei")
    assert b"\xd8\x2a\x58\x25\x00" + LINK.encode() in data
