"""Viewing: what a month's pulses come to, summed; all that settlement and its rules need to know.

Sums are exact integers and do not depend on order, so they may be added up account by account, in
any number of pieces, by ``credit`` or by the columns; ``Viewing`` is the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct

from ...protocol.manifest import Manifest
from ...protocol.rules import Rules, relay_day_kbytes
from ..pulses.admission import month_of
from .credit import Credit, Fact


class Sum(Struct, frozen=True, gc=False):
    """Milliseconds, and the pulses that brought (or lost) them.

    Small, and of no concern to the collector: a large month has millions.
    """

    ms: int
    pulses: int


NO_SUM = Sum(0, 0)

Title = tuple[bytes, str]
"""Manifest, month of viewing."""
ByTitle = Mapping[Title, Mapping[bytes, int]]
"""Milliseconds by title, then by account."""
ByDay = Mapping[int, Mapping[bytes, Sum]]
"""Sums by UTC day of the ticket, then by account."""
RelayDay = tuple[bytes, int]
"""First 16 bytes of a relay's key, UTC day of the ticket."""


TitleCode = tuple[bytes, str]
"""Manifest, reason code."""


class Viewing(NamedTuple):
    """What counts of a month, and apart from it what late pulses add to months settled before.

    ``ms`` and ``days`` hold counted time, only keys of more than nothing: the rules that flag read
    ``days``, never what was carried in. ``kbytes`` is what each relay (first 16 bytes of its key)
    served, as far as it is paid; ``cut`` what did not count of the month itself, by reason code;
    ``over_kbytes`` what relays claim of the month beyond what their line could carry; ``cut_titles``
    is ``cut`` by title, for who is paid for it.
    """

    ms: ByTitle
    days: ByDay
    carried_ms: ByTitle
    carried_days: ByDay
    kbytes: Mapping[bytes, int]
    carried_kbytes: Mapping[bytes, int]
    cut: Mapping[str, Sum]
    over_kbytes: Mapping[bytes, int] = {}
    cut_titles: Mapping[TitleCode, Sum] = {}


def sum_up(
    current: Sequence[Credit],
    carried_in: Sequence[Credit],
    late_facts: Iterable[Fact],
    settled_facts: Iterable[Fact],
    titles: Mapping[bytes, Manifest],
    rules: Rules,
) -> Viewing:
    """Sum credits up.

    ``late_facts`` are the facts of the months settled before as the log tells them now,
    ``settled_facts`` as it told them then: a relay is paid what it gained between.
    """
    (late, _), (settled, _) = served(late_facts, titles, rules), served(settled_facts, titles, rules)
    kbytes, over = served((item.fact for item in current), titles, rules)
    return Viewing(
        ms=_by_title(current),
        days=_by_day(current),
        carried_ms=_by_title(carried_in),
        carried_days=_by_day(carried_in),
        kbytes=kbytes,
        carried_kbytes=gained(late, settled),
        cut=_cut(current),
        over_kbytes=over,
        cut_titles=_cut_titles(current),
    )


def gained(late: Mapping[bytes, int], settled: Mapping[bytes, int]) -> dict[bytes, int]:
    """Return the kilobytes by relay that late pulses add; nothing paid is ever taken back."""
    more = {relay: kbytes - settled.get(relay, 0) for relay, kbytes in late.items()}
    return {relay: kbytes for relay, kbytes in more.items() if kbytes > 0}


def served(
    facts: Iterable[Fact], titles: Mapping[bytes, Manifest], rules: Rules
) -> tuple[dict[bytes, int], dict[bytes, int]]:
    """Sum kilobytes by relay, and those beyond its bound; as ``bounded`` returns them."""
    return bounded(brought(facts, titles, rules), rules)


def brought(facts: Iterable[Fact], titles: Mapping[bytes, Manifest], rules: Rules) -> dict[RelayDay, int]:
    """Sum kilobytes by relay and day; no account is served more of a title in a day than the title has."""
    room: dict[tuple[bytes, int, bytes], int] = {}
    sums: dict[RelayDay, int] = defaultdict(int)
    countable = [f for f in facts if not f.code and f.at_ms - f.received_ms <= rules.live_window_ms]
    for fact in sorted(countable, key=lambda fact: (fact.at_ms, fact.tid, fact.seq)):
        key = (fact.account, fact.day, fact.manifest)
        left = room.setdefault(key, title_kbytes(titles[fact.manifest]))
        for relay, kbytes in fact.served:
            counted = min(kbytes, left)
            sums[relay, fact.day] += counted
            left -= counted
        room[key] = left
    return sums


def bounded(served_: Mapping[RelayDay, int], rules: Rules) -> tuple[dict[bytes, int], dict[bytes, int]]:
    """Return the kilobytes that are paid by relay, and those beyond what a day can carry."""
    most = relay_day_kbytes(rules)
    paid: dict[bytes, int] = defaultdict(int)
    over: dict[bytes, int] = defaultdict(int)
    for (relay, _), kbytes in served_.items():
        paid[relay] += min(kbytes, most)
        over[relay] += max(0, kbytes - most)
    return (
        {relay: kbytes for relay, kbytes in paid.items() if kbytes},
        {relay: kbytes for relay, kbytes in over.items() if kbytes},
    )


def title_kbytes(manifest: Manifest) -> int:
    """Return the kilobytes (1,000 bytes each) of a whole title, rounded up."""
    return -(-manifest.size_bytes // 1_000)


def _by_title(credits_: Iterable[Credit]) -> ByTitle:
    sums: dict[Title, dict[bytes, int]] = {}
    for item in credits_:
        if item.ms:
            accounts = sums.setdefault((item.fact.manifest, month_of(item.fact.day)), {})
            accounts[item.fact.account] = accounts.get(item.fact.account, 0) + item.ms
    return sums


def _by_day(credits_: Iterable[Credit]) -> ByDay:
    sums: dict[int, dict[bytes, Sum]] = {}
    for item in credits_:
        if item.ms:
            accounts = sums.setdefault(item.fact.day, {})
            before = accounts.get(item.fact.account, NO_SUM)
            accounts[item.fact.account] = Sum(before.ms + item.ms, before.pulses + 1)
    return sums


def _cut(credits_: Iterable[Credit]) -> dict[str, Sum]:
    ms: dict[str, int] = defaultdict(int)
    pulses: dict[str, int] = defaultdict(int)
    for item in credits_:
        for code, cut_ms in item.cuts:
            ms[code] += cut_ms
            pulses[code] += 1
    return {code: Sum(ms[code], pulses[code]) for code in ms}


def _cut_titles(credits_: Iterable[Credit]) -> dict[TitleCode, Sum]:
    ms: dict[TitleCode, int] = defaultdict(int)
    pulses: dict[TitleCode, int] = defaultdict(int)
    for item in credits_:
        for code, cut_ms in item.cuts:
            ms[item.fact.manifest, code] += cut_ms
            pulses[item.fact.manifest, code] += 1
    return {key: Sum(ms[key], pulses[key]) for key in ms}
