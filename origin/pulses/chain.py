"""The chain: which stored bodies are authentic, and which of those count, as pure functions of the log.

A body is authentic if and only if it is validly signed by its ticket's session key, or a validly
signed later body of its ticket names its hash, directly or through others. When a signature was
checked, at arrival or at the seal, changes nothing here: a seal only saves the check.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from ...protocol.codec import decode
from ...protocol.identity import Signed, verify
from .frame import DUPLICATE, PENDING, UNPROVEN, Copy, Frame, every_copy, open_frame, seals_of, tickets


class Found(NamedTuple):
    """One copy of an authentic body: the entry it came with, and the first entry that shows it authentic.

    ``proven_at`` is later where only a link showed it; then ``envelope``, as it came, may still be
    validly signed itself, which nobody had to know.
    """

    position: int
    copy: Copy
    proven_at: int
    envelope: bytes


class Sieve:
    """Lets copies through once their body is authentic; holds only what is not, by ticket."""

    def __init__(self) -> None:
        self._sessions: dict[bytes, bytes] = {}
        self._waiting: dict[bytes, dict[bytes, list[Found]]] = {}

    def read(self, position: int, frame: Frame) -> list[Found]:
        """Take in one entry; returns what is authentic now, earlier copies too."""
        seals = seals_of(frame)
        if seals is not None:
            proven = [(bodies.tid, name) for bodies in seals.proven for name in bodies.names]
            return [item for tid, name in proven for item in self._prove(tid, name)]
        for ticket in tickets(frame):
            self._sessions.setdefault(ticket.tid, ticket.session)
        found: list[Found] = []
        for copy, envelope in every_copy(frame):
            one = Found(position, copy, position, envelope)
            held = self._waiting.get(copy.pulse.tid, {})
            if copy.verdict in (PENDING, UNPROVEN):
                held = self._waiting.setdefault(copy.pulse.tid, {})
                held.setdefault(copy.name, []).append(one)
            elif copy.verdict == DUPLICATE and copy.name in held:
                held[copy.name].append(one)
            else:
                found.append(one)
                if held:  # a ticket with something in doubt: follow its links
                    again = held.pop(copy.name, [])
                    found += [item._replace(proven_at=position) for item in again]
                    found += self._linked(one)
        return found

    def learn(self, tid: bytes, session: bytes) -> None:
        """Take the session key of a ticket that came before what is read here."""
        self._sessions.setdefault(tid, session)

    def doubtful(self) -> list[Found]:
        """Return the copies of what nothing has shown to be authentic so far."""
        return [item for held in self._waiting.values() for items in held.values() for item in items]

    def is_sure(self, found: Found) -> bool:
        """Say whether the entry that brought a copy is enough to show that it is authentic."""
        if found.proven_at == found.position:
            return True
        session = self._sessions.get(found.copy.pulse.tid)
        return session is not None and signed(found.envelope, session)

    def rest(self) -> list[Found]:
        """Check by signature what no seal has covered; returns what turns out to be authentic."""
        found: list[Found] = []
        for tid, held in list(self._waiting.items()):
            session = self._sessions.get(tid)
            for name in sorted(held, key=lambda one: -held[one][0].copy.pulse.seq):
                if session and any(signed(item.envelope, session) for item in held.get(name, ())):
                    found += self._prove(tid, name)
        return found

    def _prove(self, tid: bytes, name: bytes) -> list[Found]:
        """Let a body through that is validly signed, and every body it leads to by links."""
        found = self._waiting.get(tid, {}).pop(name, [])
        return found + self._linked(found[0]) if found else []

    def _linked(self, linker: Found) -> list[Found]:
        found: list[Found] = []
        pulse, proven_at = linker.copy.pulse, linker.proven_at
        held = self._waiting.get(pulse.tid, {})
        while (before := held.get(pulse.prev)) is not None and before[0].copy.pulse.seq < pulse.seq:
            del held[pulse.prev]
            proven_at = max(proven_at, before[0].position)
            found += [item._replace(proven_at=max(item.position, proven_at)) for item in before]
            pulse = before[0].copy.pulse
        return found


def signed(envelope: bytes, session: bytes) -> bool:
    """Say whether an envelope that was stored is validly signed itself."""
    found = decode(Signed, envelope)
    return verify("pulse", session, found.body, found.sig)


def counting(bodies: Iterable[Copy]) -> set[bytes]:
    """Return which of one ticket's authentic bodies count: of several under one number only the linked one.

    None of them counts where none, or more than one, is named by an authentic later body.
    """
    numbers: dict[int, set[bytes]] = defaultdict(set)
    links: dict[bytes, int] = {}
    for body in bodies:
        numbers[body.pulse.seq].add(body.name)
        links[body.pulse.prev] = max(links.get(body.pulse.prev, 0), body.pulse.seq)
    counted: set[bytes] = set()
    for seq, names in numbers.items():
        linked = {name for name in names if links.get(name, 0) > seq}
        if len(names) == 1:
            counted |= names
        elif len(linked) == 1:
            counted |= linked
    return counted


def counted(payloads: Iterable[bytes]) -> dict[bytes, set[bytes]]:
    """Return by ticket the hashes of the bodies that count, from the entries of a whole log."""
    sieve = Sieve()
    bodies: dict[bytes, dict[bytes, Copy]] = defaultdict(dict)
    found: list[Found] = []
    for position, payload in enumerate(payloads):
        found += sieve.read(position, open_frame(payload))
    for one in [*found, *sieve.rest()]:
        bodies[one.copy.pulse.tid][one.copy.name] = one.copy
    return {tid: counting(held.values()) for tid, held in bodies.items()}
