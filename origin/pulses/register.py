"""The register: the dossiers of all tickets that are still of interest, and what is open among them."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from ...protocol.batch import SealRecord
from ...protocol.beacon import HOUR_MS
from ...protocol.codec import decode
from ...protocol.errors import RemoteError
from ...protocol.identity import SIGNATURE_BYTES, Signed, verify
from ...protocol.pulse import Pulse
from ...protocol.rules import Rules
from ...protocol.ticket import DAY_MS, Ticket, TicketOffice
from .dossier import Dossier
from .frame import Bodies, Seals
from .opened import Opened, Stretch

TICKET_LIMIT_BYTES = 1_024
_NEVER_MS = 2**63


class Register:
    """What is known by ticket; every change of one arrival can be taken back until the next begins.

    ``known``: the dossiers, those heard of last at the end. ``open``: when a ticket with open pulses
    was last heard of. ``charged``: pulses with a wrong signature by the relay that brought them.
    """

    def __init__(
        self,
        office: TicketOffice,
        ticket_keys: Callable[[], Sequence[bytes]],
        rules: Rules,
        revoked: Mapping[bytes, int] | None = None,
    ) -> None:
        self.known: dict[bytes, Dossier] = {}
        self.open: dict[bytes, int] = {}
        self.open_pulses = 0
        self.charged: Tally[bytes] = Tally()
        self.undo: list[Opened | tuple[Dossier, Dossier]] = []
        """What this arrival changed: a body put under its number, or a dossier and what it was before."""
        self._office = office
        self._ticket_keys = ticket_keys
        self._rules = rules
        self._revoked: Mapping[bytes, int] = {} if revoked is None else revoked
        self._brought: list[tuple[bytes, bytes]] = []
        self._signatures: set[bytes] = set()
        self._found = Seals(1, [], [], [])
        self._recalled: list[bytes] = []

    def restore(
        self, known: dict[bytes, Dossier], open_: dict[bytes, int], charged: dict[bytes, int]
    ) -> None:
        """Take over what was known before."""
        self.known, self.open = known, open_
        self.charged.update(charged)
        self.open_pulses = sum(len(known[tid].open) for tid in open_)

    # -- one arrival

    def begin(self) -> None:
        """Begin an arrival; the one before can no longer be taken back.

        Whatever a relay has waiting that was found out to forge is proven first.
        """
        self.undo, self._brought = [], []
        while self._recalled:
            self._recall(self._recalled.pop())

    def take_back(self) -> None:
        """Undo what this arrival changed; what it proved stays proven."""
        for change in reversed(self.undo):
            dossier = self.known[change.pulse.tid] if isinstance(change, Opened) else change[0]
            opened = len(dossier.open)
            if isinstance(change, Opened):
                dossier.take_back(change.pulse.seq, change.name)
            else:
                dossier.restore(change[1])
            self.open_pulses -= opened - len(dossier.open)
        for tid, signature in self._brought:
            self._signatures.discard(signature)
            del self.known[tid]
            self.open.pop(tid, None)
        self.undo, self._brought = [], []

    def learn(self, items: list[bytes]) -> dict[bytes, tuple[int, Ticket]]:
        """Return the valid tickets among ``items`` that are new, by tid, with their place."""
        learned: dict[bytes, tuple[int, Ticket]] = {}
        keys: list[bytes] = []
        for index, item in enumerate(items):
            if item[-SIGNATURE_BYTES:] in self._signatures:
                continue
            keys = keys or list(self._ticket_keys())
            try:
                signed = decode(Signed, item, limit_bytes=TICKET_LIMIT_BYTES)
                ticket = decode(Ticket, signed.body)
                if ticket.tid in self.known:
                    continue
                if not any(verify("ticket", key, signed.body, signed.sig) for key in keys):
                    continue
                self._office.holder(ticket)
            except RemoteError:
                continue
            learned.setdefault(ticket.tid, (index, ticket))
        return learned

    def use(self, dossier: Dossier, envelope: bytes) -> bool:
        """Make a ticket known that came along; False where it is."""
        tid = dossier.ticket.tid
        if tid in self.known:
            return False
        self.known[tid] = dossier
        signature = envelope[-SIGNATURE_BYTES:]
        self._brought.append((tid, signature))
        self._signatures.add(signature)
        return True

    def save(self, dossier: Dossier) -> None:
        """Note what a dossier is before this arrival changes it in more than one place."""
        self.undo.append((dossier, dossier.copy()))

    def opened(self, tid: bytes, more: int, now_ms: int) -> None:
        """Note that ``more`` pulses of a ticket are open now."""
        if more > 0:
            self.open_pulses += more
            self.open[tid] = now_ms

    def refusal(self, dossier: Dossier, pulse: Pulse, now_ms: int) -> str:
        """Return why an authentic pulse is never stored, empty where it is.

        The origin's own clock judges here, so that no relay's stamp can make a viewer delete one. What
        is in the box does not matter for that: it is opened when the session is sealed and settled.
        """
        return self._refusal(dossier, pulse.at_ms, pulse.at_ms, pulse.beacon, now_ms)

    def refuses_any(self, dossier: Dossier, brought: Stretch, now_ms: int) -> bool:
        """Say whether any of a ticket's pulses is refused."""
        times_ms, beacons = brought.times_ms, brought.beacons
        if beacons.count(beacons[0]) < len(beacons):
            return any(self.refusal(dossier, item.pulse, now_ms) for item in brought.items)
        return self._refusal(dossier, min(times_ms), max(times_ms), beacons[0], now_ms) != ""

    def _refusal(self, dossier: Dossier, first_ms: int, last_ms: int, beacon: int, now_ms: int) -> str:
        """Return why pulses from ``first_ms`` to ``last_ms`` under one beacon are not all stored.

        A reason to refuse a time is one for all before it, or for all behind it.
        """
        live_ms = self._rules.live_window_ms
        if last_ms > now_ms + live_ms:
            return "future"
        if first_ms < dossier.from_ms or last_ms >= dossier.until_ms:
            return "wrong_day"
        if self._revoked and last_ms > self._ended_ms(dossier):
            return "revoked"
        if now_ms > dossier.late_ms + self._rules.late_window_ms:
            return "late"
        if beacon * HOUR_MS > min(now_ms, first_ms + live_ms):
            return "before_beacon"
        return ""

    def _ended_ms(self, dossier: Dossier) -> int:
        """Return when the account of a ticket was revoked, ms since 1970; far ahead where it was not."""
        if not dossier.account:
            dossier.account = self._office.holder(dossier.ticket).account
        return self._revoked.get(dossier.account, _NEVER_MS)

    # -- what is proven and closed

    def prove(self, dossier: Dossier) -> None:
        """Settle which of a ticket's waiting bodies are authentic."""
        if not dossier.waiting:
            return
        proof, tid = dossier.prove(), dossier.ticket.tid
        if proof.proven:
            self._found.proven.append(Bodies(tid, proof.proven))
        if proof.failed:
            self._found.failed.append(Bodies(tid, proof.failed))
            self.charge(proof.charged)
            self.open_pulses -= len(proof.failed)

    def charge(self, carriers: Iterable[bytes]) -> None:
        """Count pulses with a wrong signature against the relays that brought them."""
        for carrier in carriers:
            if carrier not in self.charged:
                self._recalled.append(carrier)
            self.charged[carrier] += 1

    def _recall(self, carrier: bytes) -> None:
        for tid in self.open:
            dossier = self.known[tid]
            held = (dossier.open[dossier.names[seq]] for seq in dossier.waiting)
            if any(one.carrier == carrier for one in held):
                self.prove(dossier)

    def close(self, dossier: Dossier, records: Sequence[SealRecord]) -> None:
        """Let go of what seal records cover."""
        before = len(dossier.open)
        dossier.close(records)
        self.open_pulses -= before - len(dossier.open)
        if not dossier.open:
            self.open.pop(dossier.ticket.tid, None)

    def seal(self, dossier: Dossier, records: Sequence[SealRecord]) -> None:
        """Close a ticket's sessions, and have the log remember it."""
        self._found.records.extend(records)
        self.close(dossier, records)

    def take_found(self) -> Seals | None:
        """Return what was proven and closed since the last time; None where nothing was."""
        found = self._found
        if not (found.proven or found.failed or found.records):
            return None
        self._found = Seals(1, [], [], [])
        return found

    def apply(self, seals: Seals) -> None:
        """Remember what was proven and closed before."""
        for bodies in seals.failed:
            for seq, dossier in self._waiting(bodies):
                self.charge([dossier.open[dossier.names[seq]].carrier])
                dossier.fail(seq)
                self.open_pulses -= 1
        for bodies in seals.proven:
            for seq, dossier in self._waiting(bodies):
                dossier.proven(seq)
        for record in seals.records:
            if (found := self.known.get(record.tid)) is not None:
                self.close(found, [record])

    def forget(self, now_ms: int) -> None:
        """Drop tickets whose pulses would be late anyway: their month and its late window are over."""
        before_ms = now_ms - self._rules.late_window_ms - DAY_MS
        for tid in [tid for tid, known in self.known.items() if known.late_ms < before_ms]:
            self.open_pulses -= len(self.known.pop(tid).open)
            self.open.pop(tid, None)
        self._signatures.clear()

    def _waiting(self, bodies: Bodies) -> Iterator[tuple[int, Dossier]]:
        dossier, names = self.known.get(bodies.tid), set(bodies.names)
        if dossier is not None:
            for seq in [seq for seq in dossier.waiting if dossier.names[seq] in names]:
                if seq in dossier.waiting:
                    yield seq, dossier
