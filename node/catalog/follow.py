"""The follower: keeps trust, catalog, relay directory and beacons fresh, by any way they come.

It polls whoever answers, and takes what the satellite or a neighbour offers; both go through the
same verification, so where bytes came from never matters.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge

from ...protocol.catalog import ENTRIES_PER_PAGE, Page
from ...protocol.codec import decode, encode
from ...protocol.errors import FarcastError, RemoteError
from ...protocol.ports import Dialer, Source
from ..http.problem import expect
from ..http.ranges import content_tag
from .clear import ClearFirst
from .library import Fetch, Library
from .replica import Replica
from .trust import Trust

REQUEST_TIMEOUT_S = 8.0
ENTRIES_LIMIT_BYTES = 4 << 20
OFFERS_KEPT = 4_096
OFFERED_BYTES_KEPT = 32 << 20
PAGES_KEPT = 256
"""Pages of entries that wait for the others: a million entries."""

log = logging.getLogger(__name__)


class Follower:
    """Follows one origin; ``sources`` are the boxes that may be asked, best first."""

    def __init__(
        self,
        replica: Replica,
        trust: Trust,
        library: Library,
        dialer: Dialer,
        sources: Callable[[], Sequence[Source]],
        fetch: Fetch,
        registry: CollectorRegistry,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._replica = replica
        self._trust = trust
        self._library = library
        self._dialer = dialer
        self._sources = sources
        self._fetch = fetch
        self._clock = clock
        self._clear = ClearFirst()
        self._offers: dict[tuple[str, str], bytes] = {}
        self._note: bytes | None = None
        self._pages: dict[int, Page] = {}
        self._offered = asyncio.Event()
        self._refreshes = Counter(
            "farcast_node_catalog_refreshes", "Catalog refreshes by result.", ["result"], registry=registry
        )
        self._size = Gauge("farcast_node_catalog_entries", "Entries in the catalog here.", registry=registry)
        self._size.set_function(lambda: float(replica.catalog.size))
        self.learned: Callable[[], Awaitable[None]] | None = None
        self.advanced: Callable[[], object] | None = None
        """Called in a thread as soon as the catalog has grown, before anything else is fetched."""
        self.behind = False
        """Whether nobody who was asked last brought the catalog up to date."""

    async def refresh(self) -> bool:
        """Ask the sources in turn until one brings everything up to date; False where none did."""
        if self._trust.keyring is None and not await self._refresh_trust():
            self.behind = True
            return False
        for source in self._sources():
            try:
                await self._follow(source)
            except FarcastError as error:
                self._refreshes.labels(error.reason).inc()
                continue
            self._refreshes.labels("fresh").inc()
            self.behind = False
            await self._learn_titles()
            return True
        self.behind = True
        return False

    def offer(self, kind: str, name: str, data: bytes) -> None:
        """Take one item that arrived unasked; it is looked at by ``digest_offers``.

        Bounded: an item past the bound replaces nothing and is dropped.
        """
        used = sum(map(len, self._offers.values()))
        if len(self._offers) < OFFERS_KEPT and used + len(data) <= OFFERED_BYTES_KEPT:
            self._offers[(kind, name)] = data
            self._offered.set()

    async def digest_offers(self) -> None:
        """Wait for offers, let a bundle arrive whole, then verify and accept what is news."""
        await self._offered.wait()
        await asyncio.sleep(0.05)
        self._offered.clear()
        offers, self._offers = self._offers, {}
        was_known = self._trust.keyring is not None
        trust = {name: data for (kind, name), data in offers.items() if kind == "trust"}
        for name, data in trust.items():
            await asyncio.to_thread(self._trust.offer, name, data)
        if trust and self._trust.wants(trust):
            await self._refresh_trust()
        if self._trust.keyring is None:
            return
        await self._accept("catalog", lambda: self._offered_catalog(offers))
        await self._tell_advanced()
        if not was_known:  # nobody vouched for these: they come round again
            self._note, self._pages = None, {}
        for (kind, _), data in offers.items():
            if kind == "directory":
                await self._accept(kind, partial(self._replica.accept_directory, data))
            elif kind == "beacon":
                await self._accept(kind, partial(self._replica.accept_beacon, data))
        await self._learn_titles()

    def _offered_catalog(self, offers: dict[tuple[str, str], bytes]) -> None:
        """Advance to an offered checkpoint; a large catalog's pages come in several bundles, so they wait."""
        for (kind, _), data in offers.items():
            if kind == "checkpoint":
                self._note = data
            elif kind == "entries":
                try:
                    page = decode(Page, data, limit_bytes=ENTRIES_LIMIT_BYTES)
                except RemoteError as error:
                    self._refreshes.labels(f"offer_entries_{error.reason}").inc()
                    continue
                self._pages[page.start] = page
        while len(self._pages) > PAGES_KEPT:
            del self._pages[next(iter(self._pages))]
        if self._note is None:
            return
        known, entries = self._replica.catalog.size, list[bytes]()
        for start, page in sorted(self._pages.items()):
            at = known + len(entries)
            if start <= at:
                entries += page.entries[at - start :]
        self._replica.advance(self._note, known, entries)
        self._note, self._pages = None, {}

    async def _tell_advanced(self) -> None:
        if self.advanced is not None:
            await asyncio.to_thread(self.advanced)

    async def _accept(self, kind: str, accept: Callable[[], object]) -> None:
        try:
            await asyncio.to_thread(accept)
        except RemoteError as error:
            self._refreshes.labels(f"offer_{kind}_{error.reason}").inc()

    async def refresh_trust(self) -> bool:
        """Run TUF's client workflow again; a failure is counted and changes nothing."""
        return await self._refresh_trust()

    async def _refresh_trust(self) -> bool:
        try:
            await self._trust.refresh()
        except FarcastError as error:
            self._refreshes.labels(f"trust_{error.reason}").inc()
            log.warning("trust not refreshed: %s", error)
        return self._trust.keyring is not None

    async def _follow(self, source: Source) -> None:
        *cheap, sure = self._clear.ways(source, self._clock())
        for way in cheap:
            try:
                await self._refresh_from(way)
            except FarcastError:
                self._clear.spoiled(source, self._clock())
            else:
                return
        await self._refresh_from(sure)

    async def _refresh_from(self, source: Source) -> None:
        known = self._replica.checkpoint()
        note = await self._get(source, "/v1/catalog/checkpoint", known)
        if note != known:
            await self._advance(source, note)
        directory = self._replica.directory()
        relays = await self._get(source, "/v1/relays", directory)
        if relays != directory:
            await asyncio.to_thread(self._replica.accept_directory, relays)
        held = encode(self._replica.beacons())
        beacons = await self._get(source, "/v1/beacons", held)
        if beacons != held:
            for beacon in decode(list[bytes], beacons):
                await asyncio.to_thread(self._replica.accept_beacon, beacon)

    async def _advance(self, source: Source, note: bytes) -> None:
        checkpoint = self._replica.peek(note)
        if checkpoint.size < self._replica.catalog.size:
            raise RemoteError(f"{source.name} has an older catalog", reason="rollback")
        start = self._replica.catalog.size
        fresh: list[bytes] = []
        while start + len(fresh) < checkpoint.size:
            begin = start + len(fresh)
            end = min(checkpoint.size, begin + ENTRIES_PER_PAGE)
            data = await self._get(source, f"/v1/catalog/entries?start={begin}&end={end}")
            page = decode(Page, data, limit_bytes=ENTRIES_LIMIT_BYTES)
            if page.start != begin or not page.entries:
                raise RemoteError(f"{source.name} sent other entries than asked for", reason="gap")
            fresh += page.entries
        await asyncio.to_thread(self._replica.advance, note, start, fresh)
        await self._tell_advanced()

    async def _get(self, source: Source, path: str, held: bytes | None = None) -> bytes:
        """Return what ``source`` has at ``path``; ``held`` itself, unsent, where it is still the same."""
        headers = {"if-none-match": content_tag(held)} if held else {}
        reply = await self._dialer.request(
            source, "GET", path, headers=headers, limit_bytes=ENTRIES_LIMIT_BYTES, timeout_s=REQUEST_TIMEOUT_S
        )
        if held and reply.status == 304:  # noqa: PLR2004 - Not Modified
            return held
        return expect(reply, 200)

    async def _learn_titles(self) -> None:
        """Bring the manifests in, so that lists can be shown with no uplink."""
        for title in self._library.titles():
            try:
                await asyncio.wait_for(self._library.learn(title, self._fetch), REQUEST_TIMEOUT_S)
            except (FarcastError, TimeoutError):
                continue
        if self.learned is not None:
            await self.learned()
