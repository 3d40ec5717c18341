"""A running relay: fills on demand, serves, takes pulses with a receipt, and sends them on in batches."""

from __future__ import annotations

import asyncio
import logging
import random
import time
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
from ..node.home import Home, write_whole
from ..node.http.exchange import Answer, Exchange
from ..node.http.governor import Lan
from ..node.http.governor import State as GovernorState
from ..node.ladder.fetch import Fetcher
from ..node.ladder.stream import Streams
from ..node.ladder.tiers import address
from ..node.pulses.acks import Acks
from ..node.pulses.batcher import Batcher
from ..node.pulses.reception import Reception
from ..node.routes import PublicRoutes
from ..node.settings import Settings
from ..protocol.cid import Cid
from ..protocol.directory import Endpoint
from ..protocol.enrol import Wish
from ..protocol.errors import FarcastError, RemoteError, UsageError
from ..protocol.ports import Source
from .carried import Carried
from .contract import TICK_S, Contract, Traffic
from .contractmetrics import ContractMetrics
from .demand import Demand
from .desk import RelayDesk
from .enrol import LEFT_FILE, RENEW_S, Enrolment, read_payee
from .fill import Fill
from .folders import TIDY_S, Folders
from .gateways import Gateways
from .holdings import Holdings
from .importdesk import ImportDesk
from .larder import LOOK_S, Larder
from .lastknown import LastKnown
from .outside import LOOK_S as OUTSIDE_LOOK_S
from .outside import Outside
from .page import RelayPage
from .pinning import RETRY_S, Pinner
from .push import PUSH_S, Push
from .reload import Reload
from .upstream import PEERS, Upstream, fill_ladder, hop
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
        self._fetched_bytes = self._asked_bytes = 0
        self._heard_at = time.monotonic()
        self._left = False
        self._told_state = ""
        self.outside = Outside(lambda: box.settings, self._port, lambda: box.wake("enrol"), box.registry)
        self.contract = Contract(
            home.path, settings.contract, clock_ms, random.SystemRandom().random, self._traffic
        )
        self.contract.changed = self._hold_to_contract
        self._told_state = self.contract.state
        ContractMetrics(self.contract, box.registry)
        box.dialer.carried = self._carried
        self.replica = Replica(home.path / "catalog", keyring)
        self.library = Library(self.replica, box.store, keyring)
        self.upstream = Upstream(
            box.dialer, box.identity.key, keyring, self.replica.relays, self._origin, clock_ms,
            peers=settings.fill.peers,
        )  # fmt: skip
        self.fetcher = Fetcher(
            box.store, self.upstream.tiers, box.registry, ladder=fill_ladder(settings.ladder)
        )
        self.fill = Fill(self.library, box.store, self._bring, box.registry)
        self.larder = Larder(Carried(settings.contract.publishers), self.library, box.store)
        self.fill.admit, self.fill.came = self.larder.admit, self.larder.came
        self.folders = Folders(self.library, box.store)
        self.fill.learned = self.folders.learned
        self.acks = Acks(box.spool, keyring, box.registry)
        self.reception = Reception(box.spool, box.identity, keyring, clock_ms, box.registry)
        self.batcher = Batcher(
            box.spool, box.identity, box.dialer, self._origin, self.acks, clock_ms, box.registry,
            max_pulses=settings.batch.max_pulses,
        )  # fmt: skip
        self.enrolment = Enrolment(
            box.identity, box.dialer, self._origin, self.endpoints, read_payee(home.path), clock_ms,
            self.wish,
        )  # fmt: skip
        self.follower = Follower(
            self.replica, self.trust, self.library, box.dialer, self._origin, self._fetch, box.registry
        )
        self.follower.learned = self.fill.learn_roots
        self._hold_to_contract()
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

    def connections(self) -> int:
        """How many connections the public port has open."""
        return sum(self.box.tally(name).connections() for name in ("tcp", "quic"))

    async def leave(self) -> None:
        """Leave the origin's directory for good; what is promised is still delivered."""
        await self.enrolment.renew(wish="left")
        self._left = True
        await asyncio.to_thread(write_whole, self.box.home.path / LEFT_FILE, b"")
        await self.contract.pause()

    async def tell_origin(self) -> bool:
        """Post this relay's record now; False where the origin cannot be told (it hears it later)."""
        try:
            await self.enrolment.renew()
        except FarcastError as error:
            log.info("the origin could not be told: %s", error)
            return False
        return True

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

    def endpoints(self) -> list[Endpoint]:
        """Return the addresses that stand in the origin's public directory."""
        return self.outside.endpoints()

    def _port(self) -> int:
        return self.box.listener.port if self.box.listener else self.box.settings.listen.port

    async def _look_outside(self) -> None:
        """Publish this box's addresses again where they are others than the origin knows."""
        if self.endpoints() != self.enrolment.published and self.enrolment.published:
            self.box.wake("enrol")

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
        box.public.route("GET", "/readyz", self._ready)
        self._routes_ready = routes.ready
        box.lookup = self.watching.lookup(self.embargo.lookup(routes.lookup))
        box.epoch = lambda: (routes.epoch(), self.embargo.epoch())
        box.public.route("POST", "/v1/pulses", self.reception.handle)
        self.desk.add_to(box.local)
        self.holdings.add_to(box.local)
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
        box.on_close(self.contract.keep)
        if self.outside.mapper is not None:
            box.serve("portmap", self.outside.mapper.run)
        box.every("outside", OUTSIDE_LOOK_S, self._look_outside)
        box.every("contract", TICK_S, self.contract.tick)
        box.every("larder", LOOK_S, self.larder.look)
        box.serve("reload", self.reload.run)
        box.follow(self._follow, lambda: box.http_metrics.sent_bytes() // USE_BYTES)
        box.every("trust", settings.trust.refresh_s, self.follower.refresh_trust)
        box.every("batch", settings.batch.interval_s, self.batcher.flush)
        box.every("sweep", SWEEP_S, self.embargo.sweep)
        box.every("deny", DENY_LOOK_S, self.embargo.look)
        box.every("enrol", RENEW_S, self.enrolment.renew)
        box.every("pins", RETRY_S, self.pinner.resume)

    @property
    def silent_s(self) -> float:
        """How long the origin has not answered."""
        return time.monotonic() - self._heard_at

    def wish(self) -> Wish:
        """Return what this relay wants of the origin's directory now."""
        if self._left:
            return "left"
        if self.contract.state != "serving":
            return "paused"
        return "listed" if self.box.settings.contract.listed else "unlisted"

    def sent_bytes(self) -> int:
        """Return what this box sent to the Internet since it started."""
        return self.box.governor.wan.bytes + self._asked_bytes

    async def _follow(self) -> bool:
        found = await self.follower.refresh()
        if found:
            self._heard_at = time.monotonic()
        return found

    async def _ready(self, exchange: Exchange) -> Answer:
        """``GET /readyz``: 503 also while nothing new is served."""
        refusal = self.contract.refusal()
        if refusal is not None:
            raise refusal
        return await self._routes_ready(exchange)

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

    def _traffic(self) -> Traffic:
        """Return what this box sent to and fetched from the Internet."""
        return Traffic(self.sent_bytes(), self._fetched_bytes)

    def _carried(self, address: str, sent_bytes: int, received_bytes: int) -> None:
        """Count what asking another box took; what is on a network of this box may be exempt."""
        if self.box.governor.local(address.rpartition(":")[0].strip("[]")):
            return
        self._fetched_bytes += received_bytes
        self._asked_bytes += sent_bytes
        self.contract.filled(received_bytes)

    def _hold_to_contract(self) -> None:
        """Make the servers keep what the contract says now, and tell the origin where that matters to it."""
        contract, governor = self.contract, self.box.governor
        governor.local = Lan() if contract.table.lan_exempt else Lan(())
        governor.set_rules(contract.rules(), asyncio.get_running_loop().time())
        governor.set_state(GovernorState(contract.state), contract.retry_after_s)
        if contract.state != self._told_state:
            self._told_state = contract.state
            self.box.wake("enrol")

    def _take_settings(self, settings: Settings) -> None:
        """Hold to settings that were read again while serving."""
        box = self.box
        box.settings = settings
        box.store.quota_bytes = settings.store.quota_bytes
        logging.getLogger().setLevel(settings.log.level.upper())
        self.larder.change(Carried(settings.contract.publishers))
        self.gateways.change(settings.ipfs.pin_from)
        self.contract.change(settings.contract)
        box.wake("enrol")
        box.wake("larder")
