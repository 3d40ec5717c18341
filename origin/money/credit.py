"""Credit: how many milliseconds of each pulse count, and why the rest does not.

Pure; every rule is local to one account. A pulse received within ``live_window_ms`` of its own time
is live and its place in time is the receive time; a later one is delayed and stands at its own.
Within that window the own clock measures, so a queue that leaves a box at once loses nothing, and
no stretch can claim more than its receive times allow and two windows on top.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ...protocol.pulse import RETURN, START, SWITCH
from ...protocol.rules import Rules


class Fact(NamedTuple):
    """One authentic pulse as the rules see it; ``code`` is set where it cannot count at all.

    ``name`` is the body's hash, ``day`` the ticket's UTC day, ``received_ms`` the smallest stamp of
    origin or enrolled relays, ``served`` relay (first 16 bytes of its key) and kilobytes.
    """

    account: bytes
    device: int
    tid: bytes
    day: int
    seq: int
    name: bytes
    at_ms: int
    received_ms: int
    cum_ms: int
    delta_ms: int
    state: int
    manifest: bytes
    served: tuple[tuple[bytes, int], ...]
    code: str


class Credit(NamedTuple):
    """A fact's counted milliseconds and what was cut, by reason code."""

    fact: Fact
    ms: int
    cuts: tuple[tuple[str, int], ...]


class _Stretch(NamedTuple):
    """Where a chain of pulses stands since its last gap.

    ``mark_ms`` is the latest own time reached: going back and over it again earns nothing. Playback
    since ``start_ms`` has claimed ``earned_ms``; ``sessions`` holds each title's open session, for
    its cap.
    """

    tid: bytes
    cum_ms: int
    time_ms: int
    mark_ms: int
    start_ms: int
    earned_ms: int
    sessions: dict[bytes, _Session]


class _Session(NamedTuple):
    """One title's open session: what it has earned, and when the title was last said to play."""

    earned_ms: int
    played_ms: int


class Before(NamedTuple):
    """What a device's next stretch must know of the one before: its last place in time, and own time."""

    time_ms: int
    mark_ms: int


def credit(facts: Iterable[Fact], rules: Rules) -> list[Credit]:
    """Apply every rule to the facts of any number of accounts; the result is in canonical order."""
    accounts: dict[bytes, list[Fact]] = defaultdict(list)
    for fact in facts:
        accounts[fact.account].append(fact)
    return [item for account in sorted(accounts) for item in _account(accounts[account], rules)]


def credit_run(facts: Iterable[Fact], before: Before | None, rules: Rules) -> list[Credit]:
    """Apply every rule but the cap of the day to some tickets of one device, where a new stretch begins.

    ``before`` is where the device's earlier tickets ended, more than a gap ago.
    """
    stretch = None if before is None else _Stretch(b"", 0, before.time_ms, before.mark_ms, 0, 0, {})
    return _device(list(facts), stretch, rules)


def carry_in(before: Sequence[Credit], after: Sequence[Credit]) -> list[Credit]:
    """Return what late pulses add to credits that are settled already, never taking any back.

    Per account and day the gain is at most by how much the day's sum grew, the latest cut first, so
    delaying pulses evades no cap.
    """
    old = {item.fact.name: item.ms for item in before}
    days: dict[tuple[bytes, int], list[Credit]] = defaultdict(list)
    room: dict[tuple[bytes, int], int] = defaultdict(int)
    for item in before:
        room[item.fact.account, item.fact.day] -= item.ms
    for item in after:
        room[item.fact.account, item.fact.day] += item.ms
        days[item.fact.account, item.fact.day].append(item)
    gained: list[Credit] = []
    for key, items in days.items():
        left = max(0, room[key])
        for item in items:
            gain = min(left, max(0, item.ms - old.get(item.fact.name, 0)))
            left -= gain
            if gain:
                gained.append(Credit(item.fact, gain, ()))
    return gained


def time_of(fact: Fact, rules: Rules) -> int:
    """Return a pulse's place in time: receive time where live, its own where delayed."""
    live = fact.received_ms - fact.at_ms <= rules.live_window_ms
    return fact.received_ms if live else fact.at_ms


def _account(facts: list[Fact], rules: Rules) -> list[Credit]:
    devices: dict[int, list[Fact]] = defaultdict(list)
    for fact in facts:
        devices[fact.device].append(fact)
    return cap_days([item for each in devices.values() for item in _device(each, None, rules)], rules)


def _device(facts: list[Fact], stretch: _Stretch | None, rules: Rules) -> list[Credit]:
    """Walk one device's tickets: a session may go on under the next day's."""
    chains: dict[bytes, list[Fact]] = defaultdict(list)
    for fact in facts:
        chains[fact.tid].append(fact)
    for chain in chains.values():
        chain.sort(key=lambda fact: (fact.seq, fact.name))
    credits_: list[Credit] = []
    beside = False
    for _, chain in sorted(chains.items(), key=lambda item: (item[1][0].day, item[1][0].at_ms, item[0])):
        # two tickets side by side are two sessions, under one wall clock
        apart = stretch is None or stretch.mark_ms <= chain[0].at_ms
        beside = beside or not apart
        found, last = _chain(chain, stretch if apart else None, rules)
        credits_ += found
        stretch = stretch if last is None else last
    return _one_wall(credits_) if beside else credits_


