"""One title shared with neighbours: carries out what its swarm decides.

Bytes of a block on its way are kept in memory part by part, passed on as they come, and hashed once whole;
only then does the block enter the store and count as held. Over 400 lines because a title's events, the
moves they lead to and the bytes between them are one thing.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from ..protocol.cid import Cid
from ..protocol.errors import FarcastError, LocalError, RemoteError
from ..protocol.ports import BlockStore, TierName
from ..protocol.sharing import Kind, News, OneBlock, Referral, Wish
from .moves import Ask, Check, Cut, Fetch, Forget, Lack, Move, Refer, Sake, Send, Tell, Withdraw
from .partner import Unit
from .sharelink import ShareLink
from .sharetally import ShareTally
from .swarm import TICK_S, UNIT_BYTES, UPLINK, Swarm

RECENT_BYTES = 16 << 20
NEWS_PLACES = 1_024
IDLE_S = 30.0
WATCH_S = 30.0
"""After the last block that a player asked for, a title counts as watched for so long."""


class Layout(NamedTuple):
    """What a title is made of; ``digest`` is that of its manifest's CID, ``sizes`` are in bytes."""

    title: str
    digest: bytes
    cids: Sequence[Cid]
    sizes: Sequence[int]


@dataclass(slots=True, eq=False)
class _Sought:
    """A block that players wait for: whether it came, or is this box's to fetch."""

    here: asyncio.Future[bool]
    waiters: int = 0


