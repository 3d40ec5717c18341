"""What a relay holds, by title, and the titles its operator keeps for good."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..node.http.exchange import Answer, Exchange, Router
from ..node.playback.keep import Keeper, Kept
from ..protocol.cid import Cid
from ..protocol.errors import FarcastError
from ..protocol.identity import peer_id

if TYPE_CHECKING:
    from .service import RelayService

PIN_LABEL = "title:"
"""Pins by title; those by CID are ``cid:``."""


class Filler:
    """Lets a keeper fetch as this relay fills: within its contract and its reach."""

    def __init__(self, relay: RelayService) -> None:
        self._relay = relay

    async def block(self, cid: Cid, *, title: str = "") -> bytes:
        """Return a block of ``title``; raises ``RemoteError``."""
        return await self._relay.fill.block(cid, title or None)


class Holdings:
    """Answers which titles are here, and pins and unpins them."""

    def __init__(self, relay: RelayService) -> None:
        self._relay = relay
        self.keeper = Keeper(relay.box.store, relay.library, Filler(relay), label=PIN_LABEL)

    def add_to(self, router: Router) -> None:
        """Add the admin calls below the path token."""
        router.route("GET", "/api/holdings", self._list)
        router.route("GET", "/api/title-pins/{title}", self._progress)
        router.route("POST", "/api/title-pins/{title}", self._pin)
        router.route("DELETE", "/api/title-pins/{title}", self._unpin)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each title of which anything is here, the largest first. Blocking."""
        relay = self._relay
        store, demand = relay.box.store, relay.demand
        pinned = {label.removeprefix(PIN_LABEL) for label in store.pinned() if label.startswith(PIN_LABEL)}
        found: list[dict[str, Any]] = []
        for title in relay.library.titles():
            try:
                manifest = relay.library.manifest(title)
                reached = relay.library.reached(title)
            except FarcastError:
                continue  # not even its manifest is here
            held = sum(size for size in map(store.size, reached) if size)
            if not held and title not in pinned:
                continue
            share = 100 * held / manifest.size_bytes if manifest.size_bytes else 0.0
            hour_ms = demand.last_hour_ms(title)
            found.append(
                {
                    "title": title,
                    "name": manifest.name,
                    "publisher": peer_id(manifest.publisher),
                    "held_percent": min(100.0, round(share, 1)),
                    "bytes": held,
                    "pinned": title in pinned,
                    "last_asked": None if hour_ms is None else _hour(hour_ms),
                }
            )
        return sorted(found, key=lambda row: (-row["bytes"], row["title"]))

    async def _list(self, exchange: Exchange) -> Answer:
        del exchange
        return Answer.json({"titles": await asyncio.to_thread(self.rows)})

    async def _progress(self, exchange: Exchange) -> Answer:
        return _answer(await self.keeper.progress(exchange.match["title"]))

    async def _pin(self, exchange: Exchange) -> Answer:
        return _answer(await self.keeper.keep(exchange.match["title"]))

    async def _unpin(self, exchange: Exchange) -> Answer:
        return _answer(await self.keeper.drop(exchange.match["title"]))


def _answer(kept: Kept) -> Answer:
    return Answer.json({**kept._asdict(), "whole": kept.held_blocks == kept.blocks})


def _hour(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1_000, UTC).strftime("%Y-%m-%dT%H:00Z")
