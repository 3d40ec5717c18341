"""Content identifiers: the name of a block is the hash of its bytes.

CIDv1 of the multiformats CID specification, base32 in text, with the codecs Farcast meets.
CIDv0 (``Qm...``) is read wherever old IPFS data may hold it and is equal to the dag-pb CIDv1 of its digest.
"""

from __future__ import annotations

import binascii
from base64 import b32decode, b32encode
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256, sha512

from .errors import RemoteError

RAW, DAG_PB, DAG_CBOR, DAG_JSON = 0x55, 0x70, 0x71, 0x0129
CBOR, JSON = 0x51, 0x0200
"""Codecs of the multicodec table; the last two carry no links."""
SHA2_256, SHA2_512, IDENTITY = 0x12, 0x13, 0x00
"""Multihash codes. Farcast writes sha2-256; of a hash not listed only the name is understood, and no
bytes ever match it."""
PIECE_BYTES = 256 << 10
"""Hashed or written at a stretch where somebody else may want the core meanwhile."""
DIGEST_LIMIT_BYTES = 128
"""Longest digest anybody accepts; for identity CIDs the bound of IPIP-512."""
TEXT_LIMIT_CHARS = 300

Bytes = bytes | memoryview
"""The bytes of a block, or a look at a buffer that holds them for the time of one call."""

_SHA2_256_BYTES = 32
_VERSION_1 = 1
_V0_PREFIX = b"\x12\x20"
_V0_BYTES = 34
_V0_CHARS = 46
_V1_BYTES = 36
_COMMON = {b"\x01\x55\x12\x20": RAW, b"\x01\x70\x12\x20": DAG_PB}
"""The first four bytes of nearly every CID there is."""
_PREFIXES = {codec: prefix for prefix, codec in _COMMON.items()}
_VARINT_LIMIT_BYTES = 9
_HASHES = {SHA2_256: sha256, SHA2_512: sha512}
_CACHED_NAMES = 16_384
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE58_INDEX = {letter: value for value, letter in enumerate(_BASE58)}


@dataclass(frozen=True, slots=True, order=True, repr=False)
class Cid:
    """One content identifier: what the bytes are, and the hash they must have.

    ``version`` is how it was written where it was read; it makes no other CID of it.
    """

    codec: int
    digest: bytes
    hash_code: int = SHA2_256
    version: int = field(default=_VERSION_1, compare=False)

    @classmethod
    def of(cls, codec: int, data: Bytes) -> Cid:
        """Return the sha2-256 CID of ``data``."""
        return cls(codec, sha256(data).digest())

    @classmethod
    def parse(cls, text: str) -> Cid:
        """Read a CID in text: base32 (``b``), base16 (``f``), base58 (``z``) or CIDv0 (``Qm``).

        Raises:
            RemoteError: ``malformed``.

        """
        if len(text) > TEXT_LIMIT_CHARS:
            msg = f"a CID of {len(text)} characters is over the limit of {TEXT_LIMIT_CHARS}"
            raise RemoteError(msg, reason="malformed")
        return _parse(text)

    @classmethod
    def decode(cls, data: bytes) -> Cid:
        """Read one binary CIDv1 that fills ``data``.

        Raises:
            RemoteError: ``malformed``, also for CIDv0, so that a CID has one binary form.

        """
        if data[:1] != b"\x01":
            raise RemoteError("bytes that are no CIDv1", reason="malformed")
        cid, end = cls.read(data)
        if end != len(data):
            raise RemoteError(f"{len(data) - end} bytes after the end of a CID", reason="malformed")
        return cid

    @classmethod
    def read(cls, data: bytes, offset: int = 0) -> tuple[Cid, int]:
        """Read the binary CIDv1 or CIDv0 at ``offset``; returns it and the offset behind it.

        Raises:
            RemoteError: ``malformed``.

        """
        codec = _COMMON.get(data[offset : offset + 4])
        if codec is not None and len(data) >= offset + _V1_BYTES:
            return cls(codec, data[offset + 4 : offset + _V1_BYTES]), offset + _V1_BYTES
        if data.startswith(_V0_PREFIX, offset):
            digest = data[offset + 2 : offset + _V0_BYTES]
            if len(digest) != _SHA2_256_BYTES:
                raise RemoteError("a CID cut short", reason="malformed")
            return cls(DAG_PB, digest, version=0), offset + _V0_BYTES
        version, offset = read_varint(data, offset)
        if version != _VERSION_1:
            raise RemoteError(f"a CID of unknown version {version}", reason="malformed")
        codec, offset = read_varint(data, offset)
        hash_code, offset = read_varint(data, offset)
        size, offset = read_varint(data, offset)
        if size > DIGEST_LIMIT_BYTES or (hash_code == SHA2_256 and size != _SHA2_256_BYTES):
            raise RemoteError(f"a CID whose digest has {size} bytes", reason="malformed")
        digest = data[offset : offset + size]
        if len(digest) != size:
            raise RemoteError("a CID cut short", reason="malformed")
        return cls(codec, digest, hash_code), offset + size

    def encode(self) -> bytes:
        """Return the binary CIDv1."""
        if self.hash_code == SHA2_256 and self.codec in _PREFIXES and len(self.digest) == _SHA2_256_BYTES:
            return _PREFIXES[self.codec] + self.digest
        return b"".join(
            (b"\x01", varint(self.codec), varint(self.hash_code), varint(len(self.digest)), self.digest)
        )

    def encode_as_read(self) -> bytes:
        """Return the binary CID in the version it was read in: what a client compares with a link."""
        return self.encode() if self.version else _V0_PREFIX + self.digest

    def matches(self, data: Bytes, pause: Callable[[], object] | None = None) -> bool:
        """Say whether ``data`` is the block this CID names; ``pause`` is called between pieces of it."""
        start = _HASHES.get(self.hash_code)
        if start is None:
            return self.hash_code == IDENTITY and data == self.digest
        if pause is None:
            return start(data).digest() == self.digest
        look = memoryview(data)
        running = start(look[:PIECE_BYTES])
        for at in range(PIECE_BYTES, len(look), PIECE_BYTES):
            pause()
            running.update(look[at : at + PIECE_BYTES])
        return running.digest() == self.digest

    @property
    def is_identity(self) -> bool:
        """Whether the CID carries its block inside itself, as ``digest``."""
        return self.hash_code == IDENTITY

    def __str__(self) -> str:
        return _text(self)

    def __repr__(self) -> str:
        return f"Cid({_text(self)})"


