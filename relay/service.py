"""A running relay: fills on demand, serves, takes pulses with a receipt, and sends them on in batches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ..node.box import Box, clock_ms
from ..node.catalog.denyfiles import LOOK_S as DENY_LOOK_S
from ..node.catalog.denyfiles import DenyFiles
from ..node.catalog.embargo import Embargo
from ..node.catalog.follow import Follower
from ..node.catalog.join import known_origin, trust_fetch
from ..node.catalog.library import Library
from ..node.catalog.replica import Replica
from ..node.catalog.takedown import SWEEP_S, Takedown
from ..node.catalog.trust import Trust
from ..node.duty import Greeting
from ..node.earnings import EarningsAsker
from ..node.hints import Hinting
from ..node.home import Home
from ..node.ladder.fetch import Fetcher
from ..node.ladder.stream import Streams
from ..node.ladder.tiers import address, relay_sources
from ..node.pulses.acks import Acks
from ..node.pulses.batcher import Batcher
from ..node.pulses.reception import Reception
from ..node.pulses.sealdesk import SealDesk
from ..node.radio import Radio, radio_of
from ..node.routes import PublicRoutes
from ..node.settings import Settings
from ..node.web.site import WebSite
from ..protocol.cid import Cid
from ..protocol.directory import Endpoint
from ..protocol.errors import RemoteError, UsageError
from ..protocol.ports import Source
from .carried import Carried
from .demand import Demand
from .desk import RelayDesk
from .enrol import LEFT_FILE
from .fill import Fill
from .folders import TIDY_S, Folders
from .gateways import Gateways
from .holdings import Holdings
from .importdesk import ImportDesk
from .larder import LOOK_S, Larder
from .lastknown import LastKnown
from .membership import Membership
from .page import RelayPage
from .payslip import Payslip
from .pinning import RETRY_S, Pinner
from .push import PUSH_S, Push
from .reload import Reload
from .upstream import PEERS, Upstream, fill_ladder, hop
from .warden import Warden
from .watching import Watching

log = logging.getLogger(__name__)

PINS_S = 60.0
"""How often pinned titles that are not whole are gone on with."""
USE_BYTES = 64 << 10
"""Sending so much is use; what other boxes' looks for news cost is less."""


