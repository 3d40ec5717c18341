"""Rotation: a relay takes a new key and stays who it is; its id is its first key."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from .codec import Message
from .errors import RemoteError
from .identity import Identity, open_unverified, peer_id, verify
from .manifest import Count, Key


class Rotation(Message, frozen=True):
    """``old`` hands over to ``new``; ``relay`` is the first key of all (kind ``rotation``).

    The envelope is signed by ``new``; ``consent`` is ``old``'s signature in the same domain.
    """

    v: Literal[1]
    relay: Key
    old: Key
    new: Key
    at_ms: Count
    consent: Annotated[bytes, Meta(min_length=64, max_length=64)]


def seal_rotation(relay: bytes, old: Identity, new: Identity, at_ms: int) -> bytes:
    """Return the signed envelope by which ``old`` hands over to ``new``."""
    consent = old.sign("rotation", _agreed(relay, old.key, new.key, at_ms))
    return new.seal("rotation", Rotation(1, relay, old.key, new.key, at_ms, consent))


def open_rotation(data: bytes) -> Rotation:
    """Decode a rotation and verify that both keys signed it.

    Raises:
        RemoteError: ``bad_signature`` or a codec reason.

    """
    rotation, signed = open_unverified(Rotation, data)
    agreed = _agreed(rotation.relay, rotation.old, rotation.new, rotation.at_ms)
    if not verify("rotation", rotation.new, signed.body, signed.sig):
        raise RemoteError(f"a rotation not signed by {peer_id(rotation.new)}", reason="bad_signature")
    if not verify("rotation", rotation.old, agreed, rotation.consent):
        raise RemoteError(f"a rotation {peer_id(rotation.old)} does not agree to", reason="bad_signature")
    return rotation


def _agreed(relay: bytes, old: bytes, new: bytes, at_ms: int) -> bytes:
    return relay + old + new + at_ms.to_bytes(8, "big")
