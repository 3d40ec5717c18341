"""A LAN in virtual time: swarms whose units cross full-duplex links of so many bytes a second.

Between two boxes there is one connection: words and units arrive in the order in which they were said, a few
hundred kilobytes wait in the sender's kernel, and the connections of a box take turns on its link. Boxes may
starve (``Pauses``): while one waits for a processor its kernel sends what it has, and nothing is heard.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random

from farcast.mesh.moves import Ask, Check, Cut, Fetch, Forget, Lack, Move, Refer, Send, Tell, Withdraw
from farcast.mesh.partner import Unit
from farcast.mesh.swarm import TICK_S, UNIT_BYTES, UPLINK, Swarm

RATE_BYTES_S = 12_500_000
WORD_S = 0.001
BUFFER_S = 0.05
"""How far a sender may be ahead of what a slow receiver takes."""
KERNEL_BYTES = 256 << 10
"""What a connection takes before the sender has to wait."""
CHECK_S = 0.002
UPLINK_S = 0.08


class Pauses:
    """When a box has a processor: both its turns and the times between them are random, and exponential."""

    def __init__(self, random: Random, turn_s: float, pause_s: float) -> None:
        """``turn_s`` and ``pause_s`` are the means."""
        self._random, self._turn_s, self._pause_s = random, turn_s, pause_s
        self._start = self._end = 0.0

    def next(self, now: float) -> float:
        """Return when it runs next: now, or at the end of its pause."""
        while now >= self._end:
            self._start = self._end + self._random.expovariate(1 / self._pause_s)
            self._end = self._start + self._random.expovariate(1 / self._turn_s)
        return max(now, self._start)


@dataclass(slots=True, eq=False)
class Wire:
    """One direction of the connection between two boxes; ``full`` where the sender waits for room."""

    units: deque[tuple[Unit, int]] = field(default_factory=deque[tuple[Unit, int]])
    queued_bytes: int = 0
    full: bool = False
    served_at: float = 0.0
    arrived_at: float = 0.0


class Node:
    """One box: its swarm, its link, and what it did."""

    def __init__(self, lan: Lan, key: bytes, held: Iterable[int], rate_bytes_s: float) -> None:
        self.lan, self.key, self.rate = lan, key, rate_bytes_s
        self.swarm = Swarm(key, lan.sizes, held)
        self.down_free = self.wan_free = 0.0
        self.wires: dict[bytes, Wire] = {}
        self.sending = False
        self.pauses: Pauses | None = None
        self.alive = True
        self.spoils: Callable[[Unit], bool] = lambda _: False
        self.mute = False
        self.spoiled: set[int] = set()
        self.sent_bytes = 0
        self.wan_bytes = 0
        self.wan = 0.0
        self.fetching: set[int] = set()
        self.done_at: float | None = 0.0 if not self.swarm.lacks else None
        self.arrivals: dict[int, float] = {}
        self.asks: Counter[Unit] = Counter()
        self.repeats: Counter[Unit] = Counter()
        self.cut: list[tuple[bytes, str]] = []
        self._ticking = False
        self._slept_s = 0.0

    @property
    def now(self) -> float:
        """The swarm's time: it stands still while the box waits for a processor."""
        return self.lan.now - self._slept_s

    def pump(self) -> None:
        """Carry out what the swarm decided."""
        if not self.swarm.lacks and self.done_at is None:
            self.done_at = self.lan.now
        moves = self.swarm.take()
        while moves:
            for move in moves:
                self._do(move)
            moves = self.swarm.take()
        if self.swarm.wake_at is not None and not self._ticking:
            self._ticking = True
            due_at = max(self.swarm.wake_at + self._slept_s, self.lan.now)
            self.lan.run_at(self, due_at, lambda: self._tick(due_at))

    def _tick(self, due_at: float) -> None:
        self._ticking = False
        self._slept_s += max(0.0, self.lan.now - due_at - TICK_S)
        if self.alive:
            self.swarm.tick(self.now)
            self.pump()

    def _do(self, move: Move) -> None:  # noqa: C901 - one case a move
        lan, now = self.lan, self.lan.now
        match move:
            case Ask(peer, block, parts, urgent, sake):
                self.asks.update(Unit(block, part) for part in parts)
                lan.word(
                    self,
                    peer,
                    lambda to: to.swarm.asked(self.key, block, parts, to.now, urgent=urgent, sake=sake),
                )
            case Refer(peer, block, given):
                lan.word(self, peer, lambda to: to.swarm.referred(self.key, block, given, to.now))
            case Withdraw(peer, block):
                self.fetching.discard(block) if peer == UPLINK else None
                lan.word(self, peer, lambda to: to.swarm.withdrawn(self.key, block, to.now))
            case Tell(peer, held, claimed, given_up):
                lan.word(self, peer, lambda to: to.swarm.heard(self.key, held, claimed, given_up, to.now))
            case Lack(peer, block):
                lan.word(self, peer, lambda to: to.swarm.lacking(self.key, block, to.now))
            case Send(peer, unit):
                if not self.mute:
                    lan.carry(self, peer, unit)
            case Fetch(block):
                size = lan.sizes[block]
                self.fetching.add(block)
                self.wan_free = max(self.wan_free, now) + size / self.wan
                lan.run_at(self, self.wan_free + UPLINK_S, lambda: self._fetched(block))
            case Check(block):
                lan.run_at(self, now + CHECK_S, lambda: self._checked(block))
            case Forget(block):
                self.spoiled.discard(block)
            case Cut(peer, reason):
                self.cut.append((peer, reason))
                lan.word(self, peer, lambda to: to.leave(self.key))

    def leave(self, key: bytes) -> None:
        """Hear that a connection ended."""
        self.swarm.left(key, self.now)

    def _fetched(self, block: int) -> None:
        if self.alive and block in self.fetching:
            self.fetching.discard(block)
            self.wan_bytes += self.lan.sizes[block]
            self._arrived_whole(block)
            self.swarm.fetched(block, self.now)
            self.pump()

    def _checked(self, block: int) -> None:
        if not self.alive:
            return
        if block in self.spoiled:
            self.spoiled.discard(block)
            self.swarm.broken(block, self.now)
        else:
            self._arrived_whole(block)
            self.swarm.verified(block, self.now)
        self.pump()

    def _arrived_whole(self, block: int) -> None:
        self.arrivals.setdefault(block, self.lan.now)

    def take(self, sender: Node, unit: Unit, *, bad: bool) -> None:
        """Take one unit off the link."""
        if self.swarm.arrived(sender.key, unit, self.now):
            if bad:
                self.spoiled.add(unit.block)
        else:
            self.repeats[unit] += 1
        self.pump()


