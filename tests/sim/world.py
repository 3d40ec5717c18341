"""A simulated world: virtual time on a heap, lossy links and failing tiers, all from one seed.

Every node drives the real cores: ladder, viewing session, pulse signer. Around them are the plainest
things that can go wrong: sources that hang or lie, links that lose and repeat, relays that die with
pulses in their spool. Nothing here reads a clock or an unseeded random source.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from random import Random

from farcast.node.ladder.flight import Cancel, GiveUp, Start, Switched
from farcast.node.ladder.ladder import Ladder
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.errors import RemoteError
from farcast.protocol.identity import Identity
from farcast.protocol.ports import Source, TierName
from farcast.protocol.pulse import PulseSigner, Viewing, check_pulse
from farcast.protocol.ticket import DAY_MS, Holder, Ticket, TicketOffice, open_ticket
from farcast.protocol.viewing import PlayerEvent, PulseDue, ViewingSession

EVENING_MS = 20_700 * DAY_MS + 19 * 3_600_000
HOME_NODES = 5
RELAYS = 4
SEGMENT_S = 4.0
BLOCK_BYTES = 400_000
AHEAD_S = 16.0
REPORT_S = 20.0
PULSE_S = 60.0
LINK_LOSS = 0.15
REQUEST_LOSS = 0.005
SPEED = {TierName.CDN: (0.04, 3e6), TierName.RELAY: (0.06, 2e6), TierName.MESH: (0.004, 1e7)}
"""Time to first byte in seconds and bytes a second."""
FAULTS = ("refuse", "hang", "stall", "corrupt", "trickle")
LIARS = {"relay0", *(f"node{number}" for number in range(0, 50, HOME_NODES))}
"""Only these ever send wrong bytes: three of those ban a source for a day, and the evening is longer."""
TICKET_KEY = Identity(b"\x21" * 32)
OFFICE = TicketOffice(TICKET_KEY, b"\x22" * 32)
PulseKey = tuple[bytes, int]


class World:
    """The heap, the random source, and the log that two runs of one seed must share."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._log = sha256()

    def after(self, delay: float, act: Callable[[], None]) -> None:
        """Do something later."""
        self._order += 1
        heapq.heappush(self._heap, (self.now + delay, self._order, act))

    def every(self, period: float, act: Callable[[], None]) -> None:
        """Do something again and again, the first time at a random moment."""

        def again() -> None:
            act()
            self.after(period, again)

        self.after(self.random.random() * period, again)

    def run(self, until: float) -> None:
        """Let the world run."""
        while self._heap and self._heap[0][0] <= until:
            self.now, _, act = heapq.heappop(self._heap)
            act()
        self.now = until

    def note(self, *facts: object) -> None:
        """Write facts into the log."""
        self._log.update(repr((round(self.now, 6), *facts)).encode())

    def digest(self) -> str:
        """Name everything that happened."""
        return self._log.hexdigest()

    def lost(self) -> bool:
        """Say whether one message on a link is lost."""
        return self.random.random() < LINK_LOSS


@dataclass
class Weather:
    """Which tiers fail how, changing every minute; until ``blackout`` CDN or relays are well."""

    world: World
    faults: dict[TierName, str] = field(default_factory=dict[TierName, str])
    offline_homes: set[int] = field(default_factory=set[int])
    until: float = 0.0
    blackout: float = float("inf")

    def change(self) -> None:
        """Draw the next weather, and say how long it lasts."""
        random = self.world.random
        if self.world.now >= self.until:
            self.faults, self.offline_homes = {}, set()
            self.world.note("calm")
            return
        if self.world.now >= self.blackout:
            self.faults = {tier: random.choice(FAULTS) for tier in SPEED}
            self.world.note("blackout", sorted(self.faults.items()))
            self.world.after(30, self.change)
            return
        sick = random.sample(list(SPEED), random.choice((0, 1, 1, 2)))
        if TierName.CDN in sick and TierName.RELAY in sick:
            sick.remove(random.choice((TierName.CDN, TierName.RELAY)))
        self.faults = {tier: random.choice(FAULTS) for tier in sick}
        self.offline_homes = {home for home in range(10) if random.random() < 0.3}
        self.world.note("weather", sorted(self.faults.items()), sorted(self.offline_homes))
        self.world.after(40 + random.random() * 60, self.change)


