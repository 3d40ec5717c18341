"""The carousel: decides which generation's which packet goes on air next, and when.

Two lanes share the rate. The head lane (trust, catalog, beacons, acks, manifests) is small and comes
round every few seconds, what is new in it first; the title lane sends one generation after the other,
for ever, as the rota says. A cycle of a generation is as many symbols as the planned loss asks for, with
the signed descriptor in front and as every 64th packet, so that a receiver may join at any time. One
cycle of a title's sends other symbols than the one before (there are ``WINDOWS`` sets), so that whoever
missed a part of it needs only as many of the next; the head is too small and too soon back for that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple

from ..protocol.generation import FEC_ID_BYTES, HEADER_BYTES, pack_packet
from .rota import Feature, Planned, Rota

DESCRIPTOR_EVERY = 64
OVERHEAD = 1.03
SIGMAS = 4.8
"""So many standard deviations of the loss are paid for: less than one cycle in a million falls short."""
SPARE_SYMBOLS = 2
"""RaptorQ (RFC 6330) with two symbols over K fails less than once in a million."""
WINDOWS = 2
BURST_S = 0.2
"""How much rate a late caller may catch up on; longer pauses are lost air time."""
HEAD_PERIOD_S = 5.0
HEAD_SHARE = 0.25
HEAD_SHARE_MIN, HEAD_SHARE_MAX = 0.01, 0.9
PLANNED_LOSS_LIMIT = 0.9
FORECAST_STEPS = 20_000
"""Generations that are looked ahead at: a tenth of a second's work."""
_DESCRIPTOR_PACKET_BYTES = 170

LaneName = Literal["head", "title"]


@dataclass(frozen=True, slots=True)
class OnAir:
    """Where one generation stands: full ``cycles`` sent, and when the next one ends.

    ``completes_in_s`` is None while paused, or where that is too far off to tell.
    """

    number: int
    label: str
    lane: LaneName
    length: int
    cycles: int
    completes_in_s: float | None


@dataclass(frozen=True, slots=True)
class Airing:
    """A title's place on air.

    ``begins_in_s``: until the next of its generations begins, 0 for the title on air. ``whole_in_s``:
    until one who begins to listen now has all of it. Both None while paused, or where that is far off.
    """

    title: str
    generations: int
    size_bytes: int
    weight: float
    on_air: bool
    begins_in_s: float | None
    whole_in_s: float | None


class CarouselStatus(NamedTuple):
    """What is on air, titles in the order they come; cycle times at the set rate, shares included."""

    rate_bps: int
    paused: bool
    head_cycle_s: float
    title_cycle_s: float
    generations: list[OnAir]
    titles: list[Airing]


class _Round:
    """The head's generations, one after the other; what is new goes first."""

    def __init__(self) -> None:
        self.plans: list[Planned] = []
        self._at = 0

    @property
    def current(self) -> Planned | None:
        return self.plans[self._at] if self.plans else None

    @property
    def following(self) -> Planned | None:
        return self.plans[(self._at + 1) % len(self.plans)] if self.plans else None

    def replace(self, plans: Sequence[Planned]) -> list[Planned]:
        """Go on with the first new generation, else with the one on air; returns the new ones."""
        before, current = {plan.number for plan in self.plans}, self.current
        self.plans = list(plans)
        new = [plan for plan in self.plans if plan.number not in before]
        go_on = new[0] if new else current
        self._at = self.plans.index(go_on) if go_on is not None and go_on in self.plans else 0
        return new

    def advance(self) -> None:
        self._at = (self._at + 1) % len(self.plans)

    def forecast(self) -> Iterator[Planned]:
        """Tell what follows ``current``, for ever."""
        at = self._at
        while self.plans:
            at = (at + 1) % len(self.plans)
            yield self.plans[at]


_Slot = tuple[int, int]
"""A generation's number, and which set of its symbols."""