class Share:
    """Drives one swarm over the links given to it.

    ``barred`` says which blocks may not be kept or passed on; ``kept`` hears of each block that came from a
    neighbour. With ``fetch`` this box brings what no neighbour has by its own uplink.
    """

    def __init__(
        self,
        own: bytes,
        layout: Layout,
        store: BlockStore,
        *,
        tally: ShareTally,
        barred: Callable[[Cid, str], bool],
        kept: Callable[[Cid, int], None],
    ) -> None:
        self.layout = layout
        self.links: dict[bytes, ShareLink] = {}
        self.wanted = False
        self.problem: FarcastError | None = None
        self._store = store
        self._tally = tally
        self._barred = barred
        self._kept = kept
        self._loop = asyncio.get_running_loop()
        held = [place for place, cid in enumerate(layout.cids) if store.has(cid)]
        self.swarm = Swarm(own, layout.sizes, held)
        self.swarm.want(0.0, everything=False)
        self._parts: dict[int, dict[int, memoryview]] = {}
        self._recent: OrderedDict[int, bytes] = OrderedDict()
        self._recent_bytes = 0
        self._fetch: Callable[[Cid], Awaitable[bytes]] | None = None
        self._fetches: dict[int, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._places = {cid: place for place, cid in enumerate(layout.cids)}
        self._sought: dict[int, _Sought] = {}
        self.watched_until = float("-inf")
        self._turned = asyncio.Event()  # all is here, or something is wrong
        self._pumping = False
        self._slept_s = 0.0
        self.used_at = self.moved_at = self._loop.time()

    @property
    def held_places(self) -> list[int]:
        """Which blocks are here."""
        return [place for place, mark in enumerate(self.swarm.held) if mark]

    # -- wanting

    async def bring(self, fetch: Callable[[Cid], Awaitable[bytes]] | None) -> None:
        """Return once every block is here.

        Raises:
            FarcastError: nobody on the link has what is missing, and the uplink did not bring it.

        """
        self.wanted, self._fetch, self.problem = True, fetch, None
        self.moved_at = self._loop.time()
        for place, cid in enumerate(self.layout.cids):  # what came by other ways meanwhile
            if not self.swarm.has(place) and self._store.has(cid):
                self.swarm.fetched(place, self._now())
        self.swarm.retry(self._now())
        self.swarm.want(self._now(), everything=True)
        if fetch is not None:
            self.swarm.uplink(self._now(), up=True)
        self.pump()
        try:
            while self.swarm.lacks:
                if self.problem is not None and self._stuck():
                    raise self.problem
                self._turned.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await self._turned.wait()
        finally:
            self.wanted = False
            self.swarm.want(self._now(), everything=False)
            self.swarm.uplink(self._now(), up=self.watched)
            while self._fetches:
                self._fetches.popitem()[1].cancel()
            self.pump()

    async def seek(self, cid: Cid, patience_s: float) -> bool:
        """Wait for a block that somebody here is about to watch; False where this box is to fetch it itself.

        Say ``found`` once it has. A neighbour that is bringing the block is waited for, the box whose turn
        it is fetches it, and no wait is longer than ``patience_s``.
        """
        place, now = self._places.get(cid), self._now()
        self.watch()
        if place is None or self.swarm.has(place):
            return False
        if not self.wanted:
            self.swarm.uplink(now, up=True)
        sought = self._sought.setdefault(place, _Sought(self._loop.create_future()))
        sought.waiters += 1
        self.swarm.need([*self._sought], now)
        self.pump()
        try:
            async with asyncio.timeout(patience_s if self.links else 0):  # alone it only claims it
                return await asyncio.shield(sought.here)
        except TimeoutError:
            return False
        except asyncio.CancelledError:
            self._forgo(place)  # it may have just become this box's
            raise
        finally:
            sought.waiters -= 1
            if not sought.waiters and self._sought.get(place) is sought:
                del self._sought[place]
                self.swarm.need([*self._sought], self._now())

    def found(self, cid: Cid, *, here: bool) -> None:
        """Hear that this box fetched a block it was to fetch, or could not."""
        place, now = self._places.get(cid), self._now()
        if place is None:
            return
        here = here and self._store.has(cid)  # a full store hands it to the player alone
        self._answer(place, here=here)
        if here:
            self.swarm.fetched(place, now)
            self.pump()
        else:
            self._forgo(place)

    def _forgo(self, place: int) -> None:
        """Give back a claim whose block does not come, to whoever still seeks it here or elsewhere."""
        self.swarm.need([*self._sought], self._now())  # else it would be claimed again at once
        self.swarm.forgone(place, self._now())
        self.pump()

    @property
    def watched(self) -> bool:
        """Whether somebody here watches the title."""
        return self.watched_until > self._loop.time()

    def watch(self) -> None:
        """Note that somebody here watches the title now."""
        self.watched_until = self._loop.time() + WATCH_S

    def part(self) -> None:
        """End the links that nobody needs: both have it all, or nobody here wants it any more."""
        for link in [*self.links.values()]:
            if self.swarm.lacks and not self.wanted and not self.watched:
                link.close("given_up")
            elif not self.swarm.lacks and self.swarm.served(link.peer):
                link.close("done")

    def _answer(self, place: int, *, here: bool) -> None:
        sought = self._sought.pop(place, None)
        if sought is not None and not sought.here.done():
            sought.here.set_result(here)

    def _stuck(self) -> bool:
        done = isinstance(self.problem, LocalError) or self.swarm.hopeless or not self.links
        return done or self._loop.time() - self.moved_at > IDLE_S

    # -- links

    def join(self, link: ShareLink, held: Sequence[int]) -> bool:
        """Share with a neighbour whose key is proven; False where there is no room for it."""
        if not self.swarm.joined(link.peer, held, self._now()):
            return False
        self.links[link.peer] = link
        self.used_at = self._loop.time()
        return True

    def leave(self, link: ShareLink) -> None:
        """Share with a neighbour no more."""
        if self.links.get(link.peer) is link:
            del self.links[link.peer]
            self.used_at = self._loop.time()
            self.swarm.left(link.peer, self._now())
            self.pump()

    def heard(self, link: ShareLink, message: News | Wish | OneBlock | Referral, kind: int) -> None:
        """Take one word of a neighbour."""
        now, swarm = self._now(), self.swarm
        match message:
            case News():
                swarm.heard(link.peer, message.held, message.claimed, message.given_up, now)
            case Wish():
                sake = Sake(message.sake)
                swarm.asked(link.peer, message.block, message.parts, now, urgent=message.urgent, sake=sake)
            case Referral():
                swarm.referred(link.peer, message.block, message.key, now)
            case OneBlock() if kind == Kind.WITHDRAWAL:
                swarm.withdrawn(link.peer, message.block, now)
            case OneBlock():
                swarm.lacking(link.peer, message.block, now)
        self.pump()

    def piece(self, link: ShareLink, block: int, offset: int, data: memoryview) -> None:
        """Take one piece; a unit counts once all its pieces are here, in their order.

        Raises:
            RemoteError: ``malformed``.

        """
        sizes = self.layout.sizes
        unit = Unit(block, offset // UNIT_BYTES)
        start = unit.part * UNIT_BYTES
        if block >= len(sizes) or start > max(0, sizes[block] - 1):
            raise RemoteError("a piece of nothing there is", reason="malformed")
        size_bytes = min(UNIT_BYTES, sizes[block] - start)
        keep = not self.swarm.has(block)
        if not link.incoming.take(unit, offset - start, size_bytes, data, keep=keep):
            return
        self._tally.received(size_bytes)
        whole = link.incoming.whole()
        if self.swarm.arrived(link.peer, unit, self._now(), kept=whole is not None) and whole is not None:
            self._parts.setdefault(block, {})[unit.part] = whole
            self.moved_at = self._loop.time()
        self.pump()

    def tell(
        self, link: ShareLink, held: Sequence[int], claimed: Sequence[int], given_up: Sequence[int]
    ) -> None:
        """Tell a neighbour what is held now, being brought, and brought no longer."""
        for start in range(0, max(len(held), len(claimed), len(given_up)), NEWS_PLACES):
            end = start + NEWS_PLACES
            news = News([*held[start:end]], [*claimed[start:end]], [*given_up[start:end]])
            link.say(Kind.NEWS, news)

    def sent(self, link: ShareLink) -> None:
        """Go on with the next unit for a neighbour."""
        self.swarm.sent(link.peer, self._now())
        self.pump()

    async def close(self) -> None:
        """End all links and all work."""
        if self._timer is not None:
            self._timer.cancel()
        for link in [*self.links.values()]:
            link.close("leaving")
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- the swarm's shell

    def pump(self) -> None:
        """Carry out what the swarm decided and sleep until it wants to be woken."""
        if self._pumping:
            return
        self._pumping = True
        try:
            moves = self.swarm.take()
            while moves:
                for move in moves:
                    self._do(move)
                moves = self.swarm.take()
        finally:
            self._pumping = False
        if not self.swarm.lacks or isinstance(self.problem, LocalError):
            self._turned.set()
        wake_at = self.swarm.wake_at
        if wake_at is not None and self._timer is None:
            due_at = max(wake_at + self._slept_s, self._loop.time())
            self._timer = self._loop.call_at(due_at, self._tick, due_at)

    def _now(self) -> float:
        """Return the swarm's time: it stands still while this box waits for a processor."""
        return self._loop.time() - self._slept_s

    def _tick(self, due_at: float) -> None:
        self._timer = None
        self._slept_s += max(0.0, self._loop.time() - due_at - TICK_S)
        self.swarm.tick(self._now())
        self.pump()

    def _do(self, move: Move) -> None:
        match move:
            case Send(peer, unit):
                self._send(peer, unit)
            case Fetch(block) if block in self._sought or self._fetch is None:
                self._answer(block, here=False)
            case Fetch(block):
                self._fetches[block] = self._spawn(self._bring_in(block))
            case Check(block):
                self._spawn(self._check(block))
            case Forget(block):
                self._parts.pop(block, None)
            case Withdraw(peer, block) if peer == UPLINK:
                if block in self._fetches:
                    self._fetches.pop(block).cancel()
            case _ if move.peer in self.links:
                self._word(self.links[move.peer], move)
            case _:
                pass

    def _word(self, link: ShareLink, move: Ask | Withdraw | Tell | Lack | Refer | Cut) -> None:
        match move:
            case Ask(_, block, parts, urgent, sake):
                link.say(Kind.ASK, Wish(block, list(parts), urgent, sake))
            case Withdraw(_, block):
                link.say(Kind.WITHDRAWAL, OneBlock(block))
            case Tell(_, held, claimed, given_up):
                self.tell(link, held, claimed, given_up)
            case Lack(_, block):
                link.say(Kind.LACK, OneBlock(block))
            case Refer(_, block, to):
                link.say(Kind.REFERRAL, Referral(block, to))
            case Cut(peer, reason):
                self.links.pop(peer).abort(reason)

    def _send(self, peer: bytes, unit: Unit) -> None:
        link = self.links.get(peer)
        if link is None:
            return
        part = self._parts.get(unit.block, {}).get(unit.part)
        block = self._recent.get(unit.block)
        if part is not None:
            self._pass(link, unit, part)
        elif block is not None:
            self._pass(link, unit, memoryview(block)[unit.part * UNIT_BYTES :][:UNIT_BYTES])
        else:
            self._spawn(self._load(link, unit))

    def _pass(self, link: ShareLink, unit: Unit, data: memoryview) -> None:
        self._tally.sent(len(data))
        link.send(unit, data)

    async def _load(self, link: ShareLink, unit: Unit) -> None:
        cid = self.layout.cids[unit.block]
        data = None
        if not self._barred(cid, self.layout.title):
            with suppress(FarcastError):
                data = await asyncio.to_thread(self._store.get, cid)
        if data is None:
            self.swarm.lost(unit.block, self._now())
            link.say(Kind.LACK, OneBlock(unit.block))
            self.sent(link)
            return
        self._remember(unit.block, data)
        if link.open:
            self._pass(link, unit, memoryview(data)[unit.part * UNIT_BYTES :][:UNIT_BYTES])

    def _remember(self, block: int, data: bytes) -> None:
        """Keep a block at hand: it is about to be passed on."""
        self._recent_bytes += len(data) - len(self._recent.pop(block, b""))
        self._recent[block] = data
        while self._recent_bytes > RECENT_BYTES:
            self._recent_bytes -= len(self._recent.popitem(last=False)[1])

    async def _bring_in(self, block: int) -> None:
        assert self._fetch is not None
        try:
            data = await self._fetch(self.layout.cids[block])
        except FarcastError as error:
            self.problem = error
            self._fetches.pop(block, None)
            self.swarm.failed(block, self._now())
        else:
            self._fetches.pop(block, None)
            self.problem = None
            self.moved_at = self._loop.time()
            self._remember(block, data)
            self.swarm.fetched(block, self._now())
            self._answer(block, here=True)
        self.pump()

    async def _check(self, block: int) -> None:
        parts = self._parts.get(block, {})
        data = b"".join(parts[part] for part in sorted(parts))
        try:
            new = await asyncio.to_thread(self._keep, block, data)
        except FarcastError as error:
            self._tally.refused(error.reason)
            self._parts.pop(block, None)
            if error.reason == "hash_mismatch":
                self.swarm.broken(block, self._now())
            else:  # a full disk, or taken down meanwhile: nobody's fault, and no use asking again
                self.problem = error
                self.swarm.spare(block, self._now())
        else:
            self._parts.pop(block, None)
            self._remember(block, data)
            if new:
                self._kept(self.layout.cids[block], len(data))
            self.swarm.verified(block, self._now())
            self._answer(block, here=True)
        self.pump()

    def _keep(self, block: int, data: bytes) -> bool:
        """Verify and store a block; blocking."""
        cid = self.layout.cids[block]
        if self._barred(cid, self.layout.title):
            raise RemoteError(f"{cid} was taken down", reason="taken_down")
        return self._store.put(cid, data, tier=TierName.MESH)

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
