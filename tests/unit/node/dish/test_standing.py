"""Whatever a dish sends is read as protobuf reads it, or refused in one way; the schema is a real one."""

from __future__ import annotations

import math
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.node.dish.fields import FIELDS_LIMIT, Fields, field
from farcast.node.dish.schema import DEPTH_LIMIT, ENTRIES_LIMIT, Schema, name_of, needs
from farcast.node.dish.standing import METHOD, question, read_standing
from farcast.protocol.errors import RemoteError
from farcast.tests.wire import starlink

FILES = [file.SerializeToString() for file in starlink.files()]


POOL = starlink.pools.DescriptorPool()
for each in starlink.files():
    POOL.Add(each)
RESPONSE = starlink.factory.GetMessageClass(POOL.FindMessageTypeByName(f"{starlink.DEVICE}.Response"))


def told(**says: object) -> bytes:
    """Return what a real library encodes."""
    response = RESPONSE()
    status = response.dish_get_status
    status.SetInParent()
    for name, value in says.items():
        setattr(status, name, value)
    encoded: bytes = response.SerializeToString()
    return encoded


def refusal(error: RemoteError, *reasons: str) -> None:
    """Check why something was refused."""
    assert error.reason in reasons


@given(
    latency_ms=st.floats(width=32),
    lost_share=st.floats(0, 1, width=32),
    limit=st.integers(-(2**31), 2**31 - 1),
)
def test_a_status_is_read_as_a_real_library_wrote_it(
    latency_ms: float, lost_share: float, limit: int
) -> None:
    answer = told(pop_ping_latency_ms=latency_ms, pop_ping_drop_rate=lost_share, disablement_code=limit)
    found = read_standing(Schema(FILES), answer)
    assert (found.latency_ms or 0.0) == (latency_ms if math.isfinite(latency_ms) else 0.0)
    assert (found.lost_share or 0.0) == lost_share
    assert found.outage == ""
    assert found.connected is (limit in (0, 1))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    try:
        found = Fields(data)
    except RemoteError as error:
        refusal(error, "malformed")
        return
    for number in range(1, 16):
        found.integer(number)
        found.real(number)
        with suppress(RemoteError):
            found.text(number)
            found.inner(number)


@given(st.data())
def test_a_schema_or_an_answer_that_was_tampered_with_is_one_refusal(data: st.DataObject) -> None:
    files = [bytearray(file) for file in FILES]
    answer = bytearray(told(pop_ping_latency_ms=3.5, disablement_code=2))
    for target in (*files, answer):
        for _ in range(data.draw(st.integers(0, 3))):
            target[data.draw(st.integers(0, len(target) - 1))] = data.draw(st.integers(0, 255))
    try:
        schema = Schema(map(bytes, files))
        assert isinstance(question(schema), bytes)
        standing = read_standing(schema, bytes(answer))
        assert standing.sentence().isprintable()
    except RemoteError as error:
        refusal(error, "malformed", "schema", "oversized")


def test_what_has_no_end_is_refused() -> None:
    with pytest.raises(RemoteError):
        Fields(b"\x08\x01" * (FIELDS_LIMIT + 1))
    with pytest.raises(RemoteError):
        Fields(b"\x80" * 11)
    nested = b""
    for _ in range(DEPTH_LIMIT + 2):
        nested = field(3, nested)
    with pytest.raises(RemoteError, match="nested"):
        Schema([field(4, nested)])
    many = field(4, field(2, b"") * (FIELDS_LIMIT - 1))
    with pytest.raises(RemoteError, match="larger than any") as caught:
        Schema([many * (ENTRIES_LIMIT // FIELDS_LIMIT + 1)])
    assert caught.value.reason == "oversized"


def test_a_schema_without_a_dish_is_named_as_such() -> None:
    schema = Schema(FILES)
    assert question(schema) == b"\xe2\x3e\x00", "field 1004, and nothing in it"
    with pytest.raises(RemoteError, match="is it a Starlink dish"):
        question(Schema(FILES[:1]))
    with pytest.raises(RemoteError, match="did not tell"):
        read_standing(schema, field(3, b"x"))
    assert METHOD in schema.methods
    assert {name_of(file): needs(file) for file in FILES} == {
        name: starlink.NEEDS.get(name, []) for name in starlink.MESSAGES
    }


def test_the_last_of_two_holds_and_another_kind_is_absent() -> None:
    found = Fields(b"\x08\x01\x08\x02" + b"\x15" + struct.pack("<f", 1.5))
    assert (found.integer(1), found.real(2)) == (2, 1.5)
    assert (found.real(1), found.integer(2), found.inner(1), found.text(1)) == (None, None, None, "")
