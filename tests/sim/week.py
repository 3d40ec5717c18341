"""A week of a village with an uplink for an hour or two a day, at one box or another, and a slow carousel.

The cores are the ones that boxes run: the carousel and its code, receivers that lose a packet in five and
lend each other symbols, viewing sessions and signers, carry and slope (``homeward``), and the origin's
admission and credit. Time, air and links are the world's. A film comes out each morning; whoever has all
of it by carousel watches it in an evening. Boxes are switched off in the middle of all that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from hashlib import sha256

import msgspec

from farcast.origin.fraud.gate import Gate
from farcast.origin.money.credit import Credit, credit
from farcast.origin.pulses.evidence import Evidence
from farcast.protocol.batch import Ack, Batch, PulsePost, pulses_root, seal_parcel
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.codec import encode
from farcast.protocol.generation import Item, describe, origin_id, seal_descriptor
from farcast.protocol.identity import Identity
from farcast.protocol.ports import SpooledPulse
from farcast.protocol.pulse import NO_WITNESS, PulseSigner, Viewing
from farcast.protocol.rules import Rules
from farcast.protocol.ticket import DAY_MS, Holder, TicketOffice
from farcast.protocol.viewing import PlayerEvent, ViewingSession
from farcast.satellite.carousel import Carousel
from farcast.satellite.fec import RaptorQ
from farcast.satellite.programme import Part, Programme, Show
from farcast.satellite.receiver import Receiver
from farcast.tests.sim.day import MANIFEST, TODAY
from farcast.tests.sim.homeward import (
    DAY_S,
    HOUR_S,
    ROUND_PULSES,
    TICK_S,
    Box,
    Envelope,
    Made,
    Origin,
    Village,
)

LOSS = 0.2
RATE_BPS = 8_000
AIR_STEP_S = 2
GENERATION_BYTES, FILM_BLOCKS, BLOCK_BYTES = 1_500_000, 3, 900_000
FILM_MIN, SITTINGS = 45, 2
RELEASE_S, EVENING_S, NIGHT_S = 6 * HOUR_S, 18 * HOUR_S, 23 * HOUR_S
SITS_DOWN = 0.03
"""A minute, of an evening."""
ANSWER_LOST = 0.3
UPDATE_S, BORROW_S = 600, 600
ACKS_ON_AIR, LENT_SYMBOLS = 64, 512
DRAIN_DAYS = 4
RULES = Rules()
CATALOG = Identity(sha256(b"catalog").digest())
ORIGIN = origin_id(sha256(b"origin").digest())
MIDNIGHT_MS = TODAY * DAY_MS


class Film:
    """A title: its blocks by name."""

    def __init__(self, number: int) -> None:
        self.name = f"film-{number}"
        self.digest = sha256(self.name.encode()).digest()
        data = [sha256(b"%d/%d" % (number, at)).digest() * (BLOCK_BYTES // 32) for at in range(FILM_BLOCKS)]
        self.blocks = {Cid.of(RAW, block): block for block in data}


class Treasury(Origin):
    """The origin: real admission over a log in memory, and acks as they go on air."""

    def __init__(self) -> None:
        super().__init__()
        key = Identity(sha256(b"tickets").digest())
        self.office = TicketOffice(key, sha256(b"ticket secret").digest())
        self.now_ms = MIDNIGHT_MS
        self.acks: list[Envelope] = []
        self.verdicts = Counter[str]()
        self._gate = Gate(self.office, lambda: [key.key], lambda _: False, RULES)
        self._batches = Counter[int]()

    def take(self, items: list[SpooledPulse], by: int) -> Envelope:
        """Take what box ``by`` brought: its own as they are, others' in a batch of its own."""
        own = [item for item in items if item.own]
        others = [item for item in items if not item.own]
        if own:
            post = PulsePost(1, list(dict.fromkeys(p.ticket for p in own)), [p.pulse for p in own])
            self.verdicts.update(self._gate.post(encode(post), self.now_ms).verdicts)
        if others:
            self.verdicts.update(self._gate.batch(self._batch(others, by), self.now_ms).verdicts)
        for item in items:
            self.came_by.setdefault((item.tid, item.seq), by)
        tids = [one for tid in dict.fromkeys(p.tid for p in items) if (one := self._gate.ack(tid))]
        number = self._number = self._number + 1
        ack = Ack(1, bytes(32), tids, "20760-0001", 10**6, number, bytes(32), self.now_ms)
        self.acks.append((number, encode(ack), tids))
        return self.acks[-1]

    def counted(self, days: range, manifests: dict[bytes, Film]) -> list[Credit]:
        """Read the log again, and apply the rules of credit."""
        log = self._gate.log
        known = {
            digest: msgspec.structs.replace(MANIFEST, title=film.name) for digest, film in manifests.items()
        }
        facts = Evidence(log, self.office, days).facts(len(log), days, known.get)
        return credit(facts, RULES)

    def _batch(self, items: list[SpooledPulse], by: int) -> bytes:
        carrier = Identity(sha256(b"carrier %d" % by).digest())
        pulses, self._batches[by] = [item.pulse for item in items], self._batches[by] + 1
        tickets = list(dict.fromkeys(item.ticket for item in items))
        batch = Batch(
            1, carrier.key, self._batches[by], bytes(32), self.now_ms, self.now_ms, pulses_root(pulses),
            tickets, [self.now_ms] * len(items),
        )  # fmt: skip
        return seal_parcel(batch, pulses, carrier)


