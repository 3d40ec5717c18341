r"""Ed25519 identities, libp2p peer ids, and the one signature rule of every message.

``sig = Ed25519("farcast/<kind>/v1\0" || body)`` with libsodium's verification rules everywhere.
Peer ids follow the libp2p peer-id specification: the identity multihash of the protobuf public
key, in base58btc (``12D3KooW...``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from hashlib import blake2b
from importlib import import_module
from typing import Any, Literal, TypeVar

from nacl import bindings
from nacl.exceptions import CryptoError

from .codec import Message, decode, encode
from .errors import RemoteError

Kind = Literal[
    "manifest",
    "ticket",
    "pulse",
    "batch",
    "receipt",
    "ack",
    "seal",
    "beacon",
    "presence",
    "record",
    "rotation",
    "directory",
    "generation",
    "request",
    "settle",
    "evidence",
    "checkpoint",
    "waybill",
]

M = TypeVar("M", bound=Message)

KEY_BYTES = 32
SIGNATURE_BYTES = 64
_SODIUM: Any = import_module("nacl._sodium")
"""PyNaCl's own door to libsodium: its ``crypto_sign_open`` copies every message twice, which costs a
twelfth of checking a pulse and a third of checking a batch."""
_PEER_ID_PREFIX = bytes.fromhex("002408011220")
_open, _NOTHING = _SODIUM.lib.crypto_sign_open, _SODIUM.ffi.NULL
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE58_INDEX = {letter: value for value, letter in enumerate(_BASE58)}
_PEER_ID_MAX_CHARS = 60


class Signed(Message, frozen=True, gc=False):
    """A message body and the signature over it, as both travel: ``[body, sig]``."""

    body: bytes
    sig: bytes


class Identity:
    """A private Ed25519 key; its name is the peer id.

    The 32-byte seed comes from the caller, because this floor has no random source.
    """

    __slots__ = ("_secret", "key", "peer_id")

    def __init__(self, seed: bytes) -> None:
        """Derive the key pair from a 32-byte ``seed``; raises ``ValueError`` on another length."""
        if len(seed) != KEY_BYTES:
            msg = f"an Ed25519 seed has 32 bytes, not {len(seed)}"
            raise ValueError(msg)
        self.key, self._secret = bindings.crypto_sign_seed_keypair(seed)
        self.peer_id = peer_id(self.key)

    def __repr__(self) -> str:
        """Name the public half only."""
        return f"Identity({self.peer_id})"

    def sign(self, kind: Kind, body: bytes) -> bytes:
        """Return the 64-byte signature over ``body`` in the domain of ``kind``."""
        return self.sign_raw(domain(kind) + body)

    def sign_raw(self, message: bytes) -> bytes:
        """Return a bare Ed25519 signature; only for foreign formats (TLS extension, notes)."""
        return bindings.crypto_sign(message, self._secret)[:SIGNATURE_BYTES]

    def pair(self, key: bytes) -> bytes:
        """Return the 32 bytes that this key and ``key`` share with nobody else; none where there are none.

        BLAKE2b-256 over the X25519 secret (RFC 7748) of both keys in Montgomery form, then the keys, the
        smaller one first.
        """
        try:
            theirs = bindings.crypto_sign_ed25519_pk_to_curve25519(key)
            own = bindings.crypto_sign_ed25519_sk_to_curve25519(self._secret)
            secret = bindings.crypto_scalarmult(own, theirs)
        except CryptoError:
            return b""
        both = secret + min(key, self.key) + max(key, self.key)
        return blake2b(both, digest_size=KEY_BYTES, person=b"farcast/pair").digest()

    def seal(self, kind: Kind, message: Message) -> bytes:
        """Encode ``message``, sign it, and return the signed envelope's bytes."""
        body = encode(message)
        return encode(Signed(body, self.sign(kind, body)))


@cache
def domain(kind: Kind) -> bytes:
    """Return the domain-separation prefix of ``kind``."""
    return b"farcast/" + kind.encode() + b"/v1\0"


