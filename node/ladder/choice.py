"""Choice: whom to ask next for a block, after what befell the flights before."""

from __future__ import annotations

from collections import Counter
from functools import partial

from ...protocol.ports import Cost, Source, TierName
from .flight import Want
from .roster import Roster

LATE_TWICE = 2


class Choice:
    """Asks the roster as a block's own troubles demand."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster

    def next(self, want: Want, now: float, *, probe: bool = False, up_to: Cost = Cost.RADIO) -> Source | None:
        """Return whom to ask next: a tier that was late twice for this block comes after all others.

        With ``probe`` a source whose back-off is over goes before one that is as near and well; where
        nobody is well, who failed longest ago is asked.
        """
        troubles = self.troubles(want)
        avoid = want.shun | {tier for tier, times in troubles.items() if times >= LATE_TWICE}
        ask = partial(self._roster.choose, want.cid, want.size, now, busy=want.busy(), up_to=up_to)
        for shunned in (avoid, want.shun):
            source = ask(probe=False, avoid=shunned)
            if source is not None:
                return (ask(probe=True, avoid=shunned) or source) if probe and not troubles else source
            source = self._roster.resort(want.cid, now, busy=want.busy(), up_to=up_to, avoid=shunned)
            if source is not None or avoid == want.shun:
                return source
        return None

    def pick(self, tier: TierName, want: Want, now: float) -> Source | None:
        """Return a tier's next source, one whose back-off is over if it has no better."""
        for probe in (False, True):
            source = self._roster.pick(tier, want.cid, want.size, now, busy=want.busy(), probe=probe)
            if source is not None:
                return source
        return None

    def resort(self, tier: TierName, want: Want, now: float) -> Source | None:
        """Return a tier's source that failed longest ago: where no other is left all are worth a try."""
        others = {other for other in TierName if other is not tier}
        return self._roster.resort(want.cid, now, busy=want.busy(), avoid=others)

    def troubles(self, want: Want) -> Counter[TierName]:
        """Count how often each tier failed or was late for a block."""
        return want.failures + Counter(one.source.tier for one in want.asked() if one.overdue)