class _Lane:
    """Generations as its round or rota orders them; holds the symbols of the one on air and the next."""

    def __init__(self, name: LaneName, order: _Round | Rota, windows: int) -> None:
        self.name: LaneName = name
        self._windows = windows
        self.order = order
        self.position = 0
        self.cycles: dict[int, int] = {}
        self.symbols: dict[_Slot, list[bytes]] = {}
        self.descriptors: dict[int, bytes] = {}

    @property
    def near(self) -> list[_Slot]:
        """The symbols on air and those after them."""
        current, following = self.order.current, self.order.following
        if current is None or following is None:
            return []
        once_more = following.number == current.number
        return [self._slot(current.number, 0), self._slot(following.number, int(once_more))]

    @property
    def on_air(self) -> list[bytes] | None:
        """The symbols being sent, None where they are not here."""
        current = self.order.current
        return self.symbols.get(self._slot(current.number, 0)) if current else None

    def changed(self, before: Planned | None) -> None:
        """Begin anew where another generation is on air than ``before``, and forget what left."""
        if self.order.current != before:
            self.position = 0
        kept = {plan.number for plan in self.order.plans}
        self.cycles = {number: count for number, count in self.cycles.items() if number in kept}
        self._prune()

    def step(self, symbols: int) -> None:
        """Move on by one packet of a cycle of ``symbols``."""
        self.position += 1
        current = self.order.current
        if current is None or self.position < cycle_packets(symbols):
            return
        self.cycles[current.number] = self.cycles.get(current.number, 0) + 1
        self.position = 0
        self.order.advance()
        self._prune()

    def _slot(self, number: int, ahead: int) -> _Slot:
        return number, (self.cycles.get(number, 0) + ahead) % self._windows

    def _prune(self) -> None:
        near = self.near
        self.symbols = {slot: symbols for slot, symbols in self.symbols.items() if slot in near}
        numbers = {number for number, _ in near}
        self.descriptors = {number: one for number, one in self.descriptors.items() if number in numbers}


