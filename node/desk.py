"""The desk: what page, commands and admin calls ask a viewer's node, and the switches they throw."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from ..protocol.errors import FarcastError, RefusedError
from .http.exchange import Answer, Exchange, Router
from .settingsfile import set_key

if TYPE_CHECKING:
    from .viewer import Viewer

ADMIN_LIMIT_BYTES = 4_096


class Switch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of an admin call that switches something."""

    on: bool


class Desk:
    """Answers about the node; everything here is also what the page shows."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer

    def add_to(self, router: Router) -> None:
        """Add the admin calls below the path token."""
        router.route("GET", "/api/status", self._get_status)
        router.route("GET", "/api/titles", self._get_titles)
        router.route("GET", "/api/titles/{title}", self._get_title)
        router.route("POST", "/api/titles/{title}/keep", self._keep)
        router.route("GET", "/api/titles/{title}/keep", self._kept)
        router.route("DELETE", "/api/titles/{title}/keep", self._drop)
        router.route("POST", "/api/direct", self._direct)
        router.route("GET", "/api/pulses", self._get_pulses)
        router.route("POST", "/api/pulses", self._switch_pulses)

    def status(self) -> dict[str, Any]:
        """Return everything a person wants to know of the box, the verdict first."""
        viewer = self._viewer
        found = viewer.fetcher.status()
        store = viewer.box.store
        return {
            "verdict": self._verdict(),
            "role": "node",
            "origin": viewer.trust.hint.name if viewer.trust.hint else "",
            "tier_in_use": found["tier_in_use"],
            "tiers": found["tiers"],
            "failovers": found["failovers"],
            "blocks_waiting": found["waiting"],
            "playing": viewer.playing,
            "sessions": viewer.gateway.sessions(),
            "pulses": self.pulses(),
            "tickets": viewer.tickets,
            "store": {"bytes": store.held_bytes, "blocks": store.held_blocks},
            "neighbours": len(viewer.discovery.neighbours()) if viewer.discovery else 0,
            "direct": viewer.courier.allowed,
        }

    def pulses(self) -> dict[str, Any]:
        """Return what was signed here and what still waits for the origin's ack."""
        waiting = self._viewer.box.spool.waiting(own=True)
        beat = self._viewer.heartbeat
        return {
            "on": beat.enabled,
            "signed": beat.counts["signed"],
            "waiting": waiting.count,
            "waiting_s": waiting.viewed_ms // 1_000,
        }

    def titles(self) -> list[dict[str, Any]]:
        """Return the listed titles whose manifests are here, with how much of each is held."""
        viewer, rows = self._viewer, list[dict[str, Any]]()
        for title in viewer.library.titles():
            try:
                manifest = viewer.library.manifest(title)
            except FarcastError:
                continue
            rows.append(
                {
                    "title": title,
                    "name": manifest.name,
                    "description": manifest.description,
                    "duration_s": round(manifest.duration_ms / 1_000),
                    "size_bytes": manifest.size_bytes,
                    "root_cid": str(manifest.root_cid),
                    "held_percent": self._held_percent(title, manifest.size_bytes),
                }
            )
        return rows

    def _held_percent(self, title: str, size_bytes: int) -> int:
        """Return how much of a title is held, in whole percent of its bytes; 100 only when it is whole."""
        sizes = [self._viewer.box.store.size(cid) for cid in self._viewer.library.reached(title)]
        held = [size for size in sizes if size is not None]
        return 100 if len(held) == len(sizes) else min(99, sum(held) * 100 // max(size_bytes, 1))

    def _verdict(self) -> str:
        viewer = self._viewer
        if viewer.trust.keyring is None:
            return "Waiting for the origin's keys: nobody reachable has them yet"
        if not viewer.replica.checkpoint():
            return "Waiting for the catalog: nobody reachable has it yet"
        if not viewer.courier.reachable and viewer.courier.allowed:
            return "Offline: no relay or origin answers; neighbours and the satellite still serve"
        if viewer.no_ticket and not viewer.tickets:
            return f"Plays, but nothing is counted: {viewer.no_ticket}"
        return "Ready"

    async def _get_status(self, exchange: Exchange) -> Answer:
        del exchange
        return Answer.json(await asyncio.to_thread(self.status))

    async def _get_titles(self, exchange: Exchange) -> Answer:
        del exchange
        return Answer.json(await asyncio.to_thread(self.titles))

    async def _get_title(self, exchange: Exchange) -> Answer:
        title, base = exchange.match["title"], self._viewer.box.local_url
        lan = self._viewer.household.url
        self._viewer.library.entry(title)
        return Answer.json(
            {
                "title": title,
                "watch_hls": f"{base}/watch/{title}/master.m3u8",
                "watch_tv": f"{base}/watch/{title}/tv.m3u8",
                "watch_file": f"{base}/watch/{title}/film.mp4",
                "lan": f"{lan}/watch/{title}/film.mp4" if lan else None,
                "player": f"{base}/play/{title}",
                "cmcd": f"{base}/v1/cmcd",
                "tier_in_use": self._viewer.fetcher.status()["tier_in_use"],
            }
        )

    async def _keep(self, exchange: Exchange) -> Answer:
        return Answer.json((await self._viewer.keeper.keep(exchange.match["title"]))._asdict())

    async def _kept(self, exchange: Exchange) -> Answer:
        return Answer.json((await self._viewer.keeper.progress(exchange.match["title"]))._asdict())

    async def _drop(self, exchange: Exchange) -> Answer:
        return Answer.json((await self._viewer.keeper.drop(exchange.match["title"]))._asdict())

    async def _direct(self, exchange: Exchange) -> Answer:
        self._viewer.courier.allowed = await _switch(exchange)
        self._viewer.box.wake("courier")
        return Answer.json({"direct": self._viewer.courier.allowed})

    async def _get_pulses(self, exchange: Exchange) -> Answer:
        del exchange
        return Answer.json(await asyncio.to_thread(self.pulses))

    async def _switch_pulses(self, exchange: Exchange) -> Answer:
        on = self._viewer.heartbeat.enabled = await _switch(exchange)
        home = self._viewer.box.home.path  # kept, so that off stays off when the node starts again
        await asyncio.to_thread(set_key, home, "heartbeat.enabled", "true" if on else "false")
        return Answer.json(await asyncio.to_thread(self.pulses))


async def _switch(exchange: Exchange) -> bool:
    """Read the switch of an admin call; raises ``RefusedError`` 400."""
    try:
        return msgspec.json.decode(await exchange.read(ADMIN_LIMIT_BYTES), type=Switch).on
    except msgspec.MsgspecError:
        raise RefusedError('say {"on": true} or {"on": false}', status=400, reason="bad_arguments") from None
