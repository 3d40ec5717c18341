"""The ladder: decides which source is asked next for a block, so that no viewer notices a dead tier.

Pure (time is an argument, effects are taken): the shell ``node/ladder/fetch.py`` and the simulated world
drive the same object. The rules:

* one flight per CID, however many ask; tiers in order CDN, relay, mesh, metered ones last;
* an answer late by clamp(p95 time to first byte of the tier, 50 ms, 250 ms), at most a third of the
  player's buffer, is hedged: the next source, then one of every other unmetered tier, within the
  film's budget; with no budget left the late flight is given up instead of doubled;
* an ejected source is asked again only after its back-off, by one real request that is hedged after
  50 ms: that request is the probe; where nobody else is left a second of back-off is enough;
* wrong bytes ban the source for that CID, and after three CIDs altogether;
* the satellite is never asked: its flight waits for the carousel beside the others, at no cost.

Who there is to ask is in ``roster.py``, what is known of each in ``health.py``, what is under way in
``flight.py``, how long is too long in ``patience.py``. Over 400 lines because the decisions share one state.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from functools import partial

from ...protocol.cid import Cid
from ...protocol.ports import Source, TierName
from .budget import Budget
from .flight import PACE_S, Cancel, Effect, Flight, GiveUp, Start, Switched, Want
from .health import Tuning
from .patience import Patience
from .roster import Listing, Roster

LATE_TWICE = 2
PROBE_BUFFER_S = 0.5
"""With less than this in the player's buffer nothing doubtful is tried first."""
DEADLINE_S = 30.0
DEFAULT_BLOCK_BYTES = 1 << 20
_FILMS = 64
_BUSY = (429, 503)


