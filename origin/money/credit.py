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

_OPENING = (START, RETURN)


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


class _Session:
    """One title's open session: what it has earned, and when the title was last said to play."""

    __slots__ = ("earned_ms", "played_ms")

    def __init__(self, time_ms: int) -> None:
        self.earned_ms = 0
        self.played_ms = time_ms


class _Stretch:
    """Where a chain of pulses stands since its last gap; one object for a whole chain, moved on by each.

    ``mark_ms`` is the latest own time reached: going back and over it again earns nothing. Playback
    since ``start_ms`` has claimed ``earned_ms``; ``sessions`` holds each title's open session, for
    its cap.
    """

    __slots__ = ("cum_ms", "earned_ms", "mark_ms", "sessions", "start_ms", "tid", "time_ms")

    def __init__(self, time_ms: int, mark_ms: int) -> None:
        self.tid = b""
        self.cum_ms = self.earned_ms = self.start_ms = 0
        self.time_ms, self.mark_ms = time_ms, mark_ms
        self.sessions: dict[bytes, _Session] = {}

    def begin(self) -> None:
        """Let a new stretch begin at the latest own time reached."""
        self.start_ms, self.earned_ms = self.mark_ms, 0
        self.sessions = {}


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
    stretch = None if before is None else _Stretch(before.time_ms, before.mark_ms)
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
    """Walk one ticket's pulses in order of their numbers; moves ``stretch`` on."""
    found: list[Credit] = []
    for fact in facts:
        code = fact.code or ("future" if fact.at_ms - fact.received_ms > rules.live_window_ms else "")
        if code:
            found.append(Credit(fact, 0, ((code, fact.delta_ms),)))
        elif stretch is None:
            stretch = _Stretch(time_of(fact, rules), fact.at_ms)
            stretch.begin()
            found.append(_pulse(fact, stretch, ("start", rules.slack_ms), rules))
        else:
            found.append(_pulse(fact, stretch, None, rules))
    return found, stretch


def _pulse(fact: Fact, stretch: _Stretch, limit: tuple[str, int] | None, rules: Rules) -> Credit:
    """Judge one pulse against those before it, and move their stretch on; ``limit`` is the first pulse's.

    A start or return opens a session of its title once nothing of it played for ``gap_ms``; the wall
    clock runs on through all of them, so several players of one device claim no second twice.
    """
    _, _, tid, _, _, _, at_ms, received_ms, cum_ms, ms, state, manifest, _, _ = fact
    time_ms = received_ms if received_ms - at_ms <= rules.live_window_ms else at_ms
    stretch.mark_ms = max(stretch.mark_ms, at_ms)
    if limit is None and time_ms - stretch.time_ms > rules.gap_ms:
        limit = ("gap", 0)
        stretch.begin()
    if limit is None:
        wall_ms = stretch.mark_ms - stretch.start_ms - stretch.earned_ms + rules.slack_ms
    else:
        wall_ms = limit[1]
    summed_ms = cum_ms - stretch.cum_ms if stretch.tid == tid else cum_ms
    stretch.tid, stretch.cum_ms, stretch.time_ms = tid, cum_ms, time_ms
    session = stretch.sessions.get(manifest)
    if session is None or (
        state in _OPENING and not (rules.breaks_sessions and time_ms - session.played_ms <= rules.gap_ms)
    ):
        session = stretch.sessions[manifest] = _Session(time_ms)
    left_ms = rules.session_cap_ms - session.earned_ms
    # what claims time plays, counted or cut: a session that is over its cap takes no break by it
    if ms and time_ms > session.played_ms:
        session.played_ms = time_ms
    cuts: tuple[tuple[str, int], ...] = ()
    if ms > summed_ms or ms > wall_ms or ms > left_ms:
        code = "wall" if limit is None else limit[0]
        ms, cuts = _cut(ms, (("sum", max(0, summed_ms)), (code, max(0, wall_ms)), ("session_cap", left_ms)))
    stretch.earned_ms += ms
    session.earned_ms = 0 if state == SWITCH and not rules.breaks_sessions else session.earned_ms + ms
    return Credit(fact, ms, cuts)


def _cut(ms: int, limits: Iterable[tuple[str, int]]) -> tuple[int, tuple[tuple[str, int], ...]]:
    """Cut a claim to each limit in turn; returns what is left of it, and what went by which."""
    cuts: list[tuple[str, int]] = []
    for code, limit_ms in limits:
        if ms > limit_ms:
            cuts.append((code, ms - limit_ms))
            ms = limit_ms
    return ms, tuple(cuts)


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
