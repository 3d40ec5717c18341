"""The relay directory: signed as a whole, each record signed by its relay."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.codec import encode
from farcast.protocol.directory import (
    Directory,
    Endpoint,
    RelayRecord,
    open_directory,
    open_record,
    seal_directory,
)
from farcast.protocol.errors import RemoteError
from farcast.protocol.identity import Identity

CATALOG = Identity(b"c" * 32)
RELAY = Identity(b"r" * 32)
RECORD = RelayRecord(1, RELAY.key, [Endpoint("relay.example", 4_433, web=False)], "", 1, 2)


def a_record(**changes: object) -> bytes:
    return RELAY.seal("record", msgspec.structs.replace(RECORD, **changes))


endpoints = st.builds(Endpoint, st.text(min_size=1, max_size=253), st.integers(1, 65_535), st.booleans())
times = st.integers(0, 2**53 - 1)


@given(
    st.lists(endpoints, min_size=1, max_size=8),
    st.from_regex("([a-z0-9][a-z0-9._-]{0,62})?", fullmatch=True),
    times,
    times,
)
def test_a_record_reads_as_it_was_sealed(
    listed: list[Endpoint], payee: str, created_ms: int, expires_ms: int
) -> None:
    record = RelayRecord(1, RELAY.key, listed, payee, created_ms, expires_ms)
    assert open_record(RELAY.seal("record", record)) == record


@pytest.mark.parametrize(
    "changes",
    [
        {"endpoints": []},
        {"endpoints": RECORD.endpoints * 9},
        {"endpoints": [Endpoint("", 1, web=True)]},
        {"endpoints": [Endpoint("a", 0, web=True)]},
        {"endpoints": [Endpoint("a", 65_536, web=True)]},
        {"payee": "Anna"},
        {"payee": "anna\n"},
        {"payee": "\n"},
        {"created_ms": -1},
    ],
)
def test_a_record_that_breaks_a_rule_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(RemoteError) as caught:
        open_record(a_record(**changes))
    assert caught.value.reason == "malformed"


def test_a_record_of_another_relay_is_refused() -> None:
    with pytest.raises(RemoteError) as caught:
        open_record(a_record(relay=CATALOG.key))
    assert caught.value.reason == "bad_signature"


def test_a_bad_record_spoils_only_itself() -> None:
    records = [a_record(), b"", a_record(relay=CATALOG.key), a_record(payee="a"), a_record()[:-1]]
    data = seal_directory(Directory(1, 1, 2, records), CATALOG)
    directory, good = open_directory(data, CATALOG.key)
    assert directory.records == records
    assert good == [RECORD, msgspec.structs.replace(RECORD, payee="a")]


def test_a_directory_of_another_key_or_kind_is_refused() -> None:
    directory = Directory(1, 1, 2, [])
    for data in (seal_directory(directory, RELAY), CATALOG.seal("record", directory)):
        with pytest.raises(RemoteError) as caught:
            open_directory(data, CATALOG.key)
        assert caught.value.reason == "bad_signature"


def test_a_directory_has_at_most_ten_thousand_records() -> None:
    full = Directory(1, 1, 2, [b""] * 10_000)
    assert open_directory(seal_directory(full, CATALOG), CATALOG.key) == (full, [])
    with pytest.raises(RemoteError) as caught:
        open_directory(seal_directory(Directory(1, 1, 2, [b""] * 10_001), CATALOG), CATALOG.key)
    assert caught.value.reason == "malformed"


def test_a_directory_over_four_mib_is_refused_unread() -> None:
    with pytest.raises(RemoteError) as caught:
        open_directory(encode(bytes(4 << 20)), CATALOG.key)
    assert caught.value.reason == "too_large"