class Carrier:
    """Whoever holds pulses for the origin: a node, a neighbour, a relay; only an ack lets go of one."""

    def __init__(self) -> None:
        self.spool: dict[PulseKey, tuple[bytes, bytes]] = {}
        self.acked: set[PulseKey] = set()

    def take(self, pulses: dict[PulseKey, tuple[bytes, bytes]]) -> None:
        """Store what is not acked yet."""
        self.spool |= {key: value for key, value in pulses.items() if key not in self.acked}

    def settle(self, keys: set[PulseKey]) -> None:
        """Let go of what the origin has."""
        self.acked |= keys
        for key in keys & self.spool.keys():
            del self.spool[key]


class Origin:
    """Verifies, keeps each (ticket, number) once, and says what it has."""

    def __init__(self) -> None:
        self.pulses: dict[PulseKey, bytes] = {}
        self.deltas: dict[bytes, dict[int, int]] = {}
        self.duplicates = 0
        self._tickets: dict[bytes, Ticket] = {}

    def take(self, pulses: dict[PulseKey, tuple[bytes, bytes]]) -> set[PulseKey]:
        """Store a batch and return what is acked."""
        for (tid, seq), (pulse, ticket) in pulses.items():
            if (tid, seq) in self.pulses:
                self.duplicates += 1
                assert self.pulses[tid, seq] == pulse, "two bodies under one number"
                continue
            if tid not in self._tickets:
                self._tickets[tid], _ = open_ticket(ticket, [TICKET_KEY.key])
            body = check_pulse(pulse, self._tickets[tid])
            assert (body.tid, body.seq) == (tid, seq)
            self.pulses[tid, seq] = pulse
            self.deltas.setdefault(tid, {})[seq] = body.delta_ms
        return set(pulses)


