"""Paths: by which carrier blocks come from each place, decided by what it brought there before.

A pure core. TCP is the favourite until QUIC proves faster: a kernel that paces (BBR) carries bulk
over lossy links an order of magnitude faster than QUIC engines do, and costs the relay less. The
other carrier is tried again with a small share of the blocks, less often each time it loses; one
that fails is left alone for a while, longer each time.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import IntEnum

PATHS = 1_024
"""Paths remembered; the one unused longest is forgotten first."""
SOFT_S, FIRM_S, TAMPERED_S = 2.0, 60.0, 3_600.0
"""First pause of a carrier that was late or broke off, that is closed, that brought wrong bytes."""
PAUSE_LIMIT_S = 3_600.0
RECENTLY_S = 60.0
MEMORY_S, MEMORY_BYTES = 8.0, 8 << 20
"""So many busy seconds and so many bytes later, what was measured counts half."""
MEASURED_BYTES = 2 << 20
SLOW_BYTES_S = 1_500_000
"""A favourite below this rate is doubted soon: a film needs it."""
GAP_BLOCKS, SLOW_GAP_BLOCKS, GAP_LIMIT_BLOCKS = 64, 4, 1_024
QUIC_GAIN, TCP_GAIN = 1.3, 1.0
"""How many times faster than the favourite a challenger must be; TCP is the cheaper one."""
HOPELESS, HOPELESS_BYTES = 0.25, 512 << 10
"""A challenger below this share of the favourite's rate loses as soon as so much should have come."""
PATIENCE, PATIENCE_BYTES, PATIENCE_S = 3.0, 1 << 20, (0.5, 4.0)
"""A trial costs nobody more than three times what the favourite takes for a block, within these seconds."""
QUIC_TRIAL_BLOCKS, QUIC_TRIAL_FLIGHTS = 3, 2
LANES = (3, 6)
"""TCP connections to one place: enough for a sender that paces, and for one that backs off at every loss."""
LANE_GAIN = 1.2
LANE_BLOCKS = 6
LANE_RECHECK_BLOCKS = 256
CLOSED_PLACES = 2
"""Places that only UDP fails to reach, after which a network is taken for one that blocks UDP."""


class Carrier(IntEnum):
    """What can carry a block from a box that is known by its key."""

    TCP = 1
    QUIC = 2

    @property
    def other(self) -> Carrier:
        """The one to turn to when this one fails."""
        return Carrier.QUIC if self is Carrier.TCP else Carrier.TCP


class Meter:
    """Goodput in bytes a second over the time in which something was asked for; older counts less."""

    def __init__(self) -> None:
        """Nothing is measured yet."""
        self.flights = 0
        self.bytes = 0.0
        self.busy_s = 0.0
        self._since = 0.0

    @property
    def rate(self) -> float | None:
        """The rate, None before ``MEASURED_BYTES`` came or ``MEMORY_S`` of waiting went by."""
        if self.bytes < MEASURED_BYTES and self.busy_s < MEMORY_S / 2:
            return None
        return self.bytes / max(self.busy_s, 1e-6)

    def begin(self, now: float) -> None:
        """Count one more flight."""
        self.add(0, now)
        self.flights += 1

    def end(self, now: float) -> None:
        """Count one flight less."""
        self.add(0, now)
        self.flights -= 1

    def add(self, size_bytes: int, now: float) -> None:
        """Count bytes that came."""
        if self.busy_s > MEMORY_S and self.bytes > MEMORY_BYTES:
            self.bytes, self.busy_s = self.bytes / 2, self.busy_s / 2
        if self.flights:
            self.busy_s += max(now - self._since, 0.0)
        self._since = now
        self.bytes += size_bytes


class Pause:
    """How long a carrier is left alone: twice as long with every failure in a row."""

    def __init__(self) -> None:
        """It may be used."""
        self.until = 0.0
        self._length_s = 0.0

    def extend(self, first_s: float, now: float) -> None:
        """Leave it alone; failures of flights that were under way together count once."""
        if now < self.until:
            self.until = max(self.until, now + first_s)
            return
        self._length_s = min(max(first_s, self._length_s * 2), PAUSE_LIMIT_S)
        self.until = now + self._length_s

    def lift(self) -> None:
        """It works."""
        self.until = self._length_s = 0.0


