"""The swarm: how the boxes on a link that want one title get it from each other, each byte from outside once.

Scatter and all-gather: of what no unfinished box has or is bringing, each *claims* blocks of its own from
one that has everything, and tells the others; those ask the claimant in advance, and it passes on every
part as it comes. So a source sends about one copy, and every link sends and receives all the time.

A claim is kept only as long as its holder keeps the pace: near the end what a slow one still brings is
claimed by another, and whoever waits moves on. Nobody depends on anybody: a box that leaves gives back
what was asked of it.

Pure: time is an argument, the moves it decides on are taken. Everything a partner says is a hint; bytes
count once their hash is right. Of wrong bytes a lone giver that said it holds the block is to blame; of a
block made of several boxes' parts nobody yet, so it is asked for again whole, from one that holds it.
Over 400 lines because every event keeps the same few relations between jobs, drafts and partners.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from .draft import Draft, Job
from .moves import Ask, Check, Cut, Fetch, Forget, Lack, Move, Refer, Sake, Send, Tell, Withdraw
from .partner import CLAIMS_LIMIT, FIRST_PACE_S, Partner, Unit
from .turns import Turns
from .watched import ANSWER_S, Watched

UNIT_BYTES = 256 << 10
UPLINK = b""
"""This box's own way to the world, as a partner: it has everything, hears nothing and asks for nothing."""
UPLINK_AT_ONCE = 4
PARTNERS_LIMIT = 32
DRAFTS_LIMIT = 128
TICK_S = 0.05
STALL_S = 2.0
"""A partner that has what it was asked for and sends nothing for so long is left alone for a while."""
SHUN_S = 5.0
STALLS = 2
"""One that alone has everything is asked so often before the world is."""
SLOW_LINKS = 3.0
CLAIM_LEAST_S = 2.0
CLAIM_PACES = 4.0
BROKEN_CLAIMS = 3
STEAL_S = 0.5
SLOW_PACES, LATE_PACES = 3.0, 3.0
"""A claimant is slow at so many times this box's own pace; a claim is late at so many."""
SLOW_GIVER = 4.0
"""One that has a block is left for the source where it sends so many times more slowly than that."""
URGENT_PATIENCE_S = 0.3
NEWS_S = 0.1
"""What is held now is told so much later, with more of it: who wants it asked for it when it was claimed."""
SUSPICIONS = 3
UNASKED_LIMIT = 64
BANNED_LIMIT = 1_024
_WEIGHT = 0.3


