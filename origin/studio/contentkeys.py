"""Content keys: what protected titles are encrypted under, all derived from one secret of the origin.

No key is ever stored: its id in the manifest and the secret give it again (HKDF, RFC 5869). So the
file ``keys/content-secret`` is all a backup needs, and no block, log or database holds a key.
"""

from __future__ import annotations

import hmac
from hashlib import sha256

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ...protocol.protection import KEY_BYTES

CHECK_BYTES = 4


class ContentKeys:
    """Names and derives content keys; knows nothing of who may have them."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._naming = self._derive(b"farcast/content-key-name/v1\0", 32)

    def key_id(self, title: str, content: bytes) -> bytes:
        """Return the id of the key for this ``content`` (a digest) of a title: always the same.

        The same film published again keeps its key, and so its blocks; a film that changed in one
        byte gets another, so no two files are ever encrypted under one key and IV. The last four
        bytes show that an id is of this secret.
        """
        name = self._mac(b"name\0" + title.encode() + b"\0" + content)[: 16 - CHECK_BYTES]
        return name + self._mac(b"check\0" + name)[:CHECK_BYTES]

    def owns(self, key_id: bytes) -> bool:
        """Say whether an id was made under this secret."""
        check = self._mac(b"check\0" + key_id[:-CHECK_BYTES])[:CHECK_BYTES]
        return hmac.compare_digest(key_id[-CHECK_BYTES:], check)

    def key(self, key_id: bytes) -> bytes:
        """Derive the AES-128 key of an id."""
        return self._derive(b"farcast/content-key/v1\0" + key_id, KEY_BYTES)

    def _mac(self, data: bytes) -> bytes:
        return hmac.digest(self._naming, data, sha256)

    def _derive(self, info: bytes, length: int) -> bytes:
        return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(self._secret)
