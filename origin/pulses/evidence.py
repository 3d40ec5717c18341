"""Evidence: what the intake log says was watched, as facts that the rules of credit can judge.

The log is read once; ``facts`` then answers for any earlier size of it, so a settlement can be
computed again exactly as it was.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha256

from ...protocol.errors import RemoteError
from ...protocol.manifest import Manifest
from ...protocol.merkle import leaf_hash, node_hash
from ...protocol.ports import TierName
from ...protocol.pulse import Pulse, open_viewing
from ...protocol.ticket import Holder, Ticket, TicketOffice
from ..money.credit import Fact
from .admission import WITNESS, condemned, copies, month_of, open_frame, tickets

Manifests = Callable[[bytes], Manifest | None]
"""Finds a manifest by the SHA-256 digest of its block."""


@dataclass(slots=True)
class _Body:
    """One authentic body: the pulse, and every earliest stamp with the log position it came at.

    ``condemned_at`` is the position at which its witness was found false.
    """

    pulse: Pulse
    name: bytes
    stamps: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    condemned_at: int | None = None

    def received_ms(self, size: int) -> int | None:
        """Return the smallest stamp among the copies in the first ``size`` entries."""
        return min((stamp for position, stamp in self.stamps if position < size), default=None)


@dataclass(slots=True)
class _Watched:
    """One ticket and what came under it; ``position`` is the entry that brought the ticket."""

    position: int
    ticket: Ticket
    holder: Holder
    bodies: dict[bytes, _Body] = field(default_factory=dict[bytes, _Body])


class Evidence:
    """Everything the intake log holds of the tickets of chosen days."""

    def __init__(self, payloads: Iterable[bytes], office: TicketOffice, days: range) -> None:
        """Read the log; pulses of tickets outside ``days`` are counted by month only."""
        self.leaves: list[bytes] = []
        self.times_ms: list[int] = []
        self._office = office
        self._days = days
        self._watched: dict[bytes, _Watched] = {}
        self._elsewhere: dict[bytes, int] = {}
        self._months: dict[str, int] = {}
        for position, payload in enumerate(payloads):
            self.leaves.append(leaf_hash(payload))
            self._read(position, payload)

    def size_at(self, as_of_ms: int) -> int:
        """Return how many entries the log had at ``as_of_ms``; entries' times never go back."""
        return sum(1 for at_ms in self.times_ms if at_ms <= as_of_ms)

    def months(self, size: int) -> set[str]:
        """Return the months that the first ``size`` entries hold pulses of."""
        return {month for month, position in self._months.items() if position < size}

    def stored(self, size: int) -> dict[bytes, int]:
        """Return how many distinct pulses of each ticket the first ``size`` entries hold."""
        stored: dict[bytes, int] = {}
        for tid, watched in self._watched.items():
            if watched.position >= size:
                continue
            seqs = {b.pulse.seq for b in watched.bodies.values() if b.received_ms(size) is not None}
            stored[tid] = len(seqs)
        return stored

    def facts(self, size: int, days: range, manifests: Manifests) -> list[Fact]:
        """Return the facts of these days as the first ``size`` entries tell them."""
        titles: dict[bytes, Manifest | None] = {}

        def known(digest: bytes) -> bool:
            if digest not in titles:
                titles[digest] = manifests(digest)
            return titles[digest] is not None

        return [
            fact
            for watched in self._watched.values()
            if watched.ticket.day in days
            for fact in self._facts_of(watched, size, known)
        ]

    def _facts_of(self, watched: _Watched, size: int, known: Callable[[bytes], bool]) -> Iterable[Fact]:
        bodies: dict[int, list[tuple[_Body, int]]] = defaultdict(list)
        links: set[bytes] = set()
        for body in watched.bodies.values():
            received_ms = body.received_ms(size)
            if received_ms is not None:
                bodies[body.pulse.seq].append((body, received_ms))
                links.add(body.pulse.prev)
        key = self._office.key(watched.ticket.tid)
        for several in bodies.values():
            linked = [body.name for body, _ in several if body.name in links]
            for body, received_ms in several:
                code = "" if len(several) == 1 or linked == [body.name] else "equivocation"
                if body.condemned_at is not None and body.condemned_at < size:
                    code = code or WITNESS
                yield _fact(watched, body, received_ms, key, known, code=code)

    def _read(self, position: int, payload: bytes) -> None:
        frame = open_frame(payload)
        self.times_ms.append(frame.at_ms)
        for tid, name in condemned(frame):
            if tid in self._watched and name in self._watched[tid].bodies:
                self._watched[tid].bodies[name].condemned_at = position
        for ticket in tickets(frame):
            if ticket.day in self._days:
                holder = self._office.holder(ticket)
                self._watched.setdefault(ticket.tid, _Watched(position, ticket, holder))
            else:
                self._elsewhere.setdefault(ticket.tid, ticket.day)
        for copy in copies(frame):
            watched = self._watched.get(copy.pulse.tid)
            day = watched.ticket.day if watched else self._elsewhere[copy.pulse.tid]
            self._months.setdefault(month_of(day), position)
            if watched:
                body = watched.bodies.setdefault(copy.name, _Body(copy.pulse, copy.name))
                if not body.stamps or copy.stamp_ms < body.stamps[-1][1]:
                    body.stamps.append((position, copy.stamp_ms))


def log_root(leaves: list[bytes]) -> bytes:
    """Return the RFC 9162 root over leaf hashes."""
    if not leaves:
        return sha256(b"").digest()
    nodes = leaves
    while len(nodes) > 1:
        paired = [node_hash(nodes[i], nodes[i + 1]) for i in range(0, len(nodes) - 1, 2)]
        nodes = paired + nodes[len(paired) * 2 :]
    return nodes[0]


def _fact(
    watched: _Watched, body: _Body, received_ms: int, key: bytes, known: Callable[[bytes], bool], *, code: str
) -> Fact:
    pulse, holder = body.pulse, watched.holder
    try:
        viewing = open_viewing(pulse, key)
    except RemoteError as error:  # the intake let none in; a rotated ticket secret would
        message = f"a stored pulse does not open under this origin's ticket secret: {error}"
        raise RemoteError(message, reason=error.reason) from error
    relay = TierName.RELAY
    return Fact(
        account=holder.account,
        device=holder.device,
        tid=pulse.tid,
        day=watched.ticket.day,
        seq=pulse.seq,
        name=body.name,
        at_ms=pulse.at_ms,
        received_ms=received_ms,
        cum_ms=pulse.cum_ms,
        delta_ms=pulse.delta_ms,
        state=viewing.state,
        manifest=viewing.manifest,
        served=tuple((item.relay, item.kbytes) for item in viewing.served if item.tier == relay),
        code=code or ("" if known(viewing.manifest) else "unknown_title"),
    )
