"""The reckoning: a month's viewing computed the plain way, from the intake log alone.

What the tally counts from columns must equal it; ``farcast origin settle --from-raw`` asks it. The log
is read once for each group of accounts, as many groups as keep what is held of one within bounds: so a
large month takes time, never memory. What lasts is a hash for each entry, and a count for each ticket.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from ...protocol.enrol import DAYS_AHEAD
from ...protocol.manifest import Manifest
from ...protocol.merkle import HASH_BYTES
from ...protocol.rules import DAY_MS, Rules
from ...protocol.ticket import Holder, TicketOffice
from ..pulses.admission import open_frame
from ..pulses.evidence import Evidence
from ..pulses.rows import bucket_of
from ..pulses.segments import Entry
from .credit import Credit, carry_in, credit
from .tally import BUCKETS, Earlier
from .titles import Titles
from .total import Total, bring
from .viewing import Viewing

PASS_BYTES = 64 << 20
"""What of the log is held of one group of accounts: some 200,000 pulses, half a gigabyte in memory."""


class Reckoning:
    """The intake log read again and again; it answers what ``Tally`` answers."""

    def __init__(
        self,
        entries: Callable[[], Iterable[Entry]],
        office: TicketOffice,
        days: range,
        titles: Titles,
        *,
        pass_bytes: int | None = None,
    ) -> None:
        """Read the log of ``entries`` once, for what is asked of its tickets of ``days``."""
        self._entries = entries
        self._office = office
        self._days = days
        self._titles = titles
        self._since = _segment(days.start)
        self._leaves = bytearray()
        self._times_ms = array("q")
        self._stored: dict[int, dict[bytes, int]] = {}
        size_bytes = 0
        for entry in entries():
            self._leaves += entry.leaf
            self._times_ms.append(open_frame(entry.payload).at_ms)
            if entry.place.segment >= self._since:
                size_bytes += len(entry.payload)
        self.groups = min(BUCKETS, -(-size_bytes // (pass_bytes or PASS_BYTES)) or 1)

    @property
    def titles(self) -> Mapping[bytes, Manifest]:
        """The titles it has met."""
        return self._titles.found

    def size_at(self, as_of_ms: int) -> int:
        """Return how many entries the log had at ``as_of_ms``."""
        return sum(1 for at_ms in self._times_ms if at_ms <= as_of_ms)

    def months(self, size: int) -> set[str]:
        """Return the months that the first ``size`` entries hold pulses of."""
        evidence = Evidence((entry.payload for entry in self._entries()), self._office, range(0))
        return evidence.months(size)

    def leaves(self, size: int) -> list[bytes]:
        """Return the leaf hashes of the first ``size`` entries."""
        return [bytes(self._leaves[at * HASH_BYTES : (at + 1) * HASH_BYTES]) for at in range(size)]

    def stored(self, size: int, days: range) -> dict[bytes, int]:
        """Return how many distinct pulses of each ticket the first ``size`` entries hold."""
        del days  # those the log was read for
        if size not in self._stored:
            found: dict[bytes, int] = {}
            for evidence in self._groups():
                found.update(evidence.stored(size))
            self._stored = {size: found}
        return self._stored[size]

    def viewing(
        self, days: range, size: int, earlier: Sequence[Earlier], settled_size: int, rules: Rules
    ) -> Viewing:
        """Return what the month of ``days`` comes to as the first ``size`` entries tell it."""
        total = Total()
        stored: dict[bytes, int] = {}
        for evidence in self._groups():
            current = self._credits(evidence, days, size, rules)
            total.add(current)
            bring(total.kbytes, current, self.titles, rules)
            for month in earlier:
                then = self._credits(evidence, month.days, settled_size, month.rules)
                now = self._credits(evidence, month.days, size, month.rules)
                total.add_carried(carry_in(then, now))
                bring(total.settled, then, self.titles, rules)
                bring(total.late, now, self.titles, rules)
            stored.update(evidence.stored(size))
        self._stored = {size: stored}  # a settlement asks for it next, and the log is read already
        return total.viewing(rules)

    def _groups(self) -> Iterator[Evidence]:
        """Yield what the log tells of each group of accounts."""
        for number in range(self.groups):
            buckets = range(number * BUCKETS // self.groups, (number + 1) * BUCKETS // self.groups)
            evidence = Evidence((), self._office, self._days, chosen=_among(buckets))
            for position, entry in enumerate(self._entries()):
                if entry.place.segment >= self._since:
                    evidence.read(position, entry.payload)
            yield evidence

    def _credits(self, evidence: Evidence, days: range, size: int, rules: Rules) -> list[Credit]:
        """Return the credits of a month's tickets; the day before is read too, for sessions that go on."""
        facts = evidence.facts(size, range(days.start - 1, days.stop), self._titles.find)
        return [item for item in credit(facts, rules) if item.fact.day in days]


def _among(buckets: range) -> Callable[[Holder], bool]:
    return lambda holder: bucket_of(holder.account) in buckets


def _segment(day: int) -> str:
    """Return the name of the first segment file that may hold a ticket of a day, asked for well before."""
    return f"{datetime.fromtimestamp((day - DAYS_AHEAD - 1) * DAY_MS // 1_000, UTC):%Y-%m-%dT%H.seg}"
