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
from ...protocol.pulse import ACTIVE, Pulse, Viewing, open_viewing
from ...protocol.ticket import Holder, Ticket, TicketOffice
from ..money.credit import Fact
from .admission import WITNESS, Copy, condemned, month_of, open_frame, tickets
from .chain import Sieve

Manifests = Callable[[bytes], Manifest | None]
"""Finds a manifest by the SHA-256 digest of its block."""


@dataclass(slots=True)
class _Body:
    """One authentic body: the pulse, and every earliest stamp with the log position it came at."""

    pulse: Pulse
    name: bytes
    stamps: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])

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
    """Everything the intake log holds of the tickets of chosen days.

    The plain way, in memory: what settlement computes from columns is checked against it, and what
    the columns leave open (bodies under one number, boxes that do not open) is judged by it.
    """

    def __init__(
        self,
        payloads: Iterable[bytes],
        office: TicketOffice,
        days: range,
        *,
        chosen: Callable[[Holder], bool] | None = None,
    ) -> None:
        """Read the log; pulses of tickets outside ``days``, or not ``chosen``, are counted by month only."""
        self.leaves: list[bytes] = []
        self.times_ms: list[int] = []
        self._office = office
        self._days = days
        self._watched: dict[bytes, _Watched] = {}
        self._elsewhere: dict[bytes, int] = {}
        self._months: dict[str, int] = {}
        self._chosen = chosen
        self._sieve = Sieve()
        self._condemned: dict[tuple[bytes, bytes], int] = {}
        for position, payload in enumerate(payloads):
            self.leaves.append(leaf_hash(payload))
            self.read(position, payload)
        self.finish()

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
        links: dict[bytes, int] = {}
        for body in watched.bodies.values():
            received_ms = body.received_ms(size)
            if received_ms is not None:
                bodies[body.pulse.seq].append((body, received_ms))
                links[body.pulse.prev] = max(body.pulse.seq, links.get(body.pulse.prev, 0))
        key = self._office.key(watched.ticket.tid)
        for several in bodies.values():
            linked = [body.name for body, _ in several if links.get(body.name, 0) > body.pulse.seq]
            for body, received_ms in several:
                code = "" if len(several) == 1 or linked == [body.name] else "equivocation"
                if self._condemned.get((watched.ticket.tid, body.name), size) < size:
                    code = code or WITNESS
                yield _fact(watched, body, received_ms, key, known, code=code)

    def read(self, position: int, payload: bytes) -> None:
        """Take in one entry of the log; ``position`` is its place there, and only ever rises."""
        frame = open_frame(payload)
        self.times_ms.append(frame.at_ms)
        for key in condemned(frame):
            self._condemned.setdefault(key, position)
        for ticket in tickets(frame):
            holder = self._office.holder(ticket) if ticket.day in self._days else None
            if holder is not None and (self._chosen is None or self._chosen(holder)):
                self._watched.setdefault(ticket.tid, _Watched(position, ticket, holder))
            else:
                self._elsewhere.setdefault(ticket.tid, ticket.day)
        for at, copy in self._sieve.read(position, frame):
            self._take(at, copy)

    def finish(self) -> None:
        """Check by signature what no seal has covered; call it behind the last ``read``."""
        for at, copy in self._sieve.rest():
            self._take(at, copy)

    def _take(self, position: int, copy: Copy) -> None:
        watched = self._watched.get(copy.pulse.tid)
        day = watched.ticket.day if watched else self._elsewhere.get(copy.pulse.tid)
        if day is None:
            return  # only some entries are read, and not the one that brought this ticket
        month = month_of(day)
        self._months[month] = min(position, self._months.get(month, position))
        if watched:
            body = watched.bodies.setdefault(copy.name, _Body(copy.pulse, copy.name))
            if all(position < at or copy.stamp_ms < stamp for at, stamp in body.stamps):
                body.stamps.append((position, copy.stamp_ms))


_NOTHING = Viewing(ACTIVE, bytes(32), 0, 0, [], bytes(16))


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
    except RemoteError as error:  # nobody's viewing, and no reason to stop a settlement
        viewing = _NOTHING
        code = error.reason if error.reason == "bad_box" else "bad_viewing"
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
