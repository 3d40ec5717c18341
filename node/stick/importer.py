"""The importer: heads, acks and pulses first, then of each title what is missing here.

Nothing is used before it is verified, and no block is kept that no listed title reaches. What is here
already is not read again, so an import that broke off goes on; a file that is damaged is named, and what
it does not hold is found missing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from ...protocol.cid import DAG_PB, Cid
from ...protocol.errors import FarcastError, LocalError, RemoteError, StoreFullError, UsageError
from ...protocol.generation import BUNDLE_LIMIT_BYTES, Item, unpack_bundle
from ...protocol.identity import peer_id
from ...protocol.stick import INDEX_LIMIT_BYTES, StickIndex, open_index
from ...protocol.unixfs import Block, parse
from .disk import INDEX, DamagedError, StickDisk
from .exporter import HEADS, TITLES
from .freight import KEEP, Customs, Depot, Imported, ImportedTitle, Report, Shelf, Spoilt
from .satchel import Satchel
from .volume import sections

GROUP_BLOCKS = 32
"""Held in memory at most, while they are pinned and put together."""
BLOCKS_PER_TITLE = 400_000
HEADS_LIMIT = 8
DAMAGED_LIMIT = 1_000


class Importer:
    """Imports into one box; ``run`` is blocking, may be told to stop, and is repeated to go on."""

    def __init__(self, depot: Depot, customs: Customs) -> None:
        self._depot = depot
        self._customs = customs
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Have an import under way end at its next block."""
        self._stopped.set()

    def run(self, disk: StickDisk, wanted: Sequence[str], report: Report) -> Imported:
        """Take everything from the stick; of titles those ``wanted``, all where none is named.

        Raises:
            UsageError: ``no_export``, ``other_origin``, ``unknown_title``.
            LocalError: ``stick_lost``, ``stopped``.
            StoreFullError: this box has no room; what came stays.
            RemoteError: the keys on the stick do not verify, or have expired.

        """
        damaged: list[Spoilt] = []
        index = self._index(disk, damaged)
        report("catalog and pulses", 0)
        note = self._customs.take_heads(read_heads(disk, damaged))
        settled, taken, satchel = self._pulses(disk, damaged)
        names = _chosen(index, disk, wanted)
        listed = self._customs.listed()
        titles: list[ImportedTitle] = []
        for place, name in enumerate(names):
            if name not in listed:
                damaged.append(Spoilt(f"{TITLES}/{name}", "is of no title in the catalog here"))
                continue
            titles.append(self._title(disk, name, *listed[name], damaged=damaged, report=report))
            report("titles", place + 1, len(names))
        returned = self.settle(disk, satchel)
        return Imported(str(disk.folder), titles, taken, settled, returned, note, damaged[:DAMAGED_LIMIT])

    def settle(self, disk: StickDisk, satchel: Satchel | None = None) -> int:
        """Put the acks this box knows of onto the stick; returns how many of its pulses they let go.

        A stick that cannot be written to goes back without.
        """
        satchel = satchel or Satchel(disk, self._depot.open_ack)
        before = satchel.pulses
        try:
            satchel.settle(self._depot.spool.acks(satchel.tids), self._customs.signed_ms())
        except (UsageError, StoreFullError):
            return 0
        return before - satchel.pulses

    def waiting(self, disk: StickDisk) -> int:
        """Return how many pulses of the stick no ack known here or there covers."""
        satchel = Satchel(disk, self._depot.open_ack)
        return satchel.open(self._depot.spool.acks(satchel.tids))

    def _index(self, disk: StickDisk, damaged: list[Spoilt]) -> StickIndex | None:
        """Read the index; without one, or with one that is damaged, what is there is looked for."""
        try:
            data = disk.read(INDEX, INDEX_LIMIT_BYTES)
            if data is None:
                raise _no_export(disk)
            index = open_index(data)
        except DamagedError as error:
            damaged.append(Spoilt(error.name, error.why))
            return None
        except RemoteError as error:
            damaged.append(Spoilt(INDEX, f"is damaged: {error}"))
            return None
        if index.origin.hex() != disk.folder.name:
            message = f"{disk.folder} is an export of {index.name} ({peer_id(index.box)}) in the wrong folder"
            raise UsageError(message, reason="other_origin")
        return index

    def _pulses(self, disk: StickDisk, damaged: list[Spoilt]) -> tuple[int, int, Satchel]:
        satchel = Satchel(disk, self._depot.open_ack)
        damaged += [Spoilt(error.name, error.why) for error in satchel.damaged]
        settled, taken = self._customs.take_acks(satchel.acks), 0
        for post in satchel.posts():
            try:
                taken += self._customs.take_pulses(post)
            except FarcastError as error:
                damaged.append(Spoilt("pulses", f"were not all taken: {error}"))
                break
        return settled, taken, satchel

    def _title(
        self, disk: StickDisk, title: str, manifest: Cid, root: Cid, *, damaged: list[Spoilt], report: Report
    ) -> ImportedTitle:
        """Bring what is missing of a title, pass by pass while nodes come that name more."""
        store, folder = self._depot.store, f"{TITLES}/{title}"
        taker = _Taker(store, KEEP + title, [manifest, root])
        while taker.missing() and (files := disk.names(folder)):
            before, spoilt = taker.new_blocks, list[Spoilt]()
            for place, name in enumerate(files):
                try:
                    self._volume(disk, f"{folder}/{name}", taker, spoilt)
                finally:
                    taker.keep()
                report(title, place + 1, len(files))
            damaged += [one for one in spoilt if one not in damaged]
            if taker.new_blocks == before:
                break
        missing = taker.missing()
        if taker.new_blocks or not missing:
            store.pin(KEEP + title, taker.reached)
        return ImportedTitle(title, len(taker.reached), taker.new_blocks, taker.new_bytes, missing)

    def _volume(self, disk: StickDisk, name: str, taker: _Taker, spoilt: list[Spoilt]) -> None:
        """Take what is missing from one volume; what is wrong with it is noted."""
        try:
            with disk.open(name) as file:
                for cid, data in sections(file, taker.wants):
                    self._check_stopped()
                    if cid.matches(data):
                        taker.take(cid, data)
                    else:
                        spoilt.append(Spoilt(name, f"has a damaged block, {cid}"))
        except DamagedError as error:
            spoilt.append(Spoilt(error.name, error.why))
        except RemoteError as error:
            spoilt.append(Spoilt(name, str(error)))
        except OSError as error:
            disk.size(INDEX)  # raises where not one file but the stick is gone
            spoilt.append(Spoilt(name, f"cannot be read: {error.strerror}"))

    def _check_stopped(self) -> None:
        if self._stopped.is_set():
            raise LocalError("the import was stopped; repeat it to go on", reason="stopped")