def verify_raw(key: bytes, message: bytes, sig: bytes) -> bool:
    """Say whether ``sig`` is ``key``'s bare Ed25519 signature over ``message``."""
    if len(key) != KEY_BYTES or len(sig) != SIGNATURE_BYTES:
        return False
    signed = sig + message
    return bool(_open(_NOTHING, _NOTHING, signed, len(signed), key) == 0)


def verify(kind: Kind, key: bytes, body: bytes, sig: bytes) -> bool:
    """Say whether ``sig`` is ``key``'s signature over ``body`` in the domain of ``kind``."""
    if len(key) != KEY_BYTES or len(sig) != SIGNATURE_BYTES:
        return False
    signed = sig + domain(kind) + body
    return bool(_open(_NOTHING, _NOTHING, signed, len(signed), key) == 0)


def can_sign(key: bytes) -> bool:
    """Say whether 32 bytes are a public key that somebody may hold.

    That is the canonical encoding of a point of the main subgroup of Ed25519 that is not the neutral
    element (RFC 8032, section 5.1; libsodium's ``crypto_core_ed25519_is_valid_point``).
    """
    return len(key) == KEY_BYTES and bool(bindings.crypto_core_ed25519_is_valid_point(key))


def unseal(kind: Kind, of: type[M], data: bytes, key: bytes, *, limit_bytes: int = 4 << 20) -> M:
    """Open a signed envelope: check ``key``'s signature, then decode the body as ``of``.

    Raises:
        RemoteError: ``bad_signature``, or what ``codec.decode`` raises.

    """
    signed = decode(Signed, data, limit_bytes=limit_bytes)
    if not verify(kind, key, signed.body, signed.sig):
        msg = f"a {kind} whose signature is not {peer_id(key)}'s"
        raise RemoteError(msg, reason="bad_signature")
    return decode(of, signed.body, limit_bytes=limit_bytes)


def unseal_any(
    kind: Kind, of: type[M], data: bytes, keys: Sequence[bytes], whose: str, *, limit_bytes: int = 4 << 20
) -> M:
    """Open a signed envelope by whichever of ``keys`` signed it; ``whose`` names them where there is none.

    Raises:
        RemoteError: ``no_key``, or what ``unseal`` raises for the last of them.

    """
    failure = RemoteError(f"no {whose} key is known yet", reason="no_key")
    for key in keys:
        try:
            return unseal(kind, of, data, key, limit_bytes=limit_bytes)
        except RemoteError as error:
            failure = error
    raise failure


def open_unverified(of: type[M], data: bytes) -> tuple[M, Signed]:
    """Decode a signed envelope whose signer is named inside the body; the caller must verify.

    Raises:
        RemoteError: what ``codec.decode`` raises.

    """
    signed = decode(Signed, data)
    return decode(of, signed.body), signed


def peer_id(key: bytes) -> str:
    """Return the libp2p peer id of a 32-byte Ed25519 public key."""
    number = int.from_bytes(_PEER_ID_PREFIX + key, "big")
    letters: list[str] = []
    while number:
        number, digit = divmod(number, 58)
        letters.append(_BASE58[digit])
    return "1" + "".join(reversed(letters))  # the identity multihash starts with one zero byte


def parse_peer_id(text: str) -> bytes:
    """Return the 32-byte public key that a ``12D3KooW...`` peer id names.

    Raises:
        RemoteError: ``malformed`` where the text is no Ed25519 peer id.

    """
    number = 0
    if text.startswith("12D3KooW") and len(text) <= _PEER_ID_MAX_CHARS:
        for letter in text[1:]:
            digit = _BASE58_INDEX.get(letter)
            if digit is None:
                number = 0
                break
            number = number * 58 + digit
        raw = number.to_bytes(64, "big")[-(len(_PEER_ID_PREFIX) + KEY_BYTES) :]
        if raw.startswith(_PEER_ID_PREFIX) and peer_id(raw[len(_PEER_ID_PREFIX) :]) == text:
            return raw[len(_PEER_ID_PREFIX) :]
    msg = f"{text[:_PEER_ID_MAX_CHARS]!r} is no Ed25519 peer id (12D3KooW...)"
    raise RemoteError(msg, reason="malformed")
