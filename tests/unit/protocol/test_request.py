from __future__ import annotations

from base64 import urlsafe_b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.protocol.errors import RemoteError
from farcast.protocol.identity import Identity
from farcast.protocol.request import (
    RequestProof,
    authorization,
    challenge,
    open_authorization,
    read_challenge,
)

DEVICE = Identity(b"m" * 32)


def _value() -> str:
    return authorization(
        DEVICE, method="POST", path="/p?q", body=b"b", nonce=b"n" * 38, audience=b"a" * 32, at_ms=5
    )


def test_a_proof_comes_back_as_it_was_signed() -> None:
    proof = open_authorization(_value())
    assert (proof.method, proof.path, proof.nonce, proof.key) == ("POST", "/p?q", b"n" * 38, DEVICE.key)
    assert (proof.audience, proof.at_ms, len(proof.body_hash)) == (b"a" * 32, 5, 32)


def test_a_proof_under_another_key_is_refused() -> None:
    proof = open_authorization(_value())
    stolen = RequestProof(
        1, proof.method, proof.path, proof.nonce, proof.body_hash, b"k" * 32, proof.audience, proof.at_ms
    )
    forged = urlsafe_b64encode(DEVICE.seal("request", stolen)).rstrip(b"=").decode()
    with pytest.raises(RemoteError) as caught:
        open_authorization("Farcast " + forged)
    assert caught.value.reason == "bad_signature"


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=64))
def test_a_nonce_survives_its_header(nonce: bytes) -> None:
    assert read_challenge(challenge(nonce)) == nonce


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_refused_as_remote_error(text: str) -> None:
    for sample in (text, "Farcast " + text, f'Farcast nonce="{text}"'):
        with pytest.raises(RemoteError):
            open_authorization(sample)
        try:
            nonce = read_challenge(sample)
        except RemoteError:
            continue
        assert challenge(nonce).lower() == sample.strip().lower()


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_envelope_bytes_are_refused_as_remote_error(data: bytes) -> None:
    with pytest.raises(RemoteError):
        open_authorization("Farcast " + urlsafe_b64encode(data).rstrip(b"=").decode())
