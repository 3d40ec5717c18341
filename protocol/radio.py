"""Radio: what is worth a kilobit a second, each in one datagram that proves itself.

A head is the catalog's checkpoint in its form for radio. A waybill is a carrier's signed word that a batch
of pulses waits with it: nothing is paid for that, and nothing counted before the pulses themselves arrive.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from msgspec import Meta

from .batch import MAX_PULSES, batch_hash, read_parcel
from .codec import Message
from .errors import RemoteError
from .identity import Identity, open_unverified, peer_id, verify
from .manifest import Key
from .note import COMPACT_BYTES, Checkpoint, expand, key_id, open_note
from .pulse import Hash

DATAGRAM_LIMIT_BYTES = 383
"""What Reticulum carries in one packet of any kind (its MTU is 500)."""
HEAD_BYTES = 1 + COMPACT_BYTES
WAYBILL_LIMIT_BYTES = 160
_HEAD, _WAYBILL = b"\x01", b"\x02"


class Waybill(Message, frozen=True):
    """A carrier's word of a batch that waits with it (kind ``waybill``, signed by ``carrier``).

    ``number`` is the batch's, ``batch`` the SHA-256 of its envelope, ``pulses`` how many are in it.
    """

    v: Literal[1]
    carrier: Key
    number: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    batch: Hash
    pulses: Annotated[int, Meta(ge=1, le=MAX_PULSES)]


class Head(NamedTuple):
    """A catalog's signed tree head, verified, and its note as everybody else has it."""

    checkpoint: Checkpoint
    note: bytes


def head_datagram(compact: bytes) -> bytes:
    """Return the datagram of a checkpoint in its form for radio."""
    return _HEAD + compact


def waybill_datagram(batch: bytes, identity: Identity) -> bytes:
    """Return the datagram that says that a sealed batch of ``identity``'s own waits."""
    head, pulses = read_parcel(batch)
    waybill = Waybill(1, identity.key, head.number, batch_hash(batch), len(pulses))
    return _WAYBILL + identity.seal("waybill", waybill)


def open_datagram(data: bytes, name: str, keys: list[bytes]) -> Head | Waybill:
    """Verify a datagram; ``name`` is the catalog's and ``keys`` those that may sign its heads.

    Raises:
        RemoteError: ``too_large``, ``malformed``, ``bad_signature`` or a codec reason.

    """
    if len(data) > DATAGRAM_LIMIT_BYTES:
        raise RemoteError(f"a datagram of {len(data)} bytes is no radio's", reason="too_large")
    if data[:1] == _HEAD:
        return _open_head(data[1:], name, keys)
    if data[:1] == _WAYBILL:
        return open_waybill(data[1:])
    raise RemoteError("a datagram of no known kind", reason="malformed")


def open_waybill(data: bytes) -> Waybill:
    """Verify a waybill by the key that it names.

    Raises:
        RemoteError: ``bad_signature``, ``too_large`` or a codec reason.

    """
    if len(data) > WAYBILL_LIMIT_BYTES:
        raise RemoteError(f"a waybill of {len(data)} bytes is none", reason="too_large")
    waybill, signed = open_unverified(Waybill, data)
    if not verify("waybill", waybill.carrier, signed.body, signed.sig):
        message = f"a waybill whose signature is not {peer_id(waybill.carrier)}'s"
        raise RemoteError(message, reason="bad_signature")
    return waybill


def _open_head(data: bytes, name: str, keys: list[bytes]) -> Head:
    note = expand(data, name)
    signer = data[1 + 8 + 32 + 8 :][:4]
    for key in keys:
        if key_id(name, key) == signer:
            return Head(open_note(note, name, key), note)
    raise RemoteError("a head that no key of this catalog signed", reason="bad_signature")