class RelayService:
    """Wires a relay's parts onto a box; must be made on the event loop."""

    def __init__(self, home: Home, settings: Settings) -> None:
        self.box = box = Box(home, settings)
        self.trust = Trust(home.path / "trust", trust_fetch(box.dialer, self._origin), box.registry)
        if self.trust.hint is None:
            box.abandon()
            raise UsageError("this relay has joined no origin yet; run `farcast relay join LINK` first")
        if (home.path / LEFT_FILE).exists():
            box.abandon()
            raise UsageError("this relay has left its origin; `farcast relay join LINK` joins again")
        keyring = lambda: self.trust.keyring  # noqa: E731 - a port of one expression
        self.warden = Warden(box)
        self.contract = self.warden.contract
        self.membership = Membership(box, self.contract, self._origin)
        self.warden.turned = self.membership.wake
        self.replica = Replica(home.path / "catalog", keyring)
        self.library = Library(self.replica, box.store, keyring)
        self.hints = Hinting(
            box, self.trust.origin_id, dialer=box.dialer, peers=self._others,
            gossipers=lambda: [*self._others(), *self._origin()],
        )  # fmt: skip
        self.hints.tell(self.replica, lambda: self.membership.enrolment.own, self.replica.relays)
        self.relay_records = self.hints.listen(self.replica, own=box.identity.key)
        self.upstream = Upstream(
            box.dialer, box.identity.key, keyring, self.relay_records, self._origin, clock_ms,
            peers=settings.fill.peers,
        )  # fmt: skip
        self.fetcher = Fetcher(
            box.store, self.upstream.tiers, box.registry, ladder=fill_ladder(settings.ladder)
        )
        self.fill = Fill(self.library, box.store, self._bring, box.registry)
        self.larder = Larder(Carried(settings.contract.publishers), self.library, box.store)
        self.warden.metrics.publishers = self.larder.shares
        self.fill.admit, self.fill.came = self.larder.admit, self.larder.came
        self.folders = Folders(self.library, box.store)
        self.fill.learned = self.folders.learned
        box.spool.foreign_expires = False  # only the origin's ack lets a relay delete
        self.acks = Acks(box.spool, keyring, box.registry)
        self.reception = Reception(
            box.spool, box.identity, keyring, clock_ms, box.registry,
            is_relay=lambda key: any(key == record.relay for record in self.replica.relays()),
        )  # fmt: skip
        self.batcher = Batcher(
            box.spool, box.identity, box.dialer, self._origin, self.acks, clock_ms, box.registry,
            max_pulses=settings.batch.max_pulses, others=self._others,
        )  # fmt: skip
        self.follower = Follower(
            self.replica, self.trust, self.library, box.dialer, self._origin, self._fetch, box.registry
        )
        self.follower.learned = self.fill.learn_roots
        self.heads = LastKnown(self.replica, lambda: self.follower.behind, clock_ms, box.registry)
        self.takedown = Takedown(home.path / "takedown", self.replica, box.store, box.registry)
        denied = DenyFiles(settings.deny.files, box.registry)
        self.embargo = Embargo(self.library, self.takedown, denied, box.registry)
        self.embargo.lives = self._lives
        self.fetcher.barred = self.embargo.bars
        self.follower.advanced = self.takedown.enforce
        self.gateways = Gateways(settings.ipfs.pin_from, box.dialer, box.registry)
        self.pinner = Pinner(
            box.store, self.gateways, self.contract.fill, lambda cid: self.embargo.bars(cid, ""), box.registry
        )
        self._add_foresight(settings)
        self.holdings = Holdings(self)
        self.asker = EarningsAsker(box.identity, box.dialer, self._origin)
        self.payslip = Payslip(self.asker, self._used, box.registry)
        self.desk = RelayDesk(self)
        self.reload = Reload(home.path, settings, self._take_settings, box.registry)
        self._add_routes()
        self._add_work()

    async def run(self, started: Callable[[], None] | None = None) -> None:
        """Serve until told to stop."""
        await asyncio.to_thread(self.replica.load)
        await asyncio.to_thread(self.embargo.load)
        await self.box.run(started)

    def greeting(self) -> Greeting:
        """Say who this relay is and where it is found."""
        box = self.box
        assert box.listener is not None
        published = [address(endpoint) for endpoint in self.endpoints()]
        page = f"{box.local_url}/"
        return Greeting(
            {
                "public_port": box.listener.port,
                "published": published,
                "page": page,
                "metrics": box.metrics_url,
            },
            [
                f"Relay {box.identity.peer_id}",
                f"  public     port {box.listener.port} (TCP and UDP)",
                f"  published  {', '.join(published) or 'nowhere; set [network] announce'}",
                f"  page       {page}",
                f"  metrics    {box.metrics_url}",
            ],
        )

    @property
    def carried(self) -> Carried:
        """Whose titles this relay carries."""
        return self.larder.carried

    async def _fetch(self, cid: Cid) -> bytes:
        await self.contract.fill()
        return await self.fetcher.block(cid)

    async def _bring(self, cid: Cid, title: str, *, alone: bool) -> bytes:
        await self.contract.fill()
        return await self.fetcher.block(cid, title=title, shun=PEERS if alone else frozenset())

    async def _lives(self, cid: Cid, title: str | None) -> bool:
        """Say whether a listed title reaches a block that was taken down with another."""
        if self.fill.reaches(cid) is not None:
            return True
        if title is None or not self.library.lists(title):
            return False
        try:
            return cid in await self.fill.skeleton(title)
        except RemoteError:
            return False

    def _origin(self) -> list[Source]:
        return known_origin(self.trust)

    def _others(self) -> list[Source]:
        """Return the other relays, for what is on its way home while the origin cannot be reached."""
        found = relay_sources(self.relay_records(), clock_ms(), overlay=self.box.dialer.overlay.here)
        return [source for source in found if source.key != self.box.identity.key]

    def endpoints(self) -> list[Endpoint]:
        """Return the addresses that stand in the origin's public directory."""
        return self.membership.outside.endpoints()

    def _add_foresight(self, settings: Settings) -> None:
        """Make the parts that bring in what nobody has asked for yet."""
        box = self.box
        self.demand = Demand()
        self.watching = Watching(
            self.library, self.fill, self.demand, clock_ms, box.registry, ahead=settings.fill.ahead
        )
        self.push = Push(
            self.library, box.store, self.fill, self.demand, self._push_now, self._budget_left, clock_ms,
            box.registry,
        )  # fmt: skip

    def _add_routes(self) -> None:
        box = self.box
        routes = PublicRoutes(
            box.store,
            self.library,
            self.heads,
            self.fill.block,
            self.trust.files,
            box.spool.acks,
            cors=True,
            denied=self.embargo.denies,
            streams=Streams(box.store),
        )
        routes.add_to(box.public)
        self.embargo.add_to(box.public, hop(self.fill, routes.block), self.watching.handler(routes.watch))
        box.public.route("GET", "/readyz", self.warden.ready(routes.ready))
        box.lookup = self.watching.lookup(self.embargo.lookup(routes.lookup))
        box.epoch = lambda: (routes.epoch(), self.embargo.epoch())
        self.reception.add_to(box.public)
        SealDesk(box.spool, box.dialer, self._origin, clock_ms, box.registry).add_to(box.public)
        if box.settings.web.enabled:
            records = self.replica.relays
            web = WebSite(
                box, self.library, self.fill.block, lambda: self.trust.keyring, records, is_origin=False
            )
            web.add_routes(self.embargo.guard)
        self.desk.add_to(box.local)
        self.holdings.add_to(box.local)
        self.asker.add_to(box.local)
        imports = ImportDesk(box.store)
        imports.add_to(box.local)
        self.pinner.add_to(box.local)
        box.on_close(imports.close)
        RelayPage(self.desk.status, box.token).add_to(box.local)

    def _add_work(self) -> None:
        settings, box = self.box.settings, self.box
        box.on_close(self.holdings.keeper.close)
        box.on_close(self.fetcher.close)
        box.on_close(self.pinner.close)
        box.serve("watching", self.watching.run)
        box.every("push", PUSH_S, self.push.step)
        box.every("folders", TIDY_S, self.folders.tidy)
        box.every("title-pins", PINS_S, self.holdings.keeper.resume)
        box.every("larder", LOOK_S, self.larder.look)
        box.serve("reload", self.reload.run)
        box.follow(self._follow, self._used)
        box.every("earnings", self.payslip.pause_s, self.payslip.look)
        box.every("trust", settings.trust.refresh_s, self.follower.refresh_trust)
        box.every("batch", settings.batch.interval_s, self.batcher.flush)
        box.every("sweep", SWEEP_S, self.embargo.sweep)
        box.every("deny", DENY_LOOK_S, self.embargo.look)
        box.every("pins", RETRY_S, self.pinner.resume)
        self.radio: Radio | None = None
        if settings.reticulum.enabled:
            self.radio = radio_of(box, self.trust.origin_id, self.replica, lambda: self.trust.keyring)
        if self.radio is not None:
            box.serve("radio", self.radio.run)

    def _used(self) -> int:
        return self.box.http_metrics.sent_bytes() // USE_BYTES

    async def _follow(self) -> bool:
        found = await self.follower.refresh()
        if found:
            self.membership.heard()
        return found

    def _push_now(self, now_ms: int) -> bool:
        return (
            self.box.settings.fill.push and self.contract.state == "serving" and self.contract.quiet(now_ms)
        )

    def _budget_left(self, publisher: str) -> int | None:
        """Return the bytes a publisher may still take here; None for as much as there is."""
        if not self.carried.carries(publisher):
            return 0
        budget = self.carried.budget(publisher)
        return None if budget is None else budget - self.larder.held_bytes(publisher)

    def _take_settings(self, settings: Settings) -> None:
        """Hold to settings that were read again while serving."""
        self.warden.change(settings)
        self.larder.change(Carried(settings.contract.publishers))
        self.gateways.change(settings.ipfs.pin_from)
        self.membership.wake()
        self.hints.again()
        if self.radio is not None:
            self.radio.again()
        self.box.wake("larder")
