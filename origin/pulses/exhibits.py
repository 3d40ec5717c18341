"""The exhibits: what the intake log holds against anybody, and evidence of it for third parties."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from ...protocol.codec import decode
from ...protocol.errors import RemoteError
from ...protocol.evidence import seal_evidence
from ...protocol.identity import Identity, Signed
from ...protocol.pulse import check_pulse, pulse_hash, read_pulse
from ...protocol.ticket import Ticket, TicketOffice
from .admission import DUPLICATE, EQUIVOCATION, PENDING, STORED, WITNESS, arrival, open_frame

BODIES_SHOWN = 4

_Key = tuple[bytes, int]


class Exhibit(NamedTuple):
    """One thing held against an account: ``code`` is ``equivocation`` or ``witness``.

    ``evidence`` is the file for third parties, None where only the origin can tell: a false witness, or
    bodies that only a later pulse vouches for.
    """

    code: str
    account: bytes
    tid: bytes
    day: int
    seq: int
    evidence: bytes | None


def exhibits(
    payloads: Callable[[], Iterable[bytes]], office: TicketOffice, intake: Identity
) -> Iterator[Exhibit]:
    """Yield what the log holds, by ticket and number; ``payloads`` reads it, twice, so memory stays small."""
    wanted: dict[_Key, str] = {}
    for data, verdict in _pulses(payloads()):
        if verdict in (EQUIVOCATION, WITNESS):
            pulse, _ = read_pulse(data)
            wanted.setdefault((pulse.tid, pulse.seq), verdict)
    tickets, bodies = _gather(payloads(), wanted)
    for (tid, seq), code in sorted(wanted.items()):
        ticket = _ticket(tickets[tid])
        signed = [data for data in bodies.get((tid, seq), {}).values() if _is_signed(data, ticket)]
        evidence = None
        if code == EQUIVOCATION and len(signed) > 1:
            evidence = seal_evidence(tickets[tid], signed[:BODIES_SHOWN], intake)
        yield Exhibit(code, office.holder(ticket).account, tid, ticket.day, seq, evidence)


def _gather(
    payloads: Iterable[bytes], wanted: Iterable[_Key]
) -> tuple[dict[bytes, bytes], dict[_Key, dict[bytes, bytes]]]:
    """Return the tickets' envelopes, and the stored bodies under the wanted numbers by their hashes."""
    tickets: dict[bytes, bytes] = {}
    bodies: dict[_Key, dict[bytes, bytes]] = {key: {} for key in wanted}
    tids = {tid for tid, _ in bodies}
    for payload in payloads:
        frame = open_frame(payload)
        parts = arrival(frame)
        for index in frame.tickets:
            envelope = parts.tickets[index]
            if (tid := _ticket(envelope).tid) in tids:
                tickets.setdefault(tid, envelope)
        for data, verdict in zip(parts.pulses, frame.verdicts, strict=True):
            if verdict in (STORED, PENDING, EQUIVOCATION, DUPLICATE):
                pulse, signed = read_pulse(data)
                if (pulse.tid, pulse.seq) in bodies:
                    bodies[pulse.tid, pulse.seq].setdefault(pulse_hash(signed.body), data)
    return tickets, bodies


def _pulses(payloads: Iterable[bytes]) -> Iterator[tuple[bytes, str]]:
    for payload in payloads:
        frame = open_frame(payload)
        if EQUIVOCATION in frame.verdicts or WITNESS in frame.verdicts:
            yield from zip(arrival(frame).pulses, frame.verdicts, strict=True)


def _ticket(envelope: bytes) -> Ticket:
    return decode(Ticket, decode(Signed, envelope).body)


def _is_signed(data: bytes, ticket: Ticket) -> bool:
    try:
        check_pulse(data, ticket)
    except RemoteError:
        return False
    return True
