"""Hints by gossip: the box's side of its gossip process, which it starts, hears, bounds and replaces."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge

from ...protocol.hint import GossipPlace
from ..child.child import REASONS, Child, Program
from ..child.restarts import Limits
from .pipe import (
    MESSAGE_LIMIT_BYTES,
    VERSION,
    Alive,
    Dial,
    Down,
    Heard,
    Shun,
    Tell,
    ToProcess,
    Up,
    pack,
    read_of_process,
)

MODULE = "farcast.mesh.hints.process"
MISSING = (
    "libp2p is not installed for {python}; `pip install 'farcast[p2p]'` there, or name another "
    "in [hints] python; hints go by HTTP alone"
)
PEERS_WANTED = 3
CONTACT_FIRST_S, CONTACT_LAST_S = 2.0, 300.0


class Place(NamedTuple):
    """How the process is run: by which Python, and where it listens; nowhere with an empty ``host``."""

    python: str
    host: str
    port: int


class Gossip:
    """A carrier of hints. ``hear(data, way, teller)`` takes them; ``contacts`` finds multiaddrs to dial."""

    way = "gossip"

    def __init__(
        self,
        net: bytes,
        place: Place,
        hear: Callable[[bytes, str, str], object],
        contacts: Callable[[], Awaitable[Sequence[str]]],
        registry: CollectorRegistry,
        *,
        limits: Limits | None = None,
    ) -> None:
        self._hear = hear
        self._contacts = contacts
        words = (net.hex(), place.host, str(place.port))
        self._child = Child(
            Program("gossip", place.python, MODULE, words, MESSAGE_LIMIT_BYTES),
            self._take,
            self._ended,
            beside=self._meet,
            limits=limits,
        )
        self._up: Up | None = None
        self._peers = 0
        self._restarts = Counter(
            "farcast_mesh_gossip_restarts", "Ends of the gossip process, by reason.", ["reason"],
            registry=registry,
        )  # fmt: skip
        for reason in (*REASONS, "crash", "port", "version"):
            self._restarts.labels(reason)
        self._dropped = Counter(
            "farcast_mesh_gossip_dropped", "Messages for a gossip process that was not there or was behind.",
            registry=registry,
        )  # fmt: skip
        Gauge(
            "farcast_mesh_gossip_up", "1 while the gossip process runs and answers.", registry=registry
        ).set_function(lambda: float(self._up is not None))
        Gauge("farcast_mesh_gossip_peers", "Peers of the gossip process.", registry=registry).set_function(
            lambda: float(self._peers)
        )

    @property
    def state(self) -> str:
        """``up``, ``starting``, ``waiting`` (to be started again) or ``off`` (given up for a while)."""
        state = self._child.state
        return state if state != "running" else "up" if self._up else "starting"

    @property
    def pid(self) -> int:
        """Of the process while it runs, else 0."""
        return self._child.pid

    @property
    def why(self) -> str:
        """Why it ended the last time, in words."""
        return self._child.why

    @property
    def place(self) -> GossipPlace | None:
        """Where the process listens, None where nowhere."""
        up = self._up
        return GossipPlace(1, up.port, up.key) if up is not None and up.port else None

    def facts(self) -> dict[str, object]:
        """Return what a status shows of it."""
        return {"state": self.state, "pid": self.pid, "peers": self._peers, "why": self.why}

    def again(self) -> None:
        """Start it at once where it is off or waits: the operator says so."""
        self._child.again()

    async def tell(self, hints: Sequence[bytes]) -> None:
        """Hand hints to the process."""
        for hint in hints:
            self._say(Tell(hint))

    def mute(self, teller: str) -> None:
        """Have the process shun somebody."""
        self._say(Shun(bytes.fromhex(teller)))

    async def run(self) -> None:
        """Keep the process running, as the policy says."""
        try:
            await self._child.run()
        finally:
            self._up, self._peers = None, 0

    def _ended(self, reason: str) -> None:
        self._up, self._peers = None, 0
        self._restarts.labels(reason).inc()

    def _take(self, data: bytes) -> None:
        message = read_of_process(data)
        if isinstance(message, Heard):
            self._hear(message.hint, self.way, message.author.hex())
        elif isinstance(message, Alive):
            self._peers = message.peers
        elif isinstance(message, Down):
            missing = message.reason == "missing"
            self._child.judge(
                message.reason, MISSING.format(python=self._child.python) if missing else message.why
            )
        elif message.version == VERSION:
            self._up = message
        else:
            self._child.judge("version", "its farcast is of another version than this box's")

    async def _meet(self) -> None:
        """Have peers dialled while there are few."""
        pause_s = CONTACT_FIRST_S
        while True:
            if self._up is not None and self._peers < PEERS_WANTED:
                for address in await self._contacts():
                    self._say(Dial(address))
                pause_s = min(pause_s * 2, CONTACT_LAST_S)
            elif self._up is None:
                pause_s = CONTACT_FIRST_S
            await asyncio.sleep(pause_s)

    def _say(self, message: ToProcess) -> None:
        if not self._child.say(pack(message)):
            self._dropped.inc()
