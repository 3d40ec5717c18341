"""Identities: the vectors of RFC 8032 and libp2p, domains, and what opens an envelope."""

from __future__ import annotations

from typing import get_args

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from multiformats import multibase
from nacl import bindings
from nacl.exceptions import BadSignatureError

from farcast.protocol.codec import Message, encode
from farcast.protocol.errors import RemoteError
from farcast.protocol.identity import (
    Identity,
    Kind,
    Signed,
    domain,
    open_unverified,
    parse_peer_id,
    peer_id,
    unseal,
    verify,
    verify_raw,
)

seeds = st.binary(min_size=32, max_size=32)
kinds = st.sampled_from(get_args(Kind))
BOX = Identity(bytes(range(32)))


class Words(Message, frozen=True):
    """A message to sign."""

    words: list[str]


def test_the_signature_is_the_one_of_rfc_8032() -> None:
    # Section 7.1, test 2.
    box = Identity(bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
    assert box.key.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert box.sign_raw(b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )


def test_the_peer_id_is_the_one_of_the_libp2p_specification() -> None:
    # The Ed25519 key of the test vectors in the peer-ids specification.
    key = bytes.fromhex("1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e")
    assert parse_peer_id(peer_id(key)) == key
    assert multibase.decode("z" + peer_id(key)) == bytes.fromhex("002408011220") + key


@given(seeds)
def test_a_key_comes_back_from_its_peer_id(seed: bytes) -> None:
    box = Identity(seed)
    assert box.peer_id.startswith("12D3KooW")
    assert parse_peer_id(box.peer_id) == box.key
    assert repr(box) == f"Identity({box.peer_id})"


@given(st.text(max_size=70) | st.text("123456789ABCDEFGHJKLMN", max_size=60).map("12D3KooW".__add__))
def test_any_text_is_a_peer_id_or_a_remote_error(text: str) -> None:
    try:
        key = parse_peer_id(text)
    except RemoteError:
        return
    assert peer_id(key) == text


@given(seeds, kinds, st.binary(max_size=100))
def test_another_library_makes_and_accepts_the_same_signature(seed: bytes, kind: Kind, body: bytes) -> None:
    box = Identity(seed)
    sig = box.sign(kind, body)
    other = Ed25519PrivateKey.from_private_bytes(seed)
    assert other.sign(b"farcast/" + kind.encode() + b"/v1\0" + body) == sig
    other.public_key().verify(sig, domain(kind) + body)
    assert verify(kind, box.key, body, sig)


@given(seeds, kinds, kinds, st.binary(max_size=60))
def test_a_signature_holds_for_its_kind_only(seed: bytes, kind: Kind, other: Kind, body: bytes) -> None:
    box = Identity(seed)
    assert verify(other, box.key, body, box.sign(kind, body)) == (kind == other)


@given(st.integers(0, 63), st.integers(1, 255))
def test_a_changed_signature_does_not_verify(place: int, mask: int) -> None:
    sig = bytearray(BOX.sign("pulse", b"body"))
    sig[place] ^= mask
    assert not verify("pulse", BOX.key, b"body", bytes(sig))


@pytest.mark.parametrize(
    ("key", "sig"),
    [
        (b"", bytes(64)),
        (bytes(32), bytes(64)),
        (BOX.key, b""),
        (BOX.key, bytes(63)),
        (BOX.key + b"\0", bytes(64)),
        (b"\1" + bytes(31), b"\1" + bytes(63)),  # a key of small order signs everything
    ],
)
def test_keys_and_signatures_of_no_use_verify_nothing(key: bytes, sig: bytes) -> None:
    assert not verify_raw(key, b"message", sig)


LOW_ORDER = [b"\0" * 32, b"\1" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"]
ORDER = 2**252 + 27742317777372353535851937790883648493


@given(seeds, st.binary(max_size=200), st.data())
def test_the_verdict_is_libsodiums_whatever_the_key_and_signature(
    seed: bytes, message: bytes, draw: st.DataObject
) -> None:
    box = Identity(seed)
    sig = box.sign_raw(message)
    high = sig[:32] + (int.from_bytes(sig[32:], "little") + ORDER).to_bytes(32, "little")
    point = draw.draw(st.sampled_from([*LOW_ORDER, sig[:32]]))
    sig = draw.draw(st.sampled_from([sig, high, point + sig[32:], point + bytes(32), bytes(64)]))
    key = draw.draw(st.sampled_from([box.key, *LOW_ORDER]))
    try:
        bindings.crypto_sign_open(sig + message, key)
    except BadSignatureError:
        accepted = False
    else:
        accepted = True
    assert verify_raw(key, message, sig) == accepted


def test_a_key_of_small_order_would_fool_a_laxer_library() -> None:
    # The case above is no matter of taste: the plain equation of RFC 8032 holds for it.
    lax = Ed25519PublicKey.from_public_bytes(b"\1" + bytes(31))
    try:
        lax.verify(b"\1" + bytes(63), b"message")
    except InvalidSignature:
        pytest.fail("no library accepts it any more, so the case proves nothing")


@given(st.lists(st.text(max_size=10), max_size=5))
def test_a_sealed_message_opens_for_its_key_and_kind_only(words: list[str]) -> None:
    message = Words(words)
    data = BOX.seal("record", message)
    assert unseal("record", Words, data, BOX.key) == message
    opened, signed = open_unverified(Words, data)
    assert opened == message
    assert verify("record", BOX.key, signed.body, signed.sig)
    wrong: list[tuple[Kind, bytes]] = [("rotation", BOX.key), ("record", Identity(bytes(32)).key)]
    for kind, key in wrong:
        with pytest.raises(RemoteError) as caught:
            unseal(kind, Words, data, key)
        assert caught.value.reason == "bad_signature"


@given(st.binary(max_size=120))
def test_any_bytes_are_a_remote_error(data: bytes) -> None:
    with pytest.raises(RemoteError):
        unseal("record", Words, data, BOX.key)


def test_a_sound_signature_over_another_message_is_refused() -> None:
    body = encode([1, 2, 3])
    with pytest.raises(RemoteError) as caught:
        unseal("record", Words, encode(Signed(body, BOX.sign("record", body))), BOX.key)
    assert caught.value.reason == "malformed"


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_seed_of_another_length_is_a_programming_error(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Identity(bytes(size))