def varint(number: int) -> bytes:
    """Encode an unsigned LEB128 number (multiformats unsigned-varint)."""
    out = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_varint(data: bytes, offset: int) -> tuple[int, int]:
    """Read a minimal varint of at most 9 bytes at ``offset``; returns it and the offset behind it.

    Raises:
        RemoteError: ``malformed``.

    """
    number = 0
    for index, byte in enumerate(data[offset : offset + _VARINT_LIMIT_BYTES]):
        number |= (byte & 0x7F) << 7 * index
        if byte < 0x80:  # noqa: PLR2004 - the continuation bit
            if index and not byte:
                break
            return number, offset + index + 1
    raise RemoteError("a varint cut short, too long or not minimal", reason="malformed")


@lru_cache(maxsize=_CACHED_NAMES)
def _text(cid: Cid) -> str:
    return "b" + b32encode(cid.encode()).decode().rstrip("=").lower()


@lru_cache(maxsize=_CACHED_NAMES)
def _parse(text: str) -> Cid:
    if len(text) == _V0_CHARS and text.startswith("Qm"):
        data = _unbase58(text)
        if len(data) == _V0_BYTES and data.startswith(_V0_PREFIX):
            return Cid(DAG_PB, data[2:], version=0)
        raise RemoteError(f"{text!r} is no CIDv0", reason="malformed")
    base, body = text[:1], text[1:]
    try:
        if base == "b" and body == body.lower():
            cid = Cid.decode(b32decode(body.upper() + "=" * (-len(body) % 8)))
            if _text(cid) == text:  # base32 could leave stray bits behind the last byte
                return cid
        elif base == "f" and body == body.lower():
            return Cid.decode(binascii.unhexlify(body))
        elif base == "z":
            return Cid.decode(_unbase58(body))
    except ValueError as error:
        raise RemoteError(f"{text!r} is no CID", reason="malformed") from error
    raise RemoteError(f"{text!r} is no CID in base32, base16 or base58", reason="malformed")


def _unbase58(text: str) -> bytes:
    number = 0
    for letter in text:
        digit = _BASE58_INDEX.get(letter)
        if digit is None:
            raise RemoteError(f"{letter!r} is no letter of base58", reason="malformed")
        number = number * 58 + digit
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
