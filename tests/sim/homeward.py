"""Pulses on their way home across a village where hardly anybody ever sees an uplink.

The cores are the ones that boxes run: slope, carrier, digests and what a spool lacks. Boxes stand on a
plane and hear who is near; time and bytes are the world's. What is sent is counted as it is encoded.
"""

from __future__ import annotations

from collections import Counter, deque
from random import Random
from typing import NamedTuple

from farcast.mesh.carry import Carrier
from farcast.mesh.neighbours import Neighbour
from farcast.mesh.slope import Slope
from farcast.protocol.batch import Ack, TidAck, covers
from farcast.protocol.codec import encode
from farcast.protocol.digest import MAX_ACKS, Digest, Held, Lacking, Numbers, missing
from farcast.protocol.ports import SpooledPulse
from farcast.protocol.presence import NO_WAY
from farcast.tests.sim.spools import Spool

HOUR_S, DAY_S = 3_600, 86_400
TICK_S, STEP_S = 10, 0.5
PULSE_BYTES, TICKET_BYTES, POST_BYTES = 394, 236, 8
"""As they are on the wire, and what stands around them in a post."""
TICKET_ROOM = 4_000
ROUND_PULSES = 1_000
"""That one ack answers."""
OLD_EVERY_S = 600


Envelope = tuple[int, bytes, list[TidAck]]
"""An ack's number, its bytes, and what it says."""


class Made(NamedTuple):
    """Whose pulse it is, and when it was made."""

    maker: int
    at_s: float


class Box:
    """One box: what it holds, whom it hears, when it is on."""

    def __init__(self, number: int, place: tuple[float, float]) -> None:
        self.number = number
        self.key = number.to_bytes(32, "big")
        self.place = place
        self.near: list[Box] = []
        self.on = True
        self.up = False
        self.switch_at = 0.0
        self.slope = Slope()
        self.said = NO_WAY
        self.carrier = Carrier(self.key)
        self.spool = Spool()
        self.seen: dict[tuple[bytes, int], float] = {}
        self.envelopes: dict[bytes, Envelope] = {}
        self._numbers: dict[bytes, Numbers] = {}

    def neighbours(self) -> list[Neighbour]:
        """Return who is heard."""
        return [Neighbour(one.key, "", one.number, one.said, 0.0) for one in self.near if one.on]

    def waiting(self, seen_before_s: float) -> dict[bytes, Numbers]:
        """Return what waits here, of what came before some time."""
        if seen_before_s == float("inf"):
            for tid, held in self.spool.held.items():
                if tid not in self._numbers:
                    self._numbers[tid] = Numbers(sorted(held), [])
            return self._numbers
        found: dict[bytes, Numbers] = {}
        for tid, held in self.spool.held.items():
            numbers = sorted(seq for seq in held if self.seen[tid, seq] <= seen_before_s)
            if numbers:
                found[tid] = Numbers(numbers, [])
        return found

    def take(self, items: list[SpooledPulse], now: float) -> None:
        """Spool pulses."""
        for item in self.spool.add(items):
            self.seen[item.tid, item.seq] = now
            self._numbers.pop(item.tid, None)

    def hear(self, envelope: Envelope) -> None:
        """Apply an ack as the spool does: the newest of each ticket is kept."""
        for item in envelope[2]:
            known = self.envelopes.get(item.tid)
            if known is None or known[0] < envelope[0]:
                self.envelopes[item.tid] = envelope
            self.spool.settle(item)
            self._numbers.pop(item.tid, None)

    def answer(self, digest: list[Held]) -> tuple[list[Held], list[Envelope]]:
        """Return what is lacking here of a digest, and the acks of its tickets."""
        lacking: list[Held] = []
        acks: dict[int, Envelope] = {}
        for item in digest:
            here = dict.fromkeys(self.spool.held.get(item.tid, ()), 1)
            if (ack := self.spool.acks.get(item.tid)) is not None:
                here |= dict.fromkeys(range(1, ack.upto + 1), 1) | dict.fromkeys(ack.extra, 1)
            if (wish := missing(item, here, TICKET_ROOM)) is not None:
                lacking.append(wish)
            if ack is not None and any(covers(ack, seq) for seq in item.numbers()):
                envelope = self.envelopes[item.tid]
                acks[envelope[0]] = envelope
        return lacking, [acks[number] for number in sorted(acks, reverse=True)[:MAX_ACKS]]


