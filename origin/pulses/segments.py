"""Segment files: the intake log on disk, one append-only file per UTC hour, chained frame by frame.

A frame is ``magic, length, check, chain, payload``. The payload is hashed once, as the leaf of the log's
tree: the check is the first four bytes of that, the chain SHA-256 over the chain before and the leaf,
across files, so nothing can be taken out unnoticed. One ``fdatasync`` makes everything
written before it durable; what a crash tore at the very end was never acknowledged and is cut at the
next start.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ...protocol.codec import MESSAGE_LIMIT_BYTES
from ...protocol.errors import LocalError, StoreFullError
from ...protocol.merkle import Tree, leaf_hash

_HEADER = struct.Struct(">4s I 4s 32s")
_MAGIC = b"FCsh"
FRAME_LIMIT_BYTES = MESSAGE_LIMIT_BYTES + (1 << 20)
_CHECK_BYTES = 4
_GENESIS = bytes(32)
_BLOCK_BYTES = 512
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Place(NamedTuple):
    """Where a frame lies: file name and byte offset."""

    segment: str
    offset: int


_FIRST = Place("", 0)


class Entry(NamedTuple):
    """One frame as read back: its place, its chain value, its payload, and the leaf hash of that."""

    place: Place
    chain: bytes
    payload: bytes
    leaf: bytes


class Resume(NamedTuple):
    """How far a log was read: the leaves of its tree, where the next frame goes, and the chain there."""

    leaves: list[bytes]
    end: Place
    chain: bytes


_BEGINNING = Resume([], _FIRST, _GENESIS)


class Torn(Exception):  # noqa: N818 - a signal between the two functions of this module
    """The last frame of the last file is not whole; ``place`` is where it starts."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.place = place


def read_segments(folder: Path) -> Iterator[bytes]:
    """Yield the payload of every whole frame in order; a torn end is left out, the files untouched.

    Raises:
        LocalError: ``damaged`` where acknowledged frames are missing or changed.

    """
    try:
        for entry in _entries(folder):
            yield entry.payload
    except Torn:
        return


def read_entries(folder: Path, after: Entry | None = None) -> Iterator[Entry]:
    """Yield every whole entry behind ``after`` in order, which must be one of this log; else all of them.

    Raises:
        LocalError: ``damaged`` where acknowledged frames are missing or changed, or ``after`` is none.

    """
    start, chain = _FIRST, _GENESIS
    if after is not None:
        end = after.place.offset + _HEADER.size + len(after.payload)
        start, chain = Place(after.place.segment, end), after.chain
    try:
        yield from _entries(folder, start, chain)
    except Torn:
        return


def read_entry(folder: Path, place: Place) -> Entry | None:
    """Return the whole entry at ``place``; None where there is none. Its chain value is not checked."""
    try:
        with (folder / place.segment).open("rb") as file:
            file.seek(place.offset)
            return _frame(file, place, file.read(_HEADER.size))
    except FileNotFoundError:
        return None


def last_segment(folder: Path) -> str:
    """Return the name of the file that is still written; empty where there is none."""
    return max((path.name for path in _files(folder)), default="")


def newest(folder: Path, end: Place) -> Iterator[bytes]:
    """Yield the payloads in the file of ``end`` that lie before it; stops at what is not whole."""
    path = folder / end.segment
    if not path.is_file():
        return
    with path.open("rb") as file:
        while file.tell() < end.offset:
            entry = _frame(file, Place(end.segment, file.tell()), file.read(_HEADER.size))
            if entry is None:
                return
            yield entry.payload


