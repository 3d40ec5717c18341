"""The ladder: decides which source is asked next for a block, so that no viewer notices a dead tier.

Pure (time is an argument, effects are taken): the shell ``node/fetch.py`` and the simulated world
drive the same object. Rules, in the order they apply:

* one flight per CID, however many ask; tiers in order CDN, relay, mesh, metered ones last; inside a
  tier rendezvous hashing names two candidates and the cheaper by peak-EWMA is asked;
* an answer late by clamp(p95 time to first byte of the tier, 50 ms, 250 ms), at most a third of the
  player's buffer, is hedged: the next source, then one of every other unmetered tier, within the
  film's budget; with no budget left the late flight is given up instead of doubled;
* an ejected source is asked again only after its back-off, by one real request that is hedged after
  50 ms: that request is the probe;
* wrong bytes ban the source for that CID, and after three CIDs altogether;
* the satellite is never asked: its flight waits for the carousel beside the others, at no cost.

Over 400 lines it would be two files: what is remembered of a source is in ``node/health.py``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple, TypeVar

from ..protocol.cid import Cid
from ..protocol.ports import Source, TierName
from .health import BACKOFF_LAST_S, Budget, Health, Pace

HEDGE_MIN_S = 0.05
HEDGE_MAX_S = 0.25
PACE_S = 0.1
SILENT_S = 3.0
UNWATCHED_SILENT_S = 10.0
PROBE_GAP_S = 1.0
PROBE_BUFFER_S = 0.5
"""With less than this in the player's buffer nothing doubtful is tried first."""
REFUSED_S = 2.0
DEADLINE_S = 30.0
DEFAULT_BLOCK_BYTES = 1 << 20
_MEMORY = 4_096
_FILMS = 64
_NETWORKS = 16
_BUSY = (429, 503)

K = TypeVar("K")
V = TypeVar("V")


class Start(NamedTuple):
    """Ask ``source`` for ``cid``; report under ``flight``. ``hedge`` marks a second copy."""

    flight: int
    cid: Cid
    source: Source
    title: str
    hedge: bool


class Cancel(NamedTuple):
    """Stop a flight; nothing it reports any more is heard."""

    flight: int


class GiveUp(NamedTuple):
    """The deadline passed: ``missing`` where all who answered lack the block, else ``unreachable``."""

    cid: Cid
    reason: str


class Switched(NamedTuple):
    """Another tier serves now than before; ``took_ms`` is how long the first such block took."""

    before: TierName
    after: TierName
    cause: str
    took_ms: int


Effect = Start | Cancel | GiveUp | Switched


class _Tier(NamedTuple):
    sources: tuple[Source, ...]
    metered: bool
    watched: bool


@dataclass(slots=True, eq=False)
class _Flight:
    number: int
    want: _Want
    source: Source
    health: Health
    started: float
    patience_s: float
    watched: bool
    probe: bool
    reserved: int
    last_at: float
    bytes: int = 0
    first_at: float | None = None
    mark_at: float = 0.0
    mark_bytes: int = 0
    rate_bytes_s: float = 0.0


@dataclass(slots=True, eq=False)
class _Want:
    cid: Cid
    title: str
    film: Budget
    size: int
    since: float
    deadline: float
    buffer_s: float | None
    urgent: bool
    wake: float = 0.0
    cause: str = ""
    stage: int = 0
    refusals_only: bool = True
    flights: dict[int, _Flight] = field(default_factory=dict[int, "_Flight"])

    def asked(self) -> list[_Flight]:
        return [one for one in self.flights.values() if one.source.tier is not TierName.SATELLITE]


