"""Admission: which pulses of a post count as stored, as decisions over what is stored already.

A verdict per pulse: ``stored``, ``pending`` (stored, its signature is checked at the seal),
``duplicate``, ``equivocation`` (another body under the same number, kept as evidence), ``unproven``
(kept, because a signed later pulse may yet name it), or the reason code of a rejection. A rejection
is final, and tells its holder to delete the pulse, only where the session key provably made it; a
code for bytes that anybody could have forged is named under sequence number 0, which no pulse has.

Eager checks every signature at arrival. Chained lets an enrolled relay's pulses wait, one branch per
ticket. What a ticket brings in one arrival either all waits, or the ticket is proven there and then and
all of it is decided as eager decides: at the first doubt (another body or signature under a number, a
wrong signature found by a spot check, whatever a code of rejection depends on). So both know the same
at every moment once what waits is proven, and both come to the same verdicts (docs/adr/0027).
What an arrival had proven belongs into the log before it: ``take_found`` after ``admit``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from itertools import islice
from typing import Literal, NamedTuple, cast

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
from .opened import NOBODY, Opened, Post, open_pulses, stretch
from .register import Register
from .sealing import ended, records_of

SPOT_EVERY = 256
"""Of so many pulses that may wait, one is checked at once: a relay that forges is soon found out."""

Verify = Literal["eager", "chained"]


class _Brought(NamedTuple):
    """What one ticket brings in a post: its pulses, and at which places."""

    dossier: Dossier
    post: Post
    indexes: list[int]
    items: list[Opened]


class Judgement(NamedTuple):
    """The verdicts on an arrival; ``news`` says whether anything in it must be kept."""

    tickets: list[int]
    verdicts: list[str]
    tids: Sequence[bytes]
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
        tids = post.tids
        dossiers = {tid: register.known.get(tid) or round_.dossier(tid) for tid in dict.fromkeys(tids)}
        verdicts = [PENDING] * len(tids)
        brought = _sorted(post, dossiers, verdicts)
        caught = self._caught(round_, post, brought, name) if lazy else brought.keys()
        decided: dict[bytes, Dossier] = {}
        for tid, one in brought.items():
            if tid in caught or not self._waits(round_, one, verdicts):
                register.prove(one.dossier)
                decided[tid] = one.dossier
        signed = round_.check(post, [decided.get(tid) for tid in tids]) if decided else []
        for tid in decided:
            self._decide(round_, brought[tid], signed, verdicts)
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
        decided = zip(post.items, frame.verdicts, strict=True)
        for item, verdict in sorted(decided, key=lambda one: one[1] == DUPLICATE):  # after what they repeat
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

    def _caught(
        self, round_: Round, post: Post, brought: Mapping[bytes, _Brought], name: bytes
    ) -> set[bytes]:
        """Return the tickets of which a spot check finds a wrong signature."""
        found: set[bytes] = set()
        spot = sha256(self._secret + name).digest()[0]
        for index in range(spot % SPOT_EVERY, len(post.items), SPOT_EVERY):
            item, body = post.items[index], post.bodies[index]
            if isinstance(item, str) or (one := brought.get(item.pulse.tid)) is None:
                continue
            if False in round_.check(Post([item], [body], [item.pulse.tid], post.columns), [one.dossier]):
                found.add(item.pulse.tid)
        return found

    def _waits(self, round_: Round, brought: _Brought, verdicts: list[str]) -> bool:
        """Let all that a ticket brings wait where there is nothing to decide; False for none of it."""
        dossier, post, indexes, items = brought
        if self._take(round_, brought, PENDING):
            return True
        pairs = list(zip(indexes, items, strict=True))
        again = [pair for pair in pairs if pair[1].pulse.seq in dossier.names]
        if not again or not all(dossier.holds(item) for _, item in again):
            return False
        fresh = [pair for pair in pairs if pair[1].pulse.seq not in dossier.names]
        if fresh:
            places, left = map(list, zip(*fresh, strict=True))
            if not self._take(round_, _Brought(dossier, post, places, left), PENDING):
                return False
        for index, item in again:
            verdicts[index] = round_.again(dossier, item)
        return True

    def _decide(
        self, round_: Round, brought: _Brought, signed: Sequence[bool | None], verdicts: list[str]
    ) -> None:
        """Decide on what a ticket brings, of which nothing waits, by its signatures."""
        dossier, _, indexes, items = brought
        if all(map(signed.__getitem__, indexes)) and self._take(round_, brought, STORED):
            for index in indexes:
                verdicts[index] = STORED
            return
        doubtful: list[tuple[int, Opened]] = []
        for index, item in zip(indexes, items, strict=True):
            if signed[index] and self._take_one(round_, dossier, item, STORED):
                verdicts[index] = STORED
                continue
            verdicts[index] = round_.take(dossier, item, signed[index])
            if not verdicts[index]:
                doubtful.append((index, item))
        # a body that a validly signed later pulse names is as good as signed: newest first
        for index, item in sorted(doubtful, key=lambda one: -one[1].pulse.seq):
            verdicts[index] = round_.doubt(dossier, item)

    def _take(self, round_: Round, brought: _Brought, verdict: str) -> bool:
        """Take in pulses of one ticket about which there is nothing to decide; False for none of them."""
        dossier, post, indexes, items = brought
        if len(items) == 1:
            return self._take_one(round_, dossier, items[0], verdict)
        waits, found = verdict == PENDING, stretch(post.columns, indexes, items)
        if (
            dossier.unproven
            or dossier.rejects
            or not dossier.is_free(found)
            or (dossier.links and not dossier.links.keys().isdisjoint(found.names))
            or not (waits or dossier.goes_on(found))
            or self.register.refuses_any(dossier, found, round_.now_ms)
        ):
            return False
        round_.opens(dossier, items)
        dossier.put_all(found)
        if waits:
            dossier.wait_all(found)
        return True

    def _take_one(self, round_: Round, dossier: Dossier, item: Opened, verdict: str) -> bool:
        """Take in one pulse, as ``_take`` would."""
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
        if verdict != PENDING and seq != 1 and names.get(seq - 1) != pulse.prev:
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
            dossier.hold(item)
            register.charge([item.carrier])
        elif verdict == PENDING:
            dossier.put(item)
            dossier.wait(item.pulse)
        elif verdict in (STORED, EQUIVOCATION):
            dossier.rejects.pop(seq, None)
            dossier.keep(item)
        elif seq not in dossier.names:
            dossier.rejects[seq] = verdict
        register.opened(item.pulse.tid, len(dossier.open) - before, now_ms)


def _sorted(
    post: Post, dossiers: Mapping[bytes, Dossier | None], verdicts: list[str]
) -> dict[bytes, _Brought]:
    """Return what each ticket brings; what is no pulse or has no ticket is given its reason code."""
    places: dict[bytes, list[int]] = {tid: [] for tid in dossiers}
    for index, tid in enumerate(post.tids):
        places[tid].append(index)
    brought: dict[bytes, _Brought] = {}
    for tid, found in places.items():
        indexes = found
        if tid == NOBODY:  # what is no pulse stands here too
            for index in found:
                if isinstance(code := post.items[index], str):
                    verdicts[index] = code
            indexes = [index for index in found if not isinstance(post.items[index], str)]
        dossier, items = dossiers[tid], [post.items[index] for index in indexes]
        if dossier is None:
            for index in indexes:
                verdicts[index] = "no_ticket"
        elif items:
            brought[tid] = _Brought(dossier, post, indexes, cast("list[Opened]", items))
    return brought


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