class Shelf:
    """A receiver's symbols; like a journal on a disk they outlive the box's nights."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, str], list[bytes]] = {}

    def open(self, number: int, sender: str, envelope: bytes) -> None:
        """Begin a generation."""
        del envelope
        self._kept[number, sender] = []

    def add(self, number: int, sender: str, symbol: bytes) -> None:
        """Keep a symbol."""
        self._kept[number, sender].append(symbol)

    def read(self, number: int, sender: str) -> Iterator[bytes]:
        """Give them back."""
        yield from self._kept[number, sender]

    def drop(self, number: int, sender: str) -> None:
        """Forget them."""
        self._kept.pop((number, sender), None)


class Watched(msgspec.Struct):
    """Somebody before a film."""

    film: Film
    session: ViewingSession
    began_s: float
    said: int = 0


class Home:
    """What a box has besides its way home: a dish, blocks, a viewer and the day's signer."""

    def __init__(self, box: Box, week: Week) -> None:
        self.box = box
        self.held = set[Cid]()
        self.seen = set[str]()
        self.refused = Counter[str]()
        self.sittings = Counter[int]()
        self.watched: Watched | None = None
        self.signed_ms = 0
        self.borrowed = 0
        self._week = week
        self._signers: dict[int, PulseSigner] = {}
        self.receiver = Receiver(
            ORIGIN,
            lambda: [CATALOG.key],
            week.fec.decode,
            lambda reason: self.refused.update([reason]),
            Shelf(),
        )

    def keep(self, number: int, items: list[Item]) -> None:
        """Take what a generation brought."""
        for item in items:
            if item.kind == "block":
                cid = Cid.parse(item.name)
                assert cid.matches(item.data)
                self.held.add(cid)
            elif item.kind == "ack":
                self.box.hear(self._week.treasury.acks[int(item.name) - 1])
        self.receiver.delivered(number)

    def minute(self, now: float, *, goes_on: bool) -> None:
        """Let a minute pass before the screen; who has no power has no screen."""
        if not self.box.on:
            self.watched = None  # what was not signed yet is lost, as when a plug is pulled
            return
        if self.watched is None and goes_on:
            self._sit_down(now)
        watched = self.watched
        if watched is None:
            return
        position_ms, state = int((now - watched.began_s) * 1_000), ""
        if watched.said == 0:
            watched.session.delivered("video", 0, FILM_MIN * 60_000, now)
            state = "p"
        elif position_ms >= FILM_MIN * 60_000:
            state = "e"
        watched.said += 1
        watched.session.receive(PlayerEvent(state, 1.0, position_ms, watched.said, int(now * 1_000)), now)
        if state == "e":
            watched.session.close(now)
            self.seen.add(watched.film.name)
            self.watched = None
        self._sign(watched, now)

    def _sit_down(self, now: float) -> None:
        day, time_s = divmod(now, DAY_S)
        random = self._week.random
        if not EVENING_S <= time_s < NIGHT_S - FILM_MIN * 60 or self.sittings[int(day)] == SITTINGS:
            return
        whole = [film for film in self._week.films if film.blocks.keys() <= self.held]
        if whole and random.random() < SITS_DOWN:
            new = [film for film in whole if film.name not in self.seen]
            film = random.choice(new or whole)
            self.watched = Watched(film, ViewingSession(film.name), now)
            self.sittings[int(day)] += 1

    def _sign(self, watched: Watched, now: float) -> None:
        for due in watched.session.take():
            signer = self._signer(int(now // DAY_S))
            viewing = Viewing(due.state, watched.film.digest, due.position_ms, 0, [], NO_WITNESS)
            pulse = signer.sign(MIDNIGHT_MS + int(due.at * 1_000), due.delta_ms, 0, viewing)
            tid = signer.body.tid
            self._week.note(self.box, tid, signer.seq, now)
            self.signed_ms += due.delta_ms
            at_ms = MIDNIGHT_MS + int(now * 1_000)
            self.box.take([SpooledPulse(tid, signer.seq, pulse, signer.ticket, at_ms, own=True)], now)

    def _signer(self, day: int) -> PulseSigner:
        if day not in self._signers:
            name = sha256(b"%d on day %d" % (self.box.number, day)).digest()
            session = Identity(name)
            holder = Holder(sha256(b"account %d" % self.box.number).digest()[:16], 0)
            grant = self._week.treasury.office.issue(name[:16], TODAY + day, session.key, holder)
            self._signers[day] = PulseSigner(grant.ticket, grant.key, session)
        return self._signers[day]


class Week(Village):
    """Everybody and everything that happens, drawn from one seed."""

    def __init__(self, seed: int, *, boxes: int = 12, days: int = 7) -> None:
        super().__init__(seed, boxes=boxes, uplinks=1, days=days)
        self.origin = self.treasury = Treasury()
        self.openings = list[tuple[float, Box]]()
        for day in range(days + DRAIN_DAYS):
            start = day * DAY_S + self.random.uniform(0, DAY_S - 2 * HOUR_S)
            door = self.random.choice(self.boxes)
            self.openings += [(start, door), (start + self.random.uniform(0, HOUR_S), door)]
        self.films = list[Film]()
        self.homes = [Home(box, self) for box in self.boxes]
        self.lost = self.heard = 0
        self.over_s = 0.0
        self._blocks: dict[Cid, bytes] = {}
        self._programme = Programme(self._blocks.get, ORIGIN, generation_bytes=GENERATION_BYTES)
        self._carousel = Carousel(ORIGIN, RATE_BPS, LOSS)
        self._parts: dict[int, Part] = {}

    @cached_property
    def fec(self) -> RaptorQ:
        """The code."""
        return RaptorQ()

    @property
    def unseen(self) -> int:
        """How many boxes have yet to see how many films, multiplied out."""
        return sum(film.name not in home.seen for home in self.homes for film in self.films)

    def run(self) -> None:
        """Let the week pass, and then a few days at most until everything is seen and home."""
        for now in range(0, (self.days + DRAIN_DAYS) * DAY_S, TICK_S):
            self.treasury.now_ms = MIDNIGHT_MS + now * 1_000
            self._switch(now)
            if now % DAY_S == RELEASE_S and now < self.days * DAY_S:
                self._release()
            if now % UPDATE_S == 0:
                self._update()
            self._broadcast(now)
            if now % BORROW_S == 0:
                self._borrow(now)
            week, unseen = now < self.days * DAY_S, self.unseen
            if now % 60 == 0:
                for home in self.homes:
                    home.minute(now, goes_on=week or unseen > 0)
            self._slopes(now)
            for box in self.boxes:
                if box.on and box.spool.count:
                    self._errand(box, now)
            idle = not any(home.watched for home in self.homes)
            if not week and not unseen and idle and len(self.origin.came_by) == len(self.made):
                self.over_s = now
                return

    def note(self, box: Box, tid: bytes, seq: int, now: float) -> None:
        """Note a signed pulse."""
        self.made[tid, seq] = Made(box.number, now)

    def _errand(self, box: Box, now: float) -> None:
        if box.up and self.random.random() < ANSWER_LOST:  # it is posted, and no answer comes
            items = [item for held in box.spool.held.values() for item in held.values()][:ROUND_PULSES]
            self.origin.take(items, box.number)
            return
        super()._errand(box, now)

    # -- the sky

    def _release(self) -> None:
        film = Film(len(self.films))
        self.films.append(film)
        self._blocks |= film.blocks

    def _update(self) -> None:
        acks = self.treasury.acks[-ACKS_ON_AIR:]
        head = [Item("checkpoint", "", b"%d films" % len(self.films))]
        head += [Item("ack", str(number), data) for number, data, _ in acks]
        heads = self._programme.head(head)
        features, parts = self._programme.titles([Show(film.name, list(film.blocks)) for film in self.films])
        self._parts = {part.plan.number: part for part in (*heads, *parts)}
        self._carousel.update([part.plan for part in heads], features)

    def _broadcast(self, now: int) -> None:
        for at in range(now, now + TICK_S, AIR_STEP_S):
            for number, window in self._carousel.wanted():
                self._supply(number, window)
            for packet in self._carousel.take(at):
                for home in self.homes:
                    if home.box.on:
                        self._fall(home, packet, at)

    def _supply(self, number: int, window: int) -> None:
        part = self._parts[number]
        bundle, plan = self._programme.bundle(part), part.plan
        count = self._carousel.cycle_symbols(plan.symbols)
        symbols = self.fec.encode(bundle, plan.symbol_bytes, count, window * count)
        described = describe(bundle, ORIGIN, plan.symbol_bytes, self.treasury.now_ms + DAY_MS)
        self._carousel.supply((number, window), symbols, seal_descriptor(described, CATALOG))

    def _fall(self, home: Home, packet: bytes, now: float) -> None:
        if self.random.random() < LOSS:
            self.lost += 1
            return
        self.heard += 1
        completed = home.receiver.receive(packet, "sky", now, self.treasury.now_ms)
        if completed is not None:
            home.keep(completed.number, completed.items)

    def _borrow(self, now: float) -> None:
        """Let neighbours give each other the symbols that one heard and the other did not."""
        by_box = {home.box.number: home for home in self.homes}
        for home in self.homes:
            for gap in home.receiver.gaps(now) if home.box.on else []:
                for other in home.box.near:
                    most = min(gap.lacking, LENT_SYMBOLS)
                    lent = by_box[other.number].receiver.lend(gap.number, gap.held, most) if other.on else []
                    home.borrowed += len(lent)
                    completed = home.receiver.given(gap.number, f"box {other.number}", lent, now)
                    if completed is not None:
                        home.keep(completed.number, completed.items)
                        break
