"""The carousel: decides which generation's which packet goes on air next, and when.

Two lanes share the rate. The head lane (trust, catalog, beacons, acks, manifests) is small and comes
round every few seconds; the title lane sends one generation after the other, for ever. A cycle of a
generation is its source symbols and the repair that the planned loss asks for, with the signed
descriptor in front and as every 64th packet, so that a receiver may join at any time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ..protocol.generation import FEC_ID_BYTES, HEADER_BYTES, pack_packet

DESCRIPTOR_EVERY = 64
OVERHEAD = 1.03
BURST_S = 0.2
"""How much rate a late caller may catch up on; longer pauses are lost air time."""
HEAD_PERIOD_S = 5.0
HEAD_SHARE = 0.25
HEAD_SHARE_MIN, HEAD_SHARE_MAX = 0.01, 0.9
PLANNED_LOSS_LIMIT = 0.9
_DESCRIPTOR_PACKET_BYTES = 170

LaneName = Literal["head", "title"]


class Planned(NamedTuple):
    """One generation to send: ``symbols`` of ``symbol_bytes`` hold its ``length`` bytes."""

    number: int
    label: str
    length: int
    symbols: int
    symbol_bytes: int


@dataclass(frozen=True, slots=True)
class OnAir:
    """Where one generation stands: full ``cycles`` sent, and when the next one ends (None: paused)."""

    number: int
    label: str
    lane: LaneName
    length: int
    cycles: int
    completes_in_s: float | None


class CarouselStatus(NamedTuple):
    """What is on air; the cycle times are seconds at the set rate, shares included."""

    rate_bps: int
    paused: bool
    head_cycle_s: float
    title_cycle_s: float
    generations: list[OnAir]


class _Lane:
    """Generations sent one after the other, each for one cycle."""

    def __init__(self, name: LaneName) -> None:
        self.name: LaneName = name
        self.plans: list[Planned] = []
        self.at = 0
        self.position = 0
        self.symbols: dict[int, list[bytes]] = {}
        self.descriptors: dict[int, bytes] = {}

    @property
    def near(self) -> list[int]:
        """The generation on air and the one after it."""
        return (
            [self.plans[(self.at + step) % len(self.plans)].number for step in (0, 1)] if self.plans else []
        )

    def replace(self, plans: Sequence[Planned]) -> None:
        """Go on with the generation on air if it stays, else with the first."""
        current = self.plans[self.at].number if self.plans else None
        self.plans = list(plans)
        numbers = [plan.number for plan in plans]
        if current in numbers:
            self.at = numbers.index(current)
        else:
            self.at = self.position = 0
        self._prune()

    def ready(self) -> Planned | None:
        """Return the generation on air where its symbols are here."""
        plan = self.plans[self.at] if self.plans else None
        return plan if plan and plan.number in self.symbols else None

    def step(self) -> bool:
        """Move on by one packet; True where that ended a cycle."""
        self.position += 1
        if self.position < cycle_packets(len(self.symbols[self.plans[self.at].number])):
            return False
        self.at, self.position = (self.at + 1) % len(self.plans), 0
        self._prune()
        return True

    def _prune(self) -> None:
        for number in [number for number in self.symbols if number not in self.near]:
            del self.symbols[number], self.descriptors[number]


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
        self._head, self._title = _Lane("head"), _Lane("title")
        self._seq = 0
        self._tokens = 0.0
        self._filled_at: float | None = None
        self._head_credit = 0.0
        self._cycles: dict[int, int] = {}

    def repair(self, symbols: int) -> int:
        """Return how many repair symbols a cycle of ``symbols`` source symbols carries."""
        return math.ceil(symbols * OVERHEAD / (1 - self.planned_loss)) - symbols

    def update(self, head: Sequence[Planned], titles: Sequence[Planned]) -> None:
        """Replace what is sent; what stays keeps its place, and a new head goes first."""
        is_new = [plan.number for plan in head] != [plan.number for plan in self._head.plans]
        self._head.replace(head)
        self._title.replace(titles)
        if is_new:
            cycle_bytes = sum(map(self._cycle_bytes, head)) * (1 - self._share(self._head))
            self._head_credit = min(cycle_bytes - _DESCRIPTOR_PACKET_BYTES, self.rate_bps / 8)
        kept = {plan.number for plan in (*head, *titles)}
        self._cycles = {number: count for number, count in self._cycles.items() if number in kept}

    def wanted(self) -> list[int]:
        """Return the numbers whose symbols are needed now or next, most urgent first."""
        missing = [
            (step, number)
            for lane in (self._head, self._title)
            for step, number in enumerate(lane.near)
            if number not in lane.symbols
        ]
        return list(dict.fromkeys(number for _, number in sorted(missing, key=lambda pair: pair[0])))

    def supply(self, number: int, symbols: list[bytes], descriptor: bytes) -> None:
        """Hand over the symbols (FEC id first) and the signed descriptor of a wanted generation."""
        for lane in (self._head, self._title):
            if number in lane.near:
                lane.symbols[number], lane.descriptors[number] = symbols, descriptor

    def loaded(self) -> list[int]:
        """Return the numbers whose symbols are held."""
        return [number for lane in (self._head, self._title) for number in lane.symbols]

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
        if self.paused or self._filled_at is None or not (self._head.ready() or self._title.ready()):
            return None
        return self._filled_at + max(0.0, -self._tokens) * 8 / self.rate_bps

    def status(self) -> CarouselStatus:
        """Tell what is on air."""
        generations: list[OnAir] = []
        cycle_s: dict[LaneName, float] = {}
        for lane in (self._head, self._title):
            share = self._share(lane)
            pace = share * self.rate_bps / 8
            ahead = -float(lane.position * self._packet_bytes(lane.plans[lane.at])) if lane.plans else 0.0
            rows: list[OnAir] = []
            for step in range(len(lane.plans)):
                plan = lane.plans[(lane.at + step) % len(lane.plans)]
                ahead += self._cycle_bytes(plan)
                due = None if self.paused else max(ahead, 0.0) / pace
                cycles = self._cycles.get(plan.number, 0)
                rows.append(OnAir(plan.number, plan.label, lane.name, plan.length, cycles, due))
            generations += rows
            cycle_s[lane.name] = sum(map(self._cycle_bytes, lane.plans)) / pace if lane.plans else 0.0
        return CarouselStatus(self.rate_bps, self.paused, cycle_s["head"], cycle_s["title"], generations)

    @property
    def _burst_bytes(self) -> float:
        return max(self.rate_bps / 8 * BURST_S, 3_000.0)

    def _next(self) -> bytes | None:
        head, title = self._head.ready(), self._title.ready()
        plan, lane = head, self._head
        if title and (head is None or self._head_credit <= 0):
            plan, lane = title, self._title
        if plan is None:
            return None
        packet = self._packet(lane, plan)
        if head and title:
            self._head_credit += self._share(self._head) * len(packet)
        if lane is self._head:
            self._head_credit = max(self._head_credit - len(packet), 0.0 if title is None else -math.inf)
        if lane.step():
            self._cycles[plan.number] = self._cycles.get(plan.number, 0) + 1
        return packet

    def _packet(self, lane: _Lane, plan: Planned) -> bytes:
        self._seq += 1
        turn, place = divmod(lane.position, DESCRIPTOR_EVERY)
        if place == 0:
            body = lane.descriptors[plan.number]
            return pack_packet(self._origin, plan.number, self._seq, body, is_descriptor=True)
        symbol = lane.symbols[plan.number][turn * (DESCRIPTOR_EVERY - 1) + place - 1]
        return pack_packet(self._origin, plan.number, self._seq, symbol)

    def _share(self, lane: _Lane) -> float:
        """Return the lane's part of the rate: the head's is what its period needs, within the limit."""
        if not self._head.plans or not self._title.plans:
            return 1.0
        needed = sum(map(self._cycle_bytes, self._head.plans)) * 8 / self.rate_bps / self._head_period_s
        share = min(needed, self._head_share)
        return share if lane is self._head else 1.0 - share

    def _cycle_bytes(self, plan: Planned) -> int:
        symbols = plan.symbols + self.repair(plan.symbols)
        descriptors = cycle_packets(symbols) - symbols
        return symbols * self._packet_bytes(plan) + descriptors * _DESCRIPTOR_PACKET_BYTES

    @staticmethod
    def _packet_bytes(plan: Planned) -> int:
        return HEADER_BYTES + FEC_ID_BYTES + plan.symbol_bytes


def cycle_packets(symbols: int) -> int:
    """Return how many packets a cycle of ``symbols`` symbols takes, descriptors included."""
    return symbols + -(-symbols // (DESCRIPTOR_EVERY - 1))