class Lanes:
    """How many TCP connections at once: as many as bring more together than fewer did."""

    def __init__(self) -> None:
        """Begin with few."""
        self._step = 0
        self._rate = 0.0  # what the step below brought
        self._calm = 0  # blocks left before another look at a step that was of no use
        self._blocks = 0
        self._meter = Meter()

    @property
    def limit(self) -> int:
        """How many at once."""
        return LANES[self._step]

    @property
    def settled(self) -> bool:
        """Whether more lanes have been tried, or fewer than there are would do."""
        return self._step > 0 or self._calm > 0

    def begin(self, now: float) -> None:
        """Count one more flight."""
        self._meter.begin(now)

    def add(self, size_bytes: int, now: float) -> None:
        """Count bytes that came."""
        self._meter.add(size_bytes, now)

    def end(self, now: float, *, whole: bool) -> None:
        """Count one flight less; a whole block is one more measurement if every lane was in use."""
        used = self._meter.flights
        self._meter.end(now)
        if not whole:
            return
        self._calm = max(self._calm - 1, 0)
        if self._calm or used <= (LANES[self._step - 1] if self._step else LANES[0] - 1):
            return
        self._blocks += 1
        if self._blocks == self.limit:  # every connection has brought one: from here on they are warm
            self._open(self._meter.flights, now)
            self._blocks = self.limit
        elif self._blocks >= self.limit + LANE_BLOCKS:
            self._judge(self._meter.bytes / max(self._meter.busy_s, 1e-6), now)

    def _judge(self, rate: float, now: float) -> None:
        if self._step and rate < self._rate * LANE_GAIN:
            self._step -= 1
            self._calm = LANE_RECHECK_BLOCKS
        elif self._step < len(LANES) - 1:
            self._rate = rate
            self._step += 1
        self._open(self._meter.flights, now)

    def _open(self, flights: int, now: float) -> None:
        self._blocks = 0
        self._meter = Meter()
        for _ in range(flights):
            self._meter.begin(now)


class Trial:
    """A challenger's few blocks."""

    def __init__(self, carrier: Carrier, lanes: int) -> None:
        """Let ``carrier`` carry a few blocks; TCP as many as warm its ``lanes`` and then some."""
        tcp = carrier is Carrier.TCP
        self.carrier = carrier
        self.flights = lanes if tcp else QUIC_TRIAL_FLIGHTS
        self.to_start = self.to_finish = 2 * lanes if tcp else QUIC_TRIAL_BLOCKS
        self.meter = Meter()

    def verdict(self, standing: float) -> bool | None:
        """Say whether the challenger beats a favourite of ``standing`` bytes a second; None: too early."""
        size, busy_s = self.meter.bytes, self.meter.busy_s
        if standing * HOPELESS * busy_s > max(size, HOPELESS_BYTES):
            return False
        if self.to_finish:
            return None
        gain = QUIC_GAIN if self.carrier is Carrier.QUIC else TCP_GAIN
        return size >= standing * gain * busy_s


class Flight:
    """One block on its way by ``carrier``."""

    __slots__ = ("carrier", "over", "size_bytes", "trial")

    def __init__(self, carrier: Carrier, trial: Trial | None) -> None:
        """Begin, as one of a trial's blocks or not."""
        self.carrier = carrier
        self.size_bytes = 0
        self.trial = trial
        self.over = False


