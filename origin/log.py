"""The catalog log: what this origin publishes, appended durably, and the signed heads over it.

An entry is on the disk before any checkpoint covers it. The file holds one record after another:
length (2 bytes, big-endian), CRC-32, entry; a torn tail is cut off when the log is opened.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from bisect import bisect_left
from pathlib import Path
from typing import Literal

from ..node.home import write_whole
from ..protocol.beacon import HOUR_MS, Beacon, open_beacon, seal_beacon
from ..protocol.catalog import ENTRY_LIMIT_BYTES, Catalog, Entry
from ..protocol.cid import Cid
from ..protocol.codec import decode, encode
from ..protocol.errors import LocalError, RemoteError
from ..protocol.identity import Identity
from ..protocol.note import Checkpoint, open_note, seal

RESIGN_MS = HOUR_MS
"""An unchanged head is signed again with the new time at most this often, so a freeze shows."""
BEACONS_TOLD = 48
BEACONS_KEPT = 62 * 24
"""As long as pulses that name one may come in."""

_HEADER = struct.Struct(">HI")


class CatalogLog:
    """The origin's catalog; ``name`` is the one its checkpoints carry (``catalog_name``)."""

    _signed_ms: int

    def __init__(self, folder: Path, catalog: Identity, name: str) -> None:
        """Open the log in ``folder`` and cut off what a crash left half-written.

        Raises:
            LocalError: ``damaged`` where whole records do not decode.

        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._identity = catalog
        self._name = name
        self._lock = threading.Lock()
        self.catalog = Catalog()
        self._file = (folder / "entries.log").open("a+b", buffering=0)
        try:
            self._end = self._replay()
            self._beacons = self._read_beacons()
            self._note, self._signed_ms = b"", 0
            head = self._read_head()
            self._file.truncate(self._end)
            if head is None or head.size < self.catalog.size:
                self._sign(head.time_ms if head else 0)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def append(
        self,
        action: Literal["publish", "supersede", "retire", "deny"],
        title: str,
        manifest: Cid,
        now_ms: int,
    ) -> int:
        """Append an entry durably, sign the new head, and return the entry's index. Blocking.

        Raises:
            LocalError: where the disk refuses; the log is then as it was before.

        """
        entry = Entry(1, action, title, manifest.encode(), now_ms)
        data = encode(entry)
        decode(Entry, data, limit_bytes=ENTRY_LIMIT_BYTES)  # what no follower would accept is never written
        with self._lock:
            try:
                self._file.write(_HEADER.pack(len(data), zlib.crc32(data)) + data)
                os.fsync(self._file.fileno())
            except OSError as error:
                self._file.truncate(self._end)
                message = f"the catalog in {self._folder} cannot be written: {error.strerror}"
                raise LocalError(message, reason="disk") from error
            self._end += _HEADER.size + len(data)
            index = self.catalog.append(entry)
            self._sign(now_ms)
            return index

    def checkpoint(self) -> bytes:
        """Return the newest signed checkpoint."""
        return self._note

    def beacons(self) -> list[bytes]:
        """Return the signed beacons of the last 48 hours, oldest first."""
        return [data for _, data in self._beacons[-BEACONS_TOLD:]]

    def beacon(self, number: int) -> bytes | None:
        """Return the value of a beacon by its number; None where there is none, or none any more."""
        at = bisect_left(self._beacons, number, key=lambda known: known[0].number)
        known = self._beacons[at : at + 1]
        return known[0][0].value if known and known[0][0].number == number else None

    def newest_beacon(self) -> Beacon | None:
        """Return the newest beacon, None before the first."""
        return self._beacons[-1][0] if self._beacons else None

    def tick(self, now_ms: int, value: bytes) -> None:
        """Sign the head again where it is an hour old, and publish this hour's beacon.

        ``value`` is 32 fresh random bytes, used where the hour has no beacon yet. Blocking.
        """
        with self._lock:
            if now_ms - self._signed_ms >= RESIGN_MS:
                self._sign(now_ms)
            if not self._beacons or self._beacons[-1][0].number < now_ms // HOUR_MS:
                data = seal_beacon(now_ms, value, self._identity)
                kept = [*self._beacons, (open_beacon(data, self._identity.key), data)][-BEACONS_KEPT:]
                write_whole(self._folder / "beacons", encode([data for _, data in kept]))
                self._beacons = kept

    def _sign(self, now_ms: int) -> None:
        now_ms = max(now_ms, self._signed_ms)  # followers refuse a head older than the last
        head = Checkpoint(self._name, self.catalog.size, self.catalog.root, now_ms)
        note = seal(head, self._name, self._identity)
        write_whole(self._folder / "checkpoint", note)
        self._note, self._signed_ms = note, now_ms

    def _replay(self) -> int:
        """Read the whole file into the catalog; returns where its last whole record ends."""
        self._file.seek(0)
        data = self._file.read()
        at = 0
        while at + _HEADER.size <= len(data):
            length, crc = _HEADER.unpack_from(data, at)
            body = data[at + _HEADER.size : at + _HEADER.size + length]
            if len(body) < length or zlib.crc32(body) != crc:
                break
            try:
                self.catalog.append(decode(Entry, body, limit_bytes=ENTRY_LIMIT_BYTES))
            except RemoteError as error:
                message = f"{self._file.name} is damaged at byte {at}: bring it back from a backup"
                raise LocalError(message, reason="damaged") from error
            at += _HEADER.size + length
        return at

    def _read_beacons(self) -> list[tuple[Beacon, bytes]]:
        path = self._folder / "beacons"
        if not path.is_file():
            return []
        try:
            kept = decode(list[bytes], path.read_bytes())
            return [(open_beacon(data, self._identity.key), data) for data in kept]
        except RemoteError as error:
            raise LocalError(f"{path} is damaged ({error}); remove it", reason="damaged") from error

    def _read_head(self) -> Checkpoint | None:
        """Read the head signed last, None before the first.

        Raises:
            LocalError: ``rollback`` where it covers more than the file holds, ``damaged``.

        """
        path = self._folder / "checkpoint"
        if not path.is_file():
            return None
        try:
            note = path.read_bytes()
            head = open_note(note, self._name, self._identity.key)
        except RemoteError as error:
            raise LocalError(
                f"{path} is damaged ({error}); bring it back from a backup", reason="damaged"
            ) from error
        if head.size > self.catalog.size:
            name, size = self._file.name, self.catalog.size
            message = (
                f"{name} holds {size} entries, but {head.size} are published: bring it back from a backup"
            )
            raise LocalError(message, reason="rollback")
        self._note, self._signed_ms = note, head.time_ms
        return head
