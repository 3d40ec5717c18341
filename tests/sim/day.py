"""A simulated day: a thousand nodes, their homes and relays, in steps of a minute of virtual time.

Real: the viewing sessions that make pulses due, the signer, the batcher, the mesh's carry with its
digests, the origin's admission, evidence and credit. Simulated: who watches when, spools without a
disk, and everything that goes wrong between them. Signatures and boxes count, one in a hundred is real.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random
from typing import Any, NamedTuple, cast

from prometheus_client import CollectorRegistry

from farcast.mesh.carry import Carrier
from farcast.mesh.neighbours import Neighbour
from farcast.node.pulses.batcher import Batcher
from farcast.origin.pulses.admission import Verify
from farcast.protocol.batch import SealRecord
from farcast.protocol.digest import Numbers, missing
from farcast.protocol.identity import Identity
from farcast.protocol.manifest import Manifest, Payee, Window
from farcast.protocol.ports import SpooledPulse
from farcast.protocol.presence import NO_WAY
from farcast.protocol.pulse import NO_WITNESS, Viewing
from farcast.protocol.ticket import DAY_MS, Holder
from farcast.protocol.viewing import PlayerEvent, PulseDue, ViewingSession
from farcast.tests.sim.counting import CountingIdentity, CountingOffice, CountingSigner
from farcast.tests.sim.spools import Shelf, Spool
from farcast.tests.sim.till import Till

TODAY = 20_700
MIDNIGHT_MS = TODAY * DAY_MS
DAY_MIN, DRAIN_MIN = 1_440, 180
MINUTE_S, MINUTE_MS = 60.0, 60_000
HOME_NODES = 5
RELAYS = 4
LOST, ANSWER_LOST, SHUFFLED = 0.06, 0.06, 0.1
"""Of the posts on any link: those that never come, those whose answer never comes, those out of order."""
AGAIN_MIN = 60
"""A carrier that promised and brought no ack for an hour is asked again."""
ACKS_EVERY_MIN = 5
GOSSIP_EVERY_MIN = 5
POST_PULSES = 200
TICKET_ROOM = 4_000
FILM = sha256(b"the film of the day").digest()
MANIFEST = Manifest(
    1, "film", 1, FILM, "Film", "", "en", DAY_MS, b"", 10**12, [], [], Window(0, 0), [],
    [Payee("ada", 10_000)], "open", None, 0, b"",
)  # fmt: skip


class Plan(NamedTuple):
    """How many nodes there are and what goes wrong: minutes of the day as ranges."""

    nodes: int
    seed: int
    origin_away: range = range(1_080, 1_200)
    relay_deaths: int = 2
    verify: Verify = "chained"


class Sitting(NamedTuple):
    """One person before one film: when it begins, how long each part plays, the pause between."""

    begins_min: int
    first_min: int
    pause_min: int
    second_min: int


Diary = defaultdict[int, list[tuple["Node", SpooledPulse]]]
"""By minute of the day, what is signed in it and by whom."""


class Node:
    """A viewer's box: a player, its session, the day's signer, and a spool for its own and others' pulses."""

    def __init__(self, office: CountingOffice, number: int, random: Random, diary: Diary) -> None:
        name = sha256(b"node %d" % number).digest()
        session = CountingIdentity(name)
        grant = office.issue(name[:16], TODAY, session.key, Holder(name[16:], 0))
        self.number = number
        self.key = session.key
        self.tid = name[:16]
        self.signer = CountingSigner(grant.ticket, grant.key, session)
        self.offset_s = random.randrange(60)
        self.clock_off_ms = random.randint(-55_000, 55_000) if number % 4 == 0 else 0
        self.spool = Spool()
        self.carrier = Carrier()
        self.handed: dict[tuple[bytes, int], int] = {}
        self.waiting: list[SpooledPulse] = []
        """What nobody has promised to carry yet."""
        self._diary = diary
        self.away: range = range(0)
        self.walks_min = DAY_MIN
        self.played_ms = 0
        self.signed = 0

    def online(self, minute: int) -> bool:
        """Say whether this box reaches the WAN; one of a home that does not leaves it after a while."""
        return minute not in self.away or minute >= self.walks_min

    def keep(self, items: list[SpooledPulse]) -> None:
        """Store own or foreign pulses on their way home."""
        self.waiting += self.spool.add(items)

    def pulse(self, due: PulseDue, minute: int) -> None:
        """Sign a due pulse under the day's ticket; it is kept when its minute comes."""
        at_ms = MIDNIGHT_MS + int(due.at * 1_000)
        viewing = Viewing(due.state, FILM, due.position_ms, 0, [], NO_WITNESS)
        data = self.signer.sign(at_ms + self.clock_off_ms, due.delta_ms, 0, viewing)
        self.signed += 1
        item = SpooledPulse(self.tid, self.signer.seq, data, self.signer.ticket, at_ms, True)
        self._diary[minute].append((self, item))

    def again(self, minute: int) -> None:
        """Take up again what was promised an hour ago and has no ack."""
        late = [key for key, when in self.handed.items() if minute - when >= AGAIN_MIN]
        for tid, seq in late:
            del self.handed[tid, seq]
            item = self.spool.held.get(tid, {}).get(seq)
            if item is not None:
                self.waiting.append(item)