class Lan:
    """Nodes, the words and units between them, and the clock."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(sizes)
        self.now = 0.0
        self.nodes: dict[bytes, Node] = {}
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._turn = count()

    @property
    def size_bytes(self) -> int:
        """Of the title."""
        return sum(self.sizes)

    def at(self, when: float, work: Callable[[], None]) -> None:
        """Do something at a time."""
        heapq.heappush(self._heap, (max(when, self.now), next(self._turn), work))

    def run_at(self, node: Node, when: float, work: Callable[[], None]) -> None:
        """Let a box do something at a time, or when it next has a processor."""

        def due() -> None:
            runs_at = node.pauses.next(self.now) if node.pauses is not None else self.now
            self.at(runs_at, work) if runs_at > self.now else work()

        self.at(when, due)

    def add(
        self,
        key: bytes,
        held: Iterable[int] = (),
        rate_bytes_s: float = RATE_BYTES_S,
        *,
        wan: float = 0.0,
        watches: bool = False,
    ) -> Node:
        """Put a box on the link, connected to all; ``wan`` is its uplink's rate in bytes a second, if any.

        One that ``watches`` wants what it says that it needs, and nothing else.
        """
        node = Node(self, key, held, rate_bytes_s)
        node.swarm.want(node.now, everything=not watches)
        for other in [one for one in self.nodes.values() if one.alive]:
            for one, its in ((node, other), (other, node)):
                marks = [block for block, mark in enumerate(its.swarm.held) if mark]
                one.swarm.joined(its.key, marks, one.now)
                one.swarm.heard(its.key, (), its.swarm.claims, (), one.now)
        self.nodes[key] = node
        node.wan = wan
        if wan:
            node.swarm.uplink(node.now, up=True)
        for each in self.nodes.values():
            each.pump()
        return node

    def kill(self, node: Node) -> None:
        """Let a box die, if it lives; the others hear it from their connections."""
        if not node.alive:
            return
        node.alive = False
        for other in self.nodes.values():
            if other.alive:
                other.leave(node.key)
                other.pump()

    def word(self, sender: Node, to: bytes, hear: Callable[[Node], None]) -> None:
        """Carry something small."""
        other = self.nodes.get(to)
        if other is None:
            return

        def arrive() -> None:
            if other.alive and sender.alive:
                hear(other)
                other.pump()

        wire = sender.wires.setdefault(to, Wire())
        busy = sum(bool(one.units) for one in sender.wires.values())
        behind_s = wire.queued_bytes * busy / sender.rate
        wire.arrived_at = max(self.now + WORD_S + behind_s, wire.arrived_at)
        self.run_at(other, wire.arrived_at, arrive)

    def carry(self, sender: Node, to: bytes, unit: Unit) -> None:
        """Carry a unit over both links."""
        size = min(UNIT_BYTES, self.sizes[unit.block] - unit.part * UNIT_BYTES)
        sender.sent_bytes += size
        wire = sender.wires.setdefault(to, Wire())
        wire.units.append((unit, size))
        wire.queued_bytes += size
        wire.full = True
        self._make_room(sender, to, 0)
        self._send(sender)

    def _make_room(self, sender: Node, to: bytes, size: int) -> None:
        wire = sender.wires[to]
        wire.queued_bytes -= size
        if wire.full and wire.queued_bytes <= KERNEL_BYTES:
            wire.full = False
            self.run_at(sender, self.now, lambda: self._sent(sender, to))

    def _sent(self, sender: Node, to: bytes) -> None:
        if sender.alive:
            sender.swarm.sent(to, sender.now)
            sender.pump()

    def _send(self, sender: Node) -> None:
        """Let the connection that waited longest have the link for a unit."""
        waiting = [(wire.served_at, to) for to, wire in sender.wires.items() if wire.units]
        if sender.sending or not waiting:
            return
        sender.sending = True
        _, to = min(waiting)
        wire, other = sender.wires[to], self.nodes[to]
        unit, size = wire.units.popleft()
        wire.served_at = self.now
        bad = sender.spoils(unit) or unit.block in sender.spoiled

        def landed() -> None:
            if other.alive and sender.alive:
                other.take(sender, unit, bad=bad)

        def left() -> None:
            sender.sending = False
            other.down_free = max(other.down_free, self.now) + size / other.rate
            wire.arrived_at = max(other.down_free + WORD_S, wire.arrived_at)
            self.run_at(other, wire.arrived_at, landed)
            self.at(other.down_free - BUFFER_S, lambda: self._make_room(sender, to, size))
            self._send(sender)

        self.at(self.now + size / sender.rate, left)

    def run(self, until: Callable[[], bool], limit_s: float) -> bool:
        """Let time pass until something holds; False where it does not within ``limit_s``."""
        end = self.now + limit_s
        while not until():
            if not self._heap or self._heap[0][0] > end:
                return False
            self.now, _, work = heapq.heappop(self._heap)
            work()
        return True

    def whole(self, *, wanted: Iterable[Node] | None = None) -> bool:
        """Whether all that live have everything."""
        nodes = self.nodes.values() if wanted is None else wanted
        return not any(node.swarm.lacks for node in nodes if node.alive)
