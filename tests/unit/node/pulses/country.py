# pyright: reportPrivateUsage=false
"""A small country of real spools: viewers, neighbours and relays between them, one real origin.

Only the wires are of the test: a request reaches the other box's own parts unless its line is cut.
"""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry

from farcast.mesh.neighbours import Neighbour
from farcast.mesh.porter import Porter
from farcast.node.pulses.acks import Acks
from farcast.node.pulses.batcher import Batcher
from farcast.node.pulses.courier import Courier
from farcast.node.pulses.reception import Reception
from farcast.node.pulses.spool import DiskSpool
from farcast.origin.pulses.intake import Intake
from farcast.protocol.codec import encode
from farcast.protocol.errors import RefusedError, UnreachableError
from farcast.protocol.identity import Identity
from farcast.protocol.keyring import Keyring
from farcast.protocol.ports import Reply, Source, SpooledPulse, TierName
from farcast.protocol.presence import NO_WAY
from farcast.protocol.pulse import read_pulse
from farcast.tests.unit.origin.mint import INTAKE, OFFICE, TICKET, Viewer

ORIGIN = Identity(b"\x51" * 32)


class Wires:
    """One box's dialer: it reaches whom the country has connected to it."""

    def __init__(self, country: Country, name: str) -> None:
        self.country = country
        self.name = name

    async def request(
        self,
        source: Source,
        method: str,
        path: str,
        *,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        limit_bytes: int = 4 << 20,
        timeout_s: float = 10.0,
    ) -> Reply:
        """Make one request to the box of that name."""
        del method, headers, timeout_s
        if source.name not in self.country.lines.get(self.name, ()):
            raise UnreachableError(f"no line from {self.name} to {source.name}")
        self.country.requests.append((self.name, source.name, path, len(body)))
        reply = self.country.answer(source.name, path, body)
        assert len(reply.body) <= limit_bytes
        return reply


class Post:
    """What every box has: a spool on a disk of its own, and a reception."""

    def __init__(self, country: Country, name: str, seed: int) -> None:
        self.name = name
        self.country = country
        self.folder = country.folder / name
        self.folder.mkdir()
        self.identity = Identity(bytes([seed]) * 32)
        self.registry = CollectorRegistry()
        self.spool = DiskSpool(self.folder / "spool.db", self.registry)
        self.acks = Acks(self.spool, country.keyring, self.registry)
        self.wires = Wires(country, name)
        self.reception = Reception(
            self.spool, self.identity, country.keyring, country.clock_ms, self.registry,
            is_relay=country.is_relay,
        )  # fmt: skip
        self.batcher = Batcher(
            self.spool, self.identity, self.wires, country.origins, self.acks, country.clock_ms,
            self.registry,
            others=lambda: [one for one in country.relays() if one.name != name],
        )  # fmt: skip

    @property
    def source(self) -> Source:
        """Where others reach it."""
        return Source(TierName.RELAY, self.name, self.name, self.identity.key)

    def held(self) -> int:
        """How many pulses wait here."""
        return self.spool.waiting().count


class Node(Post):
    """A viewer's node: it has a courier and a porter too."""

    def __init__(self, country: Country, name: str, seed: int) -> None:
        super().__init__(country, name, seed)
        self.neighbours: list[str] = []
        self.courier = Courier(
            self.spool, self.wires, self.acks, country.relays, country.origins, self.batcher,
            country.clock_ms, self.registry,
        )  # fmt: skip
        self.porter = Porter(
            spool=self.spool,
            dialer=self.wires,
            neighbours=self._around,
            has_uplink=lambda: self.courier.reachable,
            hops=lambda: min((one.hops + 1 for one in self._around()), default=NO_WAY),
            accept_ack=self.acks.accept,
            accept_beacon=lambda _: None,
            clock_ms=country.clock_ms,
            registry=self.registry,
        )

    def _around(self) -> list[Neighbour]:
        boxes = [self.country.boxes[name] for name in self.neighbours]
        return [_Named(box.identity.key, box.name, 1, self._hops_of(box), 0.0) for box in boxes]

    @staticmethod
    def _hops_of(box: Post) -> int:
        return 0 if isinstance(box, Node) and box.courier.reachable else NO_WAY

    def file(self, viewer: Viewer, pulses: list[bytes]) -> None:
        """Spool pulses of this box's own viewer, as its heartbeat does."""
        now_ms = self.country.now_ms
        self.spool.add(
            SpooledPulse(viewer.tid, read_pulse(pulse)[0].seq, pulse, viewer.ticket, now_ms, own=True)
            for pulse in pulses
        )


