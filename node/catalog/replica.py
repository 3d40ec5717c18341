"""The catalog replica: what this box knows of an origin's catalog, relays and beacons, on disk.

Everything here arrived from somewhere and was verified with the keys TUF named; nothing is taken
back: a smaller catalog, an older directory or another root for the same entries is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from ...protocol.beacon import Beacon, open_beacon
from ...protocol.catalog import Catalog, Page
from ...protocol.codec import decode, encode
from ...protocol.directory import DIRECTORY_LIMIT_BYTES, RelayRecord, open_directory
from ...protocol.errors import RemoteError
from ...protocol.identity import peer_id
from ...protocol.keyring import Keyring
from ...protocol.note import Checkpoint, open_note
from ..home import write_whole

T = TypeVar("T")

BEACONS_KEPT = 48
ENTRIES_LIMIT_BYTES = 64 << 20


class Heads(Protocol):
    """What every box answers about the catalog: the origin from its log, others from a replica."""

    @property
    def catalog(self) -> Catalog:
        """The entries and what they add up to."""
        ...

    def checkpoint(self) -> bytes | None:
        """Return the newest signed checkpoint note."""
        ...

    def directory(self) -> bytes | None:
        """Return the newest signed relay directory."""
        ...

    def beacons(self) -> list[bytes]:
        """Return the newest signed beacons, oldest first."""
        ...


def catalog_name(keyring: Keyring) -> str:
    """Return the name under which an origin signs its catalog's checkpoints."""
    return f"farcast/{peer_id(keyring.box)}/catalog"


class Replica:
    """A follower's verified copy; every accepted change is on disk before it counts.

    News comes by several ways at once, so ``advance`` and the ``accept`` methods may be called from any
    thread; they block.
    """

    def __init__(self, folder: Path, keyring: Callable[[], Keyring | None]) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._keyring = keyring
        self._lock = threading.Lock()
        self.catalog = Catalog()
        self._checkpoint: bytes | None = None
        self.signed_ms = 0
        """When the checkpoint held here was signed, 0 before the first."""
        self._directory: bytes | None = None
        self._directory_issued_ms = 0
        self._relays: list[RelayRecord] = []
        self._beacons: dict[int, tuple[Beacon, bytes]] = {}

    def load(self) -> None:
        """Read what an earlier run accepted; anything that no longer verifies is left out."""
        checkpoint, entries = self._read("checkpoint"), self._read("entries")
        if checkpoint and entries:
            try:
                page = decode(Page, entries, limit_bytes=ENTRIES_LIMIT_BYTES)
                head = self._open(checkpoint)
                self.catalog.extend(head, page.start, page.entries)
                self._checkpoint, self.signed_ms = checkpoint, head.time_ms
            except RemoteError:
                self.catalog, self._checkpoint = Catalog(), None
        for name, accept in (("directory", self.accept_directory), ("beacons", self._load_beacons)):
            data = self._read(name)
            if data:
                try:
                    accept(data)
                except RemoteError:
                    continue

    def checkpoint(self) -> bytes | None:
        """Return the newest accepted checkpoint note."""
        return self._checkpoint

    def directory(self) -> bytes | None:
        """Return the newest accepted directory."""
        return self._directory

    def beacons(self) -> list[bytes]:
        """Return the accepted beacons, oldest first."""
        return [self._beacons[number][1] for number in sorted(self._beacons)]

    def newest_beacon(self) -> Beacon | None:
        """Return the newest beacon, or None before the first."""
        return self._beacons[max(self._beacons)][0] if self._beacons else None

    def relays(self) -> Sequence[RelayRecord]:
        """Return the relays the newest directory lists."""
        return self._relays

    def peek(self, note: bytes) -> Checkpoint:
        """Verify a checkpoint note without accepting it; raises ``RemoteError``."""
        return self._open(note)

    def advance(self, note: bytes, start: int, entries: Sequence[bytes]) -> int:
        """Accept a newer checkpoint with the entries it needs; returns how many were new.

        A checkpoint of the same size only moves its time on.

        Raises:
            RemoteError: ``rollback``, ``equivocation``, ``gap``, ``stale``, ``bad_signature``.

        """
        checkpoint = self._open(note)
        with self._lock:
            if self._checkpoint is not None and checkpoint.time_ms < self._open(self._checkpoint).time_ms:
                raise RemoteError("a checkpoint older than the one already accepted", reason="stale")
            added = self.catalog.extend(checkpoint, start, entries)
            if added:
                self._write("entries", encode(Page(1, 0, self.catalog.entries)))
            self._write("checkpoint", note)
            self._checkpoint, self.signed_ms = note, checkpoint.time_ms
        return added

    def accept_directory(self, data: bytes) -> bool:
        """Accept a directory newer than the one here; True where it was; raises ``RemoteError``."""
        if len(data) > DIRECTORY_LIMIT_BYTES:
            raise RemoteError(f"a relay directory of {len(data)} bytes is too large", reason="too_large")
        directory, records = self._each_catalog_key(lambda key: open_directory(data, key))
        with self._lock:
            if directory.issued_ms <= self._directory_issued_ms:
                return False
            self._write("directory", data)
            self._directory, self._directory_issued_ms, self._relays = data, directory.issued_ms, records
        return True

    def accept_beacon(self, data: bytes) -> bool:
        """Accept a beacon; True where it was new; raises ``RemoteError``."""
        beacon = self._each_catalog_key(lambda key: open_beacon(data, key))
        with self._lock:
            if beacon.number in self._beacons:
                return False
            known = {**self._beacons, beacon.number: (beacon, data)}
            kept = {number: known[number] for number in sorted(known)[-BEACONS_KEPT:]}
            self._write("beacons", encode([signed for _, signed in kept.values()]))
            self._beacons = kept  # replaced whole: readers on the event loop take no lock
        return True

    def _load_beacons(self, data: bytes) -> None:
        for item in decode(list[bytes], data):
            self.accept_beacon(item)

    def _open(self, note: bytes) -> Checkpoint:
        keyring = self._need_keyring()
        name = catalog_name(keyring)
        return self._each_catalog_key(lambda key: open_note(note, name, key))

    def _each_catalog_key(self, open_with: Callable[[bytes], T]) -> T:
        failure = RemoteError("no catalog key is known yet", reason="no_key")
        for key in self._need_keyring().catalog:
            try:
                return open_with(key)
            except RemoteError as error:
                failure = error
        raise failure

    def _need_keyring(self) -> Keyring:
        keyring = self._keyring()
        if keyring is None:
            raise RemoteError("the origin's keys are not known yet", reason="no_key")
        return keyring

    def _read(self, name: str) -> bytes | None:
        path = self._folder / name
        return path.read_bytes() if path.is_file() else None

    def _write(self, name: str, data: bytes) -> None:
        write_whole(self._folder / name, data)
