"""The reckoning: a month's viewing computed the plain way, from the intake log alone, in memory.

What the tally counts from columns must equal it; ``farcast origin settle --from-raw`` asks it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from ...protocol.manifest import Manifest
from ...protocol.rules import Rules
from ...protocol.ticket import Holder, TicketOffice
from ..pulses.evidence import Evidence
from .credit import Credit, carry_in, credit
from .tally import Earlier
from .titles import Titles
from .viewing import Viewing, sum_up


class Reckoning:
    """The whole intake log in memory; it answers what ``Tally`` answers."""

    def __init__(
        self,
        payloads: Iterable[bytes],
        office: TicketOffice,
        days: range,
        titles: Titles,
        *,
        chosen: Callable[[Holder], bool] | None = None,
    ) -> None:
        self._evidence = Evidence(payloads, office, days, chosen=chosen)
        self._titles = titles

    @property
    def titles(self) -> Mapping[bytes, Manifest]:
        """The titles it has met."""
        return self._titles.found

    def size_at(self, as_of_ms: int) -> int:
        """Return how many entries the log had at ``as_of_ms``."""
        return self._evidence.size_at(as_of_ms)

    def months(self, size: int) -> set[str]:
        """Return the months that the first ``size`` entries hold pulses of."""
        return self._evidence.months(size)

    def leaves(self, size: int) -> list[bytes]:
        """Return the leaf hashes of the first ``size`` entries."""
        return self._evidence.leaves[:size]

    def stored(self, size: int, days: range) -> dict[bytes, int]:
        """Return how many distinct pulses of each ticket the first ``size`` entries hold."""
        del days  # those the log was read for
        return self._evidence.stored(size)

    def viewing(
        self, days: range, size: int, earlier: Sequence[Earlier], settled_size: int, rules: Rules
    ) -> Viewing:
        """Return what the month of ``days`` comes to as the first ``size`` entries tell it."""
        current = self._credits(days, size, rules)
        carried: list[Credit] = []
        settled: list[Credit] = []
        late: list[Credit] = []
        for month in earlier:
            then = self._credits(month.days, settled_size, month.rules)
            now = self._credits(month.days, size, month.rules)
            carried += carry_in(then, now)
            settled += then
            late += now
        return sum_up(
            current, carried, [i.fact for i in late], [i.fact for i in settled], self._titles.found, rules
        )

    def _credits(self, days: range, size: int, rules: Rules) -> list[Credit]:
        """Return the credits of a month's tickets; the day before is read too, for sessions that go on."""
        facts = self._evidence.facts(size, range(days.start - 1, days.stop), self._titles.find)
        return [item for item in credit(facts, rules) if item.fact.day in days]