class Node(Carrier):
    """A viewer's box: real ladder, viewing session and signer, and a player with a buffer."""

    def __init__(self, world: World, weather: Weather, number: int, film: list[Cid]) -> None:
        super().__init__()
        self.world, self.weather, self.number, self.film = world, weather, number, film
        self.home = number // HOME_NODES
        self.ladder = Ladder()
        self.held: set[Cid] = set()
        self.pushed: set[Cid] = set()
        self.neighbours: list[Node] = []
        session = Identity(sha256(b"session %d" % number).digest())
        tid = sha256(b"tid %d" % number).digest()[:16]
        grant = OFFICE.issue(tid, EVENING_MS // DAY_MS, session.key, Holder(tid, 0))
        self.signer = PulseSigner(grant.ticket, grant.key, session)
        self.viewing = ViewingSession("film", interval_s=PULSE_S)
        self.next = 0
        self.asked_at = 0.0
        self.position_s = 0.0
        self.state = "s"
        self.moved_at = 0.0
        self.played_s = 0.0
        self.stall_s = 0.0
        self.worst_s = 0.0
        self.given_up = 0
        self.rejected = 0
        self.switches: list[Switched] = []
        self.by_tier = dict.fromkeys(TierName, 0)
        self.sn = 0
        self._flights: dict[int, Start] = {}
        self._wake_token = 0
        self._own = [
            Source(TierName.CDN, "cdn", "https://cdn.example"),
            *(Source(TierName.RELAY, f"relay{n}", f"relay{n}:1", bytes([n]) * 32) for n in range(RELAYS)),
        ]

    # -- the player

    def begin(self) -> None:
        """Press play."""
        for tier in (TierName.CDN, TierName.RELAY):
            own = [source for source in self._own if source.tier is tier]
            self.ladder.set_sources(tier, own, self.world.now, watched=True)
        mesh = [
            Source(TierName.MESH, f"node{one.number}", f"node{one.number}:1", b"%032d" % one.number)
            for one in self.neighbours
        ]
        self.ladder.set_sources(TierName.MESH, mesh, self.world.now, watched=True)
        self.moved_at = self.world.now
        self._report("s")
        self._ask()
        self.world.every(REPORT_S, lambda: self._report(""))
        self.world.every(1.0, self._tick)

    @property
    def buffer_s(self) -> float:
        """How much is loaded beyond the playhead."""
        self._move()
        return self.next * SEGMENT_S - self.position_s

    def _move(self) -> None:
        passed = self.world.now - self.moved_at
        self.moved_at = self.world.now
        if self.state != "p":
            return
        played = min(passed, self.next * SEGMENT_S - self.position_s)
        self.position_s += played
        self.played_s += played
        if self.next < len(self.film):
            self.stall_s += passed - played

    def _report(self, state: str) -> None:
        self._move()
        if self.state == "e":
            return
        self.state = state or self.state
        self.sn += 1
        position = int(self.position_s * 1000)
        event = PlayerEvent(state, 1.0, position, self.sn, int(self.world.now * 1000))
        self.viewing.receive(event, self.world.now)
        self._sign()

    def _tick(self) -> None:
        if self.state == "p" and self.next == len(self.film) and self.buffer_s <= 0:
            self._report("e")
        self.viewing.tick(self.world.now)
        self._sign()

    def _sign(self) -> None:
        for due in self.viewing.take():
            self._pulse(due)

    def _pulse(self, due: PulseDue) -> None:
        manifest = sha256(due.content.encode()).digest()
        viewing = Viewing(due.state, manifest, due.position_ms, 0, [], bytes(16))
        pulse = self.signer.sign(EVENING_MS + int(due.at * 1000), due.delta_ms, 0, viewing)
        key = (self.signer.body.tid, self.signer.seq)
        self.take({key: (pulse, self.signer.ticket)})

    # -- one block after the other

    def _ask(self) -> None:
        if self.next == len(self.film):
            return
        ahead = self.buffer_s
        if ahead > AHEAD_S - SEGMENT_S:
            self.world.after(ahead - AHEAD_S + SEGMENT_S + 0.001, self._ask)
            return
        self.asked_at = self.world.now
        if self.film[self.next] in self.pushed:
            self.ladder.found(TierName.SATELLITE)
            self._served(TierName.SATELLITE)
            return
        buffer_s = ahead if self.state == "p" else None
        self.ladder.want(
            self.film[self.next], self.world.now, title="film", size_bytes=BLOCK_BYTES, buffer_s=buffer_s
        )
        self._carry_out()

    def push(self, cid: Cid) -> None:
        """Receive a block from the carousel."""
        self.pushed.add(cid)
        waiting = (
            self.next < len(self.film) and self.film[self.next] == cid and self.ladder.wake_at is not None
        )
        if waiting:
            self.ladder.pushed(cid, TierName.SATELLITE, BLOCK_BYTES, self.world.now)
            self._served(TierName.SATELLITE)
            self._carry_out()

    def _served(self, tier: TierName) -> None:
        cid = self.film[self.next]
        self.held.add(cid)
        self.by_tier[tier] += 1
        took_s = self.world.now - self.asked_at
        self.worst_s = max(self.worst_s, took_s)
        self.world.note(self.number, "served", self.next, tier.label, round(took_s, 6))
        self._move()
        start_ms = int(self.next * SEGMENT_S * 1000)
        self.viewing.delivered("video", start_ms, int(SEGMENT_S * 1000), self.world.now)
        self.next += 1
        if self.state == "s" and self.next >= 2:
            self._report("p")
        self._ask()

    def _carry_out(self) -> None:
        for effect in self.ladder.take():
            match effect:
                case Start():
                    self._flights[effect.flight] = effect
                    self._fly(effect)
                case Cancel():
                    self._flights.pop(effect.flight, None)
                case Switched():
                    self.switches.append(effect)
                    self.world.note(self.number, effect.before.label, effect.after.label, effect.cause)
                case GiveUp():
                    self.given_up += 1
        wake_at = self.ladder.wake_at
        if wake_at is not None:
            self._wake_token += 1
            token = self._wake_token
            self.world.after(max(wake_at - self.world.now, 0.0), lambda: self._wake(token))

    def _wake(self, token: int) -> None:
        if token == self._wake_token:
            self.ladder.tick(self.world.now)
            self._carry_out()

    def _fly(self, start: Start) -> None:
        world, tier = self.world, start.source.tier
        fault = self.weather.faults.get(tier, "")
        if not fault and world.random.random() < REQUEST_LOSS:
            fault = "hang"
        if fault == "corrupt" and start.source.name not in LIARS:
            fault = ""
        ttfb, rate = SPEED[tier]
        ttfb *= 0.7 + 0.6 * world.random.random()
        whole = ttfb + BLOCK_BYTES / rate
        if tier is TierName.MESH and not fault:
            fault = "" if self._neighbour_has(start) else "missing"
        if fault == "refuse":
            world.after(0.01, lambda: self._fail(start, "unreachable", 0))
        elif fault == "missing":
            world.after(ttfb, lambda: self._fail(start, "refused", 404))
        elif fault == "trickle":
            for step in range(30):
                world.after(ttfb + step * 0.1, partial(self._progress, start, (step + 1) * 1_000))
        elif fault != "hang":
            self._deliver(start, ttfb, whole, 3 if fault == "stall" else 4)
            if fault != "stall":
                world.after(whole, lambda: self._finish(start, wrong=fault == "corrupt"))

    def _deliver(self, start: Start, ttfb: float, whole: float, quarters: int) -> None:
        """Let the bytes of a block come, all but its last."""
        self.world.after(ttfb, lambda: self._progress(start, 16_000))
        for quarter in range(1, quarters):
            at = ttfb + (whole - ttfb) * quarter / 4
            self.world.after(at, partial(self._progress, start, BLOCK_BYTES * quarter // 4))

    def _neighbour_has(self, start: Start) -> bool:
        return any(
            start.source.name == f"node{one.number}" and start.cid in one.held for one in self.neighbours
        )

    def _progress(self, start: Start, total: int) -> None:
        if start.flight in self._flights and self.ladder.progressed(start.flight, total, self.world.now):
            self._carry_out()

    def _fail(self, start: Start, reason: str, status: int) -> None:
        if self._flights.pop(start.flight, None):
            self.ladder.failed(start.flight, reason, self.world.now, status=status)
            self._carry_out()

    def _finish(self, start: Start, *, wrong: bool) -> None:
        if not self._flights.pop(start.flight, None):
            return
        if wrong:
            self.rejected += 1
            self.ladder.corrupt(start.flight, self.world.now)
        elif self.ladder.received(start.flight, BLOCK_BYTES, self.world.now):
            self._served(start.source.tier)
        self._carry_out()


class Evening:
    """Fifty nodes in ten homes, four relays, an origin, and the way of the pulses between them."""

    def __init__(
        self, seed: int, *, nodes: int = 50, segments: int = 300, blackout: float = float("inf")
    ) -> None:
        """Make an evening; from ``blackout`` on only the satellite is left, whose carousel began at once."""
        self.world = world = World(seed)
        self.film = [Cid.of(RAW, b"segment %d" % number) for number in range(segments)]
        self.length_s = segments * SEGMENT_S
        self.weather = Weather(world, until=self.length_s + 60, blackout=blackout)
        self.nodes = [Node(world, self.weather, n, self.film) for n in range(nodes)]
        self.relays = [Carrier() for _ in range(RELAYS)]
        self.origin = Origin()
        for node in self.nodes:
            node.neighbours = [one for one in self.nodes if one.home == node.home and one is not node]
            world.after(world.random.random() * 30, node.begin)
            world.every(20, partial(self._post, node))
            world.every(15, partial(self._gossip, node))
        for relay in self.relays:
            world.every(30, partial(self._batch, relay))
        world.after(10, self.weather.change)
        if blackout < self.length_s:
            for number, cid in enumerate(self.film):
                world.after(number * SEGMENT_S * 0.8, partial(self._broadcast, cid))

    def run(self) -> None:
        """Play to the end, and give the last pulses time to come home."""
        self.world.run(self.length_s + 60)
        self.world.run(self.length_s + 60 + 900)

    def _broadcast(self, cid: Cid) -> None:
        for node in self.nodes:
            node.push(cid)

    def _relays_up(self) -> bool:
        return TierName.RELAY not in self.weather.faults

    def _post(self, node: Node) -> None:
        """A node with an uplink hands its spool to a relay; a lost receipt makes it do so again."""
        if node.home in self.weather.offline_homes or not self._relays_up():
            return
        relay = self.world.random.choice(self.relays)
        if self.world.lost():
            return
        relay.take(dict(node.spool))
        if not self.world.lost():
            node.settle(relay.acked)

    def _gossip(self, node: Node) -> None:
        """Neighbours carry for each other, and bring the acks back."""
        if not node.neighbours or TierName.MESH in self.weather.faults:
            return
        other = self.world.random.choice(node.neighbours)
        for one, two in ((node, other), (other, node)):
            if not self.world.lost():
                two.take(dict(one.spool))
            if not self.world.lost():
                two.settle(one.acked)

    def _batch(self, relay: Carrier) -> None:
        """A relay that is up sends what it holds; what is lost on the way goes again next time."""
        if not relay.spool or not self._relays_up() or self.world.lost():
            return
        before = len(self.origin.pulses)
        acked = self.origin.take(dict(relay.spool))
        self.world.note("origin", len(self.origin.pulses) - before, len(acked))
        if not self.world.lost():
            relay.settle(acked)


def forged(node: Node) -> dict[PulseKey, tuple[bytes, bytes]]:
    """Return a pulse of ``node`` with one bit turned over, as a bad carrier would pass it on."""
    (key, (pulse, ticket)) = next(iter(node.spool.items()))
    return {key: (pulse[:-1] + bytes([pulse[-1] ^ 1]), ticket)}


def refused(origin: Origin, pulses: dict[PulseKey, tuple[bytes, bytes]]) -> bool:
    """Say whether the origin refuses a batch."""
    try:
        origin.take(pulses)
    except RemoteError:
        return True
    return False