class Origin:
    """Stores each pulse once, and says so."""

    def __init__(self) -> None:
        self.stored: dict[bytes, set[int]] = {}
        self.came_by: dict[tuple[bytes, int], int] = {}
        self.again = 0
        self._number = 0

    def take(self, items: list[SpooledPulse], by: int) -> Envelope:
        """Take a batch that box ``by`` brought; returns its ack."""
        for item in items:
            held = self.stored.setdefault(item.tid, set())
            if item.seq in held:
                self.again += 1
            else:
                held.add(item.seq)
                self.came_by[item.tid, item.seq] = by
        tids: list[TidAck] = []
        for tid in dict.fromkeys(item.tid for item in items):
            upto = 0
            while upto + 1 in self.stored[tid]:
                upto += 1
            tids.append(TidAck(tid, upto, sorted(seq for seq in self.stored[tid] if seq > upto), []))
        self._number += 1
        ack = Ack(1, bytes(32), tids, "20760-0001", 10**6, self._number, bytes(32), 1_793_000_000_000)
        return self._number, encode(ack) + bytes(70), tids


class Village:
    """Everybody and everything that happens, drawn from one seed."""

    def __init__(self, seed: int, *, boxes: int = 200, uplinks: int = 5, days: int = 3) -> None:
        self.random = random = Random(seed)
        self.days = days
        self.origin = Origin()
        self.sent: Counter[str] = Counter()
        self.made: dict[tuple[bytes, int], Made] = {}
        self.boxes = _placed(random, boxes)
        doors = random.sample(self.boxes, uplinks)
        self.openings = [
            (day * DAY_S + random.uniform(0, DAY_S - HOUR_S), door)
            for day in range(days + 4)
            for door in doors
        ]
        self._sittings = {
            (day, box.number): (random.uniform(6, 22.5) * HOUR_S, random.randint(20, 60))
            for day in range(days)
            for box in self.boxes
        }
        for box in self.boxes:
            box.switch_at = random.uniform(0, 4 * HOUR_S)

        self._dirty: set[Box] = set(self.boxes)
        self._shortest: dict[int, int] | None = None
        self._hops: dict[tuple[bytes, int], int] = {}

    def run(self) -> None:
        """Let everybody watch for days, and then time pass until everything is home, four days at most."""
        now = 0
        while now < (self.days + 4) * DAY_S:
            self._switch(now)
            if now % 60 == 0 and now < self.days * DAY_S:
                self._watch(now)
            self._slopes(now)
            if any(box.said < NO_WAY for box in self.boxes) or now % OLD_EVERY_S == 0:
                for box in self.boxes:
                    if box.on and box.spool.count:
                        self._errand(box, now)
            now += TICK_S
            if now >= self.days * DAY_S and len(self.origin.came_by) == len(self.made):
                return

    @property
    def total_bytes(self) -> int:
        """All that boxes sent each other."""
        return sum(self.sent.values())

    def least_bytes(self) -> int:
        """One copy of each pulse for each hop, and of its ticket with it once a day and hop.

        The path is the shortest that there was when it left its maker, of all to any box with an uplink.
        """
        tickets: dict[bytes, int] = {}
        for key, hops in self._hops.items():
            tickets[key[0]] = max(tickets.get(key[0], 0), hops)
        return PULSE_BYTES * sum(self._hops.values()) + TICKET_BYTES * sum(tickets.values())

    def _switch(self, now: float) -> None:
        up = {door.number for start, door in self.openings if start <= now < start + HOUR_S}
        for box in self.boxes:
            if box.switch_at <= now:  # four hours on, one off: at any time a fifth is away
                box.on = not box.on
                box.switch_at = now + self.random.uniform(0.5, 1.5) * HOUR_S * (4 if box.on else 1)
                self._dirty |= {box, *box.near}
                self._shortest = None
                if not box.on:
                    box.said = NO_WAY
                    box.slope = Slope()
            if box.up != (box.on and box.number in up):
                box.up = not box.up
                self._dirty.add(box)
                self._shortest = None

    def _watch(self, now: float) -> None:
        day, time_s = divmod(now, DAY_S)
        for box in self.boxes:
            start_s, minutes = self._sittings[int(day), box.number]
            seq = int((time_s - start_s) // 60) + 1
            if box.on and 1 <= seq <= minutes:
                tid = f"{box.number}/{int(day)}".encode().rjust(16, b"\0")
                self.made[tid, seq] = Made(box.number, now)
                box.take([SpooledPulse(tid, seq, b"", b"", 0, own=True)], now)

    def _slopes(self, now: float) -> None:
        """Let those who heard a change look and tell theirs, every half second until nothing changes."""
        held: set[Box] = set()
        for step in range(int(TICK_S / STEP_S)):
            looking, self._dirty = [box for box in self._dirty if box.on], set[Box]()
            said = {
                box: box.slope.look(
                    [one.said for one in box.near if one.on], reaches=box.up, now=now + step * STEP_S
                )
                for box in looking
            }
            for box, hops in said.items():
                if hops != box.said:
                    box.said = hops
                    self._dirty |= {box, *box.near}
                elif hops == NO_WAY and any(one.said < NO_WAY for one in box.near):
                    held.add(box)  # for a while: it looks again
            if not self._dirty:
                break
        self._dirty |= held

    def _errand(self, box: Box, now: float) -> None:
        if box.up:
            items = [item for held in box.spool.held.values() for item in held.values()][:ROUND_PULSES]
            box.hear(self.origin.take(items, box.number))
            return
        choice = box.carrier.choose(box.neighbours(), box.said, now)
        if not choice.neighbours:
            return
        waiting = box.waiting(now - choice.waited_ms / 1_000 if choice.waited_ms else float("inf"))
        for chosen in choice.neighbours:
            other = self.boxes[chosen.port]
            offered = box.carrier.offer(other.key, waiting, now, is_open=not choice.waited_ms)
            if not offered:
                continue
            lacking, acks = other.answer(offered)
            self.sent["digests"] += len(encode(Digest(1, offered)))
            self.sent["answers"] += len(encode(Lacking(1, lacking, [data for _, data, _ in acks])))
            wanted = box.carrier.wanted(other.key, offered, lacking)
            held = box.spool.held  # an ack of the round may have come meanwhile
            items = [held[tid][seq] for tid, seq in wanted if seq in held.get(tid, ())]
            if items:
                self._note_hops(box, items)
                tickets = len({item.tid for item in items})
                self.sent["pulses"] += PULSE_BYTES * len(items)
                self.sent["tickets"] += POST_BYTES + TICKET_BYTES * tickets
                other.take([item._replace(own=False) for item in items], now)
            for envelope in acks:
                box.hear(envelope)

    def _note_hops(self, box: Box, items: list[SpooledPulse]) -> None:
        """Note how far the nearest uplink is from the maker of pulses that leave it for the first time."""
        if self._shortest is None:
            self._shortest = _distances(*(one for one in self.boxes if one.up))
        for item in items:
            if item.own:
                self._hops.setdefault((item.tid, item.seq), self._shortest.get(box.number, 0))


def _placed(random: Random, count: int) -> list[Box]:
    """Put boxes on a plane, each in reach of some others and all of them together connected."""
    reach = (9 / (3.14 * count)) ** 0.5
    while True:
        boxes = [Box(number, (random.random(), random.random())) for number in range(count)]
        for box in boxes:
            box.near = [
                one
                for one in boxes
                if one is not box
                and (one.place[0] - box.place[0]) ** 2 + (one.place[1] - box.place[1]) ** 2 < reach**2
            ]
        if len(_distances(boxes[0])) == count:
            return boxes
        reach *= 1.02


def _distances(*starts: Box) -> dict[int, int]:
    """Return the hops to every box that is on, from the nearest of some."""
    found, todo = {box.number: 0 for box in starts}, deque(starts)
    while todo:
        box = todo.popleft()
        for other in box.near:
            if other.on and other.number not in found:
                found[other.number] = found[box.number] + 1
                todo.append(other)
    return found
