"""Sealing: the verdict on the sessions of one ticket that are over, by the rules of settlement.

A session is a stretch of one ticket's pulses without a gap: it begins at a start or return and ends
with the switch to another title, after five minutes of silence, or with the day. What depends on more
than the ticket (the account's day, holds, unknown titles) comes with the month.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...protocol.batch import Reject, SealRecord
from ...protocol.errors import RemoteError
from ...protocol.ports import TierName
from ...protocol.pulse import ACTIVE, RETURN, START, SWITCH, Viewing, open_viewing
from ...protocol.rules import Rules
from ...protocol.ticket import Holder, TicketOffice
from ..money.credit import Credit, Fact, cap_days, credit_run, time_of
from .dossier import Dossier
from .opened import Opened

_NOTHING = Viewing(ACTIVE, bytes(32), 0, 0, [], bytes(16))


def records_of(dossier: Dossier, office: TicketOffice, rules: Rules) -> list[SealRecord]:
    """Return a record for each session among a ticket's open pulses, whose signatures are settled."""
    if not dossier.open:
        return []
    holder, key = office.holder(dossier.ticket), office.key(dossier.ticket.tid)
    held = list(dossier.open.values())
    first = min(one.pulse.seq for one in held)
    tail = dossier.tail
    if tail is not None and tail.pulse.seq < first:
        held.append(tail)  # what the first delta is measured from
    judged = _judged(_facts(dossier, held, holder, key), rules)
    sessions: list[list[Credit]] = []
    before, before_ms = None, 0
    for item in judged:
        fact = item.fact
        if fact.seq < first:
            continue
        at_ms = time_of(fact, rules)
        if before is None or _begins(fact, before, at_ms - before_ms, rules):
            sessions.append([])
        sessions[-1].append(item)
        before, before_ms = fact, at_ms
    return [_record(dossier.ticket.tid, items) for items in sessions]


def ended(dossier: Dossier, office: TicketOffice) -> bool:
    """Say whether the newest open pulse of a ticket says itself that its session is over."""
    held = max(dossier.open.values(), key=lambda one: one.pulse.seq)
    try:
        return open_viewing(held.pulse, office.key(dossier.ticket.tid)).state == SWITCH
    except RemoteError:
        return False


def _begins(fact: Fact, before: Fact, gap_ms: int, rules: Rules) -> bool:
    if fact.seq == before.seq:
        return False
    return gap_ms > rules.gap_ms or before.state == SWITCH or fact.state in (START, RETURN)


def _record(tid: bytes, items: list[Credit]) -> SealRecord:
    codes = sorted({(item.fact.seq, code) for item in items for code, _ in item.cuts})
    return SealRecord(
        1, tid, items[0].fact.seq, items[-1].fact.seq, sum([item.ms for item in items]),
        [Reject(seq, code) for seq, code in codes],
    )  # fmt: skip


def _judged(facts: list[Fact], rules: Rules) -> list[Credit]:
    """Apply the rules to one ticket's pulses, in order of their numbers."""
    judged = credit_run(facts, None, rules)
    if sum(item.ms for item in judged) <= rules.day_cap_ms:
        return judged
    return sorted(cap_days(judged, rules), key=lambda item: (item.fact.seq, item.fact.name))


def _facts(dossier: Dossier, held: Sequence[Opened], holder: Holder, key: bytes) -> list[Fact]:
    account, device, day, tid = holder.account, holder.device, dossier.ticket.day, dossier.ticket.tid
    names, stamps, others = dossier.names, dossier.stamps, dossier.others
    facts: list[Fact] = []
    for one in held:
        pulse, name = one.pulse, one.name
        seq = pulse.seq
        code = "" if seq not in others or dossier.counts(seq, name) else "equivocation"
        try:
            viewing = open_viewing(pulse, key)
        except RemoteError as error:
            viewing, code = _NOTHING, error.reason if error.reason == "bad_box" else "bad_viewing"
        stamp_ms = stamps[seq] if names.get(seq) == name else dossier.stamps_of(seq, name, one.stamp_ms)
        served = [(item.relay, item.kbytes) for item in viewing.served if item.tier == TierName.RELAY]
        facts.append(
            Fact(
                account, device, tid, day, seq, name, pulse.at_ms, stamp_ms, pulse.cum_ms, pulse.delta_ms,
                viewing.state, viewing.manifest, tuple(served), code,
            )
        )  # fmt: skip
    return facts
