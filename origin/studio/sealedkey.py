"""A key under a passphrase: how the root key rests on disk and in backups.

scrypt (RFC 7914) stretches the passphrase, AES-256-GCM (NIST SP 800-38D) seals the 32-byte seed.
"""

from __future__ import annotations

from typing import Annotated, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from msgspec import Meta

from ...protocol.codec import Message, decode, encode
from ...protocol.errors import UsageError

MIN_PASSPHRASE_CHARS = 12
SALT_BYTES, NONCE_BYTES = 16, 12
_COST, _BLOCK, _LANES = 2**17, 8, 1


class SealedKey(Message, frozen=True):
    """The sealed seed with all that opening it needs but the passphrase."""

    v: Literal[1]
    salt: Annotated[bytes, Meta(min_length=SALT_BYTES, max_length=SALT_BYTES)]
    nonce: Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
    box: Annotated[bytes, Meta(min_length=48, max_length=48)]


def seal_key(seed: bytes, passphrase: str, salt: bytes, nonce: bytes) -> bytes:
    """Seal a 32-byte ``seed``; ``salt`` and ``nonce`` are fresh random bytes.

    Raises:
        UsageError: where the passphrase is too short to protect anything.

    """
    if len(passphrase) < MIN_PASSPHRASE_CHARS:
        raise UsageError(f"the passphrase must have at least {MIN_PASSPHRASE_CHARS} characters")
    box = AESGCM(_stretch(passphrase, salt)).encrypt(nonce, seed, b"farcast/sealed-key/v1")
    return encode(SealedKey(1, salt, nonce, box))


def open_key(data: bytes, passphrase: str) -> bytes:
    """Return the seed.

    Raises:
        UsageError: ``wrong_passphrase``.
        RemoteError: where the bytes are no sealed key.

    """
    sealed = decode(SealedKey, data, limit_bytes=1_024)
    try:
        return AESGCM(_stretch(passphrase, sealed.salt)).decrypt(
            sealed.nonce, sealed.box, b"farcast/sealed-key/v1"
        )
    except InvalidTag as error:
        message = "this passphrase does not open the key; use the one that `farcast origin init` showed"
        raise UsageError(message, reason="wrong_passphrase") from error


def _stretch(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=_COST, r=_BLOCK, p=_LANES).derive(passphrase.encode())
