"""The ladder: decides which source is asked next for a block, so that no viewer notices a dead tier.

Pure (time is an argument, effects are taken): the shell ``node/ladder/fetch.py`` and the simulated world
drive the same object. The rules:

* one flight per CID, however many ask; tiers in order CDN, relay, mesh, those that cost last;
* an answer late by clamp(p95 time to first byte of the tier, 50 ms, 250 ms), at most a third of the
  player's buffer, is hedged: the next source, then one of every unmetered tier; so is one that stalls,
  or that would come later than the next source's;
* a second copy is asked for within the film's budget; with none left silent flights still race for the
  first byte, which costs nothing, and at that byte the slower of two is left;
* an ejected source is asked again only after its back-off, by one real request that is hedged after
  50 ms: that request is the probe, and has a second to prove its source alive though it lost; where
  nobody is above doubt all are asked, each after a second of back-off;
* wrong bytes ban the source for that CID, and after three CIDs altogether;
* the satellite is never asked: its flight waits for the carousel beside the others, at no cost.

Who there is to ask is in ``roster.py``, who is next in ``choice.py``, how long is too long in
``patience.py``, what is under way and what it costs in ``traffic.py``. Over 400 lines because the decisions
share one state.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from ...protocol.cid import Cid
from ...protocol.ports import Cost, Source, TierName
from .choice import Choice
from .flight import PACE_S, Effect, Flight, GiveUp, Start, Switched, Want
from .health import Tuning
from .patience import LOST_S, Patience
from .roster import Listing, Roster
from .traffic import LINGER_S, Traffic

PROBE_BUFFER_S = 0.5
"""With less than this in the player's buffer nothing doubtful is tried first."""
DEADLINE_S = 30.0
DEFAULT_BLOCK_BYTES = 1 << 20
FLIGHTS = 8
"""Flights at once for one block: a storm would help nobody."""
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
        ``in_use`` is the tier that served last.
        """
        self._deadline_s = deadline_s
        self._tuning = tuning = tuning or Tuning()
        self._patient = patient
        self._roster = Roster(tuning, order)
        self._patience = Patience(tuning, self._roster, hurried=patient)
        self._wants: dict[Cid, Want] = {}
        self._effects: list[Effect] = []
        self._traffic = Traffic(self._effects, tuning.waste_percent)
        self._choice = Choice(self._roster)
        self._why: dict[TierName, str] = {}
        self.in_use: TierName | None = None

    # -- what the shell tells

    def set_sources(
        self,
        tier: TierName,
        sources: Sequence[Source],
        now: float,
        *,
        cost: Cost = Cost.FREE,
        watched: bool = False,
        reserve: Sequence[Source] = (),
        own: bytes = b"",
    ) -> None:
        """Replace what is known of ``tier``; ``watched`` says that its flights report ``progressed``.

        ``reserve`` and ``own`` are as in ``Listing``.
        """
        if self._roster.replace(tier, Listing(tuple(sources), cost, watched, tuple(reserve), own)):
            for want in list(self._wants.values()):
                self._drive(want, now)

    def network(self, name: str, now: float) -> None:
        """Use the health remembered for another network: what failed there may work here.

        Flights that began on the network before are asked for anew: their addresses are gone.
        """
        if not self._roster.network(name):
            return
        for one in self._traffic:
            self._traffic.cancel(one)
        for want in list(self._wants.values()):
            want.failures.clear()
            want.silences.clear()
            self._drive(want, now)

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
        self._expire(now)
        want = self._wants.get(cid)
        if want is None:
            size = size_bytes or DEFAULT_BLOCK_BYTES
            end = now + self._deadline_s
            want = Want(cid, title, self._traffic.film(title), size, now, end, buffer_s, urgent)
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
            self._traffic.close(want)

    def progressed(self, flight: int, total_bytes: int, now: float) -> bool:
        """Hear how much of a flight's block has arrived; True where ``wake_at`` may be sooner."""
        one = self._traffic.get(flight)
        if one is None or total_bytes <= one.bytes:
            return False
        if one.lingers or any(other.delivers and other is not one for other in one.want.asked()):
            one.doubled_bytes += total_bytes - one.bytes
        if one.first_at is not None:
            one.gap_s = max(one.gap_s, now - one.last_at)
        one.bytes, one.last_at = total_bytes, now
        one.health.heard_at = now
        if one.first_at is None:
            one.first_at = one.mark_at = now
            one.mark_bytes = total_bytes
            if one.lingers:
                self._proven(one, now)
            else:
                if one.bare:
                    self._began(one, now)
                one.want.wake = min(one.want.wake, now + PACE_S)
            return True
        if now - one.mark_at >= PACE_S:
            one.rate_bytes_s = one.pace_bytes_s(now)
            one.mark_at, one.mark_bytes = now, total_bytes
        return False

    def landed(self, flight: int, now: float) -> None:
        """Hear that all bytes of a flight are here; verifying and keeping them is nobody's lateness."""
        one = self._traffic.get(flight)
        if one is not None:
            one.landed_at = now

    def received(self, flight: int, size_bytes: int, now: float) -> bool:
        """Hear that a flight brought its block, verified; False for one that nobody waits for any more."""
        one = self._traffic.get(flight)
        if one is None:
            return False
        tier = one.source.tier
        if tier is not TierName.SATELLITE:
            ttfb = one.first_at - one.started if one.watched and one.first_at is not None else None
            came_at = now if one.landed_at is None else one.landed_at
            one.health.learned(size_bytes, came_at - one.started, ttfb, one.gap_s)
            self._roster.pace(tier).add(one.health.ttfb_s if ttfb is None else ttfb)
        if one.lingers:
            one.health.redeemed()
            self._traffic.end(one)
            return False
        one.health.answered(size_bytes)
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
        one = self._traffic.get(flight)
        if one is None:
            return
        want = one.want
        self._traffic.end(one, failed=True)
        if status and status not in _BUSY and status < 500:  # noqa: PLR2004 - the server's own failures
            one.health.answered(0)
            self._roster.refused(want.cid, one.source, now)
            want.refusals += 1
        else:
            want.troubles += 1
            want.failures[one.source.tier] += 1
            self._eject(one, reason, now, retry_after_s)
        want.cause = want.cause or reason
        self._drive(want, now)

    def corrupt(self, flight: int, now: float) -> None:
        """Hear that a flight brought bytes that are not the block: never again this CID from there."""
        one = self._traffic.get(flight)
        if one is None:
            return
        self._traffic.end(one, failed=True)
        self._roster.lied(one.want.cid, one.source, now)
        self._why[one.source.tier] = "corrupt"
        one.want.cause = one.want.cause or "corrupt"
        one.want.troubles += 1
        one.want.failures[one.source.tier] += 1
        self._drive(one.want, now)

    def tick(self, now: float) -> None:
        """Let time pass; call at ``wake_at``."""
        self._expire(now)
        for want in list(self._wants.values()):
            if now >= want.wake:
                self._drive(want, now)

    # -- what the shell asks

    @property
    def wake_at(self) -> float | None:
        """When ``tick`` is due, None while nothing is wanted."""
        wakes = [want.wake for want in self._wants.values()]
        probing = self._traffic.lingers_until
        return min(wakes if probing is None else [*wakes, probing], default=None)

    @property
    def wasted_bytes(self) -> int:
        """What hedging brought twice."""
        return self._traffic.wasted_bytes

    def take(self) -> list[Effect]:
        """Return the effects decided since the last call, in order."""
        effects = self._effects[:]
        self._effects.clear()
        return effects

    def sources_up(self, tier: TierName, now: float) -> int:
        """Count the sources of a tier that are neither ejected nor banned."""
        return self._roster.up(tier, now)

    # -- decisions

    def _expire(self, now: float) -> None:
        """End the probes that did not prove their source in time."""
        for one in self._traffic.expired(now):
            self._traffic.cancel(one)
            self._eject(one, one.lateness, now)

    def _drive(self, want: Want, now: float) -> None:
        if self._wants.get(want.cid) is not want:
            return
        if now >= want.deadline:
            self._give_up(want, missing=bool(want.refusals and not want.troubles))
            return
        for one in want.asked():
            if now >= self._patience.dead_at(one) or (not want.urgent and self._crawls(one, now)):
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
        source = self._choice.next(
            want, now, probe=comfortable, up_to=Cost.RADIO if want.urgent else Cost.METERED
        )
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
        self._traffic.close(want)
        self._effects.append(GiveUp(want.cid, "missing" if missing else "unreachable"))

    def _hedge(self, want: Want, asked: list[Flight], now: float) -> None:
        for one in asked:
            one.overdue = True
        want.cause = want.cause or asked[0].lateness
        want.troubles += 1
        before = self._traffic.begun
        overdue = now - want.since > self._tuning.hedge_max_s + self._tuning.hedge_min_s
        if want.stage or overdue or self._roster.panics(now):
            self._hedge_everywhere(want, now)
        elif (source := self._choice.next(want, now, up_to=Cost.FREE)) is not None:
            self._beside(want, source, now)
        else:
            self._await_push(want, now)
        if self._traffic.begun == before:
            self._leave(want, asked, now)
        want.stage += 1

    def _hedge_everywhere(self, want: Want, now: float) -> None:
        """Ask one more of every tier that costs nothing, of those in trouble only where no other has one."""
        self._await_push(want, now)
        tiers = self._roster.order(Cost.FREE)
        troubled = {tier for tier, times in self._choice.troubles(want).items() if times}
        before = self._traffic.begun
        for pick, again in (
            (self._choice.pick, False),
            (self._choice.pick, True),
            (self._choice.resort, False),
        ):
            for tier in tiers:
                if tier not in want.shun and (pick == self._choice.resort or (tier in troubled) is again):
                    self._beside(want, pick(tier, want, now), now)
            if self._traffic.begun > before:
                return

    def _beside(self, want: Want, source: Source | None, now: float) -> None:
        """Ask ``source`` as well: for a copy within the budget, else for the first byte."""
        asked = want.asked()
        if source is None or len(asked) >= FLIGHTS:
            return
        if want.film.room(want.size):
            self._start(want, source, now, hedge=True)
            return
        unseen = not self._roster.listing(source.tier).watched
        brisk = asked if unseen else [one for one in asked if not self._cheap(one, now)]
        if any(self._patience.left_s(one, now) < want.slack_s(now) < inf for one in brisk):
            return  # it comes late, but not too late
        untroubled = unseen and not self._choice.troubles(want)[source.tier]
        if not untroubled and not all(self._patience.outlying(one, now) for one in brisk):
            return
        for one in brisk:  # no budget to double it: it is left instead
            self._abandon(one, now)
        racing = bool(want.asked())
        self._start(want, source, now, hedge=racing, bare=racing)

    def _cheap(self, one: Flight, now: float) -> bool:
        """Say whether a flight may go on beside another for a moment though there is no budget."""
        if not one.watched or not one.want.film.may_race():
            return False
        soon_bytes = int(self._patience.pace_bytes_s(one, now) * LINGER_S)
        return not soon_bytes or one.want.film.room(soon_bytes)

    def _leave(self, want: Want, asked: list[Flight], now: float) -> None:
        """Leave late flights for a tier that costs, where no other is left; nothing is doubled there."""
        if any(self._roster.listing(one.source.tier).cost is not Cost.FREE for one in asked):
            return
        patience_s = LOST_S
        if want.buffer_s is not None:
            patience_s = min(LOST_S, max(want.buffer_s / 3, self._tuning.hedge_max_s))
        if now - want.since < patience_s or not all(self._patience.outlying(one, now) for one in asked):
            return
        source = self._choice.next(want, now)
        if source is not None and self._roster.listing(source.tier).cost is not Cost.FREE:
            for one in asked:
                self._abandon(one, now)
            self._start(want, source, now)

    def _began(self, one: Flight, now: float) -> None:
        """Decide at the first byte of a flight without a budget: it goes on, or what delivers already."""
        want = one.want
        others = [other for other in want.asked() if other is not one and not other.bare]
        silent = [other for other in others if other.watched and not other.bytes]
        if want.film.room(want.size):
            one.bare = False
        elif silent:
            one.bare, silent[0].bare = False, True
        elif all(self._is_worse(other, one, now) for other in others):
            one.bare = False
            for other in others:
                self._abandon(other, now)
        else:
            one.health.redeemed()
            self._traffic.cancel(one)
        self._traffic.hold(want)

    def _is_worse(self, other: Flight, one: Flight, now: float) -> bool:
        """Say whether ``other``, which delivers, is to be left for ``one``, which begins to."""
        troubles = self._choice.troubles(one.want)
        if troubles[one.source.tier] < troubles[other.source.tier]:
            return True
        if other.first_at is not None and now - other.first_at < PACE_S:
            return False  # it has hardly begun
        return self._patience.late(other, now, lambda _: one.source)

    def _crawls(self, one: Flight, now: float) -> bool:
        """Say whether a flight that nobody waits for yet should be left to a quicker source."""
        return one.first_at is not None and now - one.first_at >= LOST_S and self._late(one, now)

    def _start(
        self, want: Want, source: Source, now: float, *, hedge: bool = False, bare: bool = False
    ) -> None:
        health = self._roster.health(source)
        probe = self._roster.probe(source, now)
        watched = self._roster.listing(source.tier).watched
        patience = self._tuning.hedge_min_s
        if not probe and not hedge:  # all tries for a block share one hedge delay
            spent_s = now - want.since if want.urgent else 0.0
            patience = max(patience, self._patience.hedge_s(source.tier, health, want) - spent_s)
        silences = want.silences[source.tier]
        number = self._traffic.number()
        one = Flight(number, want, source, health, now, patience, watched, probe, bare, silences, last_at=now)
        self._traffic.begin(one)
        self._effects.append(Start(one.number, want.cid, source, want.title, hedge=hedge))

    def _await_push(self, want: Want, now: float) -> None:
        """Begin to wait for the carousel, beside whatever else is under way."""
        busy = want.busy()
        if any(source.tier is TierName.SATELLITE for source in busy):
            return
        for source in self._roster.listing(TierName.SATELLITE).sources:
            if not self._roster.barred(want.cid, source, now, busy):
                self._start(want, source, now)
                return

    def _late(self, one: Flight, now: float) -> bool:
        return self._patience.late(one, now, lambda want: self._choice.next(want, now, up_to=Cost.FREE))

    def _set_wake(self, want: Want, now: float) -> None:
        asked = want.asked()
        times = [want.deadline, *(self._patience.dead_at(one) for one in asked)]
        if not asked:
            times.append(now + self._tuning.hedge_max_s)
        elif want.urgent:
            waits = [self._patience.late_at(one) for one in asked if one.landed_at is None]
            times += [at if at > now else now + self._tuning.hedge_min_s for at in waits]
        if any(one.bytes for one in asked):
            times.append(now + PACE_S / 2)
        want.wake = max(min(times), now + 1e-3)

    # -- what is learned

    def _won(self, want: Want, tier: TierName, winner: Flight | None, size_bytes: int, now: float) -> None:
        losers = [one for one in want.asked() if one is not winner]
        lingering = [one for one in losers if self._traffic.linger(one, now)]
        for one in losers:
            if not one.lingers:
                self._judge(one, now)
        want.film.delivered_bytes += size_bytes
        self._switch(want, tier, now)
        del self._wants[want.cid]
        self._traffic.close(want, winner)
        for one in lingering:
            if one.bytes:
                self._proven(one, now)

    def _proven(self, one: Flight, now: float) -> None:
        """Hear that a lingering probe's source answers; where the budget has room its block warms the way."""
        if self._traffic.may_warm(one):
            return
        self._traffic.cancel(one)
        if one.health.slow_bytes:  # a first byte says nothing of how it goes on
            self._eject(one, "slow", now)
        else:
            one.health.redeemed()

    def _judge(self, loser: Flight, now: float) -> None:
        """Eject a source that lost because it was late; one small delay alone is only a strike."""
        age = now - loser.started
        if loser.bytes:
            if loser.overdue:
                self._eject(loser, "slow", now)
        elif loser.probe:
            if age >= loser.patience_s:
                self._eject(loser, "silent", now)
        elif age >= self._patience.hedge_s(loser.source.tier, loser.health, loser.want):
            alive = loser.health.heard_at > loser.started  # it delivers another block meanwhile
            if (age >= self._tuning.hedge_max_s and not alive) or loser.health.struck():
                self._eject(loser, "silent", now)

    def _abandon(self, one: Flight, now: float) -> None:
        one.want.cause = one.want.cause or one.lateness
        one.want.troubles += 1
        one.want.failures[one.source.tier] += 1
        one.want.silences[one.source.tier] += 1
        self._traffic.cancel(one)
        self._eject(one, one.lateness, now)

    def _eject(self, one: Flight, reason: str, now: float, retry_after_s: float = 0.0) -> None:
        if one.source.tier is TierName.SATELLITE:
            self._roster.refused(one.want.cid, one.source, now)
            return
        slow_bytes = one.want.size if one.bytes else 0
        one.health.failed(now, one.started, self._tuning.probe_s, retry_after_s, slow_bytes)
        self._why[one.source.tier] = reason

    def _switch(self, want: Want, tier: TierName, now: float) -> None:
        before, self.in_use = self.in_use, tier
        if before is None or before is tier:
            return
        cause = "recovered" if tier < before else want.cause or self._why.get(before, "lost")
        self._effects.append(Switched(before, tier, cause, round((now - want.since) * 1000)))
