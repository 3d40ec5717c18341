r"""A file under a passphrase: how a backup rests anywhere, read and written as a stream.

``farcast-backup/1\\n``, salt and check value, then pieces of a mebibyte, each sealed with
ChaCha20-Poly1305 (RFC 8439) under its number and whether it is the last, so that pieces can be
neither changed, moved, left out nor cut off (the STREAM construction of Hoang, Reyhanitabar, Rogaway
and Vizár, 2015). scrypt (RFC 7914) makes key and check value from the passphrase.
"""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from ..protocol.errors import LocalError, UsageError
from .studio.sealedkey import MIN_PASSPHRASE_CHARS

MAGIC = b"farcast-backup/1\n"
SALT_BYTES, CHECK_BYTES, KEY_BYTES, TAG_BYTES = 32, 32, 32, 16
PIECE_BYTES = 1 << 20
_HEAD_BYTES = len(MAGIC) + SALT_BYTES + CHECK_BYTES
_COST, _BLOCK, _LANES = 2**17, 8, 1


class SealedWriter:
    """Seals what is written to it into ``file``; only ``finish`` makes it whole."""

    def __init__(self, file: BinaryIO, passphrase: str, salt: bytes) -> None:
        """Write the head; ``salt`` is 32 fresh random bytes.

        Raises:
            UsageError: where the passphrase is too short to protect anything.

        """
        if len(passphrase) < MIN_PASSPHRASE_CHARS:
            raise UsageError(f"the passphrase must have at least {MIN_PASSPHRASE_CHARS} characters")
        key, check = _stretch(passphrase, salt)
        self._head = MAGIC + salt + check
        self._file = file
        self._cipher = ChaCha20Poly1305(key)
        self._waiting = bytearray()
        self._number = 0
        file.write(self._head)

    def write(self, data: bytes) -> int:
        """Take some bytes."""
        self._waiting += data
        while len(self._waiting) > PIECE_BYTES:  # the last piece is kept back: it is sealed as such
            self._seal(bytes(self._waiting[:PIECE_BYTES]), last=False)
            del self._waiting[:PIECE_BYTES]
        return len(data)

    def finish(self) -> None:
        """Seal what is left as the last piece."""
        self._seal(bytes(self._waiting), last=True)
        self._waiting.clear()

    def _seal(self, piece: bytes, *, last: bool) -> None:
        self._file.write(self._cipher.encrypt(_nonce(self._number, last=last), piece, self._head))
        self._number += 1


class SealedReader:
    """Reads what a ``SealedWriter`` wrote to the file at ``path``; every byte it returns is authentic."""

    def __init__(self, file: BinaryIO, path: Path, passphrase: str) -> None:
        """Open the stream.

        Raises:
            UsageError: ``wrong_passphrase``, or ``no_backup`` for another kind of file.

        """
        self._file = file
        self._path = path
        head = file.read(_HEAD_BYTES)
        if len(head) < _HEAD_BYTES or not head.startswith(MAGIC):
            raise UsageError(f"{path} is no backup of an origin", reason="no_backup")
        key, check = _stretch(passphrase, head[len(MAGIC) : len(MAGIC) + SALT_BYTES])
        if not hmac.compare_digest(check, head[-CHECK_BYTES:]):
            message = f"this passphrase does not open {path}; use the one that `farcast origin backup` showed"
            raise UsageError(message, reason="wrong_passphrase")
        self._head = head
        self._cipher = ChaCha20Poly1305(key)
        self._number = 0
        self._ahead = file.read(PIECE_BYTES + TAG_BYTES)
        self._ready = b""
        self._done = False

    def read(self, size: int) -> bytes:
        """Return the next ``size`` bytes, fewer at the end.

        Raises:
            LocalError: ``damaged`` where the file is not as it was written, or cut.

        """
        parts: list[bytes] = []
        while size > 0:
            if not self._ready:
                if self._done:
                    break
                self._open()
                continue
            part, self._ready = self._ready[:size], self._ready[size:]
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def drain(self) -> None:
        """Read to the end, so that what was read is known to be all of it; raises as ``read``."""
        while self.read(PIECE_BYTES):
            pass

    def _open(self) -> None:
        piece = self._ahead
        self._ahead = self._file.read(PIECE_BYTES + TAG_BYTES)
        self._done = not self._ahead
        try:
            nonce = _nonce(self._number, last=self._done)
            self._ready = self._cipher.decrypt(nonce, piece, self._head)
        except InvalidTag as error:
            at = _HEAD_BYTES + self._number * (PIECE_BYTES + TAG_BYTES)
            message = f"{self._path} is damaged or cut off behind byte {at}; use another copy of the backup"
            raise LocalError(message, reason="damaged") from error
        self._number += 1


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _stretch(passphrase: str, salt: bytes) -> tuple[bytes, bytes]:
    """Return key and check value; the two halves of scrypt's output tell nothing of each other."""
    kdf = Scrypt(salt=salt, length=KEY_BYTES + CHECK_BYTES, n=_COST, r=_BLOCK, p=_LANES)
    made = kdf.derive(passphrase.encode())
    return made[:KEY_BYTES], made[KEY_BYTES:]
