"""The files of the block store: drafts, places and what it takes to make one durable.

Hot paths: plain ``os`` calls on strings, measured faster than ``pathlib``.
"""

# ruff: noqa: PTH103, PTH104, PTH108, PTH112, PTH120, PTH123

from __future__ import annotations

import errno
import fcntl
import itertools
import mmap
import os
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from ...protocol.cid import Bytes, Cid

BLOCK_LIMIT_BYTES = 2 << 20
"""No block anywhere is larger (design: Content)."""
WRITE_BYTES = 64 << 10
"""So much is written at a time: the system caches each piece as one stretch of memory, and from stretches of
just what ``sendfile`` hands on at a time a block leaves with the least work, over TCP."""
SYNCS_LIMIT = 16
"""Files and folders that are synced at a time."""
_FOLDERS = 2  # ab, blocks
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_DIRECT = getattr(os, "O_DIRECT", 0)
_yield = getattr(os, "sched_yield", lambda: None)
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def give_way() -> None:
    """Let a thread that waits for this core run first.

    Called between pieces of work of at most 0.3 ms: else the system lets a thread that hashes, writes
    and deletes go on until its next tick, which may be 4 ms away, and whoever serves waits for it.
    """
    _yield()


class BlockFiles:
    """A folder of blocks in 256 folders by digest, and the drafts on their way in or out."""

    def __init__(self, folder: Path) -> None:
        """Open ``folder``; drafts a crash left are removed."""
        self._root = str(folder)
        self._tmp = f"{folder}/.tmp"
        self._numbers = itertools.count()
        self._direct = bool(_DIRECT)
        shutil.rmtree(self._tmp, ignore_errors=True)
        Path(self._tmp).mkdir(mode=0o700, parents=True)

    def place(self, cid: Cid) -> str:
        """Return where the block lies when it is here."""
        return f"{self._root}/{cid.digest[:1].hex()}/{cid}"

    def flatten(self) -> None:
        """Move blocks out of the second level of folders (``ab/cd``) that older stores had. Blocking."""
        for above in Path(self._root).glob("[0-9a-f][0-9a-f]"):
            for folder in above.glob("[0-9a-f][0-9a-f]"):
                for file in folder.iterdir():
                    file.rename(above / file.name)
                folder.rmdir()
            self.sync_file(str(above))

    def read(self, cid: Cid) -> bytes | None:
        """Return the file's bytes, at most one more than a block may have; None where it cannot be read.

        A link somebody put there is not followed: what it points to may change after we looked.
        """
        try:
            with open(os.open(self.place(cid), _READ), "rb", buffering=0) as file:
                return file.read(BLOCK_LIMIT_BYTES + 1)
        except OSError:
            return None

    def write(self, data: Bytes) -> str:
        """Write a whole draft and return its name. Raises ``OSError``, leaves nothing.

        A look at a buffer goes from there to the disk where the system can do that: what was just
        read to be stored is not copied into its cache, which holds what is served.
        """
        draft = f"{self._tmp}/{next(self._numbers)}"
        try:
            fd = os.open(draft, _CREATE, mode=0o666)
            try:
                rest = memoryview(data)
                if self._direct and isinstance(data, memoryview):
                    rest = self._write_pages(fd, rest)
                while rest:
                    rest = rest[os.write(fd, rest[:WRITE_BYTES]) :]
                    give_way()
            finally:
                os.close(fd)
        except BaseException:
            self.unlink([draft])
            raise
        return draft

    def _write_pages(self, fd: int, data: memoryview) -> memoryview:
        """Write whole pages past the system's cache; returns what is left to write."""
        whole, left = data[: len(data) & -mmap.PAGESIZE], data
        if not whole:
            return data
        try:
            fcntl.fcntl(fd, fcntl.F_SETFL, _DIRECT)
            while whole:
                size_bytes = os.write(fd, whole)
                whole, left = whole[size_bytes:], left[size_bytes:]
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._direct = False  # not on this file system, or not from such a buffer
        fcntl.fcntl(fd, fcntl.F_SETFL, 0)
        return left

    def admit(self, draft: str, cid: Cid) -> None:
        """Move a draft to its place, atomically."""
        place = self.place(cid)
        try:
            os.rename(draft, place)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
            os.rename(draft, place)
        except IsADirectoryError:  # somebody's, in the place of a block
            self.unlink([self.displace(cid)])
            os.rename(draft, place)

    def displace(self, cid: Cid) -> str:
        """Move a block away from its place, atomically; returns the draft it is now."""
        draft = f"{self._tmp}/{next(self._numbers)}"
        with suppress(FileNotFoundError):
            os.rename(self.place(cid), draft)
        return draft

    def unlink(self, files: Iterable[str]) -> None:
        """Delete files, present or not; a folder in the place of one goes with all that is in it."""
        for file in files:
            give_way()
            try:
                os.unlink(file)
            except FileNotFoundError:
                continue
            except OSError:
                if not os.path.isdir(file):
                    raise
                shutil.rmtree(file, ignore_errors=True)

    def sync(self, cids: Iterable[Cid]) -> set[Cid]:
        """Bring blocks and the folders above them to the disk; returns those for which that worked."""
        done: dict[str, bool] = {}
        return {
            cid
            for cid in cids
            if self.sync_file(self.place(cid)) and self._sync_above(self.place(cid), _FOLDERS, done)
        }

    def sync_together(self, cids: Iterable[Cid]) -> set[Cid]:
        """Bring many blocks and their folders to the disk; returns those for which that worked.

        All at a time: a disk that is told to keep many things does that in one go, and the first
        that is kept takes much of what its neighbours need along.
        """
        places = {cid: self.place(cid) for cid in cids}
        folders = {os.path.dirname(place) for place in places.values()}
        names = [*places.values(), *folders, self._root]
        with ThreadPoolExecutor(min(SYNCS_LIMIT, len(names)), thread_name_prefix="sync") as pool:
            kept = dict(zip(names, pool.map(self.sync_file, names), strict=True))
        if not kept[self._root]:
            return set()
        return {cid for cid, place in places.items() if kept[place] and kept[os.path.dirname(place)]}

    def _sync_above(self, name: str, levels: int, done: dict[str, bool]) -> bool:
        if not levels:
            return True
        folder = os.path.dirname(name)
        if folder not in done:
            done[folder] = self.sync_file(folder) and self._sync_above(folder, levels - 1, done)
        return done[folder]

    def sync_file(self, name: str) -> bool:
        """Bring one file or folder to the disk; False where that fails."""
        try:
            fd = os.open(name, os.O_RDONLY)
        except OSError:
            return False
        try:
            os.fsync(fd)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True