class Carousel:
    """A token bucket over two lanes.

    ``rate_bps`` counts UDP payload bits and may be changed; ``planned_loss`` is the share of packets
    that receivers are expected to lose; the head comes round every ``head_period_s`` unless that
    takes more than ``head_share`` of the rate.
    """

    def __init__(
        self,
        origin: bytes,
        rate_bps: int,
        planned_loss: float,
        *,
        head_period_s: float = HEAD_PERIOD_S,
        head_share: float = HEAD_SHARE,
    ) -> None:
        if not 0 <= planned_loss <= PLANNED_LOSS_LIMIT or rate_bps < 1:
            msg = f"a carousel of {rate_bps} bit/s planned for a loss of {planned_loss}"
            raise ValueError(msg)
        self.rate_bps = rate_bps
        self.planned_loss = planned_loss
        self.paused = False
        self._origin = origin
        self._head_period_s = head_period_s
        self._head_share = min(max(head_share, HEAD_SHARE_MIN), HEAD_SHARE_MAX)
        self._round, self._rota = _Round(), Rota()
        self._head, self._title = _Lane("head", self._round, 1), _Lane("title", self._rota, WINDOWS)
        self._features: list[Feature] = []
        self._seq = 0
        self._tokens = 0.0
        self._filled_at: float | None = None
        self._head_credit = 0.0

    def cycle_symbols(self, symbols: int) -> int:
        """Return how many symbols a cycle of a generation of ``symbols`` source symbols has.

        So many that at the planned loss enough arrive, but for one cycle in a million; at least the
        design's 1/(1-p) x 1.03.
        """
        loss, arriving = self.planned_loss, 1 - self.planned_loss
        skew = (SIGMAS**2 - 1) / 6 * max(1 - 2 * loss, 0.0) if loss else 0.0  # Cornish and Fisher 1938
        needed, spread = symbols + SPARE_SYMBOLS + skew, SIGMAS**2 * loss
        root = math.sqrt(spread) + math.sqrt(spread + 4 * needed)
        return max(math.ceil(root**2 / 4 / arriving), math.ceil(symbols * OVERHEAD / arriving))

    def update(self, head: Sequence[Planned], titles: Sequence[Feature]) -> None:
        """Replace what is sent; what stays keeps its place, and what is new in the head goes first."""
        head_before, title_before = self._round.current, self._rota.current
        new = self._round.replace(head)
        self._features = list(titles)
        self._rota.replace(titles)
        self._head.changed(head_before)
        self._title.changed(title_before)
        if new:
            cycle_bytes = sum(map(self._cycle_bytes, new)) * (1 - self._share(self._head))
            self._head_credit = min(cycle_bytes - _DESCRIPTOR_PACKET_BYTES, self.rate_bps / 8)

    def wanted(self) -> list[_Slot]:
        """Return the numbers and windows of the symbols needed now or next, most urgent first."""
        missing = [
            (step, slot)
            for lane in (self._head, self._title)
            for step, slot in enumerate(lane.near)
            if slot not in lane.symbols
        ]
        return list(dict.fromkeys(slot for _, slot in sorted(missing, key=lambda pair: pair[0])))

    def supply(self, slot: _Slot, symbols: list[bytes], descriptor: bytes) -> None:
        """Hand over one window's symbols (FEC id first) and the signed descriptor of a wanted generation."""
        for lane in (self._head, self._title):
            if slot in lane.near:
                lane.symbols[slot], lane.descriptors[slot[0]] = symbols, descriptor

    def loaded(self) -> list[int]:
        """Return the numbers whose symbols are held."""
        return [number for lane in (self._head, self._title) for number in lane.descriptors]

    def renew(self, number: int, descriptor: bytes) -> None:
        """Send a freshly signed descriptor for a held generation from now on."""
        for lane in (self._head, self._title):
            if number in lane.descriptors:
                lane.descriptors[number] = descriptor

    def take(self, now: float) -> list[bytes]:
        """Return the packets due at ``now``, in order."""
        if self._filled_at is None or self.paused:
            self._filled_at = now
        earned = (now - self._filled_at) * self.rate_bps / 8
        self._filled_at = max(now, self._filled_at)
        self._tokens = min(self._tokens + max(earned, 0.0), self._burst_bytes)
        packets: list[bytes] = []
        while self._tokens > 0 and not self.paused:
            packet = self._next()
            if packet is None:
                break
            self._tokens -= len(packet)
            packets.append(packet)
        return packets

    @property
    def wake_at(self) -> float | None:
        """When the next packet is due; None while there is nothing to send."""
        if self.paused or self._filled_at is None or not (self._head.on_air or self._title.on_air):
            return None
        return self._filled_at + max(0.0, -self._tokens) * 8 / self.rate_bps

    def status(self) -> CarouselStatus:
        """Tell what is on air and when it comes again."""
        generations: list[OnAir] = []
        for lane in (self._head, self._title):
            ends = {plan.number: end for plan, _, end in reversed(self._timeline(lane))}
            for plan in sorted(lane.order.plans, key=lambda plan: ends.get(plan.number, math.inf)):
                cycles = lane.cycles.get(plan.number, 0)
                due = None if self.paused else ends.get(plan.number)
                generations.append(OnAir(plan.number, plan.label, lane.name, plan.length, cycles, due))
        head_s, title_s = self._round_s(self._head), self._round_s(self._title)
        return CarouselStatus(self.rate_bps, self.paused, head_s, title_s, generations, self._airings())

    def _airings(self) -> list[Airing]:
        timeline = self._timeline(self._title)
        begins: dict[str, float] = {}
        lacks = {one.label: {plan.number for plan in one.plans} for one in self._features}
        whole: dict[str, float] = {}
        for at, (plan, begin, end) in enumerate(timeline):
            begins.setdefault(plan.label, begin)
            left = lacks.get(plan.label)
            if left and (at or not self._title.position):
                left.discard(plan.number)
                if not left:
                    whole[plan.label] = end
        current = self._rota.current
        found = [
            Airing(
                one.label,
                len(one.plans),
                sum(plan.length for plan in one.plans),
                one.weight,
                current is not None and current.label == one.label,
                None if self.paused else begins.get(one.label),
                None if self.paused else whole.get(one.label),
            )
            for one in self._features
            if one.plans
        ]
        return sorted(found, key=lambda one: begins.get(one.title, math.inf))

    def _timeline(self, lane: _Lane) -> list[tuple[Planned, float, float]]:
        """Return what is on air and what follows until all were there, with begin and end in seconds."""
        current = lane.order.current
        if current is None:
            return []
        pace = self._share(lane) * self.rate_bps / 8
        at = max(self._cycle_bytes(current) - lane.position * self._packet_bytes(current), 0) / pace
        found = [(current, 0.0, at)]
        lacking = {plan.number for plan in lane.order.plans}
        for plan in islice(lane.order.forecast(), FORECAST_STEPS):
            begin, at = at, at + self._cycle_bytes(plan) / pace
            found.append((plan, begin, at))
            lacking.discard(plan.number)
            if not lacking:
                break
        return found

    def _round_s(self, lane: _Lane) -> float:
        """Return how long every generation once takes."""
        pace = self._share(lane) * self.rate_bps / 8
        return sum(map(self._cycle_bytes, lane.order.plans)) / pace if lane.order.plans else 0.0

    @property
    def _burst_bytes(self) -> float:
        return max(self.rate_bps / 8 * BURST_S, 3_000.0)

    def _next(self) -> bytes | None:
        head, title = self._head.on_air, self._title.on_air
        symbols, lane = head, self._head
        if title and (not head or self._head_credit <= 0):
            symbols, lane = title, self._title
        plan = lane.order.current
        if not symbols or plan is None:
            return None
        packet = self._packet(lane, plan.number, symbols)
        if head and title:
            self._head_credit += self._share(self._head) * len(packet)
        if lane is self._head:
            self._head_credit = max(self._head_credit - len(packet), 0.0 if not title else -math.inf)
        lane.step(len(symbols))
        return packet

    def _packet(self, lane: _Lane, number: int, symbols: list[bytes]) -> bytes:
        self._seq += 1
        turn, place = divmod(lane.position, DESCRIPTOR_EVERY)
        if place == 0:
            body = lane.descriptors[number]
            return pack_packet(self._origin, number, self._seq, body, is_descriptor=True)
        symbol = symbols[turn * (DESCRIPTOR_EVERY - 1) + place - 1]
        return pack_packet(self._origin, number, self._seq, symbol)

    def _share(self, lane: _Lane) -> float:
        """Return the lane's part of the rate: the head's is what its period needs, within the limit."""
        if not self._round.plans or self._rota.current is None:
            return 1.0
        needed = sum(map(self._cycle_bytes, self._round.plans)) * 8 / self.rate_bps / self._head_period_s
        share = min(needed, self._head_share)
        return share if lane is self._head else 1.0 - share

    def _cycle_bytes(self, plan: Planned) -> int:
        symbols = self.cycle_symbols(plan.symbols)
        descriptors = cycle_packets(symbols) - symbols
        return symbols * self._packet_bytes(plan) + descriptors * _DESCRIPTOR_PACKET_BYTES

    @staticmethod
    def _packet_bytes(plan: Planned) -> int:
        return HEADER_BYTES + FEC_ID_BYTES + plan.symbol_bytes


def cycle_packets(symbols: int) -> int:
    """Return how many packets a cycle of ``symbols`` symbols takes, descriptors included."""
    return symbols + -(-symbols // (DESCRIPTOR_EVERY - 1))
