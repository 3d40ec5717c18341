"""The broadcast: what the origin puts on the carousel, so that a receiver needs nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from ..node.http.exchange import Answer, Exchange, Router
from ..protocol.catalog import ENTRIES_PER_PAGE
from ..protocol.codec import encode
from ..protocol.errors import FarcastError, RefusedError
from ..protocol.generation import Item, origin_id
from ..satellite.programme import Show
from ..satellite.uplink import Uplink
from .airing import Listed, by_priority, facts

if TYPE_CHECKING:
    from .run import OriginBox

ADMIN_LIMIT_BYTES = 64 << 10
ACKS_ON_AIR = 256


class Switch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The admin call ``POST /api/origin/uplink``: on or off, and at what rate."""

    on: bool
    rate_bps: Annotated[int, Meta(ge=1_000, le=10**11)] | None = None


class Broadcast:
    """Fills the uplink from the origin's own state: trust and catalog first, then the titles."""

    REFRESH_S = 10.0
    POPULAR_S = 900.0

    def __init__(self, origin: OriginBox, clock_ms: Callable[[], int]) -> None:
        self._origin = origin
        self._clock_ms = clock_ms
        self._viewed: dict[str, int] = {}
        self._viewed_at: float | None = None
        self.facts: dict[str, Any] | None = None
        """What is on air, as of the last refresh."""
        settings, box = origin.box.settings, origin.box
        self.uplink = Uplink(
            group=settings.satellite.group,
            port=settings.satellite.port,
            interface=settings.satellite.interface or (box.links.addresses() or ["127.0.0.1"])[0],
            rate_bps=settings.uplink.rate_bps,
            planned_loss=settings.uplink.planned_loss_percent / 100,
            identity=origin.keys.catalog,
            origin=origin_id(origin.keys.box.key),
            store=box.store,
            clock_ms=clock_ms,
            registry=box.registry,
            ttl=settings.uplink.ttl,
            head_share=settings.uplink.head_share_percent / 100,
            generation_bytes=settings.uplink.generation_bytes,
        )

    async def refresh(self) -> None:
        """Put the newest state on air; what did not change goes on where it was."""
        head, shows = await asyncio.to_thread(self._signed_items), list[Show]()
        library = self._origin.library
        await self._look_at_viewing()
        listed = [
            Listed(title, entry.at_ms, self._viewed.get(title, 0))
            for title, entry in self._origin.service.catalog.titles().items()
        ]
        for title, weight in by_priority(listed, self._clock_ms()):
            try:
                blocks = await library.blocks(title, self._origin.held)
                manifest = await self._origin.held(blocks[0])  # the library may know it by heart
            except FarcastError:
                continue  # a title whose blocks are damaged must not take the others off the air
            head.append(Item("block", str(blocks[0]), manifest))
            shows.append(Show(title, list(blocks), weight))
        await self.uplink.update(head, shows)
        loss = self._origin.box.settings.uplink.planned_loss_percent
        self.facts = facts(self.uplink.status(), loss, self.uplink.missing)

    def add_to(self, router: Router) -> None:
        """Add the admin calls."""
        router.route("GET", "/api/origin/uplink", self.show)
        router.route("POST", "/api/origin/uplink", self.switch)

    async def show(self, exchange: Exchange) -> Answer:
        """``GET /api/origin/uplink``: what is on air and when each part is through."""
        del exchange
        return Answer.json(self.uplink.status()._asdict())

    async def switch(self, exchange: Exchange) -> Answer:
        """``POST /api/origin/uplink``: pause or resume, and set the rate."""
        try:
            wish = msgspec.json.decode(await exchange.read(ADMIN_LIMIT_BYTES), type=Switch)
        except msgspec.MsgspecError as error:
            raise RefusedError(f'say {{"on": true}} or false: {error}', reason="bad_arguments") from None
        if wish.rate_bps is not None:
            self.uplink.set_rate(wish.rate_bps)
        if wish.on:
            self.uplink.resume()
        else:
            self.uplink.pause()
        return await self.show(exchange)

    async def _look_at_viewing(self) -> None:
        """Learn what is watched; while the books do not answer, what was known holds."""
        now = asyncio.get_running_loop().time()
        if self._viewed_at is None or now - self._viewed_at >= self.POPULAR_S:
            self._viewed_at = now
            with contextlib.suppress(FarcastError):
                self._viewed = await asyncio.to_thread(self._origin.office.bursary.viewed)

    def _signed_items(self) -> list[Item]:
        """Return everything small and signed, in the order a receiver should meet it."""
        origin = self._origin
        acks = origin.intake.recent_acks(ACKS_ON_AIR, self._clock_ms())
        items = [Item("trust", name, data) for name, data in origin.office.keys.repository.files().items()]
        catalog = origin.service.catalog
        checkpoint = origin.service.checkpoint()
        if checkpoint is not None:
            items.append(Item("checkpoint", "", checkpoint))
            for start in range(0, max(catalog.size, 1), ENTRIES_PER_PAGE):
                page = catalog.page(start, catalog.size)
                items.append(Item("entries", str(start), encode(page)))
        directory = origin.service.directory()
        if directory is not None:
            items.append(Item("directory", "", directory))
        items += [Item("beacon", str(at), data) for at, data in enumerate(origin.service.beacons())]
        items += [Item("ack", str(at), data) for at, data in enumerate(acks)]
        return items
