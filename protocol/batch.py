"""Batches, receipts, acks and seal records: how pulses travel home and how the origin answers.

A box that takes pulses promises with a receipt; only the origin's ack allows anybody to delete
one; verdicts come later, in seal records.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Annotated, Literal

from msgspec import Meta

from .codec import Message, decode, encode
from .errors import RemoteError
from .identity import Identity, Signed, open_unverified, peer_id, unseal_any, verify
from .manifest import Count, Key
from .merkle import root_of
from .pulse import Hash
from .ticket import MAX_SEQ, Tid

MAX_PULSES = 4_096
BATCH_LIMIT_BYTES = 4 << 20
PAGE = 64
"""Pulses to a leaf of a batch's tree: a hash for each would cost the origin more than reading them."""
_BIN_SIZES = {0xC4: 1, 0xC5: 2, 0xC6: 4}
"""How many bytes tell the length of a bin, by its first byte (msgpack specification)."""

Seq = Annotated[int, Meta(ge=0, le=MAX_SEQ)]
Stamp = Annotated[int, Meta(ge=0, le=2**53 - 1)]
PulseList = Annotated[list[bytes], Meta(max_length=MAX_PULSES)]


class PulsePost(Message, frozen=True):
    """Pulses handed on as they are, with the tickets they need; any box may post them."""

    v: Literal[1]
    tickets: PulseList
    pulses: PulseList


class Batch(Message, frozen=True):
    """A carrier's numbered, linked collection (kind ``batch``, signed by ``carrier``).

    ``number`` is dense from 1; ``prev`` the hash of the batch before (32 zero bytes first);
    ``root`` names its pulses, which travel beside it; ``received_ms`` per pulse, when the carrier
    got it, ms since 1970.
    """

    v: Literal[1]
    carrier: Key
    number: Count
    prev: Hash
    opened_ms: Stamp
    closed_ms: Stamp
    root: Hash
    tickets: PulseList
    received_ms: Annotated[list[Stamp], Meta(max_length=MAX_PULSES)]


class Parcel(Message, frozen=True, gc=False):
    """A batch as it travels and is kept: the signed envelope and the pulses that its root names."""

    batch: bytes
    pulses: PulseList


class Receipt(Message, frozen=True):
    """A carrier's promise (kind ``receipt``): it stored these pulses; ``root`` as in a batch."""

    v: Literal[1]
    carrier: Key
    root: Hash
    count: Count
    at_ms: Stamp


class Reject(Message, frozen=True):
    """A pulse the origin will not store, and why (reason code, see docs/protocol.md)."""

    seq: Seq
    code: Annotated[str, Meta(max_length=40)]


class TidAck(Message, frozen=True):
    """What the origin has of one ticket: all of 1..``upto``, ``extra`` beyond, and rejects."""

    tid: Tid
    upto: Seq
    extra: Annotated[list[Seq], Meta(max_length=MAX_SEQ)]
    rejects: Annotated[list[Reject], Meta(max_length=MAX_SEQ)]


class Ack(Message, frozen=True):
    """The origin's word that bytes are durable (kind ``ack``, intake key).

    ``batch`` is the hash of the batch or post acked; ``segment`` and ``offset`` where it lies;
    ``log_size`` and ``log_root`` the intake log after it.
    """

    v: Literal[1]
    batch: Hash
    tids: Annotated[list[TidAck], Meta(max_length=MAX_PULSES)]
    segment: Annotated[str, Meta(max_length=40)]
    offset: Count
    log_size: Count
    log_root: Hash
    at_ms: Stamp


class SealRecord(Message, frozen=True):
    """The origin's verdict on one closed session (kind ``seal``, intake key)."""

    v: Literal[1]
    tid: Tid
    first: Seq
    last: Seq
    counted_ms: Count
    codes: Annotated[list[Reject], Meta(max_length=MAX_SEQ)]


def pulses_root(pulses: Sequence[bytes]) -> bytes:
    """Return the RFC 9162 tree hash over pages of signed pulse envelopes.

    A page is the encoding of an array of 64 of them, the last of what is left.
    """
    return root_of(encode(pulses[start : start + PAGE]) for start in range(0, len(pulses), PAGE))


