"""A running origin: the office's books behind public listeners, the scheduler, and the carousel."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from ..node.box import Box, clock_ms
from ..node.catalog.denyfiles import LOOK_S as DENY_LOOK_S
from ..node.catalog.denyfiles import DenyFiles
from ..node.catalog.embargo import Embargo
from ..node.catalog.library import Library
from ..node.duty import Greeting
from ..node.hints import Hinting
from ..node.home import Home
from ..node.http.exchange import Answer, Exchange
from ..node.http.nonces import NonceBook
from ..node.ladder.tiers import address, relay_sources
from ..node.page import Sheet
from ..node.radio import Body, Radio
from ..node.routes import PublicRoutes
from ..node.settings import Settings
from ..node.steering.health import LOOK_S as LISTING_S
from ..node.steering.listing import Listing
from ..node.web.site import WebSite
from ..protocol.batch import batch_hash
from ..protocol.cid import Cid
from ..protocol.errors import LocalError, RefusedError, UsageError
from ..protocol.generation import origin_id
from ..protocol.ports import Source
from .admin import OriginAdmin
from .airing import described as on_air
from .broadcast import Broadcast
from .cdn.tags import Tags
from .cdn.watch import described
from .dialback import DialBack
from .earningsdesk import EarningsDesk
from .keydesk import KeyDesk
from .keys import Keys
from .money.clerk import Clerk
from .money.ledgerwatch import LOOK_S as LEDGER_LOOK_S
from .office import Office
from .pulses.frame import Frame
from .pulses.inspection import LOOK_S, Inspection
from .pulses.witness import Sample
from .routing import Routing
from .service import OriginService

log = logging.getLogger(__name__)

TICK_S = 60.0
EARNINGS_S = 5.0
"""How often it is looked whether earnings changed: a pulse shows in them within a minute of its arrival."""
SEAL_S = 15.0
PAYOUT_S = 60.0


class OriginBox:
    """Wires the origin's parts onto a box; must be made on the event loop."""

    def __init__(self, home: Home, settings: Settings) -> None:
        self.keys = Keys(home.path)
        self.box = box = Box(home, settings, identity=self.keys.box)
        self.office = Office(home.path, settings, clock_ms, box.registry, box.store)
        treasury, shelf = self.office.treasury, self.office.shelf
        self.inspection = Inspection(
            treasury.tickets, Sample(self.keys.ticket_secret), self.office.log.beacon, shelf.manifest_of,
            box.store.get, box.registry,
        )  # fmt: skip
        treasury.watch = self._stored
        self.radio: Radio | None = None
        self.intake = treasury.intake
        self.service = OriginService(
            self.office.keys,
            self.office.accounts,
            self.office.roster,
            self.office.log,
            self.intake,
            NonceBook(secrets.token_bytes(32), self.keys.box.key),
            clock_ms,
            box.registry,
        )
        self.service.dialback = DialBack(box.dialer, box.registry)
        self.keydesk = KeyDesk(
            self.office.keys, self.office.accounts, lambda: self.service.catalog, shelf.manifest_of,
            self.service, clock_ms, box.registry,
        )  # fmt: skip
        bursary = self.office.bursary
        self.earnings = EarningsDesk(
            bursary.book, self.office.accounts, self.office.roster, self.service, clock_ms, box.registry
        )
        if settings.money.auto_settle:
            bursary.clerk = Clerk(bursary, box.registry)
        self.library = Library(self.service, box.store, lambda: self.office.keys.keyring)
        denied = DenyFiles(settings.deny.files, box.registry)
        self.embargo = Embargo(self.library, shelf.takedown, denied, box.registry)
        self.routing = Routing(
            self.service, self.library, self.held, lambda: self.office.keys.keyring, clock_ms, box.registry,
            self.embargo.denies,
        )  # fmt: skip
        self.office.edges.check()
        self.tags = Tags(self.library, self.held, self.office.edges.tag_headers)
        self.broadcast: Broadcast | None = None
        if settings.uplink.enabled:
            self.broadcast = broadcast = Broadcast(self, clock_ms)
            self.office.on_air = lambda: broadcast.facts
        self.listing = Listing(self.service.directory, lambda: self.office.keys.keyring.catalog[0])
        self.hints = Hinting(
            box, origin_id(self.keys.box.key), dialer=box.dialer, peers=self._relays, gossipers=self._relays
        )
        self.hints.tell(self.service, refresh=self.listing.follow)
        if settings.reticulum.enabled:
            self.radio = radio = self._radio()
            self.office.by_radio = lambda: radio.facts
        self._hosts = box.public.allowed
        box.public.allowed = self._answers_for
        self._add_routes()
        self._add_work()

    async def run(self, started: Callable[[], None] | None = None) -> None:
        """Serve until told to stop."""
        await asyncio.to_thread(self.service.freshen)
        await asyncio.to_thread(self.embargo.load)
        await asyncio.to_thread(self.office.trust.sign_edges)
        await asyncio.to_thread(self.keydesk.learn)
        try:
            await asyncio.to_thread(self.office.bursary.open)
        except UsageError:
            raise
        except LocalError as error:  # films are served while the ledger's database does not answer
            log.warning("%s", error)
        self.office.serving = True
        try:
            await self.box.run(started)
        finally:
            self.office.close()

    def greeting(self) -> Greeting:
        """Say who this origin is and where it is found."""
        box, keyring = self.box, self.keys.keyring
        assert box.listener is not None
        announced = [address(endpoint) for endpoint in keyring.endpoints]
        page = f"{box.local_url}/"
        return Greeting(
            {
                "public_port": box.listener.port,
                "announced": announced,
                "page": page,
                "metrics": box.metrics_url,
            },
            [
                f"Origin {keyring.name} ({self.keys.box.peer_id})",
                f"  public     port {box.listener.port} (TCP and UDP)",
                f"  announced  {', '.join(announced) or 'nowhere; farcast origin announce HOST:PORT'}",
                f"  page       {page}",
                f"  metrics    {box.metrics_url}",
            ],
        )

    def _answers_for(self, host: str) -> bool:
        """Say whether ``host`` is a name of this origin: of its settings, or announced since it started."""
        if self._hosts(host):
            return True
        name = host.lower()
        keyring = self.office.keys.keyring
        known = {endpoint.host.lower() for endpoint in keyring.endpoints}
        known |= {urlsplit(base).hostname or "" for base in keyring.cdn}  # many CDNs pass their own name on
        return name in known or name.rpartition(":")[0] in known

    async def held(self, cid: Cid, title: str | None = None) -> bytes:
        """Return a block of ours; raises ``RefusedError`` 404 for any other."""
        del title
        data = await asyncio.to_thread(self.box.store.get, cid)
        if data is None:
            raise RefusedError(f"{cid} is not published here", status=404, reason="not_held")
        return data

    def _add_routes(self) -> None:
        box = self.box
        routes = PublicRoutes(
            box.store, self.library, self.service, self.held, self.office.keys.repository.files,
            lambda tids: self.intake.acks_for(tids, clock_ms()), cors=True, denied=self.embargo.denies,
        )  # fmt: skip
        routes.add_to(box.public)
        self.embargo.add_to(box.public, self.tags.handler(routes.block), self.tags.handler(routes.watch))
        box.lookup = self.embargo.lookup(self.tags.lookup(routes.lookup))
        box.epoch = lambda: (routes.epoch(), self.embargo.epoch(), self.tags.version)
        self.service.routes(box.public)
        self.keydesk.add_to(box.public)
        self.earnings.add_to(box.public)
        self.routing.add_to(box.public)
        if box.settings.web.enabled:
            self._add_web()
        box.local.route("GET", "/api/origin/pulses", self._pulses)
        if self.broadcast is not None:
            self.broadcast.add_to(box.local)
        OriginAdmin(self.office).routes(box.local)
        Sheet(self._facts, box.token).add_to(box.local)

    def _add_web(self) -> None:
        """Serve players without a node."""
        web = WebSite(
            self.box, self.library, self.held, lambda: self.office.keys.keyring, self.listing.records,
            is_origin=True,
        )  # fmt: skip
        web.add_routes(self.embargo.guard)

    def _relays(self) -> list[Source]:
        """Return the listed relays, for hints."""
        return relay_sources(self.listing.records(), clock_ms())

    async def _pulses(self, exchange: Exchange) -> Answer:
        """``GET /api/origin/pulses``: what the intake has counted."""
        del exchange
        return Answer.json((await asyncio.to_thread(self.intake.counts))._asdict())

    def _facts(self) -> dict[str, object]:
        facts = self.office.status()
        air = on_air(facts["air"]) if facts["air"] else ["off"]
        return {**facts, "edges": [described(one) for one in facts["edges"]], "air": air}

    async def _settle(self) -> None:
        """Do what is due of settlements, reports and payouts."""
        clerk = self.office.bursary.clerk
        if clerk is not None:
            steady_ms = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000  # counts while suspended
            await asyncio.to_thread(clerk.tick, clock_ms(), steady_ms)

    async def _count_earnings(self) -> None:
        await asyncio.to_thread(self.office.bursary.refresh)

    async def _tend_edges(self) -> None:
        """Keep the pull zones' tokens good and their tags true."""
        await asyncio.to_thread(self.office.trust.sign_edges)
        await self.tags.refresh()

    async def _pay_back(self) -> None:
        """Pay relays that name a payee at last."""
        for payee, cents in (await asyncio.to_thread(self.office.money.pay_back)).items():
            log.info("%d cents of relays that named no payee before go to %s", cents, payee)

    async def _look_at_ledger(self) -> None:
        await asyncio.to_thread(self.office.books.look)

    async def _inspect(self) -> None:
        """Look at the witnesses of a sample of what came in."""
        await asyncio.to_thread(self.inspection.look, lambda pulse: self.intake.condemn(pulse, clock_ms()))

    async def _look_at_edges(self) -> None:
        await asyncio.to_thread(self.office.look_at_edges)

    async def _tend_payouts(self) -> None:
        await asyncio.to_thread(self.office.payouts.tend)

    def _add_work(self) -> None:
        self.box.every("tick", TICK_S, self.service.tick)
        self.box.every("listing", LISTING_S, self.listing.follow)
        self.box.every("seal", SEAL_S, self.service.seal)
        self.box.every("inspection", LOOK_S, self._inspect)
        self.box.every("edges", TICK_S, self._tend_edges)
        self.box.every("payouts", PAYOUT_S, self._tend_payouts)
        self.box.every("edge_look", self.office.watch.pause_s, self._look_at_edges)
        self.box.every("backpay", TICK_S, self._pay_back)
        self.box.every("settle", TICK_S, self._settle)
        self.box.every("earnings", EARNINGS_S, self._count_earnings)
        self.box.every("ledger", LEDGER_LOOK_S, self._look_at_ledger)
        self.box.every("deny", DENY_LOOK_S, self.embargo.look)
        self.box.every("routing", TICK_S, self.routing.refresh)
        if self.broadcast is not None:
            self.box.every("programme", self.broadcast.REFRESH_S, self.broadcast.refresh)
            self.box.serve("carousel", self.broadcast.uplink.run)
        if self.radio is not None:
            self.box.serve("radio", self.radio.run)

    def _radio(self) -> Radio:
        """Tell the catalog's head by radio, and hear what waits where."""
        body = Body(
            self.keys.box,
            origin_id(self.keys.box.key),
            self.service,
            lambda: self.office.keys.keyring,
            _no_batches,
            self.office.roster.is_relay,
            clock_ms,
        )
        return Radio(body, self.box.settings.reticulum, self.box.registry)

    def _stored(self, frame: Frame) -> None:
        """Hear of what the intake stored."""
        self.inspection.hear(frame)
        if self.radio is not None and self.office.serving and frame.carrier:
            self.radio.arrived(batch_hash(frame.data))


def _no_batches(most: int) -> Sequence[tuple[int, bytes]]:
    """Return what waits with an origin: nothing."""
    del most
    return ()
