"""The heartbeat: turns what was watched into signed pulses, durable before anything moves on."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge

from ...protocol.beacon import Beacon
from ...protocol.errors import FarcastError, LocalError
from ...protocol.ports import Spool, SpooledPulse
from ...protocol.pulse import MAX_DELTA_MS, NO_WITNESS, PulseSigner, Served, Viewing, witness
from ...protocol.ticket import DAY_MS
from ...protocol.viewing import PulseDue
from .wallet import Issue, Wallet

log = logging.getLogger(__name__)

RENEW_MIN_MS, RENEW_SPREAD_MS = 4 * 3_600_000, 16 * 3_600_000
MIDNIGHT_MS = 30 * 60_000
"""Nobody asks for tickets this close to midnight, when everybody would."""
RETRY_MS = 30_000
RESULTS = ("signed", "off", "no_ticket", "failed")


class Evidence(NamedTuple):
    """What shows that the title was really here: the rendition's index and one block of the interval.

    ``block`` is the first of a segment that ``may_witness``; None where none is held.
    """

    rendition: int
    block: bytes | None


class _Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.pulses = Counter(
            "farcast_node_pulses", "Pulses due, by what became of them.", ["result"], registry=registry
        )
        self.seconds = Counter("farcast_node_viewed_seconds", "Viewed seconds signed for.", registry=registry)
        self.tickets = Gauge("farcast_node_tickets", "Days from today on with a ticket.", registry=registry)
        for result in RESULTS:
            self.pulses.labels(result)


class Heartbeat:
    """Signs the pulses that viewing sessions make due; one at a time, in order.

    ``digest`` gives the SHA-256 digest of a title's manifest block, ``served`` what was brought for
    it since the last pulse, ``beacon`` the newest beacon.
    """

    def __init__(
        self,
        spool: Spool,
        wallet: Wallet,
        registry: CollectorRegistry,
        *,
        digest: Callable[[str], bytes],
        served: Callable[[str], list[Served]],
        beacon: Callable[[], Beacon | None],
        clock_ms: Callable[[], int],
        enabled: bool = True,
    ) -> None:
        """Sign while ``enabled``; ``clock_ms`` is the wall clock in ms since 1970."""
        self._spool = spool
        self._wallet = wallet
        self._digest = digest
        self._served = served
        self._beacon = beacon
        self._clock_ms = clock_ms
        self._metrics = _Metrics(registry)
        self._lock = asyncio.Lock()
        self._room_ms = 0
        self._room_at_ms = 0
        self._renew_at_ms = 0
        self._asked_ms = 0
        self._owing = True
        self._tasks: set[asyncio.Task[bool]] = set()
        self.enabled = enabled
        self.counts: dict[str, int] = dict.fromkeys(RESULTS, 0)

    async def recover(self) -> int:
        """Bring signed pulses that a crash or a full disk kept from the spool there; returns how many.

        Raises:
            LocalError: the spool cannot take them; nothing new is signed before it does.

        """
        waiting = await asyncio.to_thread(self._wallet.unspooled)
        for item in waiting:
            await self._to_spool(SpooledPulse(*item, seen_ms=self._clock_ms(), own=True))
        self._owing = False
        return len(waiting)

    async def beat(self, due: PulseDue, evidence: Evidence) -> bool:
        """Sign one due pulse and spool it; False where it could not be, which is counted, never raised."""
        if not self.enabled:
            self._count("off")
            return False
        task = asyncio.get_running_loop().create_task(self._one_at_a_time(due, evidence))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)  # between wallet and spool nobody interrupts

    async def close(self) -> None:
        """Wait until every pulse begun is in the spool."""
        await asyncio.gather(*self._tasks)

    async def renew(self, issue: Issue, keys: list[bytes]) -> int:
        """Ask for the tickets that are missing, if it is time to; returns how many came.

        Call it every minute or so. Without a ticket for today or tomorrow it asks at once, otherwise
        4 to 20 hours after the last time and never around midnight. ``keys``: the origin's ticket keys.

        Raises:
            RemoteError: what ``issue`` raises, or a ticket that is not right.

        """
        now_ms = self._clock_ms()
        today = now_ms // DAY_MS
        await asyncio.to_thread(self._wallet.prune, today)
        holding = await asyncio.to_thread(self._wallet.holding, today)
        self._metrics.tickets.set(len(holding.days))
        urgent = today in holding.missing or today + 1 in holding.missing
        if urgent:
            if now_ms < self._asked_ms + RETRY_MS:
                return 0
        elif now_ms < self._renew_at_ms or min(now_ms % DAY_MS, DAY_MS - now_ms % DAY_MS) < MIDNIGHT_MS:
            return 0
        self._renew_at_ms = now_ms + RENEW_MIN_MS + secrets.randbelow(RENEW_SPREAD_MS)
        if not holding.missing:
            return 0  # looked at a time of its own, so that nobody asks just after midnight
        self._asked_ms = now_ms
        wanted = await asyncio.to_thread(self._wallet.wanted, today)
        if not wanted:
            return 0  # today's was revoked after it was used: there is no second one for a day
        kept = await asyncio.to_thread(self._wallet.accept, await issue(wanted), keys)
        self._metrics.tickets.set(len(holding.days) + kept)
        return kept

    def status(self) -> dict[str, object]:
        """Return the switch and the counts, for page and admin calls."""
        return {"enabled": self.enabled, "pulses": dict(self.counts)}

    async def _one_at_a_time(self, due: PulseDue, evidence: Evidence) -> bool:
        async with self._lock:  # held over disk writes, never over a network wait
            try:
                return await self._beat(due, evidence)
            except FarcastError as error:
                log.warning("a pulse was lost: %s", error)
                self._count("failed")
                return False

    async def _beat(self, due: PulseDue, evidence: Evidence) -> bool:
        if self._owing:
            await self.recover()
        at_ms = self._clock_ms()
        signer = await asyncio.to_thread(self._wallet.signer, at_ms)
        if signer is None:
            self._count("no_ticket")  # playback goes on
            return False
        delta_ms = self._within_wall(due.delta_ms, at_ms)
        pulse = self._sign(signer, due, delta_ms, at_ms, evidence)
        self._owing = True
        await asyncio.to_thread(self._wallet.record, signer, pulse)
        await self._to_spool(
            SpooledPulse(signer.body.tid, signer.seq, pulse, signer.ticket, seen_ms=at_ms, own=True)
        )
        self._owing = False
        self._count("signed")
        self._metrics.seconds.inc(delta_ms / 1000)
        return True

    def _sign(
        self, signer: PulseSigner, due: PulseDue, delta_ms: int, at_ms: int, evidence: Evidence
    ) -> bytes:
        beacon = self._beacon()
        tid, seq = signer.body.tid, signer.seq + 1
        mark = NO_WITNESS
        if beacon is not None and evidence.block is not None:
            mark = witness(beacon.value, tid, seq, evidence.block)
        viewing = Viewing(
            due.state,
            self._digest(due.content),
            due.position_ms,
            min(evidence.rendition, 255),
            self._served(due.content),
            mark,
        )
        return signer.sign(at_ms, delta_ms, beacon.number if beacon else 0, viewing)

    async def _to_spool(self, item: SpooledPulse) -> None:
        if not item.ticket:
            raise LocalError("the wallet is damaged: a pulse without its ticket", reason="damaged")
        await asyncio.to_thread(self._spool.add, [item])
        await asyncio.to_thread(self._wallet.spooled, item.tid, item.seq)

    def _within_wall(self, delta_ms: int, at_ms: int) -> int:
        """Bound what all players of this box claim together by the wall clock; two minutes may be owed."""
        if self._room_at_ms:
            passed_ms = max(at_ms - self._room_at_ms, 0)
            self._room_ms = min(self._room_ms + passed_ms, MAX_DELTA_MS)
        self._room_at_ms = at_ms
        claimed_ms = max(0, min(delta_ms, self._room_ms))
        self._room_ms -= claimed_ms
        return claimed_ms

    def _count(self, result: str) -> None:
        self.counts[result] += 1
        self._metrics.pulses.labels(result).inc()
