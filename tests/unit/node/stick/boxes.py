"""Boxes with real stores and spools for the tests of a stick, and titles of random bytes."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

from prometheus_client import CollectorRegistry

from farcast.node.blocks.store import DiskStore
from farcast.node.pulses.spool import DiskSpool
from farcast.node.stick.disk import StickDisk
from farcast.node.stick.exporter import Exporter
from farcast.node.stick.freight import Cargo, Depot, Exported, Imported, Title
from farcast.node.stick.importer import Importer
from farcast.protocol.batch import Ack, PulsePost, open_ack
from farcast.protocol.cid import DAG_PB, RAW, Cid
from farcast.protocol.codec import decode
from farcast.protocol.errors import RemoteError
from farcast.protocol.generation import Item, origin_id
from farcast.protocol.identity import Identity
from farcast.protocol.ports import SpooledPulse
from farcast.protocol.pulse import read_pulse
from farcast.protocol.ticket import DAY_MS, open_ticket
from farcast.protocol.unixfs import Entry, FileWriter, directory, parse
from farcast.tests.unit.origin.mint import FIRST_DAY, INTAKE, TICKET

BOX = Identity(b"\x51" * 32).key
VOLUME_BYTES = 300_000
SIGNED_MS = (FIRST_DAY + 3) * DAY_MS


def silent(stage: str, done: float, total: float = 1.0) -> None:
    """Report to nobody."""
    del stage, done, total


class House:
    """A box: its store, its spool, and what its catalog lists. It is its own customs."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.store = DiskStore(folder, 1 << 30, CollectorRegistry())
        self.spool = DiskSpool(folder / "spool.db", CollectorRegistry())
        self.titles: dict[str, Title] = {}
        self.heads: list[Item] = []
        self.depot = Depot(self.store, self.spool, _open_ack, lambda: SIGNED_MS)

    def close(self) -> None:
        """Let go of the disk."""
        self.spool.close()
        self.store.close()

    def make(self, name: str, files: int = 12, seed: int = 1) -> Title:
        """Put a title into the store."""
        random, entries = Random(seed), dict[str, Entry]()
        for number in range(files):
            writer = FileWriter()
            size_bytes = 2_300_000 if number == 5 else 50_000 + number * 9_000  # one has a node of its own
            blocks = writer.push(random.randbytes(size_bytes))
            rest, entries[f"{number:03}.m4s"] = writer.finish()
            for cid, data in (*blocks, *rest):
                self.store.put(cid, data)
        root, data, _ = directory(entries)
        self.store.put(root, data)
        data = f"manifest of {name} {seed}".encode()
        manifest = Cid.of(RAW, data)
        self.store.put(manifest, data)
        found, todo = dict[Cid, None]({manifest: None}), [root]
        while todo:
            cid = todo.pop()
            found[cid] = None
            if cid.codec == DAG_PB:
                todo += [link.cid for link in reversed(parse(cid, self.store.get(cid) or b"").links)]
        self.titles[name] = Title(name, root, [*found])
        return self.titles[name]

    def disk(self, place: Path) -> StickDisk:
        """Open a stick."""
        return StickDisk(place, origin_id(BOX))

    def export(self, place: Path, exporter: Exporter | None = None, **but: object) -> Exported:
        """Export every title."""
        exporter = exporter or Exporter(self.depot, volume_bytes=VOLUME_BYTES)
        cargo = Cargo(
            BOX, "Coast", self.heads, [*self.titles.values()], frozenset(self.titles), SIGNED_MS
        )._replace(**but)  # type: ignore[arg-type]
        return exporter.run(self.disk(place), cargo, silent)

    def bring(self, place: Path, lists: House, *titles: str, importer: Importer | None = None) -> Imported:
        """Import; the catalog lists what another house has."""
        self.titles = lists.titles
        importer = importer or Importer(self.depot, self)
        return importer.run(self.disk(place), titles, silent)

    # -- the customs

    def take_heads(self, items: Sequence[Item]) -> str:
        """Keep what came."""
        self.heads = [*items]
        return ""

    def listed(self) -> Mapping[str, tuple[Cid, Cid]]:
        """Return what the catalog lists."""
        return {name: (title.cids[0], title.root) for name, title in self.titles.items()}

    def take_pulses(self, post: bytes) -> int:
        """Spool a post as it is."""
        found = decode(PulsePost, post)
        tickets = {open_ticket(data, [TICKET.key])[0].tid: data for data in found.tickets}
        items = [(read_pulse(data)[0], data) for data in found.pulses]
        return self.spool.add(
            SpooledPulse(pulse.tid, pulse.seq, data, tickets[pulse.tid], SIGNED_MS, own=False)
            for pulse, data in items
        )

    def take_acks(self, acks: Sequence[bytes]) -> int:
        """Apply acks."""
        return sum(self.spool.settle(data) for data in acks if _good(data))

    def signed_ms(self) -> int:
        """Return a time that has come."""
        return SIGNED_MS


def _open_ack(data: bytes) -> Ack:
    return open_ack(data, [INTAKE.key])


def _good(data: bytes) -> Ack | None:
    try:
        return _open_ack(data)
    except RemoteError:
        return None


@contextmanager
def houses(folder: Path, *names: str) -> Generator[list[House]]:
    """Yield boxes that are closed at the end."""
    made = [House(folder / name) for name in names]
    try:
        yield made
    finally:
        for house in made:
            house.close()


def files(place: Path) -> dict[str, bytes]:
    """Return every file of a stick but the index, which has a time in it."""
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file() and path.name != "index"
    }
