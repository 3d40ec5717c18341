"""The fetcher: asyncio around the ladder. One flight per CID, every block verified before anyone has it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf

from prometheus_client import CollectorRegistry

from ...protocol.cid import Cid
from ...protocol.errors import FarcastError, RefusedError, StoreFullError, UnreachableError
from ...protocol.ports import BlockStore, Cost, Tier, TierName
from ...protocol.pulse import Served
from .flight import Cancel, Effect, GiveUp, Start, Switched
from .ladder import Ladder
from .nearby import Nearby
from .supply import Arrival, Failover, Supply
from .way import Way

log = logging.getLogger(__name__)

SOURCES_S = 0.5
"""How often tiers are asked for their sources while something is wanted."""
PREFETCH_LIMIT, PREFETCH_AT_ONCE = 32, 2
"""Prefetches that may wait, and of those under way: what a player waits for needs the connections."""
_PUSHED_KEPT = 65_536
_LIES: tuple[str, ...] = ("hash_mismatch", "too_large")
"""Other bytes than the block's, or more of them than any block has."""


@dataclass(slots=True, eq=False)
class _Wait:
    future: asyncio.Future[bytes]
    waiters: int = 0


class Fetcher:
    """Gets blocks from the store or, through the ladder, from the nearest tier that answers.

    What a tier can do besides what its port demands is in ``way.py``.
    """

    def __init__(
        self,
        store: BlockStore,
        tiers: Sequence[Tier],
        registry: CollectorRegistry,
        *,
        ladder: Ladder | None = None,
        network: Callable[[], str] = str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Drive ``ladder`` over ``tiers``; ``clock`` gives monotonic seconds.

        ``network`` names the network this box is on now: what is known of sources holds for that one.
        """
        self._store = store
        self._ladder = ladder or Ladder()
        self._network = network
        self._clock = clock
        self.supply = Supply(registry)
        self._ways = {tier.name: Way.of(tier) for tier in tiers}
        self._waits: dict[Cid, _Wait] = {}
        self._flights: dict[int, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._prefetching: set[Cid] = set()
        self._prefetches = asyncio.Semaphore(PREFETCH_AT_ONCE)
        self._timer: asyncio.TimerHandle | None = None
        self._pushed: OrderedDict[Cid, TierName] = OrderedDict()
        self._listed_at = float("-inf")
        self._closed = False
        self.nearby: Nearby | None = None
        self.barred: Callable[[Cid, str], bool] = lambda _cid, _title: False
        """Says which blocks of a title may not be kept any more, even where they are on their way."""
        self.spent: Callable[[], str] = str
        """Says in a sentence why what costs may not be asked for now; empty where it may."""

    async def block(
        self,
        cid: Cid,
        *,
        title: str = "",
        buffer_s: float | None = None,
        size_bytes: int = 0,
        shun: frozenset[TierName] = frozenset(),
        alone: bool = False,
    ) -> bytes:
        """Return a block, verified: from the store, else from the nearest tier that answers.

        ``buffer_s`` is what the player still holds, ``size_bytes`` the block's size where known;
        tiers to ``shun`` are not asked, and neighbours who share the title not where it is to come ``alone``.

        Raises:
            UnreachableError: no tier delivered it before the ladder's deadline.

        """
        bring = partial(self._block, cid, title, buffer_s, size_bytes, urgent=True, shun=shun)
        return await (bring() if alone else self._shared(cid, title, buffer_s, bring))

    def prefetch(self, cids: Iterable[Cid], *, title: str = "") -> None:
        """Bring blocks into the store in the background, without hedging; more than 32 are left out."""
        for cid in cids:
            if len(self._prefetching) >= PREFETCH_LIMIT:
                return
            if cid not in self._prefetching and not self._store.has(cid):
                self._prefetching.add(cid)
                self._spawn(self._prefetch(cid, title))

    def pushed(self, cid: Cid, size_bytes: int, tier: TierName) -> None:
        """Hear that a carrier put a block into the store by itself, and that it was new there."""
        self.supply.brought(tier, size_bytes)
        self.supply.arrived(cid, Arrival(tier, 0, inf))
        self._pushed[cid] = tier
        if len(self._pushed) > _PUSHED_KEPT:
            self._pushed.popitem(last=False)
        if cid in self._waits:
            self._spawn(self._deliver_pushed(cid, tier))

    def take_served(self, title: str) -> list[Served]:
        """Return the kilobytes each source brought for ``title`` since the last call."""
        return self.supply.take_served(title)

    def status(self) -> dict[str, object]:
        """Return tiers, failovers and the tier in use, as page, admin calls and demo show them."""
        now = self._clock()
        self._list_sources(now)
        tiers = [
            {
                "name": tier.label,
                "blocks": self.supply.blocks[tier],
                "bytes": self.supply.bytes[tier],
                "rejected": self.supply.rejected[tier],
                "sources": self._ladder.sources_up(tier, now),
            }
            for tier in TierName
        ]
        in_use = self._ladder.in_use
        return {
            "tiers": tiers,
            "failovers": [
                {"from": one.before.label, "to": one.after.label, "cause": one.cause, "ms": one.ms}
                for one in self.supply.failovers
            ],
            "tier_in_use": in_use.label if in_use else None,
            "waiting": len(self._waits),
        }

    async def close(self) -> None:
        """Cancel every flight and wait for their ends."""
        if self._timer is not None:
            self._timer.cancel()
        self._closed = True
        for wait in self._waits.values():
            wait.future.set_exception(UnreachableError("this box is stopping", reason="stopping"))
        self._waits.clear()
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- one block

    async def _shared(
        self, cid: Cid, title: str, buffer_s: float | None, bring: Callable[[], Awaitable[bytes]]
    ) -> bytes:
        """Let those who share a title come first, then ``bring`` a block; they hear what became of it."""
        own, here = await self._seek(cid, title, buffer_s), False
        try:
            data = await bring()
            here = True
            return data
        finally:
            if own is not None:
                own.found(title, cid, here=here)

    async def _block(
        self,
        cid: Cid,
        title: str,
        buffer_s: float | None,
        size_bytes: int,
        *,
        urgent: bool,
        shun: frozenset[TierName] = frozenset(),
    ) -> bytes:
        if cid.is_identity:
            return cid.digest
        wait = self._waits.get(cid)
        if wait is None:
            held = await asyncio.to_thread(self._store.get, cid) if self._store.has(cid) else None
            if held is not None:
                if title:
                    self._first_look(cid)
                return held
            wait = self._waits.get(cid)
        if wait is None:
            self._check_spent()
            wait = self._waits[cid] = _Wait(asyncio.get_running_loop().create_future())
        wait.waiters += 1
        now = self._clock()
        self._list_sources(now)
        self._ladder.want(
            cid, now, title=title, size_bytes=size_bytes, buffer_s=buffer_s, urgent=urgent, shun=shun
        )
        self._pump()
        try:
            return await asyncio.shield(wait.future)
        finally:
            wait.waiters -= 1
            if not wait.waiters and self._waits.get(cid) is wait:
                del self._waits[cid]
                wait.future.cancel()
                self._ladder.cancelled(cid)
                self._pump()

    def _check_spent(self) -> None:
        """Raise at once where a link's budget is used up and nobody brings blocks for nothing."""
        why = self.spent()
        if why and not any(way.cost is Cost.FREE and way.tier.sources() for way in self._ways.values()):
            raise RefusedError(why, status=503, retry_after_s=60, reason="budget_spent")

    async def _prefetch(self, cid: Cid, title: str) -> None:
        try:
            async with self._prefetches:
                await self._shared(cid, title, None, partial(self._block, cid, title, None, 0, urgent=False))
        except FarcastError as error:
            log.debug("prefetch: %s", error)
        finally:
            self._prefetching.discard(cid)

    async def _seek(self, cid: Cid, title: str, buffer_s: float | None) -> Nearby | None:
        """Look for a block among neighbours who share its title; returns whom to tell that it was fetched."""
        nearby = self.nearby
        if nearby is None or not title or cid.is_identity or cid in self._waits or self._store.has(cid):
            return None
        return None if await nearby.seek(title, cid, buffer_s) else nearby

    async def _deliver_pushed(self, cid: Cid, tier: TierName) -> None:
        data = await asyncio.to_thread(self._store.get, cid)
        if data is not None:
            self._pushed.pop(cid, None)
            self._ladder.pushed(cid, tier, len(data), self._clock())
            self._resolve(cid, data)
            self._pump()

    def _first_look(self, cid: Cid) -> None:
        """Note a store hit: the first look at a pushed block means that its tier serves now."""
        tier = self._pushed.pop(cid, None)
        if tier is not None:
            self._ladder.found(tier)
            self._pump()

    # -- the ladder's shell

    def _list_sources(self, now: float) -> None:
        if now - self._listed_at < SOURCES_S:
            return
        self._listed_at = now
        self._ladder.network(self._network(), now)
        for name, way in self._ways.items():
            self._ladder.set_sources(
                name,
                way.tier.sources(),
                now,
                cost=way.cost,
                watched=way.watched,
                reserve=way.reserve(),
                own=way.own,
            )
            self.supply.up(name, self._ladder.sources_up(name, now))

    def _pump(self) -> None:
        """Carry out what the ladder decided and sleep until it wants to be woken."""
        effects = self._ladder.take()
        while effects:
            for effect in effects:
                self._apply(effect)
            effects = self._ladder.take()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wake_at = self._ladder.wake_at
        if wake_at is not None and not self._closed:
            delay_s = max(wake_at - self._clock(), 0.0)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._clock()
        self._list_sources(now)
        self._ladder.tick(now)
        self._pump()

    def _apply(self, effect: Effect) -> None:
        match effect:
            case Start():
                self._flights[effect.flight] = self._spawn(self._fly(effect))
            case Cancel():
                task = self._flights.pop(effect.flight, None)
                if task is not None:
                    task.cancel()
            case GiveUp():
                self.supply.given_up(effect.reason)
                message = (
                    f"no tier delivered the block {effect.cid}; `farcast doctor` says which are reachable"
                )
                wait = self._waits.pop(effect.cid, None)
                if wait is not None and not wait.future.done():
                    wait.future.set_exception(UnreachableError(message, reason=effect.reason))
            case Switched():
                self.supply.switched(Failover(effect.before, effect.after, effect.cause, effect.took_ms))

    async def _fly(self, start: Start) -> None:
        way = self._ways[start.source.tier]
        extra: dict[str, object] = {"title": start.title} if way.hinted and start.title else {}
        if way.watched:
            extra["arrived"] = partial(self._arrived, start.flight)
        tier, reason = start.source.tier, ""
        began = self._clock()
        status, retry_after_s, data = 0, 0.0, b""
        try:
            data = await way.fetch(start.source, start.cid, **extra)
            self._ladder.landed(start.flight, self._clock())
            loop = asyncio.get_running_loop()
            await asyncio.to_thread(self._keep, start, data, tier, loop)
        except RefusedError as error:
            reason = error.reason if error.reason == "taken_down" else "refused"
            status, retry_after_s = error.status, error.retry_after_s or 0.0
        except FarcastError as error:
            reason = error.reason
        except (OSError, EOFError, TimeoutError) as error:
            reason = "timeout" if isinstance(error, TimeoutError) else "unreachable"
        except Exception:
            log.exception("the %s tier failed", tier.label)  # its bug costs one flight, never the film
            reason = "bug"
        else:
            self._landed(start, data, began)
            return
        if start.flight not in self._flights:
            return
        del self._flights[start.flight]
        self.supply.failed(tier, reason)
        if reason in _LIES:
            self._ladder.corrupt(start.flight, self._clock())
        else:
            self._ladder.failed(
                start.flight, reason, self._clock(), status=status, retry_after_s=retry_after_s
            )
        self._pump()

    def _arrived(self, flight: int, total_bytes: int) -> None:
        if self._ladder.progressed(flight, total_bytes, self._clock()):
            self._pump()

    def _keep(self, start: Start, data: bytes, tier: TierName, loop: asyncio.AbstractEventLoop) -> None:
        """Verify and store a block; counted here, for a flight may be cancelled meanwhile. Blocking."""
        cid = start.cid
        if self.barred(cid, start.title):
            raise RefusedError(f"{cid} was taken down", status=410, reason="taken_down")
        try:
            new = self._store.put(cid, data, tier=tier)
        except StoreFullError as error:
            log.warning("%s", error)  # a full disk stops keeping, not playing
            new = True
        if new:
            loop.call_soon_threadsafe(self.supply.brought, tier, len(data))

    def _landed(self, start: Start, data: bytes, began: float) -> None:
        self._flights.pop(start.flight, None)
        now = self._clock()
        if self._ladder.received(start.flight, len(data), now):
            self.supply.arrived(start.cid, Arrival(start.source.tier, round((now - began) * 1_000), now))
            self.supply.served(start.title, start.source, len(data))
            self._resolve(start.cid, data)
        self.supply.wasted(self._ladder.wasted_bytes)
        self._pump()

    def _resolve(self, cid: Cid, data: bytes) -> None:
        self._pushed.pop(cid, None)
        wait = self._waits.pop(cid, None)
        if wait is not None and not wait.future.done():
            wait.future.set_result(data)

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
