"""Admission: which pulses of a post count as stored, as decisions over what is stored already.

A verdict per pulse: ``stored``, ``pending`` (stored, its signature is checked at the seal),
``duplicate``, ``equivocation`` (another body under the same number, kept as evidence), ``unproven``
(kept, because a signed later pulse may yet name it), or the reason code of a rejection. A rejection
is final, and tells its holder to delete the pulse, only where the session key provably made it; a
code for bytes that anybody could have forged is named under sequence number 0, which no pulse has.

Eager checks every signature at arrival. Chained lets an enrolled relay's pulses wait, one branch per
ticket: at the first doubt (another body or signature under a number, a spot check, whatever a code of
rejection depends on) the ticket is proven there and then. So both know the same at every moment once
what waits is proven, and both come to the same verdicts (docs/adr/0027).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from itertools import islice, repeat
from operator import itemgetter
from typing import Literal, NamedTuple

from ...protocol.batch import MAX_PULSES, Reject, SealRecord, TidAck
from ...protocol.rules import Rules
from ...protocol.ticket import TicketOffice
from .dossier import Dossier
from .frame import (
    DUPLICATE,
    EQUIVOCATION,
    PENDING,
    STORED,
    UNPROVEN,
    WITNESS,
    Arrival,
    Copy,
    Frame,
    Seals,
    arrival,
    batch_arrival,
    condemned,
    copies,
    month_bounds_ms,
    month_of,
    open_frame,
    seals_of,
    tickets,
)
from .judging import Round
from .opened import Opened, open_pulses, stretch
from .register import Register
from .sealing import ended, records_of

NOBODY = bytes(16)
SPOT_EVERY = 256
"""Of so many pulses that may wait, one is checked at once: a relay that forges is soon found out."""

Verify = Literal["eager", "chained"]
_Doubt = tuple[int, Opened, Dossier]


class Judgement(NamedTuple):
    """The verdicts on an arrival; ``news`` says whether anything in it must be kept."""

    tickets: list[int]
    verdicts: list[str]
    tids: list[bytes]
    news: bool


class Admission:
    """Decides over the register of all tickets.

    ``admit`` decides and remembers at once; ``undo`` takes the last arrival back where it could not
    be made durable; ``apply`` remembers what a frame of the log decided; ``seal`` closes sessions.
    ``secret`` draws the spot checks, so that no carrier can foresee them; ``revoked`` tells when accounts
    ended, in ms since 1970.
    """

    def __init__(
        self,
        office: TicketOffice,
        ticket_keys: Callable[[], Sequence[bytes]],
        rules: Rules,
        *,
        verify: Verify = "eager",
        secret: bytes = b"",
        revoked: Mapping[bytes, int] | None = None,
    ) -> None:
        self.register = Register(office, ticket_keys, rules, revoked)
        self.undo = self.register.take_back
        self.forget = self.register.forget
        self.take_found = self.register.take_found
        self._office = office
        self._rules = rules
        self._chained = verify == "chained"
        self._secret = secret

    def admit(
        self, parts: Arrival, now_ms: int, carrier: bytes = b"", *, relay: bool = False, name: bytes = b""
    ) -> Judgement:
        """Decide on every pulse of an arrival; ``name`` is its hash, ``relay`` an enrolled relay's."""
        register = self.register
        register.begin()
        round_ = Round(register, parts.tickets, now_ms, carrier, relay=relay, eager=not self._chained)
        lazy = self._chained and relay and carrier not in register.charged
        post = open_pulses(parts.pulses, parts.stamps, carrier)
        tids = [NOBODY if isinstance(item, str) else item.pulse.tid for item in post.items]
        dossiers = {tid: register.known.get(tid) or round_.dossier(tid) for tid in dict.fromkeys(tids)}
        verdict = PENDING if lazy else STORED
        signed: list[bool | None]
        if lazy:
            spot = sha256(self._secret + name).digest()[0]
            signed = [None] * len(tids)
            alone = set(range(spot, len(tids), SPOT_EVERY))
        else:
            signed = round_.check(post, [dossiers[tid] for tid in tids])
            alone = {index for index, one in enumerate(signed) if one is not True}
        verdicts, others = self._take_stretches(round_, post.items, tids, dossiers, alone, verdict)
        doubtful: list[_Doubt] = []
        for index, item, dossier in others:
            if index in alone or not self._take_one(round_, dossier, item, verdict):
                verdicts[index] = round_.take(dossier, item, signed[index])
                if not verdicts[index]:
                    doubtful.append((index, item, dossier))
        # a body that a validly signed later pulse names is as good as signed: newest first
        for index, item, dossier in sorted(doubtful, key=lambda one: -one[1].pulse.seq):
            verdicts[index] = round_.doubt(dossier, item)
        if lazy and carrier in register.charged:
            register.recall(carrier)
        return Judgement(sorted(round_.used), verdicts, tids, round_.news)

    def apply(self, frame: Frame) -> None:
        """Remember what a kept frame decided."""
        seals = seals_of(frame)
        if seals is not None:
            self.register.apply(seals)
            return
        for ticket in tickets(frame):
            self.register.known.setdefault(ticket.tid, Dossier(ticket))
        parts = arrival(frame)
        post = open_pulses(parts.pulses, parts.stamps, frame.carrier)
        for item, verdict in zip(post.items, frame.verdicts, strict=True):
            if not isinstance(item, str) and verdict not in _UNPROVEN and verdict != WITNESS:
                self._apply(item, verdict, frame.at_ms)

    def seal(self, now_ms: int, *, below: int) -> Seals | None:
        """Prove and close what is over, then the longest silent until at most ``below`` pulses are open.

        A session is over five minutes after its last pulse came, two minutes after one that says so, or
        when its ticket's day is. Returns what the log must remember, None where there is nothing.
        """
        register = self.register
        for tid, heard_ms in sorted(register.open.items(), key=lambda item: item[1]):
            dossier = register.known[tid]
            if register.open_pulses > below or self._over(dossier, now_ms, now_ms - heard_ms):
                register.prove(dossier)
                register.seal(dossier, records_of(dossier, self._office, self._rules))
        return register.take_found()

    def prove(self) -> None:
        """Check the signatures of whatever waits; what that finds is taken with ``take_found``."""
        for tid in self.register.open:
            self.register.prove(self.register.known[tid])

    def ack(self, tid: bytes, unproven: Sequence[str] = ()) -> TidAck | None:
        """Return what is stored under a ticket; None for one never heard of, with nothing to say."""
        known = self.register.known.get(tid)
        rejects = [Reject(0, code) for code in sorted(set(unproven))] if unproven else []
        if known is None:
            return TidAck(tid, 0, [], rejects) if rejects else None
        return known.ack(rejects)

    def newest(self, limit: int) -> list[bytes]:
        """Return the tickets heard of last, at most ``limit``."""
        return list(islice(reversed(self.register.known), limit))

    def records(self, tid: bytes) -> list[SealRecord]:
        """Return the verdicts on a ticket's closed sessions."""
        dossier = self.register.known.get(tid)
        return list(dossier.records) if dossier else []

    def _take_stretches(
        self,
        round_: Round,
        items: Sequence[Opened | str],
        tids: Sequence[bytes],
        dossiers: Mapping[bytes, Dossier | None],
        alone: set[int],
        verdict: str,
    ) -> tuple[list[str], list[_Doubt]]:
        """Give ``verdict`` on what each ticket brings, all of it at once; returns the rest, in order."""
        verdicts = [verdict] * len(items)
        others: list[_Doubt] = []
        stretches: dict[bytes, tuple[list[int], list[Opened]]] = {}
        for index, (item, tid) in enumerate(zip(items, tids, strict=True)):
            if isinstance(item, str):
                verdicts[index] = item
            elif (dossier := dossiers[tid]) is None:
                verdicts[index] = "no_ticket"
            elif index in alone:
                others.append((index, item, dossier))
            else:
                some = stretches.get(tid)
                if some is None:
                    some = stretches[tid] = ([], [])
                some[0].append(index)
                some[1].append(item)
        for tid, (indexes, some_items) in stretches.items():
            dossier = dossiers[tid]
            if dossier is not None and (
                len(some_items) == 1 or not self._take_together(round_, dossier, some_items, verdict)
            ):
                others += zip(indexes, some_items, repeat(dossier))
        return verdicts, sorted(others, key=itemgetter(0))

    def _take_together(self, round_: Round, dossier: Dossier, items: Sequence[Opened], verdict: str) -> bool:
        """Take in pulses of one ticket about which there is nothing to decide; False for none of them."""
        register, waits, brought = self.register, verdict == PENDING, stretch(items)
        if (
            dossier.unproven
            or dossier.rejects
            or not dossier.is_free(brought)
            or (dossier.links and not dossier.links.keys().isdisjoint(brought.names))
            or not (waits or (not dossier.waiting and dossier.goes_on(brought)))
            or register.refuses_any(dossier, items, round_.now_ms)
        ):
            return False
        round_.opens(dossier, items)
        dossier.put_all(brought)
        if waits:
            dossier.wait_all(brought)
        return True

    def _take_one(self, round_: Round, dossier: Dossier, item: Opened, verdict: str) -> bool:
        """Take in one pulse, as ``_take_together`` would."""
        pulse, names = item.pulse, dossier.names
        seq = pulse.seq
        if (
            seq in names
            or dossier.unproven
            or dossier.rejects
            or item.name in dossier.links
            or self.register.refusal(dossier, pulse, round_.now_ms)
        ):
            return False
        if verdict != PENDING and (dossier.waiting or (seq != 1 and names.get(seq - 1) != pulse.prev)):
            return False
        round_.opens(dossier, (item,))
        dossier.put(item)
        if verdict == PENDING:
            dossier.wait(pulse)
        return True

    def _over(self, dossier: Dossier, now_ms: int, silent_ms: int) -> bool:
        if silent_ms > self._rules.gap_ms or now_ms >= dossier.until_ms:
            return True
        if silent_ms <= self._rules.live_window_ms:
            return False
        newest = max(held.pulse.seq for held in dossier.open.values())
        if newest == dossier.looked:
            return False  # a box is opened once
        dossier.looked = newest
        return ended(dossier, self._office)

    def _apply(self, item: Opened, verdict: str, now_ms: int) -> None:
        register, seq = self.register, item.pulse.seq
        dossier = register.known[item.pulse.tid]
        before = len(dossier.open)
        if verdict == DUPLICATE:
            if dossier.has(seq, item.name):
                dossier.lower(seq, item.name, item.stamp_ms)
        elif verdict == UNPROVEN:
            dossier.unproven[item.name] = item
            register.charged[item.carrier] += 1
        elif verdict == PENDING:
            dossier.put(item)
            dossier.wait(item.pulse)
        elif verdict in (STORED, EQUIVOCATION):
            dossier.rejects.pop(seq, None)
            dossier.keep(item)
        elif seq not in dossier.names:
            dossier.rejects[seq] = verdict
        register.opened(item.pulse.tid, len(dossier.open) - before, now_ms)


_UNPROVEN = frozenset({"malformed", "not_canonical", "too_large", "no_ticket", "bad_signature"})


def unproven(verdict: str) -> bool:
    """Say whether anybody could have caused this verdict, so that it must not delete a pulse."""
    return verdict == UNPROVEN or verdict in _UNPROVEN


def code_of(verdict: str) -> str:
    """Return the reason code that an ack and the counts give for a verdict."""
    return "bad_signature" if verdict == UNPROVEN else verdict


__all__ = [
    "DUPLICATE", "EQUIVOCATION", "MAX_PULSES", "NOBODY", "PENDING", "STORED", "UNPROVEN", "WITNESS",
    "Admission", "Arrival", "Copy", "Frame", "Judgement", "arrival", "batch_arrival", "code_of", "condemned",
    "copies", "month_bounds_ms", "month_of", "open_frame", "tickets", "unproven",
]  # fmt: skip
