"""Delegated routing: tells IPFS clients which boxes have a block of the catalog (IPIP-0337).

Answers come from the signed relay directory: every approved relay whose record still holds fills
whatever a catalog root reaches, and the origin has all of it. Of anything else nobody is named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain, islice

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge

from ..node.catalog.library import Fetch, Library
from ..node.catalog.replica import Heads
from ..node.http.exchange import Answer, Exchange, Router
from ..protocol.cid import Cid
from ..protocol.directory import open_directory
from ..protocol.errors import RefusedError, RemoteError
from ..protocol.identity import peer_id
from ..protocol.keyring import Keyring
from .provider import Provider, Ring, Wanted, provider
from .reach import Reach

RESULTS_LIMIT = 100
"""Providers in one answer: the specification's SHOULD for JSON, kept for NDJSON too."""
REFRESH_WAIT_S = 2.0
"""How long a request waits for the catalog's newest titles; then it is answered from what is known."""
FOREVER_MS = 1 << 62
JSON, NDJSON = "application/json", "application/x-ndjson"

_FOUND = "public, max-age=300, stale-while-revalidate=3600, stale-if-error=86400"
_NONE = "public, max-age=15"  # a title just published should be found soon (IPIP-0513)
_CORS = {"access-control-allow-origin": "*", "access-control-allow-methods": "GET, OPTIONS"}


class Routing:
    """Answers ``/routing/v1`` for what the catalog of ``heads`` reaches."""

    def __init__(
        self,
        heads: Heads,
        library: Library,
        fetch: Fetch,
        keyring: Callable[[], Keyring],
        clock_ms: Callable[[], int],
        registry: CollectorRegistry,
        denied: Callable[[Cid], bool] = lambda _: False,
    ) -> None:
        """Name who has what ``library`` reaches, blocks of ``fetch``; nobody for what a file ``denied``."""
        self._heads = heads
        self._denied = denied
        self._keyring = keyring
        self._clock_ms = clock_ms
        self._reach = Reach(library, fetch)
        self._ring = Ring([])
        self._seen_entries = -1
        self._seen_directory: bytes | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._answers = Counter(
            "farcast_origin_routing_answers",
            "Questions of IPFS clients for providers, by whether somebody was named.",
            ["result"],
            registry=registry,
        )
        for result in ("found", "unknown"):  # both are series from the start
            self._answers.labels(result)
        self._blocks = Gauge(
            "farcast_origin_routing_blocks", "Blocks that providers are named for.", registry=registry
        )

    def add_to(self, router: Router) -> None:
        """Add the routes to the public ``router``."""
        router.route("GET", "/routing/v1/providers/{cid}", self.providers)
        router.route("OPTIONS", "/routing/v1/providers/{cid}", self.preflight)
        for method in ("GET", "PUT", "POST"):
            router.route(method, "/routing/v1/{rest...}", self.not_offered)

    async def refresh(self) -> None:
        """Follow catalog and directory, if either has changed."""
        if self._stale():
            if self._refreshing is None or self._refreshing.done():
                self._refreshing = asyncio.ensure_future(self._follow())
            await asyncio.shield(self._refreshing)

    async def providers(self, exchange: Exchange) -> Answer:
        """``GET /routing/v1/providers/{cid}``: who has it; an empty list where nobody is known."""
        try:
            cid = Cid.parse(exchange.match["cid"])
        except RemoteError as error:
            raise RefusedError(str(error), status=422, reason="bad_cid") from error
        with suppress(TimeoutError):
            async with asyncio.timeout(REFRESH_WAIT_S):
                await self.refresh()
        found: list[Provider] = []
        if cid in self._reach and not self._denied(cid):
            found = list(self._wanted(cid, Wanted(exchange.query)))
        self._answers.labels("found" if found else "unknown").inc()
        records = [one.record() for one in found]
        if _wants_lines(exchange.headers.get("accept", "")):
            media_type, body = NDJSON, b"".join(msgspec.json.encode(record) + b"\n" for record in records)
        else:
            media_type, body = JSON, msgspec.json.encode({"Providers": records})
        return Answer(
            200,
            {
                "content-type": media_type,
                "cache-control": _FOUND if found else _NONE,
                "vary": "accept",
                **_CORS,
            },
            body,
        )

    async def preflight(self, exchange: Exchange) -> Answer:
        """``OPTIONS``: any page may ask."""
        del exchange
        return Answer(204, {"access-control-max-age": "86400", **_CORS})

    async def not_offered(self, exchange: Exchange) -> Answer:
        """Refuse the rest of the interface as the specification says: 501."""
        del exchange
        message = "this router answers GET /routing/v1/providers/{cid} alone"
        raise RefusedError(message, status=501, reason="not_offered")

    def _wanted(self, cid: Cid, wanted: Wanted) -> Iterator[Provider]:
        """Yield who has ``cid``, those that a client should ask first in front.

        A title begins at a relay, which learns the rest from it and spares the origin's uplink; of a
        block asked for by itself only the origin surely knows that it is one of ours.
        """
        now_ms = self._clock_ms()
        keyring = self._keyring()
        box = provider(peer_id(keyring.box), keyring.endpoints, FOREVER_MS)
        own = [found for found in (wanted.of(box) if box else None,) if found is not None]
        relays = (wanted.of(relay) for relay in self._ring.around(cid.digest) if relay.expires_ms > now_ms)
        first = islice(filter(None, relays), RESULTS_LIMIT - len(own))
        return chain(first, own) if self._reach.begins_with(cid) else chain(own, first)

    def _stale(self) -> bool:
        seen = (self._seen_entries, self._seen_directory)
        return seen != (self._heads.catalog.size, self._heads.directory())

    async def _follow(self) -> None:
        entries, directory = self._heads.catalog.size, self._heads.directory()
        if entries != self._seen_entries:
            await self._reach.refresh()
            self._seen_entries = entries
            self._blocks.set(len(self._reach))
        if directory != self._seen_directory:
            self._ring = await asyncio.to_thread(self._listed, directory)
            self._seen_directory = directory

    def _listed(self, directory: bytes | None) -> Ring:
        """Return the relays of the signed directory. Blocking: it verifies every record."""
        if directory is None:
            return Ring([])
        _, records = open_directory(directory, self._keyring().catalog[0])
        found = (provider(peer_id(one.relay), one.endpoints, one.expires_ms) for one in records)
        return Ring([one for one in found if one is not None])


def _wants_lines(accept: str) -> bool:
    """Say whether a client asked for NDJSON by name, as it must to get it."""
    for part in accept.lower().split(","):
        media_type, *parameters = (word.strip() for word in part.split(";"))
        if media_type == NDJSON:
            return not any(word.replace(" ", "") in ("q=0", "q=0.0") for word in parameters)
    return False
