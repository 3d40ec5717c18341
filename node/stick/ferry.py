"""The ferry: this box's side of a stick. What it gives, and how it verifies what comes.

The box may run, or be opened by a command alone; the parts are the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from prometheus_client import CollectorRegistry

from ...protocol.batch import Ack, open_ack, open_receipt
from ...protocol.catalog import ENTRIES_PER_PAGE, Page
from ...protocol.cid import Cid
from ...protocol.codec import decode, encode
from ...protocol.errors import FarcastError, RemoteError, UsageError
from ...protocol.generation import Item
from ..blocks.store import DiskStore
from ..box import clock_ms
from ..catalog.library import Library
from ..catalog.replica import Replica
from ..catalog.takedown import Takedown
from ..catalog.trust import Trust
from ..home import Home
from ..pulses.acks import Acks
from ..pulses.reception import Reception
from ..pulses.spool import DiskSpool
from ..report import Report
from ..settings import Settings
from .disk import StickDisk
from .exporter import Exporter
from .freight import Cargo, Depot, Exported, Imported, Title
from .importer import Importer, read_heads

ENTRIES_LIMIT_BYTES = 4 << 20
_OLDER = frozenset({"stale", "rollback"})


class Parts(NamedTuple):
    """The parts of a box that a stick has to do with; ``advanced`` is called when the catalog has grown."""

    store: DiskStore
    spool: DiskSpool
    trust: Trust
    replica: Replica
    library: Library
    acks: Acks
    reception: Reception
    advanced: Callable[[], object]


class Ferry:
    """Exports and imports; blocking, one thing at a time, and may be told to stop."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._depot = Depot(parts.store, parts.spool, self._open_ack, clock_ms)
        self._work: Exporter | Importer | None = None

    def stop(self) -> None:
        """Have what is under way end at its next block."""
        if self._work is not None:
            self._work.stop()

    def export(self, place: Path, titles: Sequence[str], report: Report) -> Exported:
        """Bring the stick at ``place`` up to date; without ``titles`` with all that are whole here.

        What the stick knows of the catalog is learned first, so that an older box takes nothing back.

        Raises:
            UsageError: no such folder, ``not_whole``, or a box that knows no catalog yet.
            RefusedError: a title that is not listed.
            LocalError, StoreFullError: as ``Exporter.run``.

        """
        disk, exporter = self._disk(place), Exporter(self._depot)
        if items := read_heads(disk, []):
            with suppress(RemoteError):  # damaged, or keys that expired: they are written anew
                self.take_heads(items)
        cargo = self._cargo(titles)
        self._work = exporter
        return exporter.run(disk, cargo, report)

    def bring(self, place: Path, titles: Sequence[str], report: Report) -> Imported:
        """Take everything from the stick at ``place``; raises as ``Importer.run``."""
        disk, importer = self._disk(place), Importer(self._depot, self)
        self._work = importer
        return importer.run(disk, titles, report)

    def waiting(self, place: Path) -> int:
        """Return how many pulses of the stick are not acked yet, as far as is known here."""
        return Importer(self._depot, self).waiting(self._disk(place))

    def settle(self, place: Path) -> int:
        """Put the acks known here onto the stick; returns how many of its pulses they let go."""
        return Importer(self._depot, self).settle(self._disk(place))

    # -- what passes the customs

    def take_heads(self, items: Sequence[Item]) -> str:
        """Verify and take heads; returns what hindered it, empty for nothing.

        Raises:
            RemoteError: the origin's keys are not known here and do not come with these.

        """
        parts, note = self._parts, ""
        trust = {item.name: item.data for item in items if item.kind == "trust"}
        for name, data in trust.items():
            parts.trust.offer(name, data)
        if parts.trust.wants(trust):
            try:
                parts.trust.refresh_now()
            except RemoteError as error:
                note = str(error)
        if parts.trust.keyring is None:
            why = note or "they are missing or damaged"
            message = f"the origin's keys on this stick are of no use ({why}); export it anew"
            raise RemoteError(message, reason="no_key")
        note = self._take_catalog(items) or note
        for item in items:
            with suppress(RemoteError):  # an older one, or damaged: the next stick has it
                if item.kind == "directory":
                    parts.replica.accept_directory(item.data)
                elif item.kind == "beacon":
                    parts.replica.accept_beacon(item.data)
        self._take_manifests(items)
        return note

    def listed(self) -> Mapping[str, tuple[Cid, Cid]]:
        """Return each listed title's manifest and root, where the manifest is here and verifies."""
        found: dict[str, tuple[Cid, Cid]] = {}
        for title, cid in self._parts.library.manifests().items():
            with suppress(FarcastError):
                found[title] = (cid, self._parts.library.manifest(title).root_cid)
        return found

    def take_pulses(self, post: bytes) -> int:
        """Verify and spool a post; returns how many pulses of it are authentic."""
        return open_receipt(self._parts.reception.take(post)).count

    def take_acks(self, acks: Sequence[bytes]) -> int:
        """Verify and apply acks; returns how many pulses that let go."""
        spool = self._parts.spool
        before = spool.waiting().count
        for data in acks:
            with suppress(RemoteError):  # counted by reason where it is opened
                self._parts.acks.accept(data)
        return before - spool.waiting().count

    def signed_ms(self) -> int:
        """Return when the newest checkpoint here was signed, 0 before the first."""
        return self._parts.replica.signed_ms

    # -- the inside

    def _take_catalog(self, items: Sequence[Item]) -> str:
        replica = self._parts.replica
        note, pages = b"", dict[int, Page]()
        for item in items:
            if item.kind == "checkpoint":
                note = item.data
            elif item.kind == "entries":
                with suppress(RemoteError):  # the checkpoint tells that something is missing
                    page = decode(Page, item.data, limit_bytes=ENTRIES_LIMIT_BYTES)
                    pages[page.start] = page
        if not note:
            return "the stick has no catalog"
        known, entries = replica.catalog.size, list[bytes]()
        for start, page in sorted(pages.items()):
            at = known + len(entries)
            if start <= at:
                entries += page.entries[at - start :]
        try:
            replica.advance(note, known, entries)
        except RemoteError as error:
            return "" if error.reason in _OLDER else f"the stick's catalog was not taken: {error}"
        self._parts.advanced()
        return ""

    def _take_manifests(self, items: Sequence[Item]) -> None:
        wanted = set(self._parts.library.manifests().values())
        for item in items:
            if item.kind != "block":
                continue
            with suppress(RemoteError):  # damaged: the title's own volumes have it once more
                if (cid := Cid.parse(item.name)) in wanted:
                    self._parts.store.put(cid, item.data)

    def _cargo(self, titles: Sequence[str]) -> Cargo:
        parts = self._parts
        hint, checkpoint = parts.trust.hint, parts.replica.checkpoint()
        if hint is None or checkpoint is None:
            message = "this node knows no catalog yet, so there is nothing to export; run it once online"
            raise UsageError(message, reason="no_catalog")
        items = [Item("trust", name, data) for name, data in parts.trust.files().items()]
        items.append(Item("checkpoint", "", checkpoint))
        catalog = parts.replica.catalog
        items += [
            Item("entries", str(start), encode(catalog.page(start, catalog.size)))
            for start in range(0, catalog.size, ENTRIES_PER_PAGE)
        ]
        if (directory := parts.replica.directory()) is not None:
            items.append(Item("directory", "", directory))
        items += [Item("beacon", str(at), data) for at, data in enumerate(parts.replica.beacons())]
        for cid in parts.library.manifests().values():
            if (data := parts.store.get(cid)) is not None:
                items.append(Item("block", str(cid), data))
        chosen = [self._title(title) for title in titles] or self._whole_titles()
        return Cargo(
            hint.box, hint.name, items, chosen, frozenset(parts.library.titles()), parts.replica.signed_ms
        )

    def _title(self, title: str) -> Title:
        """Return a title with its blocks; raises ``RefusedError`` for an unknown one."""
        library = self._parts.library
        manifest = library.entry(title).cid
        cids = dict.fromkeys([manifest, *library.reached(title)])
        return Title(title, library.manifest(title).root_cid, [*cids])

    def _whole_titles(self) -> list[Title]:
        found: list[Title] = []
        for title in self._parts.library.titles():
            with suppress(FarcastError):
                one = self._title(title)
                if all(self._parts.store.size(cid) is not None for cid in one.cids):
                    found.append(one)
        return found

    def _disk(self, place: Path) -> StickDisk:
        return StickDisk(place, self._parts.trust.origin_id)

    def _open_ack(self, data: bytes) -> Ack:
        keyring = self._parts.trust.keyring
        return open_ack(data, list(keyring.intake) if keyring else [])


@contextmanager
def ferry_at(path: Path) -> Generator[Ferry]:
    """Open the home of a node that does not run, and yield its ferry; raises as ``Home.open``."""
    settings, registry = Settings.load(path, os.environ), CollectorRegistry()
    with Home.open(path, "node") as home:
        trust = Trust(home.path / "trust", lambda _: None, registry)
        if trust.hint is None:
            message = "this node has joined no origin yet; run `farcast join LINK` first"
            raise UsageError(message)
        store = DiskStore(home.path, settings.store.quota_bytes, registry)
        spool = DiskSpool(
            home.path / "spool.db", registry, foreign_quota_bytes=settings.spool.foreign_quota_bytes
        )
        try:
            replica = Replica(home.path / "catalog", lambda: trust.keyring)
            replica.load()
            library = Library(replica, store, lambda: trust.keyring)
            takedown = Takedown(home.path / "takedown", replica, store, registry)
            takedown.load()
            acks = Acks(spool, lambda: trust.keyring, registry)
            reception = Reception(spool, home.identity, lambda: trust.keyring, clock_ms, registry)
            yield Ferry(Parts(store, spool, trust, replica, library, acks, reception, takedown.enforce))
        finally:
            spool.close()
            store.close()