def play(node: Node, sitting: Sitting) -> None:
    """Let one person watch the film to its end, telling the real viewing session what a player would.

    No player waits for the way home, so a node's day is played at once.
    """
    session = ViewingSession("film")
    resumes = sitting.first_min + sitting.pause_min
    ends = resumes + sitting.second_min
    session.delivered("video", 0, DAY_MS, sitting.begins_min * MINUTE_S + node.offset_s)
    position_ms = 0
    for passed in range(ends + 1):
        minute = sitting.begins_min + passed
        now = minute * MINUTE_S + node.offset_s
        if 0 < passed <= sitting.first_min or passed > resumes:
            position_ms += MINUTE_MS
            node.played_ms += MINUTE_MS
        state = "p" if passed == 0 else ""
        if passed == sitting.first_min and sitting.pause_min:
            state = "a"
        elif passed == resumes and sitting.pause_min:
            state = "p"
        if passed == ends:
            state = "e"
        session.receive(PlayerEvent(state, 1.0, position_ms, passed + 1, int(now * 1_000)), now)
        if passed == ends:
            session.close(now)
        for due in session.take():
            node.pulse(due, minute)


class Relay:
    """A relay: takes what nodes bring, batches it, keeps each batch until the origin's ack."""

    def __init__(self, number: int, clock_ms: Callable[[], int]) -> None:
        identity = CountingIdentity(sha256(b"relay %d" % number).digest())
        self.spool = Spool()
        self.shelf = Shelf()
        self.down: range = range(0)
        nothing: Any = None
        self.batcher = Batcher(
            cast(Any, self.shelf), identity, nothing, list, nothing, clock_ms, CollectorRegistry()
        )

    def take(self, items: list[SpooledPulse], now_ms: int) -> None:
        """Store a post and stamp what is new; the answer is a promise."""
        new = self.spool.add(items)
        self.shelf.fresh += [
            SpooledPulse(tid, seq, pulse, ticket, now_ms, False) for tid, seq, pulse, ticket, _, _ in new
        ]

    def die(self) -> None:
        """Lose the disk and come back empty."""
        self.spool.lose()
        self.shelf.fresh.clear()
        self.shelf.open.clear()