class Ladder:
    """The core; call ``take`` after every event and carry out what it returns."""

    def __init__(self, *, deadline_s: float = DEADLINE_S) -> None:
        """Give every wanted block ``deadline_s`` until ``GiveUp``."""
        self._deadline_s = deadline_s
        self._tiers: dict[TierName, _Tier] = {}
        self._wants: dict[Cid, _Want] = {}
        self._flights: dict[int, _Flight] = {}
        self._numbers = 0
        self._effects: list[Effect] = []
        self._networks: OrderedDict[str, dict[Source, Health]] = OrderedDict({"": {}})
        self._health: dict[Source, Health] = self._networks[""]
        self._paces = {tier: Pace() for tier in TierName}
        self._why: dict[TierName, str] = {}
        self._probe_free = dict.fromkeys(TierName, float("-inf"))
        self._refused: OrderedDict[tuple[Cid, Source], tuple[float, float]] = OrderedDict()
        self._poisoned: OrderedDict[tuple[Cid, bytes | str], None] = OrderedDict()
        self._films: OrderedDict[str, Budget] = OrderedDict()
        self.in_use: TierName | None = None

    # -- what the shell tells

    def set_sources(
        self,
        tier: TierName,
        sources: Sequence[Source],
        now: float,
        *,
        metered: bool = False,
        watched: bool = False,
    ) -> None:
        """Replace what is known of ``tier``; ``watched`` says that its flights report ``progressed``."""
        known = _Tier(tuple(sources), metered, watched)
        if self._tiers.get(tier) != known:
            self._tiers[tier] = known
            for want in list(self._wants.values()):
                self._drive(want, now)

    def network(self, name: str) -> None:
        """Use the health remembered for another network: what failed there may work here."""
        self._health = self._networks.setdefault(name, {})
        self._networks.move_to_end(name)
        while len(self._networks) > _NETWORKS:
            self._networks.popitem(last=False)

    def want(
        self,
        cid: Cid,
        now: float,
        *,
        title: str = "",
        size_bytes: int = 0,
        buffer_s: float | None = None,
        urgent: bool = True,
    ) -> None:
        """Ask for a block; a second call for the same CID only makes the first more urgent.

        ``buffer_s`` is what the player still holds (None: unknown); ``urgent`` is False for a prefetch,
        which is never hedged.
        """
        want = self._wants.get(cid)
        if want is None:
            size = size_bytes or DEFAULT_BLOCK_BYTES
            film = self._film(title)
            want = _Want(cid, title, film, size, now, now + self._deadline_s, buffer_s, urgent)
            self._wants[cid] = want
        elif urgent and not want.urgent:
            want.urgent, want.since, want.deadline = True, now, now + self._deadline_s
        if buffer_s is not None:
            want.buffer_s = buffer_s if want.buffer_s is None else min(want.buffer_s, buffer_s)
        self._drive(want, now)

    def cancelled(self, cid: Cid) -> None:
        """Forget a block that nobody waits for any more."""
        want = self._wants.pop(cid, None)
        if want is not None:
            self._close(want)

    def progressed(self, flight: int, total_bytes: int, now: float) -> None:
        """Hear that ``total_bytes`` of a flight's block have arrived so far."""
        one = self._flights.get(flight)
        if one is None or total_bytes <= one.bytes:
            return
        if one.first_at is None:
            one.first_at = one.mark_at = now
            one.mark_bytes = total_bytes
        elif now - one.mark_at >= PACE_S:
            one.rate_bytes_s = (total_bytes - one.mark_bytes) / (now - one.mark_at)
            one.mark_at, one.mark_bytes = now, total_bytes
        one.bytes, one.last_at = total_bytes, now

    def received(self, flight: int, size_bytes: int, now: float) -> bool:
        """Hear that a flight brought its block, verified; False for a flight already cancelled."""
        one = self._flights.get(flight)
        if one is None:
            return False
        want, tier = one.want, one.source.tier
        if tier is not TierName.SATELLITE:
            ttfb = None if one.first_at is None or not one.watched else one.first_at - one.started
            one.health.succeeded(size_bytes, now - one.started, ttfb)
            self._paces[tier].add(one.health.ttfb_s if ttfb is None else ttfb)
        self._won(want, tier, one, size_bytes, now)
        return True

    def pushed(self, cid: Cid, tier: TierName, size_bytes: int, now: float) -> None:
        """Hear that a block came without being asked for: by carousel, or handed over by a neighbour."""
        want = self._wants.get(cid)
        if want is not None:
            self._won(want, tier, None, size_bytes, now)

    def failed(
        self, flight: int, reason: str, now: float, *, status: int = 0, retry_after_s: float = 0.0
    ) -> None:
        """Hear that a flight ended without a block; ``status`` is the HTTP status of a refusal.

        A refusal other than 429 and 503 says only that this block is not there.
        """
        one = self._flights.get(flight)
        if one is None:
            return
        want = one.want
        self._release(one)
        if status and status not in _BUSY:
            one.health.answered()
            self._refuse(want.cid, one.source, now)
        else:
            want.refusals_only = False
            self._eject(one, reason, now, retry_after_s)
        want.cause = want.cause or reason
        self._drive(want, now)

    def corrupt(self, flight: int, now: float) -> None:
        """Hear that a flight brought bytes that are not the block: never again this CID from there."""
        one = self._flights.get(flight)
        if one is None:
            return
        self._release(one)
        _remember(self._poisoned, (one.want.cid, _ident(one.source)), None)
        one.health.lied(one.want.cid, now)
        self._why[one.source.tier] = "corrupt"
        one.want.cause = one.want.cause or "corrupt"
        one.want.refusals_only = False
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
        known = self._tiers.get(tier)
        return sum(self._of(source).up(now) for source in known.sources) if known else 0

    def wasted_bytes(self, title: str) -> int:
        """Return the bytes of a film that arrived twice because of hedging."""
        return self._film(title).wasted_bytes

    # -- decisions

    def _drive(self, want: _Want, now: float) -> None:
        if self._wants.get(want.cid) is not want:
            return
        if now >= want.deadline:
            del self._wants[want.cid]
            self._close(want)
            self._effects.append(GiveUp(want.cid, "missing" if want.refusals_only else "unreachable"))
            return
        for one in want.asked():
            if now >= self._dead_at(one):
                self._abandon(one, now)
        asked = want.asked()
        if not asked:
            self._begin(want, now)
        elif want.urgent and all(self._late(one, now) for one in asked):
            self._hedge(want, asked, now)
        self._set_wake(want, now)

    def _begin(self, want: _Want, now: float) -> None:
        source = self._choose(want, now, self._may_probe(want)) or self._choose(want, now, probe=True)
        if source is None:
            self._await_push(want, now)
            return
        want.stage = 0
        self._start(want, source, now)

    def _hedge(self, want: _Want, asked: list[_Flight], now: float) -> None:
        want.cause = want.cause or _lateness(asked[0])
        if any(one.bytes == 0 for one in asked):
            want.refusals_only = False
        if want.stage == 1:
            self._hedge_everywhere(want, {one.source.tier for one in asked}, now)
        else:
            self._hedge_once(want, asked, now)
        want.stage += 1

    def _hedge_once(self, want: _Want, asked: list[_Flight], now: float) -> None:
        source = self._choose(want, now, probe=False, metered=False) or self._choose(
            want, now, probe=True, metered=False
        )
        if source is None or want.stage:
            self._await_push(want, now)
        if source is None:
            return
        if want.film.reserve(want.size):
            self._start(want, source, now, reserved=want.size)
        elif all(now - one.last_at >= self._outlier_s(one) for one in asked):
            for one in asked:  # no budget to double it: leave it instead
                self._abandon(one, now)
            self._start(want, source, now)

    def _hedge_everywhere(self, want: _Want, busy: set[TierName], now: float) -> None:
        for tier in self._order():
            if tier not in busy and not self._tiers[tier].metered:
                source = self._pick(tier, want, now, probe=False)
                if source is not None and want.film.reserve(want.size):
                    self._start(want, source, now, reserved=want.size)
        self._await_push(want, now)

    def _start(self, want: _Want, source: Source, now: float, *, reserved: int = 0) -> None:
        self._numbers += 1
        health = self._of(source)
        waiting = source.tier is TierName.SATELLITE
        probe = not waiting and not health.up(now)
        if probe:
            health.probing = True
            self._probe_free[source.tier] = now + PROBE_GAP_S
        health.inflight += 1
        watched = self._tiers[source.tier].watched
        quick = probe or reserved > 0
        patience = HEDGE_MIN_S if quick else self._patience_s(source.tier, health, want)
        one = _Flight(
            self._numbers, want, source, health, now, patience, watched, probe, reserved, last_at=now
        )
        want.flights[one.number] = self._flights[one.number] = one
        self._effects.append(Start(one.number, want.cid, source, want.title, hedge=reserved > 0))

    def _await_push(self, want: _Want, now: float) -> None:
        known = self._tiers.get(TierName.SATELLITE)
        waiting = any(one.source.tier is TierName.SATELLITE for one in want.flights.values())
        if known and known.sources and not waiting:
            free = [s for s in known.sources if not self._barred(want, s, now)]
            if free:
                self._start(want, free[0], now)

    def _choose(
        self,
        want: _Want,
        now: float,
        probe: bool,  # noqa: FBT001 - keyword at every call but one
        *,
        metered: bool = True,
    ) -> Source | None:
        for tier in self._order():
            if metered or not self._tiers[tier].metered:
                source = self._pick(tier, want, now, probe=probe)
                if source is not None:
                    return source
        return None

    def _pick(self, tier: TierName, want: _Want, now: float, *, probe: bool) -> Source | None:
        up: list[tuple[int, Source]] = []
        doubtful: list[tuple[int, Source]] = []
        for source in self._tiers[tier].sources:
            health = self._of(source)
            if health.up(now):
                if not self._barred(want, source, now):
                    up.append((_rank(want.cid, source), source))
            elif probe and health.half_open(now) and not self._barred(want, source, now):
                doubtful.append((_rank(want.cid, source), source))
        if doubtful and (not up or now >= self._probe_free[tier]):
            return max(doubtful)[1]
        best = sorted(up, reverse=True)[:2]
        return min(best, key=lambda one: self._of(one[1]).cost(want.size))[1] if best else None

    def _barred(self, want: _Want, source: Source, now: float) -> bool:
        if any(one.source == source for one in want.flights.values()):
            return True
        if (want.cid, _ident(source)) in self._poisoned:
            return True
        return now < self._refused.get((want.cid, source), (0.0, 0.0))[0]

    def _order(self) -> list[TierName]:
        asked = [tier for tier in self._tiers if tier is not TierName.SATELLITE]
        return sorted(asked, key=lambda tier: (self._tiers[tier].metered, tier))

    @staticmethod
    def _may_probe(want: _Want) -> bool:
        return not want.urgent or want.buffer_s is None or want.buffer_s >= PROBE_BUFFER_S

    # -- how long is too long

    def _patience_s(self, tier: TierName, health: Health, want: _Want) -> float:
        delay = min(max(self._paces[tier].p95(HEDGE_MAX_S), HEDGE_MIN_S), HEDGE_MAX_S)
        if not self._tiers[tier].watched and health.rate_bytes_s:
            delay = max(delay, 2 * health.expected_s(want.size))
        if want.buffer_s is not None:
            delay = min(delay, max(want.buffer_s / 3, HEDGE_MIN_S))
        return delay

    def _late(self, one: _Flight, now: float) -> bool:
        if not one.bytes:
            return now >= one.started + one.patience_s
        if now - one.last_at >= HEDGE_MAX_S:
            return True
        other = self._choose(one.want, now, probe=False, metered=False)
        if other is None or not one.rate_bytes_s:
            return False
        left_s = (one.want.size - one.bytes) / one.rate_bytes_s
        return left_s > 2 * self._of(other).expected_s(one.want.size) + HEDGE_MAX_S

    def _outlier_s(self, one: _Flight) -> float:
        usual = 3 * self._paces[one.source.tier].p95(HEDGE_MAX_S)
        return max(HEDGE_MAX_S, usual, one.patience_s)

    def _dead_at(self, one: _Flight) -> float:
        usual = 4 * self._paces[one.source.tier].p95(HEDGE_MAX_S)
        if one.watched:
            return one.last_at + max(SILENT_S, usual)
        return one.started + max(UNWATCHED_SILENT_S, 4 * one.health.expected_s(one.want.size))

    def _set_wake(self, want: _Want, now: float) -> None:
        asked = want.asked()
        times = [want.deadline, *(self._dead_at(one) for one in asked)]
        if not asked:
            times.append(now + HEDGE_MAX_S)
        elif want.urgent:
            waits = [one.started + one.patience_s for one in asked if not one.bytes]
            times += [at if at > now else now + HEDGE_MIN_S for at in waits]
            if len(waits) < len(asked):
                times.append(now + PACE_S)
        want.wake = max(min(times), now + 1e-3)

    # -- what is learned

    def _judge(self, loser: _Flight, now: float) -> None:
        """Eject a source that lost because it was late; one small delay alone is only a strike."""
        age = now - loser.started
        if loser.bytes:
            if self._late(loser, now):
                self._eject(loser, "slow", now)
        elif age >= self._patience_s(loser.source.tier, loser.health, loser.want) or (
            loser.probe and age >= loser.patience_s
        ):
            if loser.probe or age >= HEDGE_MAX_S or loser.health.struck():
                self._eject(loser, "silent", now)

    def _won(self, want: _Want, tier: TierName, winner: _Flight | None, size_bytes: int, now: float) -> None:
        for other in want.asked():
            if other is not winner:
                self._judge(other, now)
        want.film.delivered_bytes += size_bytes
        self._switch(want, tier, now)
        del self._wants[want.cid]
        self._close(want, winner, wasted=True)

    def _abandon(self, one: _Flight, now: float) -> None:
        reason = _lateness(one)
        one.want.cause = one.want.cause or reason
        one.want.refusals_only = False
        self._effects.append(Cancel(one.number))
        self._release(one)
        self._eject(one, reason, now)

    def _eject(self, one: _Flight, reason: str, now: float, retry_after_s: float = 0.0) -> None:
        if one.source.tier is TierName.SATELLITE:
            self._refuse(one.want.cid, one.source, now)
            return
        one.health.failed(now, one.started, retry_after_s)
        self._why[one.source.tier] = reason

    def _refuse(self, cid: Cid, source: Source, now: float) -> None:
        last = self._refused.get((cid, source), (0.0, REFUSED_S / 2))[1]
        pause = min(2 * last, BACKOFF_LAST_S)
        _remember(self._refused, (cid, source), (now + pause, pause))

    def _switch(self, want: _Want, tier: TierName, now: float) -> None:
        before, self.in_use = self.in_use, tier
        if before is None or before is tier:
            return
        cause = "recovered" if tier < before else want.cause or self._why.get(before, "lost")
        self._effects.append(Switched(before, tier, cause, round((now - want.since) * 1000)))

    def _close(self, want: _Want, winner: _Flight | None = None, *, wasted: bool = False) -> None:
        """End all flights of a want; where the block came, book what the losers wasted."""
        losers = [one for one in want.asked() if one is not winner]
        reserved = sum(one.reserved for one in want.flights.values())
        lost = sum(one.bytes if one.watched else want.size for one in losers) if wasted else 0
        want.film.settle(reserved, lost)
        for one in list(want.flights.values()):
            if one is not winner:
                self._effects.append(Cancel(one.number))
            one.reserved = 0
            self._release(one)

    def _release(self, one: _Flight) -> None:
        """Forget one flight; a reservation it held is free again."""
        one.want.film.settle(one.reserved, 0)
        one.reserved = 0
        one.want.flights.pop(one.number, None)
        del self._flights[one.number]
        one.health.inflight -= 1
        if one.probe:
            one.health.probing = False

    def _of(self, source: Source) -> Health:
        health = self._health.get(source)
        if health is None:
            health = self._health[source] = Health()
            if len(self._health) > _MEMORY:
                del self._health[next(iter(self._health))]
        return health

    def _film(self, title: str) -> Budget:
        film = self._films.setdefault(title, Budget())
        self._films.move_to_end(title)
        if len(self._films) > _FILMS:
            self._films.popitem(last=False)
        return film


def _lateness(one: _Flight) -> str:
    return "slow" if one.bytes else "silent"


def _ident(source: Source) -> bytes | str:
    """Name a source by what a ban holds for: its key, or its address where it has none."""
    return source.key or source.address


def _rank(cid: Cid, source: Source) -> int:
    """Return the rendezvous (highest random weight) score of a source for a block."""
    name = source.key or source.address.encode()
    return int.from_bytes(blake2b(cid.digest + name, digest_size=8).digest())


def _remember(memory: OrderedDict[K, V], key: K, value: V) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > _MEMORY:
        memory.popitem(last=False)
