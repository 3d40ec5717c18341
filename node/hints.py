"""Hints on a box: what carries them there, as ``[hints] by`` says, and who tells and listens."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from ..mesh.hints.gossip import Gossip, Place
from ..mesh.hints.grapevine import Grapevine
from ..mesh.hints.web import WebCarrier
from ..protocol.directory import RelayRecord
from ..protocol.errors import FarcastError
from ..protocol.hint import HINT_LIMIT_BYTES, PATH, GossipPlace, open_place
from ..protocol.identity import peer_id
from ..protocol.ports import Dialer, Source
from .box import Box, clock_ms
from .catalog.replica import Heads, Replica
from .hintdesk import HintDesk
from .http.address import HostPort, parse_address
from .http.exchange import Answer, Exchange
from .http.names import Names
from .http.problem import expect
from .news import LOOK_S, News, Own, Teller

CONTACTS = 3
CONTACT_TIMEOUT_S = 5.0

T = TypeVar("T")

log = logging.getLogger(__name__)


class Hinting:
    """Wires hints onto ``box``; everything of it is absent with ``[hints] by = "none"``."""

    def __init__(
        self,
        box: Box,
        net: bytes,
        *,
        dialer: Dialer,
        peers: Callable[[], Sequence[Source]],
        gossipers: Callable[[], Sequence[Source]],
        welcomes: Callable[[str], bool] = lambda _: True,
    ) -> None:
        """Post to ``peers`` by ``dialer``; ask ``gossipers`` where their gossip process listens.

        ``net`` is the origin's id; ``welcomes`` says, by address, who may post here.
        """
        self._box = box
        self._gossipers = gossipers
        self._news: News | None = None
        self.gossip: Gossip | None = None
        self.grapevine = Grapevine(net, box.registry)
        box.local.route("GET", "/api/hints", self._get_facts)
        if box.settings.hints.by == "none":
            return
        self.grapevine.carriers.append(WebCarrier(dialer, peers, _some, box.registry))
        box.serve("hints", self.grapevine.run)
        if box.settings.hints.by == "p2p":
            self._add_gossip(net)
        HintDesk(self.grapevine, welcomes, self._place).add_to(box.public)

    def tell(
        self,
        heads: Heads,
        own: Callable[[], Own | None] = lambda: None,
        listed: Callable[[], Sequence[RelayRecord]] = tuple,
        *,
        refresh: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Tell others when the catalog of ``heads`` has grown, and where a relay is, as ``Teller`` has it.

        ``refresh`` comes before each look: news is posted once, so to whoever is listed by then.
        """
        if not self.grapevine.carriers:
            return
        teller = Teller(self.grapevine, heads)
        teller.own, teller.listed = own, listed

        async def look() -> None:
            if refresh is not None:
                await refresh()
            await teller.look()

        self._box.every("telling", LOOK_S, look)

    def listen(self, replica: Replica, *, own: bytes = b"") -> Callable[[], Sequence[RelayRecord]]:
        """Listen for news of the origin that ``replica`` follows; returns where its relays are by now."""
        if not self.grapevine.carriers:
            return replica.relays
        box = self._box
        look = lambda: box.wake("follow")  # noqa: E731 - a port of one expression
        news = News(self.grapevine, replica, box.dialer, look, clock_ms, box.registry, own)
        box.serve("news", news.run)
        return news.relays

    def again(self) -> None:
        """Start a gossip process that was given up: the operator says so."""
        if self.gossip is not None:
            self.gossip.again()

    def facts(self) -> dict[str, object]:
        """Return which back end carries hints, and how its gossip process is."""
        gossip = self.gossip.facts() if self.gossip is not None else None
        return {"by": self._box.settings.hints.by, "gossip": gossip}

    def _add_gossip(self, net: bytes) -> None:
        box, settings = self._box, self._box.settings.hints
        self._names = Names(box.links.name, allow_private=box.settings.network.allow_private)
        host = "" if box.home.role == "node" else settings.host
        place = Place(settings.python, host, settings.port)
        gossip = self.gossip = Gossip(net, place, self.grapevine.hear, self._contacts, box.registry)
        self.grapevine.carriers.append(gossip)

        async def run() -> None:
            # a relay reads its settings again, and says so itself; on a terminal SIGHUP is its end
            if box.home.role != "relay" and not os.isatty(0):
                asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, gossip.again)
            await gossip.run()

        box.serve("gossip", run)
        box.on_close(self._names.close)

    def _place(self) -> GossipPlace | None:
        return self.gossip.place if self.gossip is not None else None

    async def _contacts(self) -> list[str]:
        """Return multiaddrs of gossip processes: of the settings, and of a few boxes that were asked."""
        found = list(_some(self._box.settings.hints.peers, CONTACTS))
        for source in _some(self._gossipers(), CONTACTS):
            try:
                found.append(await self._contact(source))
            except FarcastError as error:
                log.debug("no gossip at %s: %s", source.name, error)
        return found

    async def _contact(self, source: Source) -> str:
        """Ask a box, known by its key, where its gossip listens; only what may be dialled counts."""
        reply = await self._box.dialer.request(
            source, "GET", PATH, limit_bytes=HINT_LIMIT_BYTES, timeout_s=CONTACT_TIMEOUT_S
        )
        place = open_place(expect(reply, 200))
        where = HostPort(parse_address(source.address).host, place.port)
        family, address = (await self._names.allowed(where))[0]
        kind = "ip6" if family == socket.AF_INET6 else "ip4"
        return f"/{kind}/{address[0]}/tcp/{place.port}/p2p/{peer_id(place.key)}"

    async def _get_facts(self, exchange: Exchange) -> Answer:
        del exchange
        return Answer.json(self.facts())


def _some(items: Sequence[T], limit: int) -> Sequence[T]:
    return secrets.SystemRandom().sample(items, min(limit, len(items)))