class _Named(Neighbour):
    """A neighbour whose source has the box's name, by which the country knows it."""

    @property
    def source(self) -> Source:
        return Source(TierName.MESH, self.host, self.host, self.key)


class Country:
    """Boxes by name, lines between them, and one clock."""

    def __init__(self, folder: Path, intake: Intake, now_ms: int) -> None:
        self.folder = folder
        self.intake = intake
        self.now_ms = now_ms
        self.boxes: dict[str, Post] = {}
        self.lines: dict[str, set[str]] = {}
        self.requests: list[tuple[str, str, str, int]] = []
        self._relays: list[str] = []
        self.office = OFFICE
        keys = [ORIGIN.key]
        self._keyring = Keyring(1, "test", ORIGIN.key, keys, [TICKET.key], [INTAKE.key], keys, keys, [], [])

    def clock_ms(self) -> int:
        """Return the country's time."""
        return self.now_ms

    def keyring(self) -> Keyring:
        """Return the origin's keys."""
        return self._keyring

    def is_relay(self, key: bytes) -> bool:
        """Say whether that is the key of one of the relays."""
        return any(self.boxes[name].identity.key == key for name in self._relays)

    def relays(self) -> list[Source]:
        """Return the directory."""
        return [self.boxes[name].source for name in self._relays]

    def origins(self) -> list[Source]:
        """Return where the origin is."""
        return [Source(TierName.RELAY, "origin", "origin", ORIGIN.key)]

    def node(self, name: str) -> Node:
        """Add a viewer's node."""
        box = Node(self, name, 0x60 + len(self.boxes))
        self.boxes[name] = box
        return box

    def relay(self, name: str, identity: Identity | None = None) -> Post:
        """Add a relay."""
        box = Post(self, name, 0x60 + len(self.boxes))
        if identity is not None:
            box.identity = identity
            box.reception._identity = box.batcher._identity = identity
        box.spool.foreign_expires = False
        self.boxes[name] = box
        self._relays.append(name)
        return box

    def connect(self, *pairs: tuple[str, str]) -> None:
        """Lay lines, one way each."""
        for start, end in pairs:
            self.lines.setdefault(start, set()).add(end)

    def answer(self, name: str, path: str, body: bytes) -> Reply:
        """Do what the box of that name does with a request."""
        try:
            return self._answer(name, path, body)
        except RefusedError as error:
            return Reply(error.status, {}, b"")

    def _answer(self, name: str, path: str, body: bytes) -> Reply:
        batch = body.startswith(b"\x92")
        if path == "/healthz":
            return Reply(200, {}, b"ok")
        if name == "origin" and path == "/v1/pulses":
            store = self.intake.batch if batch else self.intake.post
            return Reply(200, {}, store(body, self.now_ms))
        if path.startswith("/v1/acks/"):
            tid = bytes.fromhex(path.rpartition("/")[2])
            found = (
                self.intake.acks_for([tid], self.now_ms)
                if name == "origin"
                else self.boxes[name].spool.acks([tid])
            )
            return Reply(200 if found else 404, {}, encode(found))
        box = self.boxes[name].reception
        if path == "/v1/digests":
            return Reply(200, {}, box.lacking(body))
        if path == "/v1/pulses":
            return Reply(202, {}, box.carry(body) if batch else box.take(body))
        return Reply(404, {}, b"")

    def close(self) -> None:
        """Let go of every disk."""
        for box in self.boxes.values():
            box.spool.close()
        self.intake.close()
