"""Manifests: what a publisher signs, and the rules no type can say."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.cid import DAG_PB, RAW, Cid
from farcast.protocol.codec import encode
from farcast.protocol.errors import RemoteError
from farcast.protocol.identity import Identity, Signed
from farcast.protocol.manifest import (
    MANIFEST_LIMIT_BYTES,
    Manifest,
    Payee,
    Protection,
    Rendition,
    Window,
    check_manifest,
    open_manifest,
    seal_manifest,
)

PUBLISHER = Identity(b"p" * 32)
FOLDER = Cid.of(DAG_PB, b"folder")
BASE = Manifest(
    1, "film", 1, PUBLISHER.key, "Film", "", "en", 48_000, FOLDER.encode(), 1, [], [], Window(0, 0), [],
    [Payee("a", 10_000)], "open", None, 1, b"",
)  # fmt: skip


def a_manifest(**changes: object) -> Manifest:
    return msgspec.structs.replace(BASE, **changes)


def signed(manifest: Manifest) -> bytes:
    """Sign without any check, as a foreign publisher could."""
    return PUBLISHER.seal("manifest", manifest)


def reason_of(manifest: Manifest) -> str:
    with pytest.raises(RemoteError) as caught:
        open_manifest(signed(manifest))
    return caught.value.reason


def test_a_sealed_manifest_is_the_raw_block_of_its_cid() -> None:
    cid, data = seal_manifest(BASE, PUBLISHER)
    assert cid.codec == RAW
    assert cid.matches(data)
    assert open_manifest(data) == BASE
    assert open_manifest(data).root_cid == FOLDER


def test_only_an_accepted_publisher_passes_where_they_are_named() -> None:
    _, data = seal_manifest(BASE, PUBLISHER)
    assert open_manifest(data, frozenset({PUBLISHER.key})) == BASE
    with pytest.raises(RemoteError) as caught:
        open_manifest(data, frozenset({Identity(b"o" * 32).key}))
    assert caught.value.reason == "unknown_publisher"


def test_a_manifest_signed_by_another_key_than_it_names_is_refused() -> None:
    body = encode(BASE)
    data = encode(Signed(body, Identity(b"o" * 32).sign("manifest", body)))
    with pytest.raises(RemoteError) as caught:
        open_manifest(data)
    assert caught.value.reason == "bad_signature"


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=8))
def test_shares_pass_only_where_they_sum_to_ten_thousand(points: list[int]) -> None:
    payees = [Payee(f"p{place}", share) for place, share in enumerate(points)]
    rest = 10_000 - sum(points)
    if rest:
        assert reason_of(a_manifest(payees=payees)) == "bad_manifest"
    if rest > 0:
        payees.append(Payee("rest", rest))
    if rest >= 0:
        assert open_manifest(signed(a_manifest(payees=payees))).payees == payees


def test_sealing_checks_the_same_rules_as_opening() -> None:
    twice = a_manifest(payees=[Payee("a", 5_000), Payee("a", 5_000)])
    with pytest.raises(RemoteError) as checked:
        check_manifest(twice)
    with pytest.raises(RemoteError) as sealed:
        seal_manifest(twice, PUBLISHER)
    assert checked.value.reason == sealed.value.reason == reason_of(twice) == "bad_manifest"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"payees": []}, "malformed"),
        ({"payees": [Payee("a", 0), Payee("b", 10_000)]}, "malformed"),
        ({"payees": [Payee("Anna", 10_000)]}, "malformed"),
        ({"payees": [Payee("anna\n", 10_000)]}, "malformed"),
        ({"title": "film\n"}, "malformed"),
        ({"title": "-film"}, "malformed"),
        ({"title": "f" * 64}, "malformed"),
        ({"territories": ["DE\n"]}, "malformed"),
        ({"territories": ["DE"] * 251}, "malformed"),
        ({"root": b"\x01\x55\x12\x20short"}, "malformed"),
        ({"supersedes": b"\x00"}, "malformed"),
        ({"protection": Protection("aes-128", [])}, "bad_manifest"),
        ({"protection": Protection("aes-128", [b"short"]), "access": "ticket"}, "malformed"),
    ],
)
def test_a_manifest_that_breaks_a_rule_is_refused(changes: dict[str, object], reason: str) -> None:
    assert reason_of(a_manifest(**changes)) == reason


def test_a_ticket_title_is_encrypted_under_one_key() -> None:
    manifest = a_manifest(access="ticket", protection=Protection("aes-128", [b"k" * 16]))
    assert open_manifest(signed(manifest)) == manifest
    for protection in (None, Protection("aes-128", []), Protection("aes-128", [b"k" * 16, b"l" * 16])):
        assert reason_of(a_manifest(access="ticket", protection=protection)) == "bad_manifest"


def test_a_manifest_over_256_kib_is_refused_unread() -> None:
    video = Rendition("r" * 400, "video", "p" * 400, "c" * 400, 1, 1, 1, 1, 1, "l" * 400, 1, 1)
    largest = a_manifest(renditions=[video] * 64)
    assert len(signed(largest)) < MANIFEST_LIMIT_BYTES
    assert open_manifest(signed(largest)) == largest
    with pytest.raises(RemoteError) as caught:
        open_manifest(bytes(MANIFEST_LIMIT_BYTES + 1))
    assert caught.value.reason == "too_large"