class Ladder:
    """The core; call ``take`` after every event and carry out what it returns."""

    def __init__(
        self,
        tuning: Tuning | None = None,
        *,
        deadline_s: float = DEADLINE_S,
        order: Sequence[TierName] = tuple(TierName),
        patient: bool = True,
    ) -> None:
        """Give every wanted block ``deadline_s`` until ``GiveUp``, asking the tiers in ``order``.

        A ladder that is not ``patient`` gives a block up as missing once all but its equals lack it.
        ``in_use`` is the tier that served last, ``wasted_bytes`` what hedging brought twice.
        """
        self._deadline_s = deadline_s
        self._tuning = tuning = tuning or Tuning()
        self._patient = patient
        self._roster = Roster(tuning, order)
        self._patience = Patience(tuning, self._roster)
        self._wants: dict[Cid, Want] = {}
        self._flights: dict[int, Flight] = {}
        self._numbers = 0
        self._effects: list[Effect] = []
        self._why: dict[TierName, str] = {}
        self._films: OrderedDict[str, Budget] = OrderedDict()
        self.in_use: TierName | None = None
        self.wasted_bytes = 0

    # -- what the shell tells

    def set_sources(
        self,
        tier: TierName,
        sources: Sequence[Source],
        now: float,
        *,
        metered: bool = False,
        watched: bool = False,
        reserve: Sequence[Source] = (),
        own: bytes = b"",
    ) -> None:
        """Replace what is known of ``tier``; ``watched`` says that its flights report ``progressed``.

        ``reserve`` and ``own`` are as in ``Listing``.
        """
        if self._roster.replace(tier, Listing(tuple(sources), metered, watched, tuple(reserve), own)):
            for want in list(self._wants.values()):
                self._drive(want, now)

    def network(self, name: str) -> None:
        """Use the health remembered for another network: what failed there may work here."""
        self._roster.network(name)

    def want(
        self,
        cid: Cid,
        now: float,
        *,
        title: str = "",
        size_bytes: int = 0,
        buffer_s: float | None = None,
        urgent: bool = True,
        shun: frozenset[TierName] = frozenset(),
    ) -> None:
        """Ask for a block; a second call for the same CID only makes the first more urgent.

        ``buffer_s`` is what the player still holds (None: unknown); ``urgent`` is False for a prefetch,
        which is never hedged; tiers to ``shun`` are not asked from now on, nor waited for.
        """
        want = self._wants.get(cid)
        if want is None:
            size = size_bytes or DEFAULT_BLOCK_BYTES
            end = now + self._deadline_s
            want = Want(cid, title, self._film(title), size, now, end, buffer_s, urgent)
            self._wants[cid] = want
        elif urgent and not want.urgent:
            want.urgent, want.since, want.deadline = True, now, now + self._deadline_s
        want.size = size_bytes or want.size
        want.shun |= shun
        if buffer_s is not None:
            want.buffer_s = buffer_s if want.buffer_s is None else min(want.buffer_s, buffer_s)
        self._drive(want, now)

    def cancelled(self, cid: Cid) -> None:
        """Forget a block that nobody waits for any more."""
        want = self._wants.pop(cid, None)
        if want is not None:
            self._close(want)

    def progressed(self, flight: int, total_bytes: int, now: float) -> bool:
        """Hear how much of a flight's block has arrived; True where ``wake_at`` may be sooner."""
        one = self._flights.get(flight)
        if one is None or total_bytes <= one.bytes:
            return False
        one.bytes, one.last_at = total_bytes, now
        if one.first_at is None:
            one.first_at = one.mark_at = now
            one.mark_bytes = total_bytes
            one.want.wake = min(one.want.wake, now + PACE_S)
            return True
        if now - one.mark_at >= 2 * PACE_S:
            one.rate_bytes_s = one.pace_bytes_s(now)
            one.mark_at, one.mark_bytes = now, total_bytes
        return False

    def received(self, flight: int, size_bytes: int, now: float) -> bool:
        """Hear that a flight brought its block, verified; False for a flight already cancelled."""
        one = self._flights.get(flight)
        if one is None:
            return False
        tier = one.source.tier
        if tier is not TierName.SATELLITE:
            ttfb = one.first_at - one.started if one.watched and one.first_at is not None else None
            one.health.succeeded(size_bytes, now - one.started, ttfb)
            self._roster.paces[tier].add(one.health.ttfb_s if ttfb is None else ttfb)
        self._won(one.want, tier, one, size_bytes, now)
        return True

    def pushed(self, cid: Cid, tier: TierName, size_bytes: int, now: float) -> None:
        """Hear that a block came without being asked for: by carousel, or handed over by a neighbour."""
        want = self._wants.get(cid)
        if want is not None:
            self._won(want, tier, None, size_bytes, now)

    def found(self, tier: TierName) -> None:
        """Hear that a wanted block was already there, pushed by ``tier`` and not looked at before."""
        before, self.in_use = self.in_use, tier
        if before is not None and before is not tier:
            self._effects.append(Switched(before, tier, "pushed", 0))

    def failed(
        self, flight: int, reason: str, now: float, *, status: int = 0, retry_after_s: float = 0.0
    ) -> None:
        """Hear that a flight ended without a block; ``status`` is the HTTP status of a refusal.

        A refusal other than 429, 503 and the other 5xx says only that this block is not there.
        """
        one = self._flights.get(flight)
        if one is None:
            return
        want = one.want
        self._release(one)
        if status and status not in _BUSY and status < 500:  # noqa: PLR2004 - the server's own failures
            one.health.answered()
            self._roster.refused(want.cid, one.source, now)
            want.refusals += 1
        else:
            want.troubles += 1
            self._eject(one, reason, now, retry_after_s)
        want.cause = want.cause or reason
        self._drive(want, now)

    def corrupt(self, flight: int, now: float) -> None:
        """Hear that a flight brought bytes that are not the block: never again this CID from there."""
        one = self._flights.get(flight)
        if one is None:
            return
        self._release(one)
        self._roster.lied(one.want.cid, one.source, now)
        self._why[one.source.tier] = "corrupt"
        one.want.cause = one.want.cause or "corrupt"
        one.want.troubles += 1
        self._drive(one.want, now)

    def tick(self, now: float) -> None:
        """Let time pass; call at ``wake_at``."""
        for want in list(self._wants.values()):
            if now >= want.wake:
                self._drive(want, now)

    # -- what the shell asks

    @property
    def wake_at(self) -> float | None:
        """When ``tick`` is due, None while nothing is wanted."""
        return min((want.wake for want in self._wants.values()), default=None)

    def take(self) -> list[Effect]:
        """Return the effects decided since the last call, in order."""
        effects, self._effects = self._effects, []
        return effects

    def sources_up(self, tier: TierName, now: float) -> int:
        """Count the sources of a tier that are neither ejected nor banned."""
        return self._roster.up(tier, now)

    # -- decisions

    def _drive(self, want: Want, now: float) -> None:
        if self._wants.get(want.cid) is not want:
            return
        if now >= want.deadline:
            self._give_up(want, missing=bool(want.refusals and not want.troubles))
            return
        for one in want.asked():
            if now >= self._patience.dead_at(one):
                self._abandon(one, now)
        asked = [one for one in want.asked() if one.source.tier not in want.shun]
        if not asked:
            self._begin(want, now)
            if self._wants.get(want.cid) is not want:
                return
        elif want.urgent and all(self._late(one, now) for one in asked):
            self._hedge(want, asked, now)
        self._set_wake(want, now)

    def _begin(self, want: Want, now: float) -> None:
        comfortable = not want.urgent or want.buffer_s is None or want.buffer_s >= PROBE_BUFFER_S
        source = self._next(want, now, probe=comfortable)
        if source is None:
            if not self._patient and self._roster.denied(want.cid, now, want.shun):
                self._give_up(want, missing=True)
                return
            self._await_push(want, now)
            return
        want.stage = 0
        self._start(want, source, now)

    def _give_up(self, want: Want, *, missing: bool) -> None:
        del self._wants[want.cid]
        self._close(want)
        self._effects.append(GiveUp(want.cid, "missing" if missing else "unreachable"))

    def _hedge(self, want: Want, asked: list[Flight], now: float) -> None:
        for one in asked:
            one.overdue = True
        want.cause = want.cause or asked[0].lateness
        want.troubles += 1
        overdue = now - want.since > self._tuning.hedge_max_s + self._tuning.hedge_min_s
        if want.stage == 1 or (overdue and not want.stage):
            self._hedge_everywhere(want, {one.source.tier for one in asked}, now)
        else:
            self._hedge_once(want, asked, now)
        want.stage += 1

    def _hedge_once(self, want: Want, asked: list[Flight], now: float) -> None:
        source = self._next(want, now, metered=False)
        if source is None or want.stage:
            self._await_push(want, now)
        if source is None:
            return
        if want.film.reserve(want.size):
            self._start(want, source, now, reserved=want.size)
        elif all(self._patience.outlying(one, now) for one in asked):
            for one in asked:  # no budget to double it: leave it instead
                self._abandon(one, now)
            self._start(want, source, now)

    def _hedge_everywhere(self, want: Want, taken: set[TierName], now: float) -> None:
        for tier in self._roster.order(metered=False):
            if tier not in taken and tier not in want.shun:
                source = self._pick(tier, want, now)
                if source is not None and want.film.reserve(want.size):
                    self._start(want, source, now, reserved=want.size)
        self._await_push(want, now)

    def _start(self, want: Want, source: Source, now: float, *, reserved: int = 0) -> None:
        self._numbers += 1
        health = self._roster.health(source)
        probe = self._roster.probe(source, now)
        health.inflight += 1
        watched = self._roster.listing(source.tier).watched
        patience = self._tuning.hedge_min_s
        if not probe and not reserved:  # all tries for a block share one hedge delay
            spent_s = now - want.since if want.urgent else 0.0
            patience = max(patience, self._patience.hedge_s(source.tier, health, want) - spent_s)
        one = Flight(
            self._numbers, want, source, health, now, patience, watched, probe, reserved, last_at=now
        )
        want.flights[one.number] = self._flights[one.number] = one
        self._effects.append(Start(one.number, want.cid, source, want.title, hedge=reserved > 0))

    def _await_push(self, want: Want, now: float) -> None:
        """Begin to wait for the carousel, beside whatever else is under way."""
        busy = want.busy()
        if any(source.tier is TierName.SATELLITE for source in busy):
            return
        for source in self._roster.listing(TierName.SATELLITE).sources:
            if not self._roster.barred(want.cid, source, now, busy):
                self._start(want, source, now)
                return

    def _pick(self, tier: TierName, want: Want, now: float) -> Source | None:
        """Return a tier's next source, one whose back-off is over if it has no better."""
        for probe in (False, True):
            source = self._roster.pick(tier, want.cid, want.size, now, busy=want.busy(), probe=probe)
            if source is not None:
                return source
        return None

    def _next(self, want: Want, now: float, *, probe: bool = False, metered: bool = True) -> Source | None:
        """Return whom to ask next: a tier that was late twice for this block comes after all others.

        With ``probe`` a source whose back-off is over goes before one that is as near and well; where
        nobody is well, who failed longest ago is asked.
        """
        late = want.failures + Counter(one.source.tier for one in want.asked() if one.overdue)
        avoid = want.shun | {tier for tier, times in late.items() if times >= LATE_TWICE}
        ask = partial(self._roster.choose, want.cid, want.size, now, busy=want.busy(), metered=metered)
        for shunned in (avoid, want.shun):
            source = ask(probe=False, avoid=shunned)
            if source is not None:
                return (ask(probe=True, avoid=shunned) or source) if probe and not late else source
            source = self._roster.resort(want.cid, now, busy=want.busy(), metered=metered, avoid=shunned)
            if source is not None or avoid == want.shun:
                return source
        return None

    def _late(self, one: Flight, now: float) -> bool:
        return self._patience.late(one, now, lambda want: self._next(want, now, metered=False))

    def _set_wake(self, want: Want, now: float) -> None:
        asked = want.asked()
        times = [want.deadline, *(self._patience.dead_at(one) for one in asked)]
        if not asked:
            times.append(now + self._tuning.hedge_max_s)
        elif want.urgent:
            waits = [one.started + one.patience_s for one in asked if not one.bytes]
            times += [at if at > now else now + self._tuning.hedge_min_s for at in waits]
            if len(waits) < len(asked):
                times.append(now + PACE_S)
        want.wake = max(min(times), now + 1e-3)

    # -- what is learned

    def _won(self, want: Want, tier: TierName, winner: Flight | None, size_bytes: int, now: float) -> None:
        for other in want.asked():
            if other is not winner:
                self._judge(other, now)
        want.film.delivered_bytes += size_bytes
        self._switch(want, tier, now)
        del self._wants[want.cid]
        self._close(want, winner, wasted=True)

    def _judge(self, loser: Flight, now: float) -> None:
        """Eject a source that lost because it was late; one small delay alone is only a strike."""
        age = now - loser.started
        if loser.bytes:
            if loser.overdue:
                self._eject(loser, "slow", now)
        elif loser.probe:
            if age >= loser.patience_s:
                self._eject(loser, "silent", now)
        elif age >= self._patience.hedge_s(loser.source.tier, loser.health, loser.want) and (
            age >= self._tuning.hedge_max_s or loser.health.struck()
        ):
            self._eject(loser, "silent", now)

    def _abandon(self, one: Flight, now: float) -> None:
        one.want.cause = one.want.cause or one.lateness
        one.want.troubles += 1
        one.want.failures[one.source.tier] += 1
        self._effects.append(Cancel(one.number))
        self._release(one)
        self._eject(one, one.lateness, now)

    def _eject(self, one: Flight, reason: str, now: float, retry_after_s: float = 0.0) -> None:
        if one.source.tier is TierName.SATELLITE:
            self._roster.refused(one.want.cid, one.source, now)
            return
        self._roster.failed(one.source, now, one.started, retry_after_s)
        self._why[one.source.tier] = reason

    def _switch(self, want: Want, tier: TierName, now: float) -> None:
        before, self.in_use = self.in_use, tier
        if before is None or before is tier:
            return
        cause = "recovered" if tier < before else want.cause or self._why.get(before, "lost")
        self._effects.append(Switched(before, tier, cause, round((now - want.since) * 1000)))

    def _close(self, want: Want, winner: Flight | None = None, *, wasted: bool = False) -> None:
        """End all flights of a want; where the block came, book what the losers wasted."""
        losers = [one for one in want.asked() if one is not winner]
        reserved = sum(one.reserved for one in want.flights.values())
        lost = sum(one.bytes if one.watched else want.size for one in losers) if wasted else 0
        self.wasted_bytes += want.film.settle(reserved, lost)
        for one in list(want.flights.values()):
            if one is not winner:
                self._effects.append(Cancel(one.number))
            one.reserved = 0
            self._release(one)

    def _release(self, one: Flight) -> None:
        """Forget one flight; a reservation it held is free again."""
        one.want.film.settle(one.reserved, 0)
        one.reserved = 0
        one.want.flights.pop(one.number, None)
        del self._flights[one.number]
        one.health.inflight -= 1
        if one.probe:
            one.health.probing = False

    def _film(self, title: str) -> Budget:
        film = self._films.setdefault(title, Budget(self._tuning.waste_percent))
        self._films.move_to_end(title)
        if len(self._films) > _FILMS:
            self._films.popitem(last=False)
        return film