class _Taker:
    """Takes the blocks of one title, as far as the nodes here lead, group by group."""

    def __init__(self, store: Shelf, label: str, roots: Iterable[Cid]) -> None:
        self.reached: dict[Cid, None] = {}
        self.new_blocks = self.new_bytes = 0
        self._store = store
        self._label = label
        self._fresh: list[Cid] = []
        self._group: list[Block] = []
        self._reach(roots)

    def wants(self, cid: Cid) -> bool:
        """Say whether a block is of this title and not here."""
        return cid in self.reached and not self._store.has(cid)

    def missing(self) -> int:
        """Return how many blocks are known of and not here."""
        return sum(not self._store.has(cid) for cid in self.reached)

    def take(self, cid: Cid, data: bytes) -> None:
        """Take a verified block; it is in the store after ``keep``."""
        self._group.append((cid, data))
        if cid.codec == DAG_PB:
            self._reach(link.cid for link in parse(cid, data).links)
        if len(self._group) == GROUP_BLOCKS:
            self.keep()

    def keep(self) -> None:
        """Put what was taken; pinned first, so that a title does not push itself out."""
        group, self._group = self._group, []
        if not group:
            return
        self._store.pin(self._label, self._fresh)
        self._fresh = []
        for cid, data in group:
            if self._store.put(cid, data, hashed=True):
                self.new_blocks += 1
                self.new_bytes += len(data)

    def _reach(self, cids: Iterable[Cid]) -> None:
        todo = [*cids]
        while todo:
            cid = todo.pop()
            if cid.is_identity or cid in self.reached:
                continue
            if len(self.reached) == BLOCKS_PER_TITLE:
                raise RemoteError("has more blocks than any film", reason="bad_folder")
            self.reached[cid] = None
            self._fresh.append(cid)
            if cid.codec == DAG_PB and (data := self._store.get(cid)) is not None:
                todo += [link.cid for link in parse(cid, data).links]


def read_heads(disk: StickDisk, damaged: list[Spoilt]) -> list[Item]:
    """Read what a stick has of keys, catalog and manifests, nothing of it verified yet."""
    items: list[Item] = []
    for name in disk.names(HEADS)[:HEADS_LIMIT]:
        file = f"{HEADS}/{name}"
        try:
            items += unpack_bundle(disk.read(file, BUNDLE_LIMIT_BYTES) or b"")
        except DamagedError as error:
            damaged.append(Spoilt(error.name, error.why))
        except RemoteError as error:
            damaged.append(Spoilt(file, f"is damaged: {error}"))
    return items


def _chosen(index: StickIndex | None, disk: StickDisk, wanted: Sequence[str]) -> list[str]:
    there = sorted({*(item.title for item in index.titles if index)} if index else disk.names(TITLES))
    unknown = [name for name in wanted if name not in there]
    if unknown:
        message = f"{disk.place} has no title {unknown[0]!r}; it has {', '.join(there[:8]) or 'none'}"
        raise UsageError(message, reason="unknown_title")
    return [*dict.fromkeys(wanted)] or there


def _no_export(disk: StickDisk) -> UsageError:
    others = disk.others()
    for other in others:
        try:
            data = StickDisk(disk.place, other).read(INDEX, INDEX_LIMIT_BYTES)
            index = open_index(data or b"")
        except RemoteError:
            continue
        message = (
            f"{disk.place} is an export of {index.name} ({peer_id(index.box)}), which this node does not "
            "follow; import it in a home that does (--home)"
        )
        return UsageError(message, reason="other_origin")
    message = f"{disk.place} is no export: it has no {disk.folder / INDEX}; `farcast export DIR` makes one"
    return UsageError(message, reason="no_export")
