"""A viewer's node: four tiers behind one local address, pulses on their way home.

Over 400 lines because it only wires: each part is named once, beside what it is given.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable

from ..mesh.discovery import Discovery
from ..mesh.porter import Porter
from ..mesh.sharer import Sharer
from ..mesh.tier import MeshTier
from ..protocol.cid import Cid
from ..protocol.codec import encode
from ..protocol.enrol import TicketRequest, TicketWish, open_ticket_answer
from ..protocol.errors import FarcastError, RefusedError, UnreachableError, UsageError
from ..protocol.identity import Identity
from ..protocol.keyring import Keyring
from ..protocol.ports import Source, Tier, TierName
from ..protocol.protection import KEYS_PATH
from ..protocol.sharing import ALPN
from ..protocol.ticket import DAY_MS, TicketGrant
from ..satellite.antenna import Antenna
from ..satellite.borrower import PAUSE_S, Borrower
from ..satellite.fec import RaptorQ
from ..satellite.tier import SatelliteTier
from .box import Box, clock_ms
from .catalog.denyfiles import LOOK_S as DENY_LOOK_S
from .catalog.denyfiles import DenyFiles
from .catalog.embargo import Embargo
from .catalog.finder import Finder
from .catalog.follow import Follower
from .catalog.join import ENROLLED_FILE, known_origin, trust_fetch
from .catalog.library import Fetch, Library
from .catalog.replica import Replica
from .catalog.takedown import SWEEP_S, Takedown
from .catalog.trust import Trust
from .desk import Desk
from .dish.dish import LOOK_S as DISH_LOOK_S
from .dish.dish import Dish
from .duty import Greeting
from .earnings import EarningsAsker
from .hints import Hinting
from .home import Home
from .household import Household
from .http.dial import HttpDialer
from .http.problem import expect
from .ladder.fetch import Fetcher
from .ladder.health import Tuning
from .ladder.ladder import Ladder
from .ladder.tiers import Dialers, WebTier, cdn_tier, pull_zones, relay_sources
from .lender import Lender
from .page import Page
from .playback.bookmarks import Bookmarks
from .playback.gateway import Gateway
from .playback.keep import LABEL as KEEP
from .playback.keep import Keeper
from .playback.layouts import Layouts
from .playback.nearby import Nearby
from .playback.sessions import SESSIONS_LIMIT
from .playback.television import Television
from .playback.unlock import Standing, Unlocker
from .pulses.acks import REVOKED, Acks
from .pulses.batcher import Batcher
from .pulses.courier import Courier
from .pulses.heartbeat import Heartbeat
from .pulses.history import History
from .pulses.reception import Reception
from .pulses.sealdesk import SealDesk
from .pulses.verdicts import Verdicts, Way
from .pulses.wallet import Wallet
from .radio import Radio, radio_of
from .routes import PublicRoutes
from .settings import Settings
from .stick.desk import FerryDesk
from .stick.ferry import Ferry, Parts

log = logging.getLogger(__name__)

ACKS_WAITING = 1_024
"""Acks heard on the air that may wait to be applied: several rounds of what an origin sends."""
CARRY_S = 2.0
RENEW_S = 60.0
WAYS_ASKED = 2


class Viewer:
    """Wires a viewer's parts onto a box; must be made on the event loop."""

    def __init__(self, home: Home, settings: Settings) -> None:
        self.box = box = Box(home, settings)
        # what the LAN sees lives as long as the process (docs/adr/0004)
        box.listens_as = Identity(secrets.token_bytes(32))
        box.governor.served = box.trusted
        # dials only what presence showed to be on-link
        self.lan_dialer = HttpDialer(allow_private=True, network=box.links.name)
        anywhere = Dialers(box.dialer, self.lan_dialer)
        self.trust = Trust(home.path / "trust", trust_fetch(anywhere, self._asked), box.registry)
        if self.trust.hint is None:
            box.abandon()
            raise UsageError("this node has joined no origin yet; run `farcast join LINK` first")
        self.enrolled = (home.path / ENROLLED_FILE).exists()
        self.no_ticket = ""  # why the last try to get tickets failed
        self._digests: dict[str, bytes] = {}
        self.replica = Replica(home.path / "catalog", self._keyring)
        self.library = Library(self.replica, box.store, self._keyring)
        self._add_hints()
        self.discovery: Discovery | None = None
        self.porter: Porter | None = None
        self.antenna: Antenna | None = None
        ladder = Ladder(_tuning(settings))
        self.fetcher = Fetcher(box.store, self._tiers(), box.registry, ladder=ladder, network=box.links.name)
        if box.ration is not None:
            box.ration.proven_ms = lambda: self.replica.signed_ms
            self.fetcher.spent = box.ration.refusal
        self.dish = _dish(box)
        self.wallet = Wallet(home.path / "wallet.db")
        self.heartbeat = Heartbeat(
            box.spool,
            self.wallet,
            box.registry,
            digest=self._digest,
            served=self.fetcher.take_served,
            beacon=self.replica.newest_beacon,
            clock_ms=clock_ms,
            enabled=settings.heartbeat.enabled,
        )
        self._add_ways_home()
        self.follower = Follower(
            self.replica, self.trust, self.library, anywhere, self._asked, self._fetch, box.registry
        )
        takedown = Takedown(home.path / "takedown", self.replica, box.store, box.registry)
        denied = DenyFiles(settings.deny.files, box.registry)
        self.embargo = Embargo(self.library, takedown, denied, box.registry)
        self.fetcher.barred = self.embargo.bars
        self.follower.advanced = takedown.enforce
        self.reception = Reception(box.spool, box.listens_as, self._keyring, clock_ms, box.registry)
        self._add_sharing()
        self._add_ferry(takedown)
        self.unlocker = Unlocker(
            self.library,
            self.wallet,
            self._ask_keys,
            self._standing,
            clock_ms,
            box.registry,
            recheck_s=settings.access.recheck_s,
        )
        self.gateway = Gateway(
            self.library,
            self.fetcher,
            box.store,
            self.heartbeat,
            box.registry,
            interval_s=settings.heartbeat.interval_s,
            unlocker=self.unlocker,
        )
        self.finder = Finder(self.library)
        self.bookmarks = Bookmarks(home.path / "bookmarks.json")
        self.history = History(box.spool, self.wallet)
        self.television = Television(self.library, self.gateway, self.fetcher)
        self.household = Household(box, self.television, self.gateway)
        self.desk = Desk(self)
        self.desk.lan = lambda: self.household.url
        self._add_routes()
        self._add_work()

    def _add_ways_home(self) -> None:
        """Bring pulses home, and what the origin says of them back."""
        box = self.box
        self.acks = Acks(box.spool, self._keyring, box.registry)
        self.acks.revoked = self.wallet.end_from
        self.verdicts = Verdicts(box.spool, self._ways, self._keyring, clock_ms, box.registry)
        self.seals = SealDesk(box.spool, box.dialer, self._upstream_of_seals, clock_ms, box.registry)
        self.batcher = Batcher(
            box.spool, box.identity, box.dialer, self._origin, self.acks, clock_ms, box.registry
        )
        self.courier = Courier(
            box.spool, box.dialer, self.acks, self._relays, self._origin, self.batcher, clock_ms, box.registry
        )
        self.courier.allowed = box.settings.network.direct

    def _add_hints(self) -> None:
        """Hear of news from neighbours at once, and tell them."""
        box = self.box
        self.hints = Hinting(
            box, self.trust.origin_id, dialer=self.lan_dialer, peers=self._neighbours,
            gossipers=lambda: [*self._relays(), *self._origin()], welcomes=box.trusted,
        )  # fmt: skip
        self.hints.tell(self.replica)
        self._relay_records = self.hints.listen(self.replica)

    def _add_sharing(self) -> None:
        """Let titles go round the LAN, and keep them with or without neighbours."""
        box, settings = self.box, self.box.settings
        self.layouts = Layouts(box.store, self.library)
        self.sharer = Sharer(
            box.listens_as,
            self.lan_dialer,
            lambda: self.discovery.known() if self.discovery else [],
            box.store,
            find=self.layouts.held,
            clock_ms=clock_ms,
            registry=box.registry,
            barred=self.embargo.bars,
            kept=lambda cid, size: self.fetcher.pushed(cid, size, TierName.MESH),
        )
        self.nearby = Nearby(self.layouts, self.sharer, self._alone)
        self.fetcher.nearby = self.nearby if settings.mesh.enabled and settings.mesh.share else None
        share = self._share if self.fetcher.nearby is not None else None
        self.keeper = Keeper(box.store, self.library, self.fetcher, share=share)

    def _add_ferry(self, takedown: Takedown) -> None:
        """Let titles, trust and pulses travel by stick."""
        box = self.box
        ferry = Ferry(
            Parts(
                box.store, box.spool, self.trust, self.replica, self.library, self.acks, self.reception,
                takedown.enforce,
            )
        )  # fmt: skip
        self.ferrydesk = FerryDesk(ferry, lambda: box.wake("courier"), lambda: self.courier.reachable)

    async def run(self, started: Callable[[], None] | None = None) -> None:
        """Work until told to stop."""
        await asyncio.to_thread(self.replica.load)
        await asyncio.to_thread(self.embargo.load)
        await self.unlocker.load()
        await self.heartbeat.recover()
        await self.box.run(started)

    def greeting(self) -> Greeting:
        """Say where the page is and whom this node follows."""
        box = self.box
        assert box.listener is not None
        page = f"{box.local_url}/"
        follows = self.trust.hint.name if self.trust.hint else "nobody yet"
        return Greeting(
            {
                "page": page,
                "public_port": box.listener.port,
                "metrics": box.metrics_url,
                "lan": self.household.everything or None,
            },
            [f"Page: {page}", f"Follows {follows}.", *self.household.lines()],
        )

    @property
    def playing(self) -> int:
        """How many players are playing now."""
        return sum(bool(session["playing"]) for session in self.gateway.sessions())

    @property
    def tickets(self) -> int:
        """For how many days from today on this node has a ticket."""
        return len(self.wallet.holding(clock_ms() // DAY_MS).days)

    # -- who can be asked

    def _keyring(self) -> Keyring | None:
        return self.trust.keyring

    def _origin(self) -> list[Source]:
        return known_origin(self.trust)

    def _relays(self) -> list[Source]:
        return relay_sources(self._relay_records(), clock_ms(), overlay=self.box.dialer.overlay.here)

    def _neighbours(self) -> list[Source]:
        return self.discovery.neighbours() if self.discovery else []

    def _asked(self) -> list[Source]:
        """Return who may be asked for trust and catalog: relays first, they are many."""
        relays = self._relays()
        secrets.SystemRandom().shuffle(relays)
        return [*relays, *self._origin(), *pull_zones(self._keyring()), *self._neighbours()]

    def _tiers(self) -> list[Tier]:
        box, settings = self.box, self.box.settings
        ration = box.ration
        metered = ration is not None
        spent: Callable[[], bool] = (lambda: ration.exhausted) if ration is not None else bool
        tiers: list[Tier] = [
            cdn_tier(box.dialer, self._keyring, metered=metered, spent=spent),
            WebTier(TierName.RELAY, box.dialer, self._relays, metered=metered, spent=spent),
            MeshTier(self.lan_dialer, self._neighbours),
        ]
        fec = _carousel_code() if settings.satellite.enabled else None
        if fec is not None:
            self.antenna = Antenna(
                group=settings.satellite.group,
                port=settings.satellite.port,
                interface=settings.satellite.interface or (box.links.addresses() or ["127.0.0.1"])[0],
                origin=self.trust.origin_id,
                catalog_keys=lambda: keyring.catalog if (keyring := self.trust.keyring) else [],
                store=box.store,
                on_item=self._heard,
                on_block=lambda cid, size: self.fetcher.pushed(cid, size, TierName.SATELLITE),
                clock_ms=clock_ms,
                registry=box.registry,
                folder=box.home.path / "carousel",
                stored_bytes=settings.satellite.keep_bytes,
                fec=fec,
            )
            tiers.append(SatelliteTier(self.antenna))
        return tiers

    def _heard(self, kind: str, name: str, data: bytes) -> None:
        """Take one item from the carousel: acks one by one, everything else through the follower."""
        if kind == "ack":
            with contextlib.suppress(asyncio.QueueFull):  # it comes round again
                self._acks_heard.put_nowait(data)
        else:
            self.follower.offer(kind, name, data)

    async def _accept_heard(self) -> None:
        """Apply acks heard on the air; one that is no news or not ours to verify yet is counted."""
        while True:
            data = await self._acks_heard.get()
            with contextlib.suppress(FarcastError):
                await asyncio.to_thread(self.acks.accept, data)

    async def _fetch(self, cid: Cid) -> bytes:
        return await self.fetcher.block(cid)

    async def _share(self, title: str, fetch: Fetch) -> None:
        """Bring all of a title together with the neighbours who want or hold it."""
        layout = await self.layouts.of(title, fetch)

        async def bring_in(cid: Cid) -> bytes:
            data = await self._alone(cid, title)
            self.keeper.stays(cid)
            return data

        await self.sharer.bring(layout, bring_in)

    async def _alone(self, cid: Cid, title: str) -> bytes:
        """Return a block of a title by the tiers, not by what neighbours share of it."""
        return await self.fetcher.block(cid, title=title, alone=True)

    async def _held(self, cid: Cid, title: str | None) -> bytes:
        """Return a block for a neighbour: only what is held; a viewer fetches nothing for others."""
        del title
        data = await asyncio.to_thread(self.box.store.get, cid)
        if data is None:
            raise RefusedError(f"{cid} is not held here", status=404, reason="not_held")
        return data

    def _digest(self, title: str) -> bytes:
        """Return a title's manifest digest; of one retired while it played what was watched counts."""
        if self.library.lists(title) or title not in self._digests:
            self._digests[title] = self.library.entry(title).cid.digest
        while len(self._digests) > SESSIONS_LIMIT:
            del self._digests[next(iter(self._digests))]
        return self._digests[title]

    async def _issue(self, wanted: list[tuple[int, bytes]]) -> list[TicketGrant]:
        body = encode(TicketRequest(1, [TicketWish(day, key) for day, key in wanted]))
        return open_ticket_answer(await self._ask_origin("/v1/tickets", body, self.box.identity)).grants

    async def _ask_keys(self, body: bytes, session: Identity) -> bytes:
        return await self._ask_origin(KEYS_PATH, body, session)

    async def _ask_origin(self, path: str, body: bytes, identity: Identity) -> bytes:
        """Post a request signed by ``identity`` to the first of the origin's listeners that answers."""
        failure: FarcastError = UnreachableError("the origin's address is not known yet")
        for source in self._origin():
            try:
                reply = await self.box.dialer.signed_request(source, "POST", path, body, identity)
            except UnreachableError as error:
                failure = error
                continue
            return expect(reply, 200)
        raise failure

    def _upstream_of_seals(self) -> list[Source]:
        """Return whom a neighbour's question is passed on to: nobody on the link, so none goes round."""
        return [way.source for way in self._ways() if way.dialer is self.box.dialer]

    def _ways(self) -> list[Way]:
        """Return who may be asked what of our viewing counts: the origin, a few relays, a few neighbours."""
        ways: list[Way] = []
        if self.courier.allowed and self.courier.reachable:
            ways += [Way(self.box.dialer, source, origin=True) for source in self._origin()]
            ways += [Way(self.box.dialer, source, origin=False) for source in self._relays()[:WAYS_ASKED]]
        return ways + [Way(self.lan_dialer, one, origin=False) for one in self._neighbours()[:WAYS_ASKED]]

    def _standing(self) -> Standing:
        origin = self.trust.hint.name if self.trust.hint else "the origin"
        return Standing(
            self.enrolled, self.heartbeat.enabled, origin, self.no_ticket, revoked=self.wallet.ended
        )

    async def _renew_keys(self) -> None:
        """Have the keys of kept titles ready for when the network is gone."""
        labels = await asyncio.to_thread(self.box.store.pinned)
        kept = [label.removeprefix(KEEP) for label in labels if label.startswith(KEEP)]
        await self.unlocker.renew(kept)

    # -- wiring

    def _add_routes(self) -> None:
        box = self.box
        routes = PublicRoutes(
            box.store,
            self.library,
            self.replica,
            self._held,
            self.trust.files,
            box.spool.acks,
            cors=False,
            denied=self.embargo.denies,
        )
        routes.add_to(box.public)
        self.embargo.add_to(box.public, routes.block, routes.watch)
        box.lookup = self.embargo.lookup(routes.lookup)
        box.epoch = lambda: (routes.epoch(), self.embargo.epoch())
        self.reception.add_to(box.public)
        self.seals.add_to(box.public)
        if self.antenna is not None:
            Lender(self.antenna).add_to(box.public)
        local = box.local
        self.television.add_to(local)
        self.gateway.add_to(local)
        local.route("GET", "/ipfs/{cid}", self.embargo.guard(routes.block))
        local.route("GET", "/ipfs/{cid}/{path...}", self.embargo.guard(routes.block))
        self.desk.add_to(local)
        self.ferrydesk.add_to(local)
        EarningsAsker(box.identity, box.dialer, self._origin).add_to(local)
        Page(self.desk, box.token).add_to(local)

    def _add_work(self) -> None:
        box, settings = self.box, self.box.settings
        self.radio: Radio | None = None
        if settings.reticulum.enabled:
            self.radio = radio_of(box, self.trust.origin_id, self.replica, self._keyring)
        self._acks_heard = asyncio.Queue[bytes](ACKS_WAITING)
        for closer in (
            self.ferrydesk.close,
            self.gateway.close,
            self.unlocker.close,
            self.keeper.close,
            self.nearby.close,
            self.fetcher.close,
            self.lan_dialer.close,
            lambda: asyncio.to_thread(self.wallet.close),
            lambda: asyncio.to_thread(self.finder.close),
        ):
            box.on_close(closer)
        box.follow(self.follower.refresh, lambda: box.local.asked)
        box.every("trust", settings.trust.refresh_s, self.follower.refresh_trust)
        box.every("courier", min(settings.heartbeat.interval_s, CARRY_S), self.courier.errand)
        box.every("verdicts", RENEW_S, self.verdicts.errand)
        box.every("sweep", SWEEP_S, self.embargo.sweep)
        box.every("deny", DENY_LOOK_S, self.embargo.look)
        box.every("tickets", RENEW_S, self._renew)
        box.every("keep", RENEW_S, self.keeper.resume)
        box.every("keys", RENEW_S, self._renew_keys)
        if self.dish is not None:
            box.every("dish", DISH_LOOK_S, self.dish.look)
        box.serve("offers", self._digest_offers)
        box.serve("viewing", self.gateway.run)
        if self.radio is not None:
            box.serve("radio", self.radio.run)
        if self.antenna is not None:
            box.serve("satellite", self.antenna.run)
            box.serve("heard", self._accept_heard)
        if settings.mesh.enabled:
            box.streams[ALPN] = self.sharer.accept
            box.serve("mesh", self._mesh)
            box.every("carry", CARRY_S, self._carry)
            if self.antenna is not None:
                borrower = Borrower(self.antenna, self.lan_dialer, self._neighbours, box.registry)
                box.every("borrow", PAUSE_S, borrower.errand)

    async def _renew(self) -> None:
        keyring = self.trust.keyring
        if keyring is not None and self.enrolled:
            try:
                await self.heartbeat.renew(self._issue, list(keyring.ticket))
            except FarcastError as error:
                self.no_ticket = str(error)
                if isinstance(error, RefusedError) and error.reason == REVOKED:
                    await asyncio.to_thread(self.wallet.end, clock_ms() // DAY_MS)
                raise

    async def _digest_offers(self) -> None:
        while True:
            await self.follower.digest_offers()

    async def _mesh(self) -> None:
        """Be present on the LAN and share; starts once the listener has its port."""
        discovery = self.discovery or self._add_neighbours()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(discovery.run())
            tasks.create_task(self.sharer.run())

    def _add_neighbours(self) -> Discovery:
        """Make what finds neighbours and what carries pulses to them, once: its metrics have their names."""
        box, settings = self.box, self.box.settings
        assert box.listener is not None
        self.discovery = discovery = Discovery(
            identity=box.listens_as,
            port=box.listener.port,
            net=self.trust.origin_id,
            addresses=box.trusted.addresses,
            on_link=box.trusted,
            is_active=lambda: self.playing > 0 or self.sharer.moving,
            has_uplink=lambda: self.courier.reachable,
            clock_ms=clock_ms,
            registry=box.registry,
            group=settings.mesh.group,
            presence_port=settings.mesh.port,
            use_mdns=settings.mesh.zeroconf,
        )
        self.porter = Porter(
            spool=box.spool,
            dialer=self.lan_dialer,
            neighbours=discovery.known,
            has_uplink=lambda: self.courier.reachable,
            hops=discovery.look,
            accept_ack=self.acks.accept,
            accept_beacon=self.replica.accept_beacon,
            clock_ms=clock_ms,
            registry=box.registry,
            own=box.listens_as.key,
        )
        return discovery

    async def _carry(self) -> None:
        if self.porter is not None:
            await self.porter.errand()


def _carousel_code() -> RaptorQ | None:
    """Return what decodes the carousel, None with a warning where its package is not installed."""
    try:
        return RaptorQ()
    except UsageError as error:
        log.warning("no satellite: %s; [satellite] enabled = false silences this", error)
        return None


def _dish(box: Box) -> Dish | None:
    """Return the dish that is set, None with a warning where its package is not installed."""
    if not box.settings.metered.dish:
        return None
    try:
        return Dish(box.settings.metered.dish, box.registry)
    except UsageError as error:
        log.warning("the dish is not asked: %s", error)
        return None


def _tuning(settings: Settings) -> Tuning:
    ladder = settings.ladder
    return Tuning(
        hedge_min_s=ladder.hedge_min_ms / 1_000,
        hedge_max_s=ladder.hedge_max_ms / 1_000,
        probe_s=ladder.probe_s,
        waste_percent=ladder.waste_percent,
    )