class Path:
    """One place as it is reached from one network."""

    def __init__(self) -> None:
        """Know nothing yet: TCP is the favourite, and both may be used."""
        self.favourite = Carrier.TCP
        self.switches = 0
        self.lanes = Lanes()
        self.meters = {carrier: Meter() for carrier in Carrier}
        self._pauses = {carrier: Pause() for carrier in Carrier}
        self._connected_at = dict.fromkeys(Carrier, float("-inf"))
        self._trial: Trial | None = None
        self._lost = 0
        self._calm = 0
        self._best = 0.0

    def closed(self, carrier: Carrier, now: float) -> bool:
        """Say whether ``carrier`` is to be left alone now."""
        return now < self._pauses[carrier].until

    def connected(self, carrier: Carrier, now: float) -> None:
        """Note that a connection came about; what it is worth will be seen."""
        self._connected_at[carrier] = now

    def recently(self, carrier: Carrier, now: float) -> bool:
        """Say whether ``carrier`` reached the place within the last minute."""
        return now - self._connected_at[carrier] < RECENTLY_S

    def gone(self, carrier: Carrier) -> None:
        """Note that nobody listens any more where a connection came about before."""
        self._connected_at[carrier] = float("-inf")

    def works(self, carrier: Carrier) -> None:
        """Note that ``carrier`` brought an answer, or that its failure was not its own."""
        self._pauses[carrier].lift()

    def fails(self, carrier: Carrier, first_s: float, now: float) -> None:
        """Note that ``carrier`` did not; it is left alone for ``first_s``, longer each time in a row."""
        self._pauses[carrier].extend(first_s, now)
        if self._trial is not None and self._trial.carrier is carrier:
            self._end_trial(won=False)

    def choose(self, now: float) -> Carrier:
        """Return the carrier of the next block."""
        favourite = self.favourite
        if self.closed(favourite.other, now):
            return favourite
        if self.closed(favourite, now):
            return favourite.other
        if self._trial is None and self._doubted():
            self._trial = Trial(favourite.other, self.lanes.limit)
        trial = self._trial
        if trial is not None and trial.to_start and trial.meter.flights < trial.flights:
            return trial.carrier
        return favourite

    def has_lane(self) -> bool:
        """Say whether one more block may come by TCP now."""
        return self.meters[Carrier.TCP].flights < self.lanes.limit

    def begin(self, carrier: Carrier, now: float) -> Flight:
        """Start a block by ``carrier``; it ends by ``finish`` or ``leave``, whichever comes first."""
        trial = self._trial
        if trial is not None and (trial.carrier is not carrier or not trial.to_start):
            trial = None
        self.meters[carrier].begin(now)
        if carrier is Carrier.TCP:
            self.lanes.begin(now)
        if trial is not None:
            trial.to_start -= 1
            trial.meter.begin(now)
        return Flight(carrier, trial)

    def patience_s(self, flight: Flight) -> float | None:
        """Return after how long a trial's block is wanted from the favourite too; None for any other."""
        standing = self.meters[self.favourite].rate
        if flight.trial is None or not standing or flight.carrier is self.favourite:
            return None
        return min(max(PATIENCE * PATIENCE_BYTES / standing, PATIENCE_S[0]), PATIENCE_S[1])

    def arrived(self, flight: Flight, size_bytes: int, now: float) -> None:
        """Count bytes of a block as they come."""
        flight.size_bytes += size_bytes
        self.meters[flight.carrier].add(size_bytes, now)
        if flight.carrier is Carrier.TCP:
            self.lanes.add(size_bytes, now)
        if flight.trial is not None:
            flight.trial.meter.add(size_bytes, now)

    def finish(self, flight: Flight, now: float) -> None:
        """End a flight that brought its block, or, with no bytes, an honest no."""
        self.works(flight.carrier)
        if flight.over or not flight.size_bytes:
            self.leave(flight, now)
            return
        self._stop(flight, now, whole=True)
        if flight.trial is not None:
            flight.trial.to_finish -= 1
            self._judge(flight.trial)
        elif flight.carrier is self.favourite:
            self._calm += 1

    def leave(self, flight: Flight, now: float) -> None:
        """End a flight that failed, or that nobody waits for any more; the time it took counts."""
        if flight.over:
            return
        self._stop(flight, now, whole=False)
        if flight.trial is not None:
            flight.trial.to_start += 1
            self._judge(flight.trial)

    def _stop(self, flight: Flight, now: float, *, whole: bool) -> None:
        flight.over = True
        self.meters[flight.carrier].end(now)
        if flight.carrier is Carrier.TCP:
            self.lanes.end(now, whole=whole)
        if flight.trial is not None:
            flight.trial.meter.end(now)

    def _doubted(self) -> bool:
        """Say whether it is time to try the other carrier."""
        rate = self.meters[self.favourite].rate
        if rate is None or (self.favourite is Carrier.TCP and not self.lanes.settled and rate > SLOW_BYTES_S):
            return False
        if rate < self._best / 2:  # the path is not what it was when the challenger lost
            self._lost, self._best = 0, rate
        gap = GAP_BLOCKS if rate > SLOW_BYTES_S else SLOW_GAP_BLOCKS
        return self._calm >= min(gap << self._lost, GAP_LIMIT_BLOCKS)

    def _judge(self, trial: Trial) -> None:
        won = trial.verdict(self.meters[self.favourite].rate or 0.0)
        if trial is self._trial and won is not None:
            self._end_trial(won=won)

    def _end_trial(self, *, won: bool) -> None:
        self._trial = None
        self._calm = 0
        if won:
            self.favourite = self.favourite.other
            self.switches += 1
            self._lost, self._best = 0, 0.0
        else:
            self._lost = min(self._lost + 1, 16)
            self._best = self.meters[self.favourite].rate or 0.0


class Paths:
    """Every path known, by network and place."""

    def __init__(self) -> None:
        """Know none."""
        self._paths: OrderedDict[tuple[str, object], Path] = OrderedDict()
        self._udp: OrderedDict[str, frozenset[object] | None] = OrderedDict()

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._paths)

    def favouring(self, carrier: Carrier) -> int:
        """Return how many of them have ``carrier`` as their favourite."""
        return sum(path.favourite is carrier for path in self._paths.values())

    def at(self, network: str, place: object, now: float) -> Path:
        """Return the path from ``network`` to ``place``; a new one knows whether UDP is blocked there."""
        path = self._paths.get((network, place))
        if path is None:
            path = self._paths[network, place] = Path()
            if len(self._udp.get(network) or ()) >= CLOSED_PLACES:
                path.fails(Carrier.QUIC, FIRM_S, now)
            if len(self._paths) > PATHS:
                self._paths.popitem(last=False)
        self._paths.move_to_end((network, place))
        return path

    def udp_failed(self, network: str, place: object) -> None:
        """Note that QUIC failed where TCP reached the place."""
        failed = self._udp.get(network, frozenset())
        if failed is not None and len(failed) < CLOSED_PLACES:
            self._note(network, failed | {place})

    def udp_works(self, network: str) -> None:
        """Note that QUIC works from ``network``: where it fails, it is the place's trouble."""
        if self._udp.get(network, frozenset()) is not None:
            self._note(network, None)

    def _note(self, network: str, failed: frozenset[object] | None) -> None:
        self._udp[network] = failed
        if len(self._udp) > PATHS:
            self._udp.popitem(last=False)
