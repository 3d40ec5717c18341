"""Presence: a box tells its link, every few seconds, that it is there and where to dial it.

Signed by a short-lived key that is also the TLS identity of the box's LAN listener, so the signature
ties the words to whoever answers there; it says nothing about who the box is elsewhere.
"""

from __future__ import annotations

from hashlib import blake2b
from hmac import compare_digest
from typing import Annotated, Literal

from msgspec import Meta

from .codec import Message
from .errors import RemoteError
from .generation import OriginId
from .identity import Identity, Signed, open_unverified, verify
from .manifest import Count, Key

PRESENCE_LIMIT_BYTES = 160
MARK_BYTES = 16
_TOLD = b"\0"
"""What a datagram to one box begins with: no envelope does."""
ACTIVE_INTERVAL_S = 2.0
IDLE_INTERVAL_S = 15.0
NO_WAY = 16
"""One more than the longest way that counts, as in RIP (RFC 2453 section 3.4): so lies and loops end."""


class Presence(Message, frozen=True):
    """What a box says (kind ``presence``, signed by ``key``).

    ``net`` is the id of the origin it follows; ``at_ms`` grows with every presence of a key;
    ``active`` tells which interval it keeps; ``ask`` wants the listeners' presence in return;
    ``hops`` says through how many neighbours it reaches a relay or the origin now: 0 by itself,
    ``NO_WAY`` not at all; ``leaving`` is its last word.
    """

    v: Literal[2]
    net: OriginId
    key: Key
    port: Annotated[int, Meta(ge=1, le=65_535)]
    at_ms: Count
    active: bool
    ask: bool
    hops: Annotated[int, Meta(ge=0, le=NO_WAY)]
    leaving: bool

    @property
    def interval_s(self) -> float:
        """The longest time until the next presence."""
        return ACTIVE_INTERVAL_S if self.active else IDLE_INTERVAL_S


def seal_presence(presence: Presence, identity: Identity) -> bytes:
    """Sign ``presence`` with the key it names; at most 160 bytes."""
    return identity.seal("presence", presence)


def read_presence(data: bytes) -> tuple[Presence, Signed]:
    """Decode a presence without looking at its signature: enough to see that it is of no use.

    Raises:
        RemoteError: ``too_large`` or a codec reason.

    """
    if len(data) > PRESENCE_LIMIT_BYTES:
        raise RemoteError(f"a presence of {len(data)} bytes", reason="too_large")
    return open_unverified(Presence, data)


def tell_presence(envelope: bytes, pair: bytes) -> bytes:
    """Mark a sealed presence as said to one box, with which its speaker shares ``pair`` (``Identity.pair``).

    Whoever hears it knows from one hash, before any signature is looked at, that nobody else sent it.
    """
    return _TOLD + _mark(envelope, pair) + envelope if pair else envelope


def split_told(data: bytes) -> tuple[bytes, bytes]:
    """Return the mark of a datagram and the envelope; no mark where it is said to everybody.

    Raises:
        RemoteError: ``too_large``.

    """
    if len(data) > PRESENCE_LIMIT_BYTES:
        raise RemoteError(f"a presence of {len(data)} bytes", reason="too_large")
    if data[:1] != _TOLD:
        return b"", data
    return data[1 : 1 + MARK_BYTES], data[1 + MARK_BYTES :]


def is_marked(mark: bytes, envelope: bytes, pair: bytes) -> bool:
    """Say whether ``mark`` was made for ``envelope`` by who shares ``pair``."""
    return bool(mark and pair) and compare_digest(mark, _mark(envelope, pair))


def _mark(envelope: bytes, pair: bytes) -> bytes:
    return blake2b(envelope, digest_size=MARK_BYTES, key=pair, person=b"farcast/told").digest()


def open_presence(data: bytes) -> Presence:
    """Decode a presence and verify it against the key it names.

    Raises:
        RemoteError: ``too_large``, ``bad_signature`` or a codec reason.

    """
    presence, signed = read_presence(data)
    if not verify("presence", presence.key, signed.body, signed.sig):
        raise RemoteError("a presence not signed by the key it names", reason="bad_signature")
    return presence
