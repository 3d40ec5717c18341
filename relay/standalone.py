"""A relay with no origin: it serves what its operator imported, by CID, and fills nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from ..node.box import Box
from ..node.duty import Duty, Greeting
from ..node.home import Home, write_whole
from ..node.http.exchange import Answer, Exchange
from ..node.ipfs.gateway import TrustlessGateway
from ..node.page import Sheet
from ..node.settings import Settings
from ..protocol.cid import Cid
from ..protocol.errors import RefusedError
from .importdesk import ImportDesk

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
        self.desk = ImportDesk(box.store)
        self.gateway = TrustlessGateway(box.store, _nothing, headers={"access-control-allow-origin": "*"})
        self.gateway.add_to(box.public)
        box.lookup = self.gateway.lookup
        box.public.route("GET", "/healthz", self._health)
        box.public.route("GET", "/readyz", self._health)
        box.local.route("GET", "/api/status", self._status)
        self.desk.add_to(box.local)
        Sheet(self.status, box.token).add_to(box.local)
        box.on_close(self.desk.close)

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
            "store": {"bytes": self.box.store.held_bytes, "blocks": self.box.store.held_blocks},
            "pulses_waiting": 0,
        }

    def _verdict(self) -> str:
        count = len(self.desk.imports.roots)
        if not count:
            return "Serving nothing yet, standalone: import a CAR with `farcast relay import FILE.car`"
        return f"Serving {count} imported root{'' if count == 1 else 's'}, standalone"

    async def _status(self, exchange: Exchange) -> Answer:
        del exchange
        return Answer.json(await asyncio.to_thread(self.status))

    async def _health(self, exchange: Exchange) -> Answer:
        del exchange
        return Answer(
            200, {"content-type": "text/plain; charset=utf-8", "cache-control": "no-store"}, b"ok\n"
        )


async def _nothing(cid: Cid, title: str | None) -> NoReturn:
    del title
    raise RefusedError(f"{cid} is not here, and this relay fetches nothing", status=404, reason="not_held")


def relay_of(home: Home, settings: Settings) -> Duty:
    """Return the relay that lives in ``home``: one that joined an origin, or one on its own."""
    if is_standalone(home.path):
        return StandaloneService(home, settings)
    from .service import RelayService

    return RelayService(home, settings)