class SegmentLog:
    """The one writer of an intake log; ``tree`` is the Merkle log over its payloads."""

    def __init__(self, folder: Path, visit: Callable[[bytes], None], resume: Resume = _BEGINNING) -> None:
        """Read the log from ``resume`` on, hand every payload to ``visit``, and cut what a crash tore.

        Raises:
            LocalError: ``damaged``.

        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self.tree = Tree(resume.leaves)
        self.torn_bytes = 0
        self._chain = resume.chain
        self._end = resume.end
        self._file: int = -1
        self._failed = False
        self.written = self.synced = 0
        self._full: list[int] = []
        self._syncing = threading.Lock()
        try:
            for entry in _entries(folder, resume.end, resume.chain):
                self.tree.append(entry.leaf)
                self._chain = entry.chain
                self._end = Place(entry.place.segment, entry.place.offset + _HEADER.size + len(entry.payload))
                visit(entry.payload)
        except Torn as torn:
            self._cut(torn.place)

    def resume(self) -> Resume:
        """Return where to go on from after everything written so far."""
        return Resume([self.tree.leaf(index) for index in range(self.tree.size)], self._end, self._chain)

    @property
    def end(self) -> Place:
        """Where the next frame of this hour would go."""
        return self._end

    def append(self, payload: bytes, at_ms: int) -> Place:
        """Write one frame durably; what it returned for is on the disk. Raises as ``write`` and ``sync``."""
        place = self.write(payload, at_ms)
        self.sync()
        return place

    def write(self, payload: bytes, at_ms: int) -> Place:
        """Write one frame at the end; it is durable only after the next ``sync``.

        Raises:
            StoreFullError: no room; nothing was written.
            LocalError: ``intake_log`` where the disk failed: the log refuses to go on until restarted.

        """
        self._check()
        name = max(_segment_name(at_ms), self._end.segment)  # a clock set back opens no earlier file
        leaf = leaf_hash(payload)
        chain = _link(self._chain, leaf)
        frame = _HEADER.pack(_MAGIC, len(payload), leaf[:_CHECK_BYTES], chain) + payload
        place: Place | None = None
        try:
            place = self._open(name)
            _write_all(self._file, frame)
        except OSError as error:
            self._undo(place)
            raise self._failure(error) from error
        self._chain = chain
        self._end = Place(name, place.offset + len(frame))
        self.tree.append(leaf)
        self.written += 1
        return place

    def sync(self) -> None:
        """Bring everything written so far to the disk; any thread may, while another writes.

        Raises:
            LocalError: ``intake_log`` where the disk failed: nobody knows what of the last frames is
                there, so the log refuses to go on until restarted.

        """
        with self._syncing:
            target = self.written
            if self.synced >= target:
                return
            self._check()
            current = self._file  # before the full ones: a file that fills up meanwhile is reached twice
            full, self._full = self._full, []
            try:
                for fd in [*full, current]:
                    os.fdatasync(fd)
            except OSError as error:
                self._failed = True
                message = f"the intake log in {self._folder} cannot be written: {error.strerror}"
                raise LocalError(message, reason="intake_log") from error
            finally:
                for fd in full:
                    os.close(fd)
            self.synced = target

    def close(self) -> None:
        """Close the open file."""
        with self._syncing:
            for fd in [*self._full, self._file]:
                if fd >= 0:
                    os.close(fd)
            self._full, self._file = [], -1

    def _check(self) -> None:
        if self._failed:
            raise LocalError(
                "the intake log failed to reach the disk; restart the origin", reason="intake_log"
            )

    def _failure(self, error: OSError) -> LocalError:
        if error.errno in _NO_ROOM:
            message = f"the disk is full, {self._folder} cannot grow; make room"
            return StoreFullError(message, reason="disk_full")
        self._failed = True
        message = f"the intake log in {self._folder} cannot be written: {error.strerror}"
        return LocalError(message, reason="intake_log")

    def _open(self, name: str) -> Place:
        if name != self._end.segment or self._file < 0:
            path = self._folder / name
            new = not path.exists()
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            if self._file >= 0:
                self._full.append(self._file)  # the next sync still has to reach it
            self._file = fd
            if new:
                _sync_folder(self._folder)
        return Place(name, os.fstat(self._file).st_size)

    def _undo(self, place: Place | None) -> None:
        """Take back a half-written frame, so that the next one follows a whole one."""
        if place is None:
            return
        try:
            os.ftruncate(self._file, place.offset)
            os.fdatasync(self._file)
        except OSError:
            self._failed = True

    def _cut(self, place: Place) -> None:
        path = self._folder / place.segment
        with path.open("r+b") as file:
            self.torn_bytes = file.seek(0, os.SEEK_END) - place.offset
            file.truncate(place.offset)
            os.fsync(file.fileno())
        self._end = place


def _entries(folder: Path, start: Place = _FIRST, chain: bytes = _GENESIS) -> Iterator[Entry]:
    files = [path for path in _files(folder) if path.name >= start.segment]
    for path in files:
        with path.open("rb") as file:
            offset = start.offset if path.name == start.segment else 0
            file.seek(offset)
            while header := file.read(_HEADER.size):
                place = Place(path.name, offset)
                entry = _frame(file, place, header)
                if entry is None:
                    file.seek(offset + 1)
                    followed = path != files[-1] or _holds_frame(file)
                    file.seek(offset)  # the writer may have finished this frame meanwhile
                    entry = _frame(file, place, file.read(_HEADER.size))
                    if entry is None:
                        raise Torn(place) if not followed and _torn(file, offset) else _damaged(path, offset)
                chain = _link(chain, entry.leaf)
                if chain != entry.chain:
                    raise _damaged(path, offset)
                offset += _HEADER.size + len(entry.payload)
                yield entry


def _frame(file: BinaryIO, place: Place, header: bytes) -> Entry | None:
    """Read one frame behind its header; None where it is not whole. Its chain value is not checked."""
    if len(header) < _HEADER.size:
        return None
    magic, length, check, chain = _HEADER.unpack(header)
    if magic != _MAGIC or length > FRAME_LIMIT_BYTES:
        return None
    payload = file.read(length)
    leaf = leaf_hash(payload)
    if len(payload) != length or leaf[:_CHECK_BYTES] != check:
        return None
    return Entry(place, chain, payload, leaf)


def _torn(file: BinaryIO, offset: int) -> bool:
    """Say whether the last frame is one that a crash left unfinished: cut off, or with blocks never written.

    What was synced is whole. So a last frame of its full length whose blocks all hold something was
    changed afterwards, and cutting it would lose what was acknowledged.
    """
    file.seek(offset)
    data = file.read(_HEADER.size + FRAME_LIMIT_BYTES)
    if len(data) < _HEADER.size or not any(data[: len(_MAGIC)]):
        return True
    magic, length, _, _ = _HEADER.unpack_from(data)
    if magic == _MAGIC and length <= FRAME_LIMIT_BYTES and len(data) < _HEADER.size + length:
        return True
    starts = range(_BLOCK_BYTES - offset % _BLOCK_BYTES, len(data), _BLOCK_BYTES)
    return any(not any(data[start : start + _BLOCK_BYTES]) for start in starts)


def _holds_frame(file: BinaryIO) -> bool:
    """Say whether a whole frame follows: then what is broken before it is damage, not a torn end."""
    tail = file.read(4 * FRAME_LIMIT_BYTES)
    start = tail.find(_MAGIC)
    while start >= 0:
        header = tail[start : start + _HEADER.size]
        if len(header) == _HEADER.size:
            _, length, check, _ = _HEADER.unpack(header)
            payload = tail[start + _HEADER.size : start + _HEADER.size + length]
            if len(payload) == length and leaf_hash(payload)[:_CHECK_BYTES] == check:
                return True
        start = tail.find(_MAGIC, start + 1)
    return False


def _damaged(path: Path, offset: int) -> LocalError:
    message = f"{path} is damaged at byte {offset}; bring it back with `farcast origin restore`"
    return LocalError(message, reason="damaged")


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.seg"))


def _link(chain: bytes, leaf: bytes) -> bytes:
    """Return the chain value of a frame from that of the frame before."""
    return sha256(chain + leaf).digest()


def _segment_name(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms // 1_000, UTC).strftime("%Y-%m-%dT%H.seg")


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
