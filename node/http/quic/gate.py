"""Who gets a new HTTP/3 session: the answer to a datagram that belongs to none (sans-IO)."""

from __future__ import annotations

import hashlib
import hmac
from ipaddress import IPv4Address, ip_address
from typing import NamedTuple

from .ids import ID_BYTES, INITIAL_BYTES, VERSION, Ids, negotiation, retry
from .session import Address

TOKEN_S = 10.0
_PROOF_BYTES = 16


class Admit(NamedTuple):
    """Begin a session for a client that first wrote to ``original``, ``retried`` after a Retry."""

    original: bytes
    retried: bytes


class Respond(NamedTuple):
    """Send ``packet`` and remember nothing."""

    packet: bytes


class Refuse(NamedTuple):
    """Drop the datagram and count ``reason``."""

    reason: str


class Load(NamedTuple):
    """How much is under way at a server when a datagram comes."""

    sessions: int = 0
    unnamed: int = 0
    """Of them those of clients without a connection id, whose engine costs ten times as much."""
    handshakes: int = 0
    """Of them those that have not proven that they can finish a handshake."""
    neighbours: int = 0
    """Of those handshakes the ones from the network that the datagram comes from."""


class GateLimits(NamedTuple):
    """Bounds of one server."""

    sessions: int = 1_024
    unnamed: int = 128
    handshakes: int = 256
    """Handshakes at a time; the oldest makes way for one more."""
    neighbours: int = 32
    """Handshakes at a time from one network: an IPv4 address or an IPv6 /64."""
    unproven: int = 64
    """Handshakes at a time before a client must prove its address."""


class Gate:
    """Admits sessions up to a number, and asks for proof of address when many handshakes are under way.

    The proof is a Retry token (RFC 9000 section 8.1.2): whoever can send it back receives at the
    address it was made for, so a flood of forged addresses costs no memory, and one of real
    addresses no more than each network's share.
    """

    def __init__(self, secret: bytes, limits: GateLimits) -> None:
        """Sign tokens with ``secret``."""
        self.limits = limits
        self._secret = secret

    def judge(  # noqa: PLR0911 - one line a reason
        self, ids: Ids, size_bytes: int, address: Address, load: Load, *, noise: bytes, now: float
    ) -> Admit | Respond | Refuse:
        """Judge a datagram of ``size_bytes`` of no session; ``noise`` is ``ID_BYTES`` of randomness."""
        limits = self.limits
        if not ids.version or size_bytes < INITIAL_BYTES:
            return Refuse("stray_datagram")
        if ids.version != VERSION:
            return Respond(negotiation(ids))
        if not ids.initial or len(ids.destination) < ID_BYTES:
            return Refuse("stray_datagram")
        if load.sessions >= limits.sessions:
            return Refuse("too_many_connections")
        if not ids.source and load.unnamed >= limits.unnamed:
            return Refuse("too_many_browsers")
        if load.neighbours >= limits.neighbours:
            return Refuse("too_many_handshakes")
        if ids.token:
            original = self._original(ids, address, now)
            return Admit(original, ids.destination) if original else Refuse("bad_retry_token")
        if load.handshakes < limits.unproven:
            return Admit(ids.destination, b"")
        until = int(now + TOKEN_S).to_bytes(8, "big")
        token = until + self._proof(until, ids.destination, noise, address) + ids.destination
        return Respond(retry(ids, noise, token))

    def _original(self, ids: Ids, address: Address, now: float) -> bytes:
        until, proof, original = ids.token[:8], ids.token[8 : 8 + _PROOF_BYTES], ids.token[8 + _PROOF_BYTES :]
        right = hmac.compare_digest(proof, self._proof(until, original, ids.destination, address))
        return original if right and int.from_bytes(until, "big") >= now else b""

    def _proof(self, until: bytes, original: bytes, retried: bytes, address: Address) -> bytes:
        fields = (until.hex(), original.hex(), retried.hex(), str(address[0]), str(address[1]))
        return hmac.digest(self._secret, "|".join(fields).encode(), hashlib.sha256)[:_PROOF_BYTES]


def network(host: str) -> str:
    """Return what one holder of addresses can be expected to have: an IPv4 address or an IPv6 /64."""
    parsed = ip_address(host.partition("%")[0])
    if isinstance(parsed, IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return parsed.packed[:8].hex()
