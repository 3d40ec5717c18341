"""The simulated world: people, titles, relays and an origin, in virtual time.

The origin here is the real one without its disk: admission judges every arrival, what it keeps is
the intake log, evidence reads that log, and credit, viewing and settlement make cents of it. What
is simulated is who sends what, when, by which way. ``Step`` names the steps that a world may lack,
so that a run without a rule is a world in which that one step is not there.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from enum import Enum
from hashlib import sha256

from ...protocol.batch import Ack, PulsePost, batch_hash, covers
from ...protocol.codec import decode, encode
from ...protocol.identity import Identity, Signed
from ...protocol.manifest import BASIS_POINTS, Manifest, Payee, Window
from ...protocol.merkle import Tree, leaf_hash
from ...protocol.ports import SpooledPulse
from ...protocol.rules import DAY_MS, Rules
from ...protocol.ticket import Ticket, TicketOffice
from ..pulses.admission import Judgement, arrival, month_bounds_ms, open_frame
from .device import Device
from .dice import Dice
from .gate import Gate
from .relay import Relay

MONTH, NEXT_MONTH = "2027-03", "2027-04"
FIRST_DAY = month_bounds_ms(MONTH)[0] // DAY_MS
CROOK = "mallory"
"""The payee every attacker works for."""
PAYEES = ("ada", "bo", "cy")
TITLE_BYTES = 1_000_000_000
ENDLESS_BYTES = 1 << 50
FEE_CENTS = 1_000
LATENCY_MS = 300
BEGIN_DAY = FIRST_DAY + 9
"""The first day on which anybody watches: there are days before and after it in its month."""
MONTH_END_MS = month_bounds_ms(MONTH)[1]
NEXT_BEGIN_DAY = MONTH_END_MS // DAY_MS + 9


class Step(Enum):
    """A step of the real system that a world may lack."""

    SIGNATURES = "a pulse counts only under its ticket's keys"
    COPIES = "a pulse counts once, whoever brings it and however often"
    TICKETS = "a ticket is asked for no later than on its day, and holds for that day alone"
    DAYS = "a pulse lies within its ticket's day"
    SIZES = "nobody is served more of a title in a day than the title has"
    PAYERS = "revenue is booked by account, and an account moves a multiple of it at most"
    ACKS = "a viewer deletes a pulse only when the origin has acked it"
    AUDIT = "anybody may check a report against the acks that were kept"


class World:
    """Everything that happens in one run; nothing here reads a clock, a disk or an unseeded source."""

    def __init__(self, dice: Dice, rules: Rules, lacks: frozenset[Step] = frozenset()) -> None:
        self.rules = rules
        self.lacks = lacks
        signer = Identity(dice.bytes(32))
        self.ticket_key = signer.key
        self.office = TicketOffice(signer, dice.bytes(32))
        self.fees: dict[bytes, int] = {}
        """What each account pays a month."""
        self.played_ms: dict[bytes, int] = {}
        """The honest accounts, and what they truly watched."""
        self.titles: dict[bytes, Manifest] = {}
        self.films = [self.publish(payee, payee) for payee in PAYEES]
        self.bait = self.publish("bait", CROOK)
        self.relays = [Relay(Identity(dice.bytes(32))) for _ in range(2)]
        self.crooked = Relay(Identity(dice.bytes(32)))
        self.withheld: frozenset[bytes] = frozenset()
        """The accounts whose viewing this origin leaves out of the log that it settles."""
        self.intake = Identity(dice.bytes(32))
        self.acks: list[bytes] = []
        self.keeps_acks = False
        self._tree = Tree()
        self._dice = dice
        self._gate = Gate(self.office, lambda: [signer.key], self._enrolled, rules)
        self._at_ms = 0
        self._order = 0
        self._events: list[tuple[int, int, Callable[[], None]]] = []

    @property
    def log(self) -> list[bytes]:
        """The intake log: everything that brought anything new."""
        return self._gate.log

    # -- people

    def join(self, *, fee_cents: int = FEE_CENTS, honest: bool = False) -> bytes:
        """Open an account and return its pseudonym."""
        account = self._dice.bytes(16)
        self.fees[account] = fee_cents
        if honest:
            self.played_ms[account] = 0
        return account

    def device(self, account: bytes, number: int = 0, *, clock_off_ms: int = 0) -> Device:
        """Enrol a device of an account."""
        return Device(self.office, account, number, self._dice, clock_off_ms=clock_off_ms)

    def publish(self, title: str, payee: str, size_bytes: int = TITLE_BYTES) -> bytes:
        """Put a title into the catalog and return the digest of its manifest."""
        if Step.SIZES in self.lacks:
            size_bytes = ENDLESS_BYTES
        digest = sha256(title.encode()).digest()
        publisher = sha256(payee.encode()).digest()
        self.titles[digest] = Manifest(
            1, title, 1, publisher, title, "", "en", 3_600_000, b"", size_bytes, [], [], Window(0, 0), [],
            [Payee(payee, BASIS_POINTS)], "open", None, 0, b"",
        )  # fmt: skip
        return digest

    def relay_keys(self) -> dict[bytes, bytes]:
        """Return the enrolled relays, by the first 16 bytes of their keys."""
        return {relay.key[:16]: relay.key for relay in (*self.relays, self.crooked)}

    # -- what happens

    def later(self, at_ms: int, act: Callable[[], None]) -> None:
        """Do something at a time to come."""
        self._order += 1
        heapq.heappush(self._events, (at_ms, self._order, act))

    def carried(
        self, items: Sequence[SpooledPulse], at_ms: int, relay: Relay, stamps: Sequence[int] | None = None
    ) -> None:
        """Let a relay's batch reach the origin at ``at_ms``; it stamps truly unless told otherwise."""
        seen = [item.seen_ms + LATENCY_MS for item in items] if stamps is None else stamps
        data = relay.batch(items, seen)
        self.later(at_ms, lambda: self._took(data, self._gate.batch(data, self._at_ms)))

    def posted(self, items: Sequence[SpooledPulse], at_ms: int) -> None:
        """Let pulses reach the origin as they are at ``at_ms``."""
        tickets = list(dict.fromkeys(item.ticket for item in items))
        data = encode(PulsePost(1, tickets, [item.pulse for item in items]))
        self.later(at_ms, lambda: self._took(data, self._gate.post(data, self._at_ms)))

    def run(self) -> None:
        """Let everything happen that is due, in order of time."""
        while self._events:
            self._at_ms, _, act = heapq.heappop(self._events)
            act()

    def acked(self, item: SpooledPulse) -> bool:
        """Say whether the origin's ack of the moment lets a viewer delete a pulse."""
        ack = self._gate.ack(item.tid)
        return ack is not None and covers(ack, item.seq)

    def told(self) -> list[bytes]:
        """Return the log that the origin settles: all of it, unless it withholds something."""
        return [entry for entry in self.log if not self.withheld & self._accounts(entry)]

    def _accounts(self, entry: bytes) -> frozenset[bytes]:
        tickets = [decode(Signed, item).body for item in arrival(open_frame(entry)).tickets]
        return frozenset(self.office.holder(decode(Ticket, body)).account for body in tickets)

    def _enrolled(self, carrier: bytes) -> bool:
        return carrier in self.relay_keys().values()

    def _took(self, data: bytes, judged: Judgement) -> None:
        """Sign an ack of what came, where somebody keeps them."""
        if not self.keeps_acks:
            return
        for entry in self.log[self._tree.size :]:
            self._tree.append(leaf_hash(entry))
        stored = [ack for tid in sorted(set(judged.tids)) if (ack := self._gate.ack(tid)) is not None]
        signed = Ack(1, batch_hash(data), stored, "", 0, self._tree.size, self._tree.root(), self._at_ms)
        self.acks.append(self.intake.seal("ack", signed))
