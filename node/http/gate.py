"""Who gets a new HTTP/3 session: the answer to a datagram that belongs to none (sans-IO)."""

from __future__ import annotations

import hashlib
import hmac
from typing import NamedTuple

from .datagram import Address
from .h3 import ID_BYTES, INITIAL_BYTES, VERSION, Ids, negotiation, retry

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


class Gate:
    """Admits sessions up to a number, and asks for proof of address when many are unproven at once.

    The proof is a Retry token (RFC 9000 section 8.1.2): whoever can send it back receives at the
    address it was made for, so a flood of forged addresses costs no memory.
    """

    def __init__(self, secret: bytes, *, sessions: int, unproven: int) -> None:
        """Sign tokens with ``secret``; admit ``sessions``, of them ``unproven`` without a token."""
        self._secret = secret
        self._sessions = sessions
        self._unproven = unproven

    def judge(
        self,
        ids: Ids,
        size_bytes: int,
        address: Address,
        *,
        sessions: int,
        unproven: int,
        noise: bytes,
        now: float,
    ) -> Admit | Respond | Refuse:
        """Judge a datagram of ``size_bytes``; ``noise`` is ``ID_BYTES`` of fresh randomness."""
        if not ids.version or size_bytes < INITIAL_BYTES:
            return Refuse("stray_datagram")
        if ids.version != VERSION:
            return Respond(negotiation(ids))
        if not ids.initial or len(ids.destination) < ID_BYTES:
            return Refuse("stray_datagram")
        if not ids.source:
            return Refuse("empty_connection_id")
        if sessions >= self._sessions:
            return Refuse("too_many_connections")
        return self._judge_token(ids, address, unproven, noise, now)

    def _judge_token(
        self, ids: Ids, address: Address, unproven: int, noise: bytes, now: float
    ) -> Admit | Respond | Refuse:
        if ids.token:
            original = self._original(ids, address, now)
            return Admit(original, ids.destination) if original else Refuse("bad_retry_token")
        if unproven < self._unproven:
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
