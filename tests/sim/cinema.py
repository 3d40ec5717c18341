"""A simulated living room: the real ladder and pacing, and a player that watches one film.

The player is what players are: two tracks of two-second segments, picture of 0.3 to 1.5 MB in blocks of
at most 1 MiB and sound of one small block, each track fetched one segment after the other, eight seconds
ahead where it tells of itself (CMCD), as far as it is let where it does not. Between it and the ladder is
what a gateway does: the first block of a segment is waited for, the next are prefetched meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from farcast.node.ladder.flight import Cancel, GiveUp, Start, Switched
from farcast.node.ladder.ladder import Ladder
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.ports import Cost, Source, TierName
from farcast.protocol.viewing import LEAD_MS, ViewingSession
from farcast.tests.sim.edges import Edge, Transfer
from farcast.tests.sim.world import World

SEGMENT_S = 2.0
AHEAD_S = 8.0
BLOCK_BYTES = 1 << 20
PREFETCHES = 2
RETRY_S = 1.0
TITLE = "film"


@dataclass
class Request:
    """One block that the player waited for."""

    asked_at: float
    size_bytes: int
    served_at: float = float("inf")
    tier: TierName | None = None


@dataclass
class Ticket:
    """One flight, for the accounts."""

    start: Start
    begun_at: float
    ended_at: float = float("inf")
    won: bool = False
    transfer: Transfer | None = None
    heard_bytes: int = 0
    doubled_bytes: int = 0
    failed: bool = False

    @property
    def bytes(self) -> int:
        """What it brought."""
        return self.transfer.bytes if self.transfer else 0


@dataclass
class Track:
    """One track of the film as far as the player has it."""

    name: str
    segments: list[list[tuple[Cid, int]]]
    next: int = 0
    fetching: bool = False

    @property
    def loaded_s(self) -> float:
        """Where what is loaded ends."""
        return self.next * SEGMENT_S

    @property
    def done(self) -> bool:
        """Whether all of it is here."""
        return self.next == len(self.segments)


class Cinema:
    """One player over one ladder over some edges; read what happened when ``run`` returns."""

    def __init__(
        self,
        world: World,
        edges: Sequence[Edge],
        *,
        segments: int,
        costs: Mapping[TierName, Cost] | None = None,
        tells: bool = True,
        unseen: frozenset[TierName] = frozenset(),
        held_segments: int = 2,
    ) -> None:
        """Begin with ``held_segments`` in the player's buffer, its own reports (``tells``) or none.

        Nobody sees the bytes of the ``unseen`` tiers before a block is whole.
        """
        self.world = world
        self.ladder = Ladder()
        self.edges = {edge.source: edge for edge in edges}
        self.costs = dict(costs or {})
        self.unseen = unseen
        self.requests: list[Request] = []
        self.tickets: list[Ticket] = []
        self.switches: list[tuple[float, Switched]] = []
        self.refusals: dict[tuple[Cid, Source], float] = {}
        self.lies: Counter[Source] = Counter()
        self.lied: set[tuple[Cid, Source]] = set()
        self.broken: list[str] = []
        self.stall_s = 0.0
        self.given_up = 0
        self.position_s = 0.0
        self.most_ahead_s = 0.0
        self._tells = tells
        self._viewing = ViewingSession(TITLE)
        self._moved_at = 0.0
        self._tracks = [self._film("video", segments), self._film("audio", segments)]
        for track in self._tracks:
            track.next = held_segments
        blocks = [(track, block) for track in self._tracks for segment in track.segments for block in segment]
        self._sizes = {cid: size for _, (cid, size) in blocks}
        self._track_of = {cid: track for track, (cid, _) in blocks}
        self._held: dict[Cid, TierName] = {}
        self._asked: dict[Cid, Request] = {}
        self._then: dict[Cid, Callable[[], None]] = {}
        self._prefetching: set[Cid] = set()
        self._flights: dict[int, Ticket] = {}
        self._token = 0

    def _film(self, name: str, segments: int) -> Track:
        random = self.world.random
        made: list[list[tuple[Cid, int]]] = []
        for number in range(segments):
            size = random.randint(300_000, 1_500_000) if name == "video" else random.randint(24_000, 48_000)
            sizes = [BLOCK_BYTES] * (size // BLOCK_BYTES) + [size % BLOCK_BYTES or 1]
            made.append([(Cid.of(RAW, f"{name} {number} {n}".encode()), one) for n, one in enumerate(sizes)])
        return Track(name, made)

    # -- what happened

    @property
    def finished(self) -> bool:
        """Whether the film was played to its end."""
        return all(track.done for track in self._tracks) and self.position_s >= self._tracks[0].loaded_s

    @property
    def delivered_bytes(self) -> int:
        """How many bytes were served for the player."""
        return sum(one.size_bytes for one in self.requests if one.tier is not None)

    def doubled_bytes(self) -> int:
        """Count what came more than once: all that came while several delivered, but for the most of one.

        What comes of a flight alone, or of one that fails by itself, would be lost as well without hedging.
        """
        by_cid: dict[Cid, list[int]] = {}
        for one in self.tickets:
            if not one.failed:
                by_cid.setdefault(one.start.cid, []).append(one.doubled_bytes)
        return sum(sum(doubled) - max(doubled) for doubled in by_cid.values())

    # -- the player

    def run(self, until: float) -> None:
        """Play."""
        for tier in TierName:
            sources = [source for source in self.edges if source.tier is tier]
            cost = self.costs.get(tier, Cost.FREE)
            watched = tier not in self.unseen
            self.ladder.set_sources(tier, sources, self.world.now, watched=watched, cost=cost)
        self.world.after(0.0, self._look)
        self.world.run(until)
        self._move()

    def _look(self) -> None:
        self._move()
        for track in self._tracks:
            if not track.fetching and not track.done and self._may(track):
                track.fetching = True
                self._segment(track, 0)
        if not self.finished:
            self.world.after(0.05, self._look)

    def _may(self, track: Track) -> bool:
        if self._tells:
            return track.loaded_s - self.position_s <= AHEAD_S - SEGMENT_S
        return self._viewing.lead_ms(track.name, self.world.now) <= LEAD_MS

    def _move(self) -> None:
        passed, self._moved_at = self.world.now - self._moved_at, self.world.now
        loaded_s = min(track.loaded_s for track in self._tracks)
        played = min(passed, loaded_s - self.position_s)
        self.position_s += played
        if not all(track.done for track in self._tracks):
            self.stall_s += passed - played

    def _segment(self, track: Track, part: int) -> None:
        """Ask for one block of the segment after the other, and prefetch the rest of it."""
        blocks = track.segments[track.next]
        cid, size = blocks[part]
        for later, later_size in blocks[part + 1 :]:
            self._prefetch(later, later_size)
        then = partial(self._got, track, part)
        request = Request(self.world.now, size)
        self.requests.append(request)
        if cid in self._held:
            request.served_at, request.tier = self.world.now, self._held[cid]
            then()
            return
        self._asked[cid], self._then[cid] = request, then
        self._want(cid, size, track)

    def _want(self, cid: Cid, size: int, track: Track) -> None:
        self._move()
        buffer_s = track.loaded_s - self.position_s if self._tells else None
        self.ladder.want(cid, self.world.now, title=TITLE, size_bytes=size, buffer_s=buffer_s)
        self._carry_out()

    def _prefetch(self, cid: Cid, size: int) -> None:
        if cid not in self._held and cid not in self._prefetching and len(self._prefetching) < PREFETCHES:
            self._prefetching.add(cid)
            self.ladder.want(cid, self.world.now, title=TITLE, size_bytes=size, urgent=False)
            self._carry_out()

    def _got(self, track: Track, part: int) -> None:
        self._move()
        if part + 1 < len(track.segments[track.next]):
            self._segment(track, part + 1)
            return
        start_ms = int(track.loaded_s * 1000)
        self._viewing.delivered(track.name, start_ms, int(SEGMENT_S * 1000), self.world.now)
        track.next += 1
        self.most_ahead_s = max(self.most_ahead_s, track.loaded_s - self.position_s)
        track.fetching = False

    # -- the shell

    def _carry_out(self) -> None:
        for effect in self.ladder.take():
            match effect:
                case Start():
                    self._start(effect)
                case Cancel():
                    ticket = self._flights.pop(effect.flight)
                    ticket.ended_at = self.world.now
                    assert ticket.transfer is not None
                    ticket.transfer.cancel()
                case Switched():
                    self.switches.append((self.world.now, effect))
                case GiveUp():
                    self._gave_up(effect.cid)
        wake_at = self.ladder.wake_at
        if wake_at is not None:
            self._token += 1
            self.world.after(max(wake_at - self.world.now, 0.0), partial(self._wake, self._token))

    def _wake(self, token: int) -> None:
        if token == self._token:
            self.ladder.tick(self.world.now)
            self._carry_out()

    def _start(self, start: Start) -> None:
        now, source = self.world.now, start.source
        if now < self.refusals.get((start.cid, source), 0.0):
            self.broken.append(f"{now:.3f} {source.name} was asked again for a block it refused")
        if (start.cid, source) in self.lied or self.lies[source] >= 3:
            self.broken.append(f"{now:.3f} {source.name} was asked again after wrong bytes")
        cost = self.costs.get(source.tier, Cost.FREE)
        others = [one for one in self._flights.values() if one.start.cid == start.cid]
        if cost is not Cost.FREE and (start.hedge or any(not one.start.hedge for one in others)):
            self.broken.append(f"{now:.3f} a copy was asked for on the {source.tier.label} tier, which costs")
        if any(one.start.source == source for one in others):
            self.broken.append(f"{now:.3f} {source.name} was asked twice at once")
        ticket = Ticket(start, now)
        self.tickets.append(ticket)
        self._flights[start.flight] = ticket
        ticket.transfer = self.edges[source].fly(start, self._sizes[start.cid], self)

    def _gave_up(self, cid: Cid) -> None:
        """Be told 504, and ask again, as players do."""
        self.given_up += 1
        self._prefetching.discard(cid)
        if cid in self._then:
            self.world.after(RETRY_S, partial(self._want, cid, self._sizes[cid], self._track_of[cid]))

    # -- what edges tell

    def progressed(self, flight: int, total_bytes: int) -> None:
        """Pass bytes on."""
        ticket = self._flights.get(flight)
        if ticket is None:
            return
        cid, brought = ticket.start.cid, total_bytes - ticket.heard_bytes
        ticket.heard_bytes = total_bytes
        others = [one for one in self._flights.values() if one.start.cid == cid and one is not ticket]
        if cid in self._held or any(one.heard_bytes for one in others):
            ticket.doubled_bytes += brought
        if ticket.start.source.tier in self.unseen:
            return
        if self.ladder.progressed(flight, total_bytes, self.world.now):
            self._carry_out()

    def came(self, flight: int, *, wrong: bool) -> None:
        """Pass a whole block on, to be verified."""
        ticket = self._flights.pop(flight, None)
        if ticket is None:
            return
        ticket.ended_at = self.world.now
        cid, source = ticket.start.cid, ticket.start.source
        if wrong:
            ticket.failed = True
            self.lied.add((cid, source))
            self.lies[source] += 1
            self.ladder.corrupt(flight, self.world.now)
        elif self.ladder.received(flight, self._sizes[cid], self.world.now):
            ticket.won = True
            self._serve(cid, source.tier)
        self._carry_out()

    def failed(self, flight: int, reason: str, status: int, retry_after_s: float) -> None:
        """Pass a failure on."""
        ticket = self._flights.pop(flight, None)
        if ticket is None:
            return
        ticket.ended_at, ticket.failed = self.world.now, True
        if status:
            self.refusals[ticket.start.cid, ticket.start.source] = self.world.now + retry_after_s
        self.ladder.failed(flight, reason, self.world.now, status=status, retry_after_s=retry_after_s)
        self._carry_out()

    def _serve(self, cid: Cid, tier: TierName) -> None:
        self._held[cid] = tier
        self._prefetching.discard(cid)
        request = self._asked.pop(cid, None)
        if request is not None:
            request.served_at, request.tier = self.world.now, tier
            self._then.pop(cid)()
