"""The chain: which stored bodies are authentic, and which of those count, as pure functions of the log.

A body is authentic if and only if it is validly signed by its ticket's session key, or a validly
signed later body of its ticket names its hash, directly or through others. When a signature was
checked, at arrival or at the seal, changes nothing here: a seal only saves the check.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ...protocol.codec import decode
from ...protocol.identity import Signed, verify
from .frame import DUPLICATE, PENDING, UNPROVEN, Copy, Frame, every_copy, open_frame, seals_of, tickets


@dataclass(slots=True)
class _Waiting:
    """A body not known to be authentic: its copies by position, and the signed envelopes they came in."""

    copies: list[tuple[int, Copy]] = field(default_factory=list[tuple[int, Copy]])
    envelopes: set[bytes] = field(default_factory=set[bytes])


class Sieve:
    """Lets copies through once their body is authentic; holds only what is not, by ticket."""

    def __init__(self) -> None:
        self._sessions: dict[bytes, bytes] = {}
        self._waiting: dict[bytes, dict[bytes, _Waiting]] = {}

    def read(self, position: int, frame: Frame) -> list[tuple[int, Copy]]:
        """Take in one entry; returns what is authentic now, each copy with the position it came at."""
        seals = seals_of(frame)
        if seals is not None:
            return [
                item
                for found in seals.proven
                for name in found.names
                for item in self._prove(found.tid, name)
            ]
        for ticket in tickets(frame):
            self._sessions.setdefault(ticket.tid, ticket.session)
        found: list[tuple[int, Copy]] = []
        for copy, data in every_copy(frame):
            held = self._waiting.get(copy.pulse.tid)
            if copy.verdict in (PENDING, UNPROVEN):
                held = self._waiting.setdefault(copy.pulse.tid, {})
                waiting = held.setdefault(copy.name, _Waiting())
                waiting.copies.append((position, copy))
                waiting.envelopes.add(data)
            elif held is not None and copy.name in held and copy.verdict == DUPLICATE:
                held[copy.name].copies.append((position, copy))
                held[copy.name].envelopes.add(data)
            else:
                found.append((position, copy))
                if held is not None:  # a session with something in doubt: follow its links
                    found += self._prove(copy.pulse.tid, copy.name)
                    found += self._linked(copy)
        return found

    def learn(self, tid: bytes, session: bytes) -> None:
        """Take the session key of a ticket that came before what is read here."""
        self._sessions.setdefault(tid, session)

    def doubtful(self) -> list[tuple[int, Copy]]:
        """Return the copies of what nothing has shown to be authentic so far."""
        return [
            item for held in self._waiting.values() for waiting in held.values() for item in waiting.copies
        ]

    def rest(self) -> list[tuple[int, Copy]]:
        """Check by signature what no seal has covered; returns what turns out to be authentic."""
        found: list[tuple[int, Copy]] = []
        for tid, held in list(self._waiting.items()):
            session = self._sessions.get(tid)
            if session is None:
                continue  # only some entries were read, and not the one that brought this ticket
            newest = sorted(held, key=lambda name: -held[name].copies[0][1].pulse.seq)
            for name in newest:
                waiting = held.get(name)
                if waiting is not None and any(map(_signed_by(session), waiting.envelopes)):
                    found += self._prove(tid, name)
        return found

    def _prove(self, tid: bytes, name: bytes) -> list[tuple[int, Copy]]:
        """Let a body through that is authentic, and every body it leads to by links."""
        held = self._waiting.get(tid)
        waiting = held.pop(name, None) if held else None
        if waiting is None:
            return []
        found = list(waiting.copies)
        return found + self._linked(found[0][1])

    def _linked(self, copy: Copy) -> list[tuple[int, Copy]]:
        found: list[tuple[int, Copy]] = []
        held = self._waiting.get(copy.pulse.tid, {})
        at = copy.pulse
        while (before := held.get(at.prev)) is not None and before.copies[0][1].pulse.seq < at.seq:
            del held[at.prev]
            found += before.copies
            at = before.copies[0][1].pulse
        return found


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
    found: list[tuple[int, Copy]] = []
    for position, payload in enumerate(payloads):
        found += sieve.read(position, open_frame(payload))
    for _, copy in [*found, *sieve.rest()]:
        bodies[copy.pulse.tid][copy.name] = copy
    return {tid: counting(held.values()) for tid, held in bodies.items()}


def _signed_by(session: bytes) -> Callable[[bytes], bool]:
    def check(envelope: bytes) -> bool:
        signed = decode(Signed, envelope)
        return verify("pulse", session, signed.body, signed.sig)

    return check