def is_parcel(data: bytes) -> bool:
    """Say whether bytes begin as a parcel does, an array of two; a post is an array of three."""
    return data[:1] == b"\x92"


def batch_hash(data: bytes) -> bytes:
    """Return the name of a batch or post as sent: SHA-256 of the batch's envelope or of the post.

    The envelope's root names the pulses beside it.
    """
    return sha256(_envelope(data) if is_parcel(data) else data).digest()


def seal_parcel(batch: Batch, pulses: list[bytes], carrier: Identity) -> bytes:
    """Sign a batch as its carrier and put its pulses beside it."""
    return encode(Parcel(carrier.seal("batch", batch), pulses))


def read_parcel(data: bytes) -> tuple[Batch, list[bytes]]:
    """Return a batch that was verified before it was kept, and its pulses; raises ``RemoteError``."""
    parcel = decode(Parcel, data)
    return decode(Batch, decode(Signed, parcel.batch).body), parcel.pulses


def open_parcel(data: bytes) -> tuple[Batch, list[bytes]]:
    """Verify a batch against the carrier it names, its root and its shape.

    Raises:
        RemoteError: ``bad_signature``, ``bad_root``, ``bad_batch`` or a codec reason.

    """
    parcel = decode(Parcel, data, limit_bytes=BATCH_LIMIT_BYTES)
    batch, pulses = open_batch(parcel.batch), parcel.pulses
    if len(batch.received_ms) != len(pulses):
        raise RemoteError("a batch whose lists do not match", reason="bad_batch")
    if pulses_root(pulses) != batch.root:
        raise RemoteError("a batch whose root is not its pulses'", reason="bad_root")
    return batch, pulses


def open_batch(data: bytes) -> Batch:
    """Verify a batch's envelope against the carrier it names.

    Raises:
        RemoteError: ``bad_signature``, ``bad_batch`` or a codec reason.

    """
    batch, signed = open_unverified(Batch, data)
    if not verify("batch", batch.carrier, signed.body, signed.sig):
        raise RemoteError(f"a batch not signed by {peer_id(batch.carrier)}", reason="bad_signature")
    if batch.number < 1:
        raise RemoteError("a batch whose number is not from 1 on", reason="bad_batch")
    return batch


def seal_receipt(pulses: Sequence[bytes], at_ms: int, carrier: Identity) -> bytes:
    """Promise as ``carrier`` that ``pulses`` are stored durably."""
    return carrier.seal("receipt", Receipt(1, carrier.key, pulses_root(pulses), len(pulses), at_ms))


def open_receipt(data: bytes) -> Receipt:
    """Verify a receipt against the carrier it names; raises ``RemoteError``."""
    receipt, signed = open_unverified(Receipt, data)
    if not verify("receipt", receipt.carrier, signed.body, signed.sig):
        raise RemoteError(f"a receipt not signed by {peer_id(receipt.carrier)}", reason="bad_signature")
    return receipt


def open_ack(data: bytes, intake_keys: list[bytes]) -> Ack:
    """Verify an ack against the origin's accepted intake keys; raises ``RemoteError``."""
    return unseal_any("ack", Ack, data, intake_keys, "intake")


def open_seal(data: bytes, intake_keys: list[bytes]) -> SealRecord:
    """Verify a seal record against the origin's accepted intake keys; raises ``RemoteError``."""
    return unseal_any("seal", SealRecord, data, intake_keys, "intake")


def covers(ack: TidAck, seq: int) -> bool:
    """Say whether an ack settles sequence number ``seq``: stored, or rejected for good."""
    if 0 < seq <= ack.upto or seq in ack.extra:
        return True
    return bool(ack.rejects) and any(reject.seq == seq for reject in ack.rejects)


def _envelope(parcel: bytes) -> bytes:
    """Return the first element of a parcel, a bin; of anything else all of it."""
    width = _BIN_SIZES.get(parcel[1], 0) if len(parcel) > 1 else 0
    start = 2 + width
    return parcel[start : start + int.from_bytes(parcel[2:start], "big")] if width else parcel
