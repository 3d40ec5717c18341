"""This box as it is found from outside: what is announced, what a router maps to it, or its own addresses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from prometheus_client import CollectorRegistry

from ..node.http.address import is_public
from ..node.links import Links
from ..node.overlay import Overlay
from ..node.portmap.mapper import PortMapper
from ..node.portmap.route import find_router
from ..node.portmap.router import NatPmp, Pcp, Upnp, Way
from ..node.settings import Settings
from ..protocol.directory import Endpoint
from .enrol import announced

LOOK_S = 60.0
FIND_S = 15.0
"""How long `check` and `join` wait for a router to say yes or no."""
ENDPOINTS = 8


class Outside:
    """Knows the endpoints to publish; ``changed`` is called when a router maps another address here."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        port: Callable[[], int],
        changed: Callable[[], None],
        registry: CollectorRegistry,
        *,
        ways: Callable[[], Sequence[Way]] | None = None,
        overlay: Overlay | None = None,
    ) -> None:
        """``port`` is what the box listens on; ``ways`` are the protocols a router is asked by."""
        self._settings = settings
        self._port = port
        network = settings().network
        self._links = Links(network.interfaces)
        self.overlay = overlay or Overlay()
        self.mapper: PortMapper | None = None
        if network.map_ports and not network.announce and not network.allow_private:
            self.mapper = PortMapper(port, ways or router_ways, changed, registry)

    def endpoints(self) -> list[Endpoint]:
        """Return what the relay's record names: at most eight."""
        network = self._settings().network
        overlay = self._overlaid() if network.overlay else []
        named = announced(network.announce)
        if named:
            return [*named[: ENDPOINTS - len(overlay)], *overlay]
        own = self._links.addresses()
        public = own if network.allow_private else [host for host in own if is_public(host)]
        found = [Endpoint(host, self._port(), web=False) for host in public]
        mapping = self.mapper.mapping if self.mapper else None
        if mapping is not None:
            found.insert(0, Endpoint(mapping.host, mapping.port, web=False))
        if not found and not overlay:  # the origin says of a private address what is wrong with it
            found = [Endpoint(host, self._port(), web=False) for host in own]
        return [*found[: ENDPOINTS - len(overlay)], *overlay]

    def _overlaid(self) -> list[Endpoint]:
        """Return this box's address in the overlay, for those who are there too, where it listens there."""
        port, found = self._port(), self.overlay.served(self._settings().listen.host)
        return [Endpoint(host, port, web=False) for host in found[:1] if port]

    @property
    def sentence(self) -> str:
        """What the router said; empty where none is asked."""
        return self.mapper.sentence if self.mapper else ""

    @property
    def trouble(self) -> str:
        """What is wrong with this box's address as a whole, and the mend; empty if nothing is known to be."""
        hidden = self.mapper is not None and self.mapper.state in ("carrier_nat", "private")
        return self.sentence if hidden else ""

    @asynccontextmanager
    async def asked(self) -> AsyncGenerator[None]:
        """Have the port mapped inside the block, where a router does that; waits for its answer first."""
        await asyncio.to_thread(self.overlay.settle)
        mapper = self.mapper
        if mapper is None:
            yield
            return
        asking = asyncio.ensure_future(mapper.run())
        end = asyncio.get_running_loop().time() + FIND_S
        try:
            while mapper.state == "looking" and asyncio.get_running_loop().time() < end:
                await asyncio.wait({asking}, timeout=0.1)
            yield
        finally:
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking


def router_ways() -> list[Way]:
    """Return the protocols to ask this network's router by, the best first; none where there is no router."""
    place = find_router()
    return [] if place is None else [Pcp(place), NatPmp(place), Upnp(place)]
