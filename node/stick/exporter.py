"""The exporter: writes heads, acks and pulses first, then titles volume by volume.

What is on the stick already and checks out is not written again, so an export that broke off goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from ...protocol.cid import Cid
from ...protocol.errors import LocalError, RemoteError, UsageError
from ...protocol.generation import Item, pack_bundle
from ...protocol.ports import SpooledPulse
from ...protocol.stick import INDEX_LIMIT_BYTES, VOLUME_BYTES, StickIndex, StickTitle, open_index, pack_index
from .disk import INDEX, DamagedError, StickDisk
from .freight import Cargo, Depot, Exported, ExportedTitle, Report, Title
from .satchel import Satchel
from .volume import Volume, is_whole, pieces, plan

HEADS = "heads"
TITLES = "titles"
HEADS_BYTES = 8_000_000
PULSES_AT_ONCE = 100_000
SPARE_BYTES = 1 << 20
"""Of a stick are left free for its file system."""


class _Load(NamedTuple):
    """One title's volumes, and which of them are not on the stick."""

    title: Title
    volumes: list[Volume]
    absent: list[Volume]

    @property
    def size_bytes(self) -> int:
        return sum(volume.size_bytes for volume in self.volumes)


class Exporter:
    """Exports one box; ``run`` is blocking, may be told to stop, and is repeated to go on."""

    def __init__(self, depot: Depot, *, volume_bytes: int = VOLUME_BYTES) -> None:
        self._depot = depot
        self._volume_bytes = volume_bytes
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Have an export under way end at its next block."""
        self._stopped.set()

    def run(self, disk: StickDisk, cargo: Cargo, report: Report) -> Exported:
        """Bring the stick up to date.

        Raises:
            LocalError: ``stick_lost``, ``stopped``, or ``changed`` where a block left the store meanwhile.
            StoreFullError: ``stick_full``.
            UsageError: ``read_only``.

        """
        report("catalog and pulses", 0)
        loads = [self._plan(title) for title in cargo.titles]
        self._write_index(disk, cargo, loads)
        self._write_heads(disk, cargo.heads)
        written, acks = self._write_pulses(disk, cargo)
        self._drop_unlisted(disk, cargo)
        loads = [self._compare(disk, load, report) for load in loads]
        self._check_room(disk, loads)
        total_bytes = sum(volume.size_bytes for load in loads for volume in load.absent)
        done_bytes = 0
        for load in loads:
            for volume in load.absent:
                self._write_volume(disk, load.title, volume)
                done_bytes += volume.size_bytes
                report(load.title.title, done_bytes, total_bytes)
        titles = [
            ExportedTitle(load.title.title, load.size_bytes, sum(volume.size_bytes for volume in load.absent))
            for load in loads
        ]
        return Exported(str(disk.folder), titles, written, acks)

    def _plan(self, title: Title) -> _Load:
        sizes: list[tuple[Cid, int]] = []
        for cid in title.cids:
            size = self._depot.store.size(cid)
            if size is None:
                message = f"{title.title} is not whole here; `farcast keep {title.title}` brings the rest"
                raise UsageError(message, reason="not_whole")
            sizes.append((cid, size))
        volumes = plan(title.root, sizes, self._volume_bytes)
        return _Load(title, volumes, volumes)

    def _write_index(self, disk: StickDisk, cargo: Cargo, loads: Sequence[_Load]) -> None:
        """Name what will be there; titles of an earlier export that are still listed stay named."""
        known: dict[str, StickTitle] = {}
        with suppress(DamagedError, RemoteError):
            data = disk.read(INDEX, INDEX_LIMIT_BYTES)
            earlier = open_index(data).titles if data is not None else []
            known = {item.title: item for item in earlier if item.title in cargo.listed}
        for load in loads:
            title = load.title
            known[title.title] = StickTitle(
                title.title, title.cids[0].encode(), len(title.cids), load.size_bytes, len(load.volumes)
            )
        titles = sorted(known.values(), key=lambda item: item.title)
        index = StickIndex(1, cargo.box, cargo.name[:400], self._depot.clock_ms(), titles)
        disk.tidy("")
        disk.write(INDEX, [pack_index(index)])

    def _write_heads(self, disk: StickDisk, items: Sequence[Item]) -> None:
        bundles, run, size_bytes = list[bytes](), list[Item](), 0
        for item in items:
            cost = len(item.data) + len(item.name) + 32
            if run and size_bytes + cost > HEADS_BYTES:
                bundles.append(pack_bundle(run))
                run, size_bytes = [], 0
            run.append(item)
            size_bytes += cost
        bundles += [pack_bundle(run)] if run else []
        disk.tidy(HEADS)
        for number, data in enumerate(bundles, 1):
            disk.update(f"{HEADS}/{number:04}", data)
        for name in disk.names(HEADS)[len(bundles) :]:
            disk.remove(f"{HEADS}/{name}")

    def _write_pulses(self, disk: StickDisk, cargo: Cargo) -> tuple[int, int]:
        disk.tidy("pulses")
        spool = self._depot.spool
        satchel = Satchel(disk, self._depot.open_ack)
        for spoilt in satchel.damaged:
            disk.remove(spoilt.name)  # whoever made those pulses has them until they are acked
        pending = spool.pending(PULSES_AT_ONCE)
        tids = dict.fromkeys([*satchel.tids, *(item.tid for item in pending)])
        satchel.settle(spool.acks(tids), cargo.signed_ms)
        written = satchel.pack(pending)
        own = [_key(item) for item in written if item.own]
        if own:
            with suppress(LocalError):  # a note for the page; a full disk of ours must not end the export
                spool.mark_left(own, "stick", self._depot.clock_ms())
        return len(written), len(satchel.acks)

    def _drop_unlisted(self, disk: StickDisk, cargo: Cargo) -> None:
        """Delete what the catalog lists no more: retired, or taken down."""
        for name in disk.names(TITLES):
            if name not in cargo.listed:
                disk.remove(f"{TITLES}/{name}")

    def _compare(self, disk: StickDisk, load: _Load, report: Report) -> _Load:
        """Find which volumes are on the stick already, each block of them checked."""
        folder = f"{TITLES}/{load.title.title}"
        disk.tidy(folder)
        wanted = {volume.file for volume in load.volumes}
        for name in disk.names(folder):
            if name not in wanted:
                disk.remove(f"{folder}/{name}")
        absent: list[Volume] = []
        for place, volume in enumerate(load.volumes):
            self._check_stopped()
            if not _is_there(disk, f"{folder}/{volume.file}", volume):
                absent.append(volume)
            report(f"looking at {load.title.title}", place + 1, len(load.volumes))
        return load._replace(absent=absent)

    def _check_room(self, disk: StickDisk, loads: Sequence[_Load]) -> None:
        needed = 0
        for load in loads:
            for volume in load.absent:
                held = disk.size(f"{TITLES}/{load.title.title}/{volume.file}") or 0
                needed += max(volume.size_bytes - held, 0)
        free = disk.free_bytes()
        if needed and needed + SPARE_BYTES > free:
            raise disk.full(needed, free)

    def _write_volume(self, disk: StickDisk, title: Title, volume: Volume) -> None:
        def load(cid: Cid) -> bytes:
            self._check_stopped()
            data = self._depot.store.get(cid)
            if data is None:
                message = f"a block of {title.title} left this box meanwhile; keep the title and repeat this"
                raise LocalError(message, reason="changed")
            return data

        name = f"{TITLES}/{title.title}/{volume.file}"
        disk.remove(name)  # a damaged one first, so that it makes room
        disk.write(name, pieces(volume, load))

    def _check_stopped(self) -> None:
        if self._stopped.is_set():
            raise LocalError("the export was stopped; repeat it to go on", reason="stopped")


def _is_there(disk: StickDisk, name: str, volume: Volume) -> bool:
    if disk.size(name) != volume.size_bytes:
        return False
    try:
        with disk.open(name) as file:
            return is_whole(file, volume)
    except DamagedError:
        return False


def _key(item: SpooledPulse) -> tuple[bytes, int]:
    return item.tid, item.seq
