"""The signed words a box says of itself on its link."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.errors import RemoteError
from farcast.protocol.identity import Identity
from farcast.protocol.presence import Presence, open_presence, seal_presence

BOX = Identity(b"b" * 32)


def a_presence(**changes: object) -> Presence:
    presence = Presence(2, b"n" * 8, BOX.key, 7_433, 1, active=True, ask=False, hops=0, leaving=False)
    return msgspec.structs.replace(presence, **changes)


def test_the_longest_presence_fits_160_bytes() -> None:
    presence = a_presence(port=65_535, at_ms=2**53 - 1, hops=16)
    data = seal_presence(presence, BOX)
    assert len(data) <= 160
    assert open_presence(data) == presence


def test_a_presence_signed_by_another_key_is_refused() -> None:
    with pytest.raises(RemoteError) as caught:
        open_presence(seal_presence(a_presence(), Identity(b"o" * 32)))
    assert caught.value.reason == "bad_signature"


def test_a_presence_says_how_long_silence_is_normal() -> None:
    assert a_presence().interval_s == 2.0
    assert a_presence(active=False).interval_s == 15.0


@given(st.integers(0, 140), st.integers(1, 255))
def test_a_presence_with_any_byte_changed_is_refused(at: int, flip: int) -> None:
    data = bytearray(seal_presence(a_presence(), BOX))
    data[at % len(data)] ^= flip
    with pytest.raises(RemoteError):
        open_presence(bytes(data))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(RemoteError):
        open_presence(data)
