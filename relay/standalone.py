"""A relay with no origin: it serves what its operator imported or pinned, by CID, and fills nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from ..node.box import Box
from ..node.catalog.denyfiles import LOOK_S as DENY_LOOK_S
from ..node.catalog.denyfiles import DenyFiles
from ..node.duty import Duty, Greeting
from ..node.home import Home, write_whole
from ..node.http.exchange import Answer, Exchange
from ..node.ipfs.gateway import TrustlessGateway
from ..node.page import Sheet
from ..node.settings import Settings
from ..protocol.cid import Cid
from ..protocol.errors import RefusedError
from .gateways import Gateways
from .importdesk import ImportDesk
from .pinning import RETRY_S, Pinner
from .reload import Reload
from .warden import Warden

STANDALONE_FILE = "standalone"
"""Marks the home of a relay that was made without an origin; joining one later ends that."""


def make_standalone(path: Path) -> str:
    """Make the home of a relay without an origin and return its peer id.

    Raises:
        UsageError: there is a home already, or the folder cannot be made.

    """
    with Home.create(path, "relay") as home:
        write_whole(path / STANDALONE_FILE, b"")
        return str(home.identity.peer_id)


def is_standalone(path: Path) -> bool:
    """Say whether the relay at ``path`` has no origin and wants none."""
    return (path / STANDALONE_FILE).is_file() and not (path / "trust").exists()


class StandaloneService:
    """Wires a box that serves imported roots; must be made on the event loop."""

    def __init__(self, home: Home, settings: Settings) -> None:
        self.box = box = Box(home, settings)
        self.warden = Warden(box)
        self.contract = self.warden.contract
        self.denied = DenyFiles(settings.deny.files, box.registry)
        self.reload = Reload(home.path, settings, self.warden.change, box.registry)
        self.desk = ImportDesk(box.store)
        gateways = Gateways(settings.ipfs.pin_from, box.dialer, box.registry)
        self.pinner = Pinner(box.store, gateways, self.contract.fill, self.denied.denies, box.registry)
        self.gateway = TrustlessGateway(
            box.store, _nothing, self.denied.denies, headers={"access-control-allow-origin": "*"}
        )
        self.gateway.add_to(box.public)
        box.lookup = self.gateway.lookup
        box.epoch = lambda: (box.store.losses, self.denied.version)
        self._add_routes()
        self._add_work()

    def _add_routes(self) -> None:
        box = self.box
        box.public.route("GET", "/healthz", self._health)
        box.public.route("GET", "/readyz", self.warden.ready(self._health))
        box.local.route("GET", "/api/status", self._status)
        box.local.route("POST", "/api/pause", self._pause)
        box.local.route("POST", "/api/resume", self._resume)
        self.desk.add_to(box.local)
        self.pinner.add_to(box.local)
        Sheet(self.status, box.token).add_to(box.local)

    def _add_work(self) -> None:
        box = self.box
        box.on_close(self.desk.close)
        box.on_close(self.pinner.close)
        box.every("deny", DENY_LOOK_S, lambda: asyncio.to_thread(self.denied.refresh))
        box.every("pins", RETRY_S, self.pinner.resume)
        box.serve("reload", self.reload.run)

    async def run(self, started: Callable[[], None] | None = None) -> None:
        """Serve until told to stop."""
        await self.box.run(started)

    def greeting(self) -> Greeting:
        """Say who this relay is and where it is found."""
        box = self.box
        assert box.listener is not None
        page = f"{box.local_url}/"
        return Greeting(
            {
                "public_port": box.listener.port,
                "published": [],
                "page": page,
                "metrics": box.metrics_url,
                "verdict": self._verdict(),
            },
            [
                f"Relay {box.identity.peer_id}: {self._verdict()}",
                f"  public     port {box.listener.port} (TCP and UDP)",
                f"  page       {page}",
                f"  metrics    {box.metrics_url}",
            ],
        )

    def status(self) -> dict[str, object]:
        """Say how this relay stands: the verdict first."""
        return {
            "role": "relay",
            "peer_id": self.box.identity.peer_id,
            "origin": "",
            "standing": "standalone",
            "verdict": self._verdict(),
            "titles": 0,
            "imports": self.desk.imports.labels(),
            "contract": self.contract.facts(),
            "pins": [pin._asdict() for pin in self.pinner.pins()],
            "store": {"bytes": self.box.store.held_bytes, "blocks": self.box.store.held_blocks},
            "pulses_waiting": 0,
        }

    def _verdict(self) -> str:
        if self.contract.state == "paused":
            return "Paused: `farcast relay resume` serves again"
        if self.contract.state == "hibernating":
            return "Hibernating: the month's volume is used"
        count, pins = len(self.desk.imports.roots), sum(pin.whole for pin in self.pinner.pins())
        if not count + pins:
            return "Serving nothing yet, standalone: import a CAR with `farcast relay import FILE.car`"
        pinned = f" and {pins} pinned" if pins else ""
        return f"Serving {count} imported{pinned} root{'' if count + pins == 1 else 's'}, standalone"

    async def _status(self, exchange: Exchange) -> Answer:
        del exchange
        return Answer.json(await asyncio.to_thread(self.status))

    async def _health(self, exchange: Exchange) -> Answer:
        del exchange
        return Answer(
            200, {"content-type": "text/plain; charset=utf-8", "cache-control": "no-store"}, b"ok\n"
        )

    async def _pause(self, exchange: Exchange) -> Answer:
        del exchange
        await self.contract.pause()
        return self._switched()

    async def _resume(self, exchange: Exchange) -> Answer:
        del exchange
        await self.contract.resume()
        return self._switched()

    def _switched(self) -> Answer:
        state, connections = self.contract.state, self.warden.connections()
        return Answer.json({"state": state, "connections": connections, "origin_told": None})


async def _nothing(cid: Cid, title: str | None) -> NoReturn:
    del title
    raise RefusedError(f"{cid} is not here, and this relay fetches nothing", status=404, reason="not_held")


def relay_of(home: Home, settings: Settings) -> Duty:
    """Return the relay that lives in ``home``: one that joined an origin, or one on its own."""
    if is_standalone(home.path):
        return StandaloneService(home, settings)
    from .service import RelayService

    return RelayService(home, settings)
