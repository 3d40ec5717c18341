"""Discovery: tells the link that this box is there, and hears who else is."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import zeroconf
from prometheus_client import CollectorRegistry, Counter, Gauge

from ..protocol.identity import Identity
from ..protocol.ports import Source
from ..protocol.presence import ACTIVE_INTERVAL_S, IDLE_INTERVAL_S, NO_WAY, Presence, seal_presence
from .link import GROUP_IPV4, PORT, Address, Link, indexes_of, open_ipv4, open_ipv6
from .mdns import Mdns
from .neighbours import Neighbour, Neighbours
from .slope import Slope

STEP_S = 0.5
"""How soon a change of state or of the box's links is noticed and told."""
ASKS_AT_START = (0.0, 0.2, 1.0)
"""A newcomer asks three times, because one datagram may be lost."""
LOUD_S, LOUD_STEP_S = 0.3, 0.004
"""In a crowd a newcomer says each of its asks again and again for so long: who listens looks by lot."""
CROWD = 50
"""So many presences that nobody is known to have sent, since it began, are a crowd."""
RETRY_S = 3.0
STOP_S = 2.0
ANSWER_JITTER_S = 0.02
ANSWERS_PER_S = 100
LOOK_S = 0.05
"""While something plays or moves: how often it is seen who is due to be asked, or gone."""
JITTER = 0.2

log = logging.getLogger(__name__)


class Mouth(NamedTuple):
    """Where a presence came from, and by which of our addresses: what is told there its sender hears alone.

    Sockets are opened anew when the box's networks change, or one is late; the address stays.
    """

    own: str
    address: Address


