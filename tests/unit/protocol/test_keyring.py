"""The keyring: the origin's keys and addresses of today."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.codec import encode
from farcast.protocol.directory import Endpoint
from farcast.protocol.errors import RemoteError
from farcast.protocol.keyring import KEYRING_LIMIT_BYTES, Keyring, open_keyring

KEY = bytes(range(32))
BASE = Keyring(1, "origin", KEY, [KEY], [KEY], [KEY], [KEY], [KEY], [], [])

keys = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=16)
endpoints = st.builds(Endpoint, st.text(min_size=1, max_size=253), st.integers(1, 65_535), st.booleans())
keyrings = st.builds(
    Keyring,
    st.just(1),
    st.text(max_size=400),
    st.binary(min_size=32, max_size=32),
    keys,
    keys,
    keys,
    keys,
    keys,
    st.lists(endpoints, max_size=16),
    st.lists(st.text(max_size=400), max_size=16),
)


@given(keyrings)
def test_a_keyring_reads_as_it_was_written(keyring: Keyring) -> None:
    data = encode(keyring)
    assert len(data) <= KEYRING_LIMIT_BYTES
    assert open_keyring(data) == keyring


@pytest.mark.parametrize("field", ["catalog", "ticket", "intake", "settlement", "publishers"])
def test_every_list_of_keys_has_one_to_sixteen(field: str) -> None:
    for wrong in ([], [KEY] * 17, [KEY[:31]]):
        with pytest.raises(RemoteError) as caught:
            open_keyring(encode(msgspec.structs.replace(BASE, **{field: wrong})))
        assert caught.value.reason == "malformed"
    full = msgspec.structs.replace(BASE, **{field: [KEY] * 16})
    assert open_keyring(encode(full)) == full


def test_a_keyring_over_64_kib_is_refused_unread() -> None:
    with pytest.raises(RemoteError) as caught:
        open_keyring(bytes(KEYRING_LIMIT_BYTES + 1))
    assert caught.value.reason == "too_large"


@given(st.binary(max_size=300))
def test_any_bytes_are_a_keyring_or_refused(data: bytes) -> None:
    with pytest.raises(RemoteError):
        open_keyring(data)