def _one_wall(credits_: list[Credit]) -> list[Credit]:
    """Cut from each pulse the time that the device claimed under another ticket: it has one wall clock."""
    ordered = sorted(
        credits_, key=lambda item: (item.fact.at_ms, item.fact.tid, item.fact.seq, item.fact.name)
    )
    claimed: list[tuple[int, int, bytes]] = []
    left: list[Credit] = []
    for item in ordered:
        start_ms, end_ms, tid = item.fact.at_ms - item.ms, item.fact.at_ms, item.fact.tid
        twice_ms, reach_ms = 0, start_ms
        for begin, end in sorted(_beside(claimed, start_ms, end_ms, tid)):
            twice_ms += max(0, end - max(begin, reach_ms))
            reach_ms = max(reach_ms, end)
        if twice_ms:
            item = Credit(item.fact, item.ms - twice_ms, (*item.cuts, ("other_ticket", twice_ms)))  # noqa: PLW2901
        if end_ms > start_ms:
            claimed.append((start_ms, end_ms, tid))
        left.append(item)
    return left


def _beside(
    claimed: Sequence[tuple[int, int, bytes]], start_ms: int, end_ms: int, tid: bytes
) -> Iterator[tuple[int, int]]:
    """Yield what claims under other tickets, in order of their ends, share with this stretch."""
    for begin, end, other in reversed(claimed):
        if end <= start_ms:
            return
        if other != tid and begin < end_ms:
            yield max(begin, start_ms), min(end, end_ms)


def _chain(facts: list[Fact], stretch: _Stretch | None, rules: Rules) -> tuple[list[Credit], _Stretch | None]:
    """Walk one ticket's pulses in order of their numbers."""
    found: list[Credit] = []
    for fact in facts:
        code = fact.code or ("future" if fact.at_ms - fact.received_ms > rules.live_window_ms else "")
        if code:
            found.append(Credit(fact, 0, ((code, fact.delta_ms),)))
            continue
        item, stretch = _pulse(fact, stretch, rules)
        found.append(item)
    return found, stretch


def _pulse(fact: Fact, before: _Stretch | None, rules: Rules) -> tuple[Credit, _Stretch]:
    """Judge one pulse against those before it.

    A start or return opens a session of its title once nothing of it played for ``gap_ms``; the wall
    clock runs on through all of them, so several players of one device claim no second twice.
    """
    time_ms = time_of(fact, rules)
    mark_ms = fact.at_ms if before is None else max(before.mark_ms, fact.at_ms)
    cum_before = before.cum_ms if before is not None and before.tid == fact.tid else 0
    limits: list[tuple[str, int]] = [("sum", max(0, fact.cum_ms - cum_before))]
    if before is None or time_ms - before.time_ms > rules.gap_ms:
        limits.append(("start", rules.slack_ms) if before is None else ("gap", 0))
        stretch = _Stretch(fact.tid, fact.cum_ms, time_ms, mark_ms, mark_ms, 0, {})
    else:
        limits.append(("wall", max(0, mark_ms - before.start_ms - before.earned_ms + rules.slack_ms)))
        stretch = _Stretch(
            fact.tid, fact.cum_ms, time_ms, mark_ms, before.start_ms, before.earned_ms, before.sessions
        )
    session = stretch.sessions.get(fact.manifest, _Session(0, time_ms))
    opened = fact.state in (START, RETURN)
    if opened and not (rules.breaks_sessions and time_ms - session.played_ms <= rules.gap_ms):
        session = _Session(0, time_ms)
    limits.append(("session_cap", rules.session_cap_ms - session.earned_ms))
    ms, cuts = fact.delta_ms, list[tuple[str, int]]()
    for code, limit_ms in limits:
        if ms > limit_ms:
            cuts.append((code, ms - limit_ms))
            ms = limit_ms
    session_ms = session.earned_ms + ms
    if fact.state == SWITCH and not rules.breaks_sessions:
        session_ms = 0
    # what claims time plays, counted or cut: a session that is over its cap takes no break by it
    played_ms = max(session.played_ms, time_ms) if fact.delta_ms else session.played_ms
    sessions = {**stretch.sessions, fact.manifest: _Session(session_ms, played_ms)}
    earned_ms = stretch.earned_ms + ms
    return Credit(fact, ms, tuple(cuts)), stretch._replace(earned_ms=earned_ms, sessions=sessions)


def cap_days(credits_: list[Credit], rules: Rules) -> list[Credit]:
    """Cut the latest time over the cap of each day, over all devices, in canonical order."""
    ordered = sorted(credits_, key=lambda item: _place(item.fact, rules))
    earned: dict[int, int] = defaultdict(int)
    capped: list[Credit] = []
    for item in ordered:
        room = rules.day_cap_ms - earned[item.fact.day]
        if item.ms > room:
            item = Credit(item.fact, room, (*item.cuts, ("day_cap", item.ms - room)))  # noqa: PLW2901
        earned[item.fact.day] += item.ms
        capped.append(item)
    return capped


def _place(fact: Fact, rules: Rules) -> tuple[int, int, bytes, int, bytes]:
    return fact.day, time_of(fact, rules), fact.tid, fact.seq, fact.name
