"""Signed requests: a client proves its key over a nonce of the server (kind ``request``).

The server answers 401 with ``www-authenticate: Farcast nonce="..."``; the client sends the request
again with ``authorization: Farcast <base64url of the signed envelope>``. The proof names method,
path, body, nonce and the server it is meant for, so it can be used once, there, for that.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from hashlib import sha256
from typing import Annotated, Literal

from msgspec import Meta

from .codec import Message
from .errors import RemoteError
from .identity import Identity, open_unverified, peer_id, verify

SCHEME = "Farcast"
NONCE_LIMIT_BYTES = 64
PROOF_LIMIT_BYTES = 4 << 10

_CHALLENGE = re.compile(
    rf'{SCHEME} nonce="([A-Za-z0-9_-]{{1,{NONCE_LIMIT_BYTES * 4 // 3 + 2}}})"', re.IGNORECASE
)
_CREDENTIALS = re.compile(rf"{SCHEME} ([A-Za-z0-9_-]{{1,{PROOF_LIMIT_BYTES}}})", re.IGNORECASE)


class RequestProof(Message, frozen=True):
    """What a client signs of one request.

    ``path`` is the request target as sent, query included; ``key`` the signer; ``audience`` the
    server's key, empty where the client knows only its name (a ``web`` endpoint).
    """

    v: Literal[1]
    method: Annotated[str, Meta(max_length=16)]
    path: Annotated[str, Meta(max_length=2_048)]
    nonce: Annotated[bytes, Meta(min_length=1, max_length=NONCE_LIMIT_BYTES)]
    body_hash: Annotated[bytes, Meta(min_length=32, max_length=32)]
    key: Annotated[bytes, Meta(min_length=32, max_length=32)]
    audience: Annotated[bytes, Meta(max_length=32)]
    at_ms: Annotated[int, Meta(ge=0, le=2**53 - 1)]


def challenge(nonce: bytes) -> str:
    """Return the ``www-authenticate`` value that offers ``nonce``."""
    return f'{SCHEME} nonce="{_text(nonce)}"'


def read_challenge(value: str) -> bytes:
    """Return the nonce a server offers; raises ``RemoteError`` ``malformed``."""
    match = _CHALLENGE.fullmatch(value.strip())
    if match is None:
        raise RemoteError("a challenge without a nonce", reason="malformed")
    return _bytes(match[1])


def authorization(
    identity: Identity, *, method: str, path: str, body: bytes, nonce: bytes, audience: bytes, at_ms: int
) -> str:
    """Return the ``authorization`` value by which ``identity`` signs one request."""
    proof = RequestProof(1, method, path, nonce, sha256(body).digest(), identity.key, audience, at_ms)
    return f"{SCHEME} {_text(identity.seal('request', proof))}"


def open_authorization(value: str) -> RequestProof:
    """Return the proof of an ``authorization`` value, its signature checked and nothing else.

    Raises:
        RemoteError: ``malformed``, ``bad_signature`` or a codec reason.

    """
    match = _CREDENTIALS.fullmatch(value.strip())
    if match is None:
        raise RemoteError("an authorization that is no signed request", reason="malformed")
    proof, signed = open_unverified(RequestProof, _bytes(match[1]))
    if not verify("request", proof.key, signed.body, signed.sig):
        raise RemoteError(f"a request not signed by {peer_id(proof.key)}", reason="bad_signature")
    return proof


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (Base64Error, ValueError) as error:
        raise RemoteError("malformed base64url", reason="malformed") from error
    if _text(data) != text:
        raise RemoteError("base64url that is not canonical", reason="malformed")
    return data
