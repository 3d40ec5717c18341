"""Where a relay fills from: the relays that own a block, then the CDN, then the origin.

A relay asks another with ``farcast-hop: 1``. Whoever is asked so answers from its store, the CDN or
the origin and asks no relay itself, so no request goes round; a block's owners are its first two
relays by rendezvous hashing, this one included, so the origin sends each block about once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..node.http.exchange import Answer, Exchange, Handler
from ..node.ladder.health import Tuning
from ..node.ladder.ladder import Ladder
from ..node.ladder.tiers import WebTier, pull_zones, relay_sources
from ..node.settings import Ladder as Table
from ..protocol.cid import Cid
from ..protocol.directory import RelayRecord
from ..protocol.errors import RemoteError
from ..protocol.keyring import Keyring
from ..protocol.ports import BlockDialer, Source, TierName
from .fill import Fill

HOP = "farcast-hop"
ORDER = (TierName.RELAY, TierName.CDN, TierName.MESH, TierName.SATELLITE)
PEERS = frozenset({TierName.RELAY})
DEADLINE_S = 20.0
PATIENCE = 4
"""A relay waits so many times longer than a viewer before it asks twice: doubling costs the origin most."""


def fill_ladder(table: Table) -> Ladder:
    """Return the ladder of a relay: its own order, and an end where the origin lacks a block."""
    tuning = Tuning(
        hedge_min_s=PATIENCE * table.hedge_min_ms / 1_000,
        hedge_max_s=PATIENCE * table.hedge_max_ms / 1_000,
        probe_s=table.probe_s,
        waste_percent=table.waste_percent,
    )
    return Ladder(tuning, deadline_s=DEADLINE_S, order=ORDER, patient=False)


class Upstream:
    """The tiers above one relay, as trust and directory know them now."""

    def __init__(
        self,
        dialer: BlockDialer,
        own: bytes,
        keyring: Callable[[], Keyring | None],
        relays: Callable[[], Sequence[RelayRecord]],
        origin: Callable[[], list[Source]],
        clock_ms: Callable[[], int],
        *,
        peers: bool,
    ) -> None:
        """``own`` is this relay's key; without ``peers`` no relay is asked."""
        self._own = own
        self._keyring = keyring
        self._relays = relays
        self._origin = origin
        self._clock_ms = clock_ms
        beyond = WebTier(TierName.CDN, dialer, self._zones, reserve=self._reserve)
        equals = WebTier(TierName.RELAY, dialer, self._peers, own=own, headers={HOP: "1"})
        self.tiers = [equals, beyond] if peers else [beyond]

    def _peers(self) -> list[Source]:
        known = relay_sources(self._relays(), self._clock_ms())
        return [source for source in known if source.key != self._own]

    def _zones(self) -> list[Source]:
        return pull_zones(self._keyring()) or self._origins()

    def _reserve(self) -> list[Source]:
        return self._origins() if pull_zones(self._keyring()) else []

    def _origins(self) -> list[Source]:
        return [source._replace(tier=TierName.CDN) for source in self._origin()]


def hop(fill: Fill, handler: Handler) -> Handler:
    """Let ``handler`` answer a block that another relay asks for, brought here without asking a third."""

    async def handle(exchange: Exchange) -> Answer:
        cached = "only-if-cached" in exchange.headers.get("cache-control", "")
        path = exchange.match.get("path")
        if HOP in exchange.headers and exchange.method == "GET" and not cached and not path:
            try:
                cid = Cid.parse(exchange.match["cid"])
            except RemoteError:
                return await handler(exchange)  # it says what is wrong with it
            await fill.block(cid, exchange.headers.get("farcast-title"), alone=True)
        return await handler(exchange)

    return handle
