"""Pinning by CID: what the operator brings from an IPFS gateway, whatever the catalog lists.

Block by block over ``?format=raw``, each checked against its CID before it is stored. A pin that
broke off walks again and fetches only what is missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge

from ..node.blocks.store import DiskStore
from ..node.http.exchange import Answer, Exchange, Router
from ..protocol.cid import Cid
from ..protocol.errors import FarcastError, RefusedError
from .gateways import Gateways
from .pinjob import PinJob
from .pinwalk import PinWalk

LABEL = "cid:"
JOBS_AT_ONCE = 2
PINS_LIMIT = 1_000
RETRY_S = 600.0
"""How often what stopped is tried again."""

log = logging.getLogger(__name__)


class Pinned(NamedTuple):
    """How far a pin is: ``blocks`` known so far, of them ``held_blocks`` here with ``bytes``.

    ``whole`` once nothing is missing; ``error`` is the sentence of what stopped it, else empty.
    """

    cid: str
    blocks: int
    held_blocks: int
    bytes: int
    whole: bool
    error: str


class _Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.blocks = Counter("farcast_relay_pin_blocks", "Blocks fetched for pins.", registry=registry)
        self.bytes = Counter("farcast_relay_pin_bytes", "Bytes of those blocks.", registry=registry)
        self.failures = Counter(
            "farcast_relay_pin_failures", "Pins that stopped, by reason.", ["reason"], registry=registry
        )
        self.pins = Gauge(
            "farcast_relay_pins", "Pins by CID, whole or with blocks missing.", ["state"], registry=registry
        )


class _Pin:
    def __init__(self, cid: Cid) -> None:
        self.walk = PinWalk(cid)
        self.error = ""
        self.whole = False
        self.task: asyncio.Future[None] | None = None

    @property
    def at_work(self) -> bool:
        return self.task is not None and not self.task.done()

    def facts(self) -> Pinned:
        walk = self.walk
        return Pinned(str(walk.root), walk.known, walk.held, walk.bytes, self.whole, self.error)

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)


class Pinner:
    """The pins by CID of one relay; their blocks are pinned in the store under ``cid:<cid>``."""

    def __init__(
        self,
        store: DiskStore,
        gateways: Gateways,
        admit: Callable[[], Awaitable[None]],
        denied: Callable[[Cid], bool],
        registry: CollectorRegistry,
    ) -> None:
        """Bring what is not ``denied`` from ``gateways`` into ``store``, each once ``admit`` returns."""
        self._store = store
        self._gateways = gateways
        self._admit = admit
        self._denied = denied
        self._metrics = _Metrics(registry)
        self._pins: dict[Cid, _Pin] = {}
        self._leaving: set[Cid] = set()
        self._turn = asyncio.Semaphore(JOBS_AT_ONCE)
        self._count()

    def add_to(self, router: Router) -> None:
        """Add the admin calls below the path token."""
        router.route("GET", "/api/pins", self._list)
        router.route("POST", "/api/pins/{cid}", self._post)
        router.route("GET", "/api/pins/{cid}", self._get)
        router.route("DELETE", "/api/pins/{cid}", self._delete)

    async def pin(self, cid: Cid) -> Pinned:
        """Begin, or go on, to bring ``cid`` and all below it.

        Raises:
            RefusedError: pinning is off, the CID is taken down, or there are too many pins.

        """
        if not self._gateways.sources:
            message = "pinning by CID is off; name an IPFS gateway in settings.toml, [ipfs] pin_from"
            raise RefusedError(message, status=403, reason="pinning_off")
        if cid in self._leaving:
            message = f"{cid} is just being given up; pin it again in a moment"
            raise RefusedError(message, status=409, reason="leaving")
        if self._denied(cid):
            raise RefusedError(f"{cid} is taken down and not brought back", status=410, reason="denied")
        if cid not in self._pins and len(self._pins) >= PINS_LIMIT:
            message = f"{PINS_LIMIT} CIDs are pinned already; `farcast relay unpin CID` gives one up"
            raise RefusedError(message, status=409, reason="too_many_pins")
        known = self._pins.get(cid)
        return (known if known is not None and known.at_work else self._begin(cid)).facts()

    async def unpin(self, cid: Cid) -> Pinned:
        """Give a pin up; its blocks stay while there is room. Raises ``RefusedError`` 404 for no pin."""
        pin = self._known(cid)
        del self._pins[cid]
        self._leaving.add(cid)
        try:
            await pin.stop()
            await asyncio.to_thread(self._store.unpin, f"{LABEL}{cid}")
        finally:
            self._leaving.discard(cid)
        self._count()
        return pin.facts()

    def progress(self, cid: Cid) -> Pinned:
        """Say how far a pin is; raises ``RefusedError`` 404 for what is not pinned."""
        return self._known(cid).facts()

    def pins(self) -> list[Pinned]:
        """Return every pin."""
        return [pin.facts() for pin in self._pins.values()]

    async def resume(self) -> None:
        """Take up what an earlier run left, what stopped, and what has lost a block since."""
        for label, cids in (await asyncio.to_thread(self._store.pinned)).items():
            if not label.startswith(LABEL):
                continue
            cid = Cid.parse(label.removeprefix(LABEL))
            pin = self._pins.get(cid)
            if cid in self._leaving:
                continue
            if pin is None or not (pin.at_work or (pin.whole and all(map(self._store.has, cids)))):
                self._begin(cid)

    async def close(self) -> None:
        """Stop fetching; a later run goes on."""
        for pin in self._pins.values():
            await pin.stop()

    def _known(self, cid: Cid) -> _Pin:
        pin = self._pins.get(cid)
        if pin is None:
            raise RefusedError(f"{cid} is not pinned here", status=404, reason="not_pinned")
        return pin

    def _begin(self, cid: Cid) -> _Pin:
        pin = self._pins[cid] = _Pin(cid)
        pin.task = asyncio.ensure_future(self._work(pin))
        self._count()
        return pin

    async def _work(self, pin: _Pin) -> None:
        label, asked = f"{LABEL}{pin.walk.root}", self._gateways.ask()
        job = PinJob(pin.walk, label, self._store, asked, self._admit, self._denied)
        try:
            async with self._turn:
                await job.run()
            pin.whole = True
        except (FarcastError, OSError) as error:
            pin.error = str(error) if isinstance(error, FarcastError) else f"{error.strerror or error}"
            self._metrics.failures.labels(getattr(error, "reason", "disk")).inc()
            log.info("pin: %s", pin.error)
        except Exception as error:
            log.exception("a pin failed")
            pin.error = f"a bug in Farcast ({type(error).__name__}: {error}); the relay's log shows where"
            self._metrics.failures.labels("bug").inc()
        finally:
            self._metrics.blocks.inc(job.blocks)
            self._metrics.bytes.inc(job.bytes)
            self._count()

    def _count(self) -> None:
        whole = sum(pin.whole for pin in self._pins.values())
        self._metrics.pins.labels("whole").set(whole)
        self._metrics.pins.labels("missing").set(len(self._pins) - whole)

    async def _list(self, exchange: Exchange) -> Answer:
        del exchange
        return Answer.json([pin._asdict() for pin in self.pins()])

    async def _post(self, exchange: Exchange) -> Answer:
        return Answer.json((await self.pin(Cid.parse(exchange.match["cid"])))._asdict())

    async def _get(self, exchange: Exchange) -> Answer:
        return Answer.json(self.progress(Cid.parse(exchange.match["cid"]))._asdict())

    async def _delete(self, exchange: Exchange) -> Answer:
        return Answer.json((await self.unpin(Cid.parse(exchange.match["cid"])))._asdict())