class Discovery:
    """Presence on every trusted link, with mDNS beside it.

    ``identity`` is the short-lived key that the LAN listener on ``port`` also answers with; ``net``
    the 8-byte origin id; ``addresses`` returns the box's own IPv4 addresses on trusted links (the
    IPv6 link-local of the same interfaces are used too); ``on_link`` says which hosts are neighbours.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        port: int,
        net: bytes,
        addresses: Callable[[], list[str]],
        on_link: Callable[[str], bool],
        is_active: Callable[[], bool],
        has_uplink: Callable[[], bool],
        clock_ms: Callable[[], int],
        registry: CollectorRegistry,
        group: str = GROUP_IPV4,
        presence_port: int = PORT,
        use_mdns: bool = True,
    ) -> None:
        self._identity = identity
        self._port = port
        self._net = net
        self._addresses = addresses
        self._on_link = on_link
        self._is_active = is_active
        self._has_uplink = has_uplink
        self._clock_ms = clock_ms
        self._group, self._presence_port = group, presence_port
        self._links: list[Link] = []
        self._linked: list[str] = []
        self._relink_at = float("inf")
        self._at_ms = 0
        self._answers = float(ANSWERS_PER_S)
        self._answered_at = time.monotonic()
        self._mdns = Mdns(identity.key, net, port, self._ask) if use_mdns else None
        self._warned = False
        self._slope = Slope()
        self._received = Counter(
            "farcast_mesh_received_presences", "Datagrams heard as presence.", registry=registry
        )
        self._rejects = Counter(
            "farcast_mesh_rejected_presences", "Presences refused, by reason.", ["reason"], registry=registry
        )
        self._sent = Counter("farcast_mesh_sent_presences", "Presences sent.", registry=registry)
        self._failures = Counter(
            "farcast_mesh_failures", "Links and services that failed, by what.", ["what"], registry=registry
        )
        self._neighbours = Neighbours(
            identity, net, on_link, lambda reason: self._rejects.labels(reason).inc()
        )
        gauge = Gauge("farcast_mesh_neighbours", "Boxes on the link now.", registry=registry)
        gauge.set_function(lambda: float(len(self.known())))

    def known(self) -> list[Neighbour]:
        """Return who is on the link now, those nearest to an uplink first."""
        self._neighbours.tick(time.monotonic())
        return self._neighbours.known()

    def look(self) -> int:
        """Return through how many neighbours a relay or the origin is reached now; ``NO_WAY`` for none.

        What is said is remembered: a way that got worse is not believed for a while.
        """
        heard = (neighbour.hops for neighbour in self.known())
        return self._slope.look(heard, reaches=self._has_uplink(), now=time.monotonic())

    def neighbours(self) -> list[Source]:
        """Return who is on the link now as sources of the mesh tier."""
        return [neighbour.source for neighbour in self.known()]

    async def run(self) -> None:
        """Speak and listen until cancelled; the last word is that this box leaves."""
        try:
            await self._speak_forever()
        finally:
            data = self._say(leaving=True)
            for neighbour in self._neighbours.known():  # the group may be too loud to be heard
                self._tell_one(neighbour, data)
            for link in self._links:
                link.close()
            self._links, self._linked = [], []
            if self._mdns is not None:
                await self._stop_mdns(self._mdns)

    async def _speak_forever(self) -> None:
        started = due = time.monotonic()
        asks = list(ASKS_AT_START)
        said = (False, NO_WAY)
        asked, quiet = (started, b""), CROWD
        while True:
            now = time.monotonic()
            if self._addresses() != self._linked or now >= self._relink_at:
                await self._relink(now)
                started, asks = now, list(ASKS_AT_START)
                quiet = self._neighbours.forgeries + CROWD
            state = (self._is_active(), self.look())
            if asks and now >= started + asks[0]:
                asks.pop(0)
                asked = (now, self._say(ask=True))
                due, said = self._next_due(now), state
            elif now >= due or state != said:
                self._say()
                due, said = self._next_due(now), state
            self._probe(now, active=state[0])
            next_ask = started + asks[0] if asks else due
            step_s = LOOK_S if state[0] else STEP_S
            if now < asked[0] + LOUD_S:
                step_s = LOUD_STEP_S
                if self._neighbours.forgeries >= quiet and now > asked[0]:
                    self._repeat(asked[1])
            await asyncio.sleep(max(0.0, min(step_s, due - now, next_ask - now)))

    def _probe(self, now: float, *, active: bool) -> None:
        """Ask neighbours that have been silent for too long, each alone, whether they are still there."""
        due = self._neighbours.due(now, active=active)
        data = self._presence(ask=True) if due else b""
        for neighbour in due:
            self._tell_one(neighbour, data)

    def _tell_one(self, neighbour: Neighbour, data: bytes) -> None:
        mouth = neighbour.via
        for link in self._links:
            if isinstance(mouth, Mouth) and link.host == mouth.own:
                told = self._neighbours.marked(data, neighbour.key)
                self._put(partial(link.tell, told, mouth.address))
                return

    def _next_due(self, now: float) -> float:
        interval_s = ACTIVE_INTERVAL_S if self._is_active() else IDLE_INTERVAL_S
        return now + interval_s * (1 - JITTER * random.random())  # noqa: S311 - spreads load, hides nothing

    async def _relink(self, now: float) -> None:
        """Open the sockets anew: the box's addresses changed, or some did not open before."""
        for link in self._links:
            link.close()
        self._links, self._linked, self._relink_at = [], list(self._addresses()), float("inf")
        mouth_port = 0
        for address in self._linked:
            self._open(
                partial(open_ipv4, address, self._group, self._presence_port, mouth_port, self._hear), now
            )
            mouth_port = self._links[0].port if self._links else 0
        for index in sorted({index for address in self._linked for index in indexes_of(address)}):
            self._open(partial(open_ipv6, index, self._presence_port, mouth_port, self._hear), now)
        if self._mdns is not None:
            await self._stop_mdns(self._mdns)
            if mouth_port:
                try:
                    await self._mdns.start(self._linked, mouth_port)
                except (OSError, zeroconf.Error, RuntimeError) as error:
                    self._fail("mdns", error)

    def _open(self, opener: Callable[[], Link], now: float) -> None:
        try:
            self._links.append(opener())
        except OSError as error:
            self._relink_at = now + RETRY_S
            self._fail("link", error)

    async def _stop_mdns(self, mdns: Mdns) -> None:
        try:
            async with asyncio.timeout(STOP_S):
                await mdns.stop()
        except (OSError, TimeoutError, zeroconf.Error) as error:
            self._fail("mdns", error)

    def _presence(self, *, ask: bool = False, leaving: bool = False) -> bytes:
        self._at_ms = max(self._at_ms + 1, self._clock_ms())
        presence = Presence(
            2,
            self._net,
            self._identity.key,
            self._port,
            self._at_ms,
            active=self._is_active(),
            ask=ask,
            hops=self.look(),
            leaving=leaving,
        )
        return seal_presence(presence, self._identity)

    def _say(self, *, ask: bool = False, leaving: bool = False) -> bytes:
        data = self._presence(ask=ask, leaving=leaving)
        self._repeat(data)
        for address in self._mdns.hints() if self._mdns else ():
            self._tell(data, address)
        return data

    def _repeat(self, data: bytes) -> None:
        for link in self._links:
            self._put(partial(link.send, data))

    def _ask(self, address: Address) -> None:
        self._tell(self._presence(ask=True), address)

    def _tell(self, data: bytes, address: Address) -> None:
        if not self._on_link(address[0]):
            self._rejects.labels("off_link").inc()
            return
        for link in self._links:
            if ":" not in link.host:
                self._put(partial(link.tell, data, address))
                return

    def _put(self, send: Callable[[], None]) -> None:
        try:
            send()
        except OSError as error:
            self._fail("send", error)
            return
        self._sent.inc()

    def _hear(self, link: Link, data: bytes, host: str, sender: Address, alone: bool) -> None:  # noqa: FBT001
        self._received.inc()
        now = time.monotonic()
        asker = self._neighbours.receive(data, host, now, Mouth(link.host, sender), alone=alone)
        if asker is None:
            return
        self._answers = min(self._answers + (now - self._answered_at) * ANSWERS_PER_S, float(ANSWERS_PER_S))
        self._answered_at = now
        if self._answers >= 1:
            self._answers -= 1
            delay_s = ANSWER_JITTER_S * random.random()  # noqa: S311 - spreads load, hides nothing
            asyncio.get_running_loop().call_later(delay_s, self._answer, link, sender, asker)

    def _answer(self, link: Link, sender: Address, asker: bytes) -> None:
        if link in self._links:
            self._put(partial(link.tell, self._neighbours.marked(self._presence(), asker), sender))

    def _fail(self, what: str, error: Exception) -> None:
        self._failures.labels(what).inc()
        if not self._warned:
            self._warned = True
            log.warning("the mesh cannot use a network: %s", error)
