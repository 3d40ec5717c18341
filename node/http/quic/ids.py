"""What a server reads of a datagram, and writes to a stranger, before it has any key (sans-IO)."""

from __future__ import annotations

from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VERSION = 1
INITIAL_BYTES = 1_200
ID_BYTES = 8
"""Length of every connection id of ours."""
_LONG_HEADER = 0x80
_FIXED_BIT = 0x40
_TYPE_BITS = 0x30
_RETRY = 0xF0
_ID_LIMIT_BYTES = 20
_RETRY_KEY = bytes.fromhex("be0c690b9f66575a1d766b54e368c84e")
_RETRY_NONCE = bytes.fromhex("461599d35d632bf2239825bb")


class Ids(NamedTuple):
    """What a server must know of a datagram before any key (RFC 8999, RFC 9000 section 17.2)."""

    version: int
    """0 for a short header, which has none."""
    destination: bytes
    source: bytes
    initial: bool
    token: bytes


def read_ids(datagram: bytes) -> Ids | None:
    """Read the connection ids of a datagram; None where it cannot be QUIC."""
    if len(datagram) <= ID_BYTES:
        return None
    first = datagram[0]
    if not first & _LONG_HEADER:
        return Ids(0, datagram[1 : 1 + ID_BYTES], b"", initial=False, token=b"")
    version = int.from_bytes(datagram[1:5], "big")
    try:
        destination, at = _sized(datagram, 5)
        source, at = _sized(datagram, at)
        initial = version == VERSION and not first & _TYPE_BITS
        token = _token(datagram, at) if initial else b""
    except IndexError:
        return None
    if version == VERSION and not (
        first & _FIXED_BIT and max(len(destination), len(source)) <= _ID_LIMIT_BYTES
    ):
        return None
    return Ids(version, destination, source, initial, token)


def negotiation(ids: Ids) -> bytes:
    """Return the packet that names the versions we speak (RFC 9000 section 17.2.1)."""
    return b"\xc0\0\0\0\0" + _with_size(ids.source) + _with_size(ids.destination) + VERSION.to_bytes(4, "big")


def retry(ids: Ids, id: bytes, token: bytes) -> bytes:  # noqa: A002 - QUIC calls it so
    """Return the packet that asks a client to prove its address (RFC 9000 section 17.2.5).

    Its last 16 bytes prove that we saw the client's own packet (RFC 9001 section 5.8).
    """
    packet = bytes((_RETRY,)) + VERSION.to_bytes(4, "big") + _with_size(ids.source) + _with_size(id) + token
    return packet + AESGCM(_RETRY_KEY).encrypt(_RETRY_NONCE, b"", _with_size(ids.destination) + packet)


def _token(datagram: bytes, at: int) -> bytes:
    """Read the token of an Initial, whose length is a variable-length integer (RFC 9000 section 16)."""
    width = 1 << (datagram[at] >> 6)
    length = int.from_bytes(_span(datagram, at, width), "big") & ((1 << (8 * width - 2)) - 1)
    return _span(datagram, at + width, length)


def _sized(datagram: bytes, at: int) -> tuple[bytes, int]:
    length = datagram[at]
    return _span(datagram, at + 1, length), at + 1 + length


def _with_size(id: bytes) -> bytes:  # noqa: A002 - QUIC calls it so
    return bytes((len(id),)) + id


def _span(datagram: bytes, at: int, length: int) -> bytes:
    if at + length > len(datagram):
        raise IndexError
    return datagram[at : at + length]
