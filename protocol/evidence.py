"""Evidence: two bodies that one session key signed under one number, for anybody to read.

No secret is needed: the ticket names the session key, the pulses carry its signatures, and the intake
key says that the ticket is this origin's. What was watched stays encrypted.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from msgspec import Meta

from .codec import Message, decode
from .errors import RemoteError
from .identity import Identity, Signed, unseal_any
from .pulse import check_pulse, pulse_hash
from .ticket import Ticket

EVIDENCE_LIMIT_BYTES = 8 << 10

Envelope = Annotated[bytes, Meta(max_length=1_024)]


class Evidence(Message, frozen=True):
    """A ticket and the signed pulses that contradict each other (kind ``evidence``, intake key).

    ``pulses`` ascend by the hashes of their bodies.
    """

    v: Literal[1]
    ticket: Envelope
    pulses: Annotated[list[Envelope], Meta(min_length=2, max_length=4)]


class Equivocation(NamedTuple):
    """What evidence shows: whose key said two things, under which ticket, day and number."""

    tid: bytes
    day: int
    seq: int
    session: bytes
    hashes: list[bytes]


def seal_evidence(ticket: bytes, pulses: list[bytes], intake: Identity) -> bytes:
    """Put signed bodies under one number together, for ``intake`` to vouch for the ticket."""
    return intake.seal("evidence", Evidence(1, ticket, sorted(pulses, key=_hash)))


def open_evidence(data: bytes, intake_keys: list[bytes]) -> Equivocation:
    """Check evidence with nothing but the origin's intake keys.

    Raises:
        RemoteError: ``bad_signature``, ``wrong_ticket``, ``no_evidence`` where the bodies do not
            contradict each other, or a codec reason.

    """
    said = unseal_any("evidence", Evidence, data, intake_keys, "intake", limit_bytes=EVIDENCE_LIMIT_BYTES)
    return _shown(said)


def _shown(said: Evidence) -> Equivocation:
    ticket = decode(Ticket, decode(Signed, said.ticket).body)
    seqs = {check_pulse(pulse, ticket).seq for pulse in said.pulses}
    hashes = [_hash(pulse) for pulse in said.pulses]
    if len(seqs) != 1 or hashes != sorted(set(hashes)):
        raise RemoteError("these pulses do not contradict each other", reason="no_evidence")
    return Equivocation(ticket.tid, ticket.day, seqs.pop(), ticket.session, hashes)


def _hash(pulse: bytes) -> bytes:
    return pulse_hash(decode(Signed, pulse).body)
