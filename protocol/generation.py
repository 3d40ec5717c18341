r"""Generations: what a one-way carousel sends as one piece, and the packets it travels in.

A generation is a bundle of items, coded by RaptorQ (RFC 6330) into symbols; its number comes from
its bytes, so equal content has an equal number. A packet is a 22-byte header, then either a 4-byte
FEC payload id (RFC 6330 section 3.2: block number 1, symbol id 3) and a symbol, or the signed
descriptor a receiver needs to make sense of the symbols.

    magic "F\x01" 2 | origin id 8 | generation number 8 | descriptor bit 1, sequence number 31 bits
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import sha256
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta

from .codec import Message, decode, encode
from .errors import RemoteError
from .identity import Identity, open_unverified, verify
from .manifest import Count

BUNDLE_LIMIT_BYTES = 20_000_000
BUNDLE_LIMIT_ITEMS = 65_536
DESCRIPTOR_LIMIT_BYTES = 256
HEADER_BYTES = 22
FEC_ID_BYTES = 4
SYMBOL_BYTES = 1_280
SYMBOLS_LIMIT = 56_403
"""K'_max of RFC 6330 section 5.1.2: up to here a generation is one source block."""
SEQ_MODULUS = 2**31
SYMBOL_IDS_PER_SOURCE = 32
"""Symbol ids go up to so many times the source symbols, and ``SYMBOL_IDS_SPARE``: a planned loss of 90 %."""
SYMBOL_IDS_SPARE = 1_024

_MAGIC = b"F\x01"
_HEADER = struct.Struct(">2s8sQI")

Kind = Literal["trust", "checkpoint", "entries", "directory", "beacon", "ack", "block", "timetable"]
OriginId = Annotated[bytes, Meta(min_length=8, max_length=8)]


class Item(Message, frozen=True):
    """One piece of a bundle: a TUF file by name, a block by CID text, a signed message, the timetable."""

    kind: Kind
    name: Annotated[str, Meta(max_length=300)]
    data: bytes


class _Bundle(Message, frozen=True):
    v: Literal[1]
    items: Annotated[list[Item], Meta(max_length=BUNDLE_LIMIT_ITEMS)]


class GenerationDescriptor(Message, frozen=True):
    """What a receiver must know of a generation (kind ``generation``, signed by a catalog key).

    ``length`` and ``digest`` (SHA-256) are the bundle's; after ``expires_ms`` nobody starts
    collecting it.
    """

    v: Literal[1]
    origin: OriginId
    number: Annotated[int, Meta(ge=0)]  # at most 2^64 - 1, as msgpack has no larger integer
    length: Annotated[int, Meta(ge=1, le=BUNDLE_LIMIT_BYTES)]
    symbol_bytes: Annotated[int, Meta(ge=64, le=1_408, multiple_of=64)]
    digest: Annotated[bytes, Meta(min_length=32, max_length=32)]
    expires_ms: Count

    @property
    def symbols(self) -> int:
        """How many source symbols (K of RFC 6330) the bundle fills."""
        return -(-self.length // self.symbol_bytes)

    @property
    def symbol_ids(self) -> int:
        """Below which number every symbol id of the generation is."""
        return min(self.symbols * SYMBOL_IDS_PER_SOURCE + SYMBOL_IDS_SPARE, 1 << 24)


class Packet(NamedTuple):
    """One datagram, header read and body untouched: a descriptor, or FEC id and symbol."""

    origin: bytes
    number: int
    seq: int
    is_descriptor: bool
    body: bytes


def origin_id(key: bytes) -> bytes:
    """Return the short id of an origin: the first 8 bytes of the SHA-256 of its Ed25519 key."""
    return sha256(key).digest()[:8]


def pack_bundle(items: Sequence[Item]) -> bytes:
    """Encode items as one bundle.

    Raises:
        RemoteError: ``too_large`` for a bundle that no receiver accepts.

    """
    data = encode(_Bundle(1, list(items)))
    if len(data) > BUNDLE_LIMIT_BYTES or len(items) > BUNDLE_LIMIT_ITEMS:
        msg = f"a bundle of {len(items)} items and {len(data)} bytes; split it into several generations"
        raise RemoteError(msg, reason="too_large")
    return data


def unpack_bundle(data: bytes) -> list[Item]:
    """Decode a bundle; raises ``RemoteError`` with a codec reason."""
    return decode(_Bundle, data, limit_bytes=BUNDLE_LIMIT_BYTES).items


def describe(bundle: bytes, origin: bytes, symbol_bytes: int, expires_ms: int) -> GenerationDescriptor:
    """Return the descriptor of ``bundle``; its number is the start of the digest."""
    digest = sha256(bundle).digest()
    number = int.from_bytes(digest[:8], "big")
    return GenerationDescriptor(1, origin, number, len(bundle), symbol_bytes, digest, expires_ms)


def seal_descriptor(descriptor: GenerationDescriptor, catalog: Identity) -> bytes:
    """Sign a descriptor with the origin's catalog key."""
    return catalog.seal("generation", descriptor)


def read_descriptor(data: bytes) -> GenerationDescriptor:
    """Decode a signed descriptor and check its shape, not its signature.

    Raises:
        RemoteError: ``bad_descriptor`` where number and digest differ or the symbols are too many,
            or a codec reason.

    """
    if len(data) > DESCRIPTOR_LIMIT_BYTES:
        raise RemoteError(f"a generation descriptor of {len(data)} bytes", reason="too_large")
    descriptor, _ = open_unverified(GenerationDescriptor, data)
    if descriptor.number != int.from_bytes(descriptor.digest[:8], "big"):
        raise RemoteError("a generation whose number is not its digest's", reason="bad_descriptor")
    if descriptor.symbols > SYMBOLS_LIMIT:
        raise RemoteError(f"a generation of {descriptor.symbols} symbols", reason="bad_descriptor")
    return descriptor


def is_vouched(data: bytes, catalog_keys: Sequence[bytes]) -> bool:
    """Say whether one of the accepted catalog keys signed the descriptor in ``data``.

    Raises:
        RemoteError: a codec reason where ``data`` is no signed descriptor.

    """
    _, signed = open_unverified(GenerationDescriptor, data)
    return any(verify("generation", key, signed.body, signed.sig) for key in catalog_keys)


def pack_packet(origin: bytes, number: int, seq: int, body: bytes, *, is_descriptor: bool = False) -> bytes:
    """Put the header before a descriptor, or before a symbol with its FEC id."""
    return _HEADER.pack(_MAGIC, origin, number, seq % SEQ_MODULUS + is_descriptor * SEQ_MODULUS) + body


def parse_packet(data: bytes) -> Packet:
    """Read the header of a datagram.

    Raises:
        RemoteError: ``short`` or ``bad_magic``.

    """
    if len(data) < HEADER_BYTES + FEC_ID_BYTES + 1:
        raise RemoteError(f"a carousel packet of {len(data)} bytes", reason="short")
    magic, origin, number, seq = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise RemoteError("a datagram that is no carousel packet", reason="bad_magic")
    return Packet(origin, number, seq % SEQ_MODULUS, seq >= SEQ_MODULUS, data[HEADER_BYTES:])
