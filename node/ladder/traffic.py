"""Traffic: the flights under way, and what they cost a film's budget."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace

from ...protocol.ports import TierName
from .budget import Budget
from .flight import Cancel, Effect, Flight, Want

LINGER_S, WARM_S = 1.0, 2.0
"""What a probe that lost gets to its first byte, and from there to its last."""
_FILMS = 64


class Traffic:
    """Every flight by its number; ``effects`` is where cancellations are told."""

    def __init__(self, effects: list[Effect], waste_percent: int) -> None:
        self._effects = effects
        self._waste_percent = waste_percent
        self._flights: dict[int, Flight] = {}
        self._lingering: dict[int, Flight] = {}
        self._films: OrderedDict[str, Budget] = OrderedDict()
        self.begun = 0
        self.wasted_bytes = 0

    def __iter__(self) -> Iterator[Flight]:
        """Return all flights that somebody was asked for."""
        return iter([one for one in self._flights.values() if one.source.tier is not TierName.SATELLITE])

    def get(self, number: int) -> Flight | None:
        """Return a flight that has not ended."""
        return self._flights.get(number)

    def film(self, title: str) -> Budget:
        """Return the budget of a title."""
        film = self._films.setdefault(title, Budget(self._waste_percent))
        self._films.move_to_end(title)
        if len(self._films) > _FILMS:
            self._films.popitem(last=False)
        return film

    def number(self) -> int:
        """Return the number of the next flight."""
        self.begun += 1
        return self.begun

    def begin(self, one: Flight) -> None:
        """Take a flight in."""
        one.health.inflight += 1
        one.want.flights[one.number] = self._flights[one.number] = one
        self.hold(one.want)

    def cancel(self, one: Flight) -> None:
        """Stop a flight, and end it."""
        self._effects.append(Cancel(one.number))
        self.end(one)

    def end(self, one: Flight, *, failed: bool = False) -> None:
        """End one flight; what it brought beside another came twice, unless it ``failed`` by itself."""
        want = one.want
        want.flights.pop(one.number, None)
        self._forget(one)
        if one.lingers:
            want.film.hold(-want.held_bytes)
            self._waste(want.film, one.wasted_bytes)
            return
        if not failed and (one.watched or want.asked()):
            want.lose(one.wasted_bytes)
        self.hold(want)

    def close(self, want: Want, winner: Flight | None = None) -> None:
        """End all flights of a want, and book what came beside its block."""
        asked = want.asked()
        for one in want.flights.values():
            if one is not winner:
                self._effects.append(Cancel(one.number))
            if one.source.tier is not TierName.SATELLITE and (one.watched or len(asked) > 1):
                want.lose(one.wasted_bytes)
            self._forget(one)
        want.flights.clear()
        want.film.hold(-want.held_bytes)
        self._waste(want.film, want.in_vain_bytes)

    def linger(self, loser: Flight, now: float) -> bool:
        """Let a probe go on though another flight was quicker: opening a connection takes its time.

        Without that a far source that has recovered would lose to a near one for ever.
        """
        if not loser.probe or not loser.watched or now >= loser.started + LINGER_S:
            return False
        del loser.want.flights[loser.number]
        loser.want = replace(loser.want, flights={}, held_bytes=0, lost_bytes=0, most_bytes=0)
        loser.lingers = True
        self._lingering[loser.number] = loser
        return True

    def may_warm(self, one: Flight) -> bool:
        """Say whether a lingering probe's block may come too: the last copy is for a viewer who waits."""
        film, size = one.want.film, one.want.size
        if not film.room(2 * size):
            return False
        one.want.held_bytes = size
        film.hold(size)
        return True

    @property
    def lingers_until(self) -> float | None:
        """When the first lingering probe's time is over."""
        return min((_end(one) for one in self._lingering.values()), default=None)

    def expired(self, now: float) -> list[Flight]:
        """Return the probes that did not prove their source in time."""
        return [one for one in self._lingering.values() if now >= _end(one)]

    def hold(self, want: Want) -> None:
        """Set aside what the copies under way may bring in vain: all but one of them."""
        racing = [one.bare for one in want.asked()]
        copies = max(racing.count(False) - 1, 0)
        held = want.in_vain_bytes + copies * want.size + racing.count(True) * Budget.RACE_BYTES
        want.film.hold(held - want.held_bytes)
        want.held_bytes = held

    def _forget(self, one: Flight) -> None:
        del self._flights[one.number]
        self._lingering.pop(one.number, None)
        one.health.inflight -= 1
        if one.probe:
            one.health.probing = False

    def _waste(self, film: Budget, lost_bytes: int) -> None:
        film.wasted_bytes += lost_bytes
        self.wasted_bytes += lost_bytes


def _end(one: Flight) -> float:
    return one.started + LINGER_S if one.first_at is None else one.first_at + WARM_S