@dataclass
class Day:
    """The day itself; ``run`` plays it and leaves what came of it here."""

    plan: Plan
    now_min: int = 0
    nodes: list[Node] = field(default_factory=list[Node])
    relays: list[Relay] = field(default_factory=list[Relay])
    busy: dict[int, Node] = field(default_factory=dict[int, Node])
    """The nodes that hold anything, by number."""

    def __post_init__(self) -> None:
        """Draw who watches when and what goes wrong, and let everybody watch."""
        self.random = Random(self.plan.seed)
        signer = Identity(sha256(b"ticket key").digest())
        office = CountingOffice(signer, sha256(b"ticket secret").digest())
        self.till = Till(office, signer.key, self.plan.verify)
        self._diary = Diary(list)
        self.nodes = [Node(office, number, self.random, self._diary) for number in range(self.plan.nodes)]
        self.relays = [Relay(number, self._now_ms) for number in range(RELAYS)]
        for node in self.nodes:
            for sitting in _habits(self.random):
                play(node, sitting)
        for home in range(0, len(self.nodes), HOME_NODES):
            self._partition(self.nodes[home : home + HOME_NODES])
        for relay in self.relays[: self.plan.relay_deaths]:
            dies = self.random.randrange(600, 1_300)
            relay.down = range(dies, dies + 90)

    def run(self) -> None:
        """Play the day, and three quiet hours after it."""
        busy = self.busy
        for minute in range(DAY_MIN + DRAIN_MIN):
            self.now_min = minute
            for node, item in self._diary.pop(minute, ()):
                node.keep([item])
                busy[node.number] = node
            routes = [self._route(start, minute) for start in range(RELAYS)]
            for node in list(busy.values()):
                self._errand(node, routes[node.number % RELAYS], minute)
                if not node.spool.count:
                    del busy[node.number]
            for relay in self.relays:
                self._deliver(relay, minute)

    def seal(self) -> dict[bytes, list[SealRecord]]:
        """Close the day's sessions at the origin."""
        return self.till.seal(self._now_ms(), [node.tid for node in self.nodes])

    def _partition(self, home: list[Node]) -> None:
        """Cut a sixth of the homes off for hours; in most of them somebody leaves with the pulses."""
        if self.random.random() > 1 / 6:
            return
        begins = self.random.randrange(300, 1_300)
        away = range(begins, min(begins + self.random.randrange(60, 420), DAY_MIN))
        for node in home:
            node.away = away
        if self.random.random() < 0.7:
            self.random.choice(home).walks_min = away.start + len(away) // 2

    def _now_ms(self) -> int:
        return MIDNIGHT_MS + (self.now_min + 1) * MINUTE_MS

    # -- on the way

    def _errand(self, node: Node, relay: Relay | None, minute: int) -> None:
        if node.handed and minute % AGAIN_MIN == node.number % AGAIN_MIN:
            node.again(minute)
        if not node.online(minute):
            if minute % GOSSIP_EVERY_MIN == 0 or minute + 1 == node.walks_min:
                self._gossip(node, minute)
            return
        if relay is None:
            return
        if node.waiting:
            self._post(node, relay, minute)
        if (minute + node.number) % ACKS_EVERY_MIN == 0 and self.random.random() > LOST:
            for tid in list(node.spool.held):
                ack = relay.spool.acks.get(tid)
                if ack is not None:
                    node.spool.settle(ack)

    def _route(self, start: int, minute: int) -> Relay | None:
        """Return the first relay that is up, from number ``start`` on."""
        for turn in range(RELAYS):
            relay = self.relays[(start + turn) % RELAYS]
            if minute not in relay.down:
                return relay
        return None

    def _post(self, node: Node, relay: Relay, minute: int) -> None:
        """Hand over what waits; a promise that is lost on the way makes the same post come again."""
        load = node.waiting[:POST_PULSES]
        chance = self.random.random()
        if chance < LOST:
            return
        sent = self.random.sample(load, len(load)) if self.random.random() < SHUFFLED else load
        relay.take(sent, self._now_ms())
        if chance < LOST + ANSWER_LOST:
            return
        del node.waiting[: len(load)]
        for item in load:
            node.handed[item.tid, item.seq] = minute

    def _gossip(self, node: Node, minute: int) -> None:
        """Tell neighbours what is carried here, and hand over what they lack."""
        start = node.number - node.number % HOME_NODES
        home = [one for one in self.nodes[start : start + HOME_NODES] if one is not node]
        around = [
            Neighbour(one.key, "192.0.2.1", 1, NO_WAY, float("inf")) for one in home if not one.online(minute)
        ]
        by_key = {one.key: one for one in home}
        now = minute * MINUTE_S
        waiting = {tid: Numbers(sorted(seqs), []) for tid, seqs in node.spool.held.items()}
        for neighbour in node.carrier.choose(around, NO_WAY, now).neighbours:
            other = by_key[neighbour.key]
            offered = node.carrier.offer(other.key, waiting, now)
            if self.random.random() < LOST:
                node.carrier.failed(other.key, offered, now)
                continue
            lacking = [
                wish
                for item in offered
                if (wish := missing(item, dict.fromkeys(other.spool.held.get(item.tid, ()), 1), TICKET_ROOM))
            ]
            wanted = node.carrier.wanted(other.key, offered, lacking)
            if wanted:
                other.keep([_carried(node.spool.held[tid][seq]) for tid, seq in wanted])
                self.busy[other.number] = other

    def _deliver(self, relay: Relay, minute: int) -> None:
        """Let a relay bring its batches home; an ack that is lost makes the same batch come again."""
        if relay.down and minute == relay.down.start:
            relay.die()
        if minute in relay.down:
            return
        relay.batcher.close()
        if minute in self.plan.origin_away:
            return
        for number, data in list(relay.shelf.open.items()):
            if self.random.random() < LOST:
                continue
            acks = self.till.take(data, self._now_ms())
            if self.random.random() < ANSWER_LOST:
                continue
            del relay.shelf.open[number]
            for ack in acks:
                relay.spool.settle(ack)


def _carried(item: SpooledPulse) -> SpooledPulse:
    return SpooledPulse(item.tid, item.seq, item.pulse, item.ticket, item.seen_ms, False)


def _habits(random: Random) -> list[Sitting]:
    """Draw a person's day: most watch once or twice, near three hours in all, some through the night."""
    sittings: list[Sitting] = []
    begins = random.randrange(420, 1_080)
    for _ in range(random.choice((1, 1, 2, 2, 3))):
        first, second = random.randrange(20, 100), random.randrange(0, 70)
        pause = random.choice((0, 0, 2, 12)) if second else 0
        length = first + pause + second
        if begins + length >= DAY_MIN - 2:
            break
        sittings.append(Sitting(begins, first, pause, second))
        begins += length + random.randrange(10, 180)
    return sittings