class Swarm:
    """One title among neighbours; ``sizes`` are its blocks' in bytes, ``held`` those here already."""

    def __init__(self, own: bytes, sizes: Sequence[int], held: Iterable[int] = ()) -> None:
        """``own`` is this box's key among its neighbours; all is wanted until ``want`` says less."""
        self._own = own
        self._all = True
        self._sizes = tuple(sizes)
        self._held = bytearray(len(self._sizes))
        for block in held:
            self._held[block] = 1
        self.lacks = self._held.count(0)
        self._jobs: dict[int, Job] = {}
        self._drafts: OrderedDict[int, Draft] = OrderedDict()
        self._strict: set[int] = set()
        self._spared: set[int] = set()
        self._partners: dict[bytes, Partner] = {}
        self._banned: OrderedDict[bytes, None] = OrderedDict()
        self._watched = Watched(own)
        self._given: dict[int, bytes] = {}
        self._turns = Turns(own, len(self._sizes))
        self._pace_s = FIRST_PACE_S
        self._news: tuple[list[int], list[int], list[int]] = ([], [], [])
        self._news_due = 0.0
        self._moves: list[Move] = []
        self._now = 0.0
        self.stolen = 0
        self.yielded = 0
        self.duplicate_units = 0

    # -- what others may know

    @property
    def held(self) -> bytes:
        """One byte a block, 1 where it is here."""
        return bytes(self._held)

    @property
    def hopeless(self) -> bool:
        """Whether all that is still lacking cannot be kept here."""
        return 0 < self.lacks <= len(self._spared)

    def has(self, block: int) -> bool:
        """Whether a block is here."""
        return bool(self._held[block])

    def served(self, key: bytes) -> bool:
        """Whether a partner has everything, by its word."""
        return key in self._partners and self._partners[key].complete

    @property
    def claims(self) -> list[int]:
        """The blocks this box is bringing for all."""
        return [block for block, job in self._jobs.items() if job.claimed]

    @property
    def partners(self) -> list[bytes]:
        """Who takes part now, the uplink included."""
        return [*self._partners]

    @property
    def wake_at(self) -> float | None:
        """When to ``tick``; None while nothing is lacking or nobody is there."""
        busy = self.lacks and self._partners and (self._all or self._jobs or self._watched)
        return self._now + TICK_S if busy else None

    def parts(self, block: int) -> int:
        """Return in how many units a block travels."""
        return max(1, -(-self._sizes[block] // UNIT_BYTES))

    def take(self) -> list[Move]:
        """Return what to do now, in order."""
        held, claimed, given_up = self._news
        waits = self._all and self.lacks and self._now < self._news_due
        if claimed or given_up or (held and not waits):
            self._news_due = self._now + NEWS_S
            self._news = ([], [], [])
            tell = (tuple(held), tuple(claimed), tuple(given_up))
            self._moves += [Tell(key, *tell) for key in self._partners if key]
        moves, self._moves = self._moves, []
        return moves

    # -- who is there

    def joined(self, key: bytes, held: Iterable[int], now: float) -> bool:
        """Take a partner in, with what it says it holds; False where there is no room for it."""
        if key in self._partners or key in self._banned or len(self._partners) >= PARTNERS_LIMIT:
            return False
        marks = bytearray(len(self._sizes))
        for block in held:
            if 0 <= block < len(marks):
                marks[block] = 1
        partner = self._partners[key] = Partner(key, marks, marks.count(0), seed=not marks.count(0))
        self._take_stock(partner)
        self._turns.stale = True
        self._plan(now)
        return True

    def uplink(self, now: float, *, up: bool) -> None:
        """Say whether blocks can be fetched from outside by this box itself."""
        if up:
            self.joined(UPLINK, range(len(self._sizes)), now)
        elif UPLINK in self._partners:
            self.left(UPLINK, now)

    def left(self, key: bytes, now: float) -> None:
        """Hear that a partner is gone."""
        partner = self._partners.pop(key, None)
        if partner is not None:
            self._let_go(partner)
        self._plan(now)

    # -- what partners say

    def heard(
        self, key: bytes, held: Iterable[int], claimed: Iterable[int], given_up: Iterable[int], now: float
    ) -> None:
        """Hear what a partner holds now, what it is bringing, and what no longer."""
        partner = self._partners.get(key)
        if partner is None:
            return
        for block in held:
            self._told_held(partner, block, now)
        for block in claimed:
            partner.named.pop(block, None)
            self._told_claim(partner, block, now)
        for block in given_up:
            partner.named.pop(block, None)
            if partner.claims.pop(block, None) is not None:
                self._lost_by(partner, block)
        self._plan(now)

    def lacking(self, key: bytes, block: int, now: float) -> None:
        """Hear that a partner has not what it was asked for."""
        partner = self._partners.get(key)
        if partner is not None and 0 <= block < len(self._sizes):
            partner.claims.pop(block, None)
            self._misled(partner, block)
            self._watched.refused(key, block)
            if partner.held[block]:
                partner.held[block] = 0
                partner.lacks += 1
            self._lost_by(partner, block)
        self._plan(now)

    def asked(
        self,
        key: bytes,
        block: int,
        parts: Iterable[int],
        now: float,
        *,
        urgent: bool = False,
        sake: Sake = Sake.OWN,
    ) -> None:
        """Hear that a partner wants parts of a block from here, and for whose ``sake``."""
        partner = self._partners.get(key)
        if partner is None:
            return
        units = [Unit(block, part) for part in parts]
        known = 0 <= block < len(self._sizes)
        if not known or any(not 0 <= unit.part < self.parts(block) for unit in units):
            self._cut(partner, "malformed")
        elif not self._held[block] and block not in self._jobs and not (urgent and self._hurries(block, now)):
            self._moves.append(Lack(key, block))
            if urgent:
                self._watched.leave(block, key, now)
        elif sake == Sake.ALL and not urgent and (to := self._given_to(partner, block)):
            partner.referred.add(block)
            self._moves.append(Refer(key, block, to))
        elif not all(partner.owe(unit, urgent=urgent, here=self._has(unit)) for unit in units):
            self._cut(partner, "greedy")
        elif sake:
            self._given[block] = key
        self._serve(now)

    def referred(self, key: bytes, block: int, to: bytes, now: float) -> None:
        """Hear from whom a block was claimed that ``to`` has it, or is getting it: it comes from there."""
        partner, job = self._partners.get(key), self._jobs.get(block)
        if partner is None:
            return
        if not 0 <= block < len(self._sizes) or block in partner.refers:
            self._cut(partner, "malformed")  # once is advice, twice would go on for ever
        elif job is not None and job.giver == key:
            partner.refers.add(block)
            self._give_back(block)
            named = self._partners.get(to)
            if named is not None and to != key and partner.broken_refers < BROKEN_CLAIMS:
                fresh = block not in named.claims
                self._told_claim(named, block, now)
                if fresh and block in named.claims:
                    named.named[block] = key
        self._plan(now)

    def withdrawn(self, key: bytes, block: int, now: float) -> None:
        """Hear that a partner wants a block no more from here."""
        partner = self._partners.get(key)
        if partner is not None:
            partner.cancel(block)
            if self._given.get(block) == key:
                del self._given[block]
        self._serve(now)

    def sent(self, key: bytes, now: float) -> None:
        """Hear that the connection of a partner takes the next unit."""
        partner = self._partners.get(key)
        if partner is not None:
            partner.sending = False
        self._serve(now)

    # -- what comes

    def arrived(self, key: bytes, unit: Unit, now: float, *, kept: bool = True) -> bool:
        """Hear that a unit came, and whether its bytes were ``kept``; True where they are wanted."""
        partner, draft = self._partners.get(key), self._drafts.get(unit.block)
        if partner is None:
            return False
        asked = partner.credit_units > 0  # what was on the wire when it was withdrawn is nobody's fault
        partner.credit_units -= asked
        partner.unasked += not asked
        if draft is None or not kept or not self._wants(key, unit):
            self.duplicate_units += 1
            if partner.unasked > UNASKED_LIMIT:
                self._cut(partner, "unasked")
            self._plan(now)
            return False
        partner.came(unit.block, self._unit_bytes(unit), now)
        draft.got.add(unit.part)
        draft.givers.add(key)
        draft.hearsay |= not partner.held[unit.block]
        for other in self._partners.values():
            other.here(unit)
        if len(draft.got) == self.parts(unit.block):
            draft.whole = True
            self._moves.append(Check(unit.block))
        self._plan(now)
        return True

    def _wants(self, key: bytes, unit: Unit) -> bool:
        draft = self._drafts.get(unit.block)
        job = self._jobs.get(unit.block)
        if draft is None or job is None or draft.whole or unit.part in draft.got or key not in draft.asked:
            return False
        return unit.block not in self._strict or key == job.giver

    def spare(self, block: int, now: float) -> None:
        """Hear that a block that came cannot be kept here: it is asked for no more."""
        self._spared.add(block)
        self._forget(block)
        if block in self._jobs:
            self._give_back(block)
        self._plan(now)

    def retry(self, now: float) -> None:
        """Hear that what could not be kept or fetched may be tried again: there may be room now."""
        self._spared.clear()
        self._turns.stale = True
        self.uplink(now, up=False)  # with its jobs, and with how long it was to be left alone

    def fetched(self, block: int, now: float) -> None:
        """Hear that a block came by the uplink or by any other way, verified, and is here."""
        self.verified(block, now)

    def failed(self, block: int, now: float) -> None:
        """Hear that the uplink did not bring a block: it is left alone for a while."""
        partner, job = self._partners.get(UPLINK), self._jobs.get(block)
        if partner is not None and job is not None and job.giver == UPLINK:
            partner.shun_until = now + SHUN_S
            self._give_back(block)
        self._plan(now)

    def forgone(self, block: int, now: float) -> None:
        """Hear that this box does not fetch a block after all: somebody else may."""
        job = self._jobs.get(block)
        if job is not None and job.giver == UPLINK:
            self._give_back(block)
        self._plan(now)

    def verified(self, block: int, now: float) -> None:
        """Hear that a block is here and right."""
        job = self._jobs.pop(block, None)
        if job is not None:
            giver = self._partners.get(job.giver)
            if giver is not None:
                giver.release(block)
                if block not in self._drafts or not self._drafts[block].whole:
                    self._withdraw(job.giver, block)
            if job.claimed:
                self._pace_s += _WEIGHT * (now - job.at - self._pace_s)
        if not self._held[block]:
            self._held[block] = 1
            self.lacks -= 1
            self._news[0].append(block)
            for partner in self._partners.values():
                for part in range(self.parts(block)) if partner.waits else ():
                    partner.here(Unit(block, part))
        self._drafts.pop(block, None)
        self._strict.discard(block)
        self._spared.discard(block)
        self._watched.came(block)
        self._plan(now)

    def broken(self, block: int, now: float) -> None:
        """Hear that the parts of a block are not the block, or could not be kept."""
        draft = self._drafts.get(block)
        givers = [self._partners[key] for key in draft.givers if key in self._partners] if draft else []
        if draft and len(draft.givers) == 1 and not draft.hearsay:
            for giver in givers:
                self._cut(giver, "hash_mismatch")
        for giver in givers:
            giver.suspicions += 1
            if giver.suspicions >= SUSPICIONS:
                self._cut(giver, "hash_mismatch")
        self._forget(block)
        self._strict.add(block)
        if block in self._jobs:
            self._give_back(block)
        self._plan(now)

    def lost(self, block: int, now: float) -> None:
        """Hear that a block is here no longer."""
        if self._held[block]:
            self._held[block] = 0
            self.lacks += 1
            self._turn_away(block)
            self._give_back(block)
        self._plan(now)

    def want(self, now: float, *, everything: bool) -> None:
        """Say whether all of the title is wanted, or only what is needed at once."""
        if self._all != everything:
            self._all = everything
            for block in [] if everything else [*self._jobs]:
                if block not in self._watched and not self._checking(block):
                    self._withdraw(self._jobs[block].giver, block)
                    self._give_back(block)
            for partner in self._partners.values():
                self._take_stock(partner)
            self._turns.stale = True
        self._plan(now)

    def need(self, blocks: Iterable[int], now: float) -> None:
        """Hear which blocks somebody here is about to watch, the next first: they come before all others."""
        wanted = (block for block in blocks if not self._held[block] and block not in self._spared)
        for block in self._watched.need(wanted):
            if block not in self._jobs and not self._held[block]:
                self._turn_away(block)
        self._plan(now)

    def tick(self, now: float) -> None:
        """Let go of those who do not keep their word."""
        for partner in [*self._partners.values()]:
            limit_s = max(CLAIM_LEAST_S, CLAIM_PACES * partner.pace_s)
            for block, since in [*partner.claims.items()]:
                if since + limit_s > now:
                    break  # they stand in the order in which they were made
                del partner.claims[block]
                if not self._misled(partner, block):
                    partner.broken_claims += 1
                self._lost_by(partner, block)
            if partner.key and self._stalls(partner, now):
                partner.stalls += 1
                if partner.stalls >= STALLS or not self._alone(partner, now):
                    partner.shun_until = now + SHUN_S
                for block in [*partner.asked]:
                    if not self._checking(block):
                        self._withdraw(partner.key, block)
                        self._give_back(block)
        self._plan(now)

    # -- relations

    def _open(self, block: int) -> bool:
        """Whether a block is lacking and nobody was asked for it."""
        return not self._held[block] and block not in self._jobs and block not in self._spared

    def _take_stock(self, partner: Partner) -> None:
        """List what an unfinished partner offers."""
        partner.offers.clear()
        if self._all and not partner.complete:
            partner.offers.extend(block for block in range(len(self._sizes)) if partner.brings(block))

    def _offer(self, partner: Partner, block: int) -> None:
        """Note that a partner has a block or brings it; one that says so over and over is listed anew."""
        if self._all:
            partner.offers.append(block)
            if len(partner.offers) > 2 * len(self._sizes):
                self._take_stock(partner)

    def _checking(self, block: int) -> bool:
        return block in self._drafts and self._drafts[block].whole

    def _stalls(self, partner: Partner, now: float) -> bool:
        due = [
            max(partner.heard_at, self._jobs[block].at)
            for block in partner.asked
            if partner.held[block] and not self._checking(block)
        ]
        if not due or min(due) + STALL_S > now:
            return False
        awaited_bytes = sum(one.asked_bytes for one in self._partners.values())
        rate_bytes_s = sum(one.rate_bytes_s for one in self._partners.values())
        slow_s = (
            SLOW_LINKS * awaited_bytes / rate_bytes_s if rate_bytes_s else 0.0
        )  # this box's own link may be
        return min(due) + STALL_S + slow_s <= now

    def _misled(self, partner: Partner, block: int) -> bool:
        """Whether only another said that a partner brings a block: then that one's word was not good."""
        by = partner.named.pop(block, None)
        if by in self._partners:
            self._partners[by].broken_refers += 1
        return by is not None

    def _alone(self, partner: Partner, now: float) -> bool:
        """Whether no neighbour but this one has everything and may be asked."""
        rest = (one for one in self._partners.values() if one.key and one is not partner)
        return partner.complete and not any(one.complete and one.shun_until <= now for one in rest)

    def _told_held(self, partner: Partner, block: int, now: float) -> None:
        if not 0 <= block < len(self._sizes):
            self._cut(partner, "malformed")
            return
        since = partner.claims.pop(block, None)
        if since is not None:
            partner.took(now - since)
        partner.broken_claims = 0
        by = partner.named.pop(block, None)
        if by in self._partners:
            self._partners[by].broken_refers = 0
        if not partner.held[block]:
            partner.held[block] = 1
            partner.lacks -= 1
            if block in partner.asked:
                partner.heard_at = now  # it can send it from now on
            self._turns.stale |= not partner.lacks
        if self._open(block):
            self._offer(partner, block)

    def _told_claim(self, partner: Partner, block: int, now: float) -> None:
        if not 0 <= block < len(self._sizes):
            self._cut(partner, "malformed")
            return
        crowded = len(partner.claims) >= CLAIMS_LIMIT or partner.broken_claims >= BROKEN_CLAIMS
        if partner.held[block] or crowded:
            return
        partner.claims.setdefault(block, now)  # who says it again has no longer for it
        job = self._jobs.get(block)
        if job is not None and job.claimed and partner.key < self._own and self._undecided(job, block):
            self.yielded += 1
            self._withdraw(job.giver, block)  # two claimed it at once: one yields
            self._give_back(block)
        elif self._open(block):
            self._offer(partner, block)

    def _given_to(self, partner: Partner, block: int) -> bytes:
        """Return who else a block was given to that still shares; nothing for who was sent there before."""
        other = self._partners.get(self._given.get(block, b""))
        if other is None or other is partner or other.complete or block in partner.referred:
            return b""
        return other.key

    def _undecided(self, job: Job, block: int) -> bool:
        """Whether only the claimants can say which of two claims holds: a lone source says it itself."""
        sources = sum(one.complete for one in self._partners.values() if one.key)
        return not self._checking(block) and (not job.giver or sources > 1)

    def _begun(self, block: int) -> bool:
        return block in self._drafts and bool(self._drafts[block].got)

    def _lost_by(self, partner: Partner, block: int) -> None:
        """Look elsewhere for a block that a partner neither has nor brings."""
        self._turns.again(block, self._receivers())
        if block in partner.asked and not self._checking(block):
            self._withdraw(partner.key, block)
            self._give_back(block)

    def _give_back(self, block: int) -> None:
        """Make a block open again: whoever has it or brings it offers it once more."""
        job = self._jobs.pop(block, None)
        if job is not None:
            giver = self._partners.get(job.giver)
            if giver is not None:
                giver.release(block)
            if job.claimed:
                self._news[2].append(block)
            if not self._hurries(block, self._now):
                self._turn_away(block)
        if self._checking(block):
            self._drafts[block].whole = False
            self._forget(block)
        for partner in self._partners.values():
            if not partner.complete and partner.brings(block):
                self._offer(partner, block)
        self._turns.again(block, self._receivers())

    def _turn_away(self, block: int) -> None:
        """Tell those who wait for a block from here that it does not come."""
        for partner in self._partners.values():
            if partner.cancel(block):
                self._moves.append(Lack(partner.key, block))

    def _forget(self, block: int) -> None:
        if self._drafts.pop(block, None) is not None:
            self._moves.append(Forget(block))

    def _withdraw(self, key: bytes, block: int) -> None:
        if key in self._partners:
            self._moves.append(Withdraw(key, block))

    def _cut(self, partner: Partner, reason: str) -> None:
        if self._partners.pop(partner.key, None) is None:
            return
        self._banned[partner.key] = None
        if len(self._banned) > BANNED_LIMIT:
            self._banned.popitem(last=False)
        self._moves.append(Cut(partner.key, reason))
        self._let_go(partner)

    def _let_go(self, partner: Partner) -> None:
        for block in [*partner.asked]:
            if not self._checking(block):
                self._give_back(block)
        self._turns.stale = True

    # -- what next

    def _plan(self, now: float) -> None:
        self._now = max(self._now, now)
        if self.lacks:
            ready = [one for one in self._partners.values() if one.shun_until <= now]
            self._plan_urgent(ready, now)
            if self._all:
                self._gather(ready, now)
                if not self._scatter(ready, now) and not any(one.offers and one.has_room for one in ready):
                    self._steal(ready, now)
        self._serve(now)

    def _serve(self, now: float) -> None:
        """Send each partner the next unit that it asked for and that is here."""
        self._now = max(self._now, now)
        for partner in self._partners.values():
            if not partner.sending and partner.owed:
                partner.sending = True
                self._moves.append(Send(partner.key, partner.owed.popleft()))

    def _plan_urgent(self, ready: list[Partner], now: float) -> None:
        for block in self._watched:
            job = self._jobs.get(block)
            if job is None:
                self._hurry(ready, block, now)
            elif self._unanswered(block, job, now):
                self._watched.refused(job.giver, block)
                self._withdraw(job.giver, block)
                self._give_back(block)
                self._hurry(ready, block, now)
            elif now - job.at >= URGENT_PATIENCE_S and not self._begun(block) and not self._checking(block):
                better = self._least(
                    one for one in ready if one.held[block] and one.key not in (job.giver, UPLINK)
                )
                if better is not None:
                    self._move(block, better, now)

    def _hurry(self, ready: list[Partner], block: int, now: float) -> None:
        """Get a block that is watched soon from who has or brings it, else by the uplink in its turn."""
        near = [one for one in ready if one.key]
        giver = self._least(one for one in near if one.held[block])
        if giver is None and block not in self._strict:
            giver = self._least(one for one in near if block in one.claims)
        if giver is not None:
            self._assign(block, giver, now, claimed=giver.complete and self._free(block, ready), urgent=True)
            return
        uplink = self._partners.get(UPLINK)
        if uplink is None or uplink not in ready or self._left(block, now):
            return
        if block not in self._strict:
            for one in map(self._partners.get, self._watched.before(block, self._receivers())):
                if one is not None and one in ready:
                    self._assign(block, one, now, claimed=False, urgent=True)
                    return
        self._assign(block, uplink, now, claimed=True, urgent=True)

    def _unanswered(self, block: int, job: Job, now: float) -> bool:
        """Whether one that was asked whether it brings a block has not said so in time."""
        giver = self._partners.get(job.giver)
        if giver is None or not giver.key or giver.brings(block):
            return False
        return now - job.at >= ANSWER_S and not self._begun(block) and not self._checking(block)

    def _hurries(self, block: int, now: float) -> bool:
        """Whether a block that is neither here nor asked for comes all the same, as it is watched soon."""
        return block in self._watched and UPLINK in self._partners and not self._left(block, now)

    def _left(self, block: int, now: float) -> bool:
        """Whether a partner is about to bring a block, as it heard that this box does not."""
        key = self._watched.left_to(block, now)
        return bool(key) and key in self._partners

    def _gather(self, ready: list[Partner], now: float) -> None:
        """Ask each partner for what it offers while it has room."""
        for partner in ready:
            while partner.offers and partner.has_room and partner.key:
                block = partner.offers.popleft()
                promised = block in partner.claims and block not in self._strict
                if self._open(block) and (partner.held[block] or promised):
                    self._assign(block, partner, now, claimed=False)

    def _scatter(self, ready: list[Partner], now: float) -> bool:
        """Claim what nobody is bringing, from those who have everything; True where more waits for room."""
        near = [one for one in ready if one.key and one.complete]
        sources = near or [one for one in ready if not one.key]
        if not sources:
            return False
        if self._turns.stale:
            self._turns.renew(self._receivers(), self._open)

        def free(block: int) -> bool:
            return self._open(block) and self._free(block, ready)

        while (source := self._source(sources)) is not None:
            block = self._turns.next(free, own=True)
            if block is None and source.asked_bytes <= UNIT_BYTES:  # others' only when it would be idle
                block = self._turns.next(free, own=False)
            if block is None:
                return bool(self._turns)
            self._assign(block, source, now, claimed=True)
        return bool(self._turns)

    def _source(self, sources: list[Partner]) -> Partner | None:
        """Return whom to claim from next: one that had to get it all itself spares the others' source."""
        takers = [one for one in sources if self._takes_claims(one)]
        return self._least(one for one in takers if not one.seed) or self._least(takers)

    def _takes_claims(self, source: Partner) -> bool:
        return source.has_room if source.key else len(source.asked) < UPLINK_AT_ONCE

    def _steal(self, ready: list[Partner], now: float) -> None:
        """With nothing left to ask for, take over what comes too slowly."""
        own_pace_s = max(self._pace_s, STEAL_S)
        for block, job in [*self._jobs.items()]:
            if self._checking(block) or not job.giver:
                continue
            giver = self._partners[job.giver]
            crawls = block in giver.claims and giver.pace_s > SLOW_PACES * own_pace_s
            if now - job.at < STEAL_S and not crawls:
                continue
            others = [
                one for one in ready if one.held[block] and one is not giver and one.has_room and one.key
            ]
            others = [one for one in others if not one.seed] or others
            better = self._least([one for one in others if not one.complete] or others)
            if better is not None and self._late(block, giver, better, now):
                self.stolen += 1
                self._move(block, better, now)

    def _late(self, block: int, giver: Partner, better: Partner, now: float) -> bool:
        """Whether ``better`` would bring a block long before ``giver``."""
        claim_at = giver.claims.get(block)
        if not giver.held[block] and claim_at is not None:
            return self._due(block, giver, claim_at, now)
        rate_bytes_s = better.rate_bytes_s or giver.rate_bytes_s
        if not rate_bytes_s:
            return False
        known = 0 < giver.rate_bytes_s * SLOW_GIVER <= better.rate_bytes_s
        if better.seed and not giver.seed and not known:
            return False  # whoever is as slow as all others costs the source no second copy
        left_s = giver.asked_bytes / giver.rate_bytes_s if giver.rate_bytes_s else STALL_S
        return left_s > STEAL_S + 2 * (better.asked_bytes + giver.asked[block]) / rate_bytes_s

    def _due(self, block: int, giver: Partner, claim_at: float, now: float) -> bool:
        """Whether a claim is late enough for this box to take it over: one does so first, then all may."""
        age_s, pace_s = now - claim_at, max(self._pace_s, STEAL_S)
        slow = giver.pace_s > SLOW_PACES * pace_s and giver.pace_s - age_s > pace_s
        if not slow and age_s <= LATE_PACES * pace_s:
            return False
        thieves = [key for key in self._receivers() if key != giver.key]
        return thieves[block % len(thieves)] == self._own or age_s > 2 * LATE_PACES * pace_s

    def _move(self, block: int, to: Partner, now: float) -> None:
        job = self._jobs.pop(block)
        giver = self._partners.get(job.giver)
        if giver is not None:
            giver.release(block)
            self._withdraw(job.giver, block)
        free = to.complete and not any(one.held[block] for one in self._partners.values() if not one.complete)
        if job.claimed and not free:
            self._news[2].append(block)
        self._assign(block, to, now, claimed=free, urgent=job.urgent, late=True)

    def _assign(
        self,
        block: int,
        giver: Partner,
        now: float,
        *,
        claimed: bool,
        urgent: bool = False,
        late: bool = False,
    ) -> None:
        if block in self._strict:
            self._forget(block)
        draft = self._drafts.setdefault(block, Draft())
        self._drafts.move_to_end(block)
        draft.asked.add(giver.key)
        self._jobs[block] = Job(giver.key, now, claimed, urgent)
        missing = tuple(part for part in range(self.parts(block)) if part not in draft.got)
        giver.ask(block, len(missing), sum(self._unit_bytes(Unit(block, part)) for part in missing), now)
        if claimed:
            self._news[1].append(block)
        sake = Sake.OWN if not claimed else Sake.LATE if late else Sake.ALL
        self._moves.append(Ask(giver.key, block, missing, urgent, sake) if giver.key else Fetch(block))
        if len(self._drafts) > DRAFTS_LIMIT:
            idle = next((one for one in self._drafts if one not in self._jobs), None)
            if idle is not None:
                self._forget(idle)

    def _has(self, unit: Unit) -> bool:
        if self._held[unit.block]:
            return True
        draft = self._drafts.get(unit.block)
        return draft is not None and unit.part in draft.got

    def _unit_bytes(self, unit: Unit) -> int:
        return min(UNIT_BYTES, self._sizes[unit.block] - unit.part * UNIT_BYTES)

    # -- whose turn

    def _receivers(self) -> list[bytes]:
        return sorted([self._own, *(one.key for one in self._partners.values() if one.key and one.lacks)])

    def _free(self, block: int, ready: Iterable[Partner]) -> bool:
        """Whether no unfinished partner has a block or brings it."""
        return not any(one.brings(block) for one in ready if not one.complete)

    def _least(self, partners: Iterable[Partner]) -> Partner | None:
        return min(partners, key=lambda one: one.asked_bytes, default=None)
