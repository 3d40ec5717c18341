"""The disk of a stick: whole files or none, and one sentence when it is pulled out.

A file is written beside its place, brought to the disk and renamed, so that one with its name is whole
unless somebody copied it badly. A mount that vanishes leaves its folder behind, on the machine's own
disk: the device is looked at before every write, so that nothing goes there.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ...protocol.errors import LocalError, RemoteError, StoreFullError, UsageError

FOLDER = "farcast"
"""On the stick, and below it a folder for each origin by its id."""
INDEX = "index"
NAMES_LIMIT = 20_000
_DRAFT = ".part"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LOST = (errno.EIO, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ENOTCONN, errno.ESHUTDOWN)
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""A stranger's stick may have a pipe in the place of a file: opening it must not wait."""
_ID = re.compile(r"[0-9a-f]{16}")


class DamagedError(RemoteError):
    """One file of a stick that cannot be read or is not what it should be: it is named and left out."""

    def __init__(self, name: str, why: str) -> None:
        """Keep the file's name on the stick and what is wrong with it."""
        super().__init__(f"{name} {why}", reason="damaged")
        self.name, self.why = name, why


class StickDisk:
    """The folder of one origin on a stick; all of it blocks.

    Every method raises ``LocalError`` ``stick_lost`` where the stick is gone or fails, and those that
    write ``StoreFullError`` ``stick_full`` and ``UsageError`` ``read_only``.
    """

    def __init__(self, place: Path, origin: bytes) -> None:
        """Use the stick mounted at ``place`` for the origin with the 8-byte id ``origin``."""
        if not place.is_dir():
            message = f"{place} is no folder; name the folder where the stick is mounted"
            raise UsageError(message, reason="no_stick")
        self.place = place
        self.folder = place / FOLDER / origin.hex()
        self._device = place.stat().st_dev

    def others(self) -> list[bytes]:
        """Return the ids of the origins that have an index on this stick."""
        try:
            found = sorted(path.name for path in (self.place / FOLDER).iterdir() if _ID.fullmatch(path.name))
        except OSError:
            return []
        return [bytes.fromhex(name) for name in found if (self.place / FOLDER / name / INDEX).is_file()]

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, in order; none where there is no such folder."""
        path = self._path(folder)
        try:
            found = sorted(entry.name for entry in path.iterdir())
        except FileNotFoundError:
            self._look(folder)
            return []
        except OSError as error:
            raise self._failed(folder, error) from error
        return [name for name in found if not name.endswith(_DRAFT)][:NAMES_LIMIT]

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes, None where it is missing."""
        path = self._path(name)
        try:
            return path.stat().st_size
        except FileNotFoundError:
            self._look(name)
            return None
        except OSError as error:
            raise self._failed(name, error) from error

    def read(self, name: str, limit_bytes: int) -> bytes | None:
        """Return a whole file, None where it is missing; raises ``DamagedError`` past ``limit_bytes``."""
        if self.size(name) is None:
            return None
        with self.open(name) as file:
            data = self.piece(file, name, limit_bytes + 1)
        if len(data) > limit_bytes:
            raise DamagedError(name, f"has more than {limit_bytes} bytes")
        return data

    def open(self, name: str) -> BinaryIO:
        """Open a file to read; raises ``DamagedError`` where only this one cannot be."""
        path = self._path(name)
        try:
            file = os.fdopen(os.open(path, _READ), "rb")
        except OSError as error:
            raise self._unreadable(name, error) from error
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise DamagedError(name, "is no file")
        return file

    def piece(self, file: BinaryIO, name: str, size_bytes: int) -> bytes:
        """Read from an open file; raises ``DamagedError`` where only that place cannot be read."""
        try:
            return file.read(size_bytes)
        except OSError as error:
            raise self._unreadable(name, error) from error

    def write(self, name: str, pieces: Iterable[bytes]) -> None:
        """Write a file whole and durably in the place of an older one."""
        self._look(name)
        path = self._path(name)
        draft = path.with_name(f".{path.name}{_DRAFT}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("wb") as file:
                for data in pieces:
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            self._discard(draft)
            raise self._failed(name, error) from error
        except BaseException:
            self._discard(draft)
            raise

    def update(self, name: str, data: bytes) -> bool:
        """Write a small file where it does not hold just that; True where it was written."""
        with suppress(DamagedError):
            if self.size(name) == len(data) and self.read(name, len(data)) == data:
                return False
        self.write(name, [data])
        return True

    def remove(self, name: str) -> None:
        """Delete a file or a folder with all that is in it, present or not."""
        self._look(name)
        path = self._path(name)
        try:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise self._failed(name, error) from error

    def tidy(self, folder: str) -> None:
        """Delete the drafts that a writing which broke off left in a folder."""
        with suppress(OSError):
            for path in self._path(folder).glob(f".*{_DRAFT}"):
                path.unlink(missing_ok=True)

    def free_bytes(self) -> int:
        """Return how much room there is."""
        try:
            return shutil.disk_usage(self.place).free
        except OSError as error:
            raise self._failed("", error) from error

    def full(self, needed_bytes: int, free_bytes: int) -> StoreFullError:
        """Return the error of a stick on which so much does not fit."""
        message = (
            f"{self.place} has {_size(free_bytes)} free, and {_size(needed_bytes)} are to be written; "
            "make room or name fewer titles. What was whole on it stays"
        )
        return StoreFullError(message, reason="stick_full")

    def _path(self, name: str) -> Path:
        """Return where a file lies.

        Raises:
            UsageError: ``bad_stick`` where a link is on the way: it would lead off the stick.

        """
        path = self.place
        try:
            for part in (FOLDER, self.folder.name, *name.split("/")):
                path = path / part
                if path.is_symlink():
                    message = f"{path} is a link, which a stick of ours never has; look at it and remove it"
                    raise UsageError(message, reason="bad_stick")
        except OSError as error:
            raise self._failed(name, error) from error
        return path

    def _look(self, name: str) -> None:
        """Raise where the stick is not there any more."""
        try:
            here = self.place.stat().st_dev == self._device
        except OSError:
            here = False
        if not here:
            raise self._lost(name, "it is not there any more")

    def _unreadable(self, name: str, error: OSError) -> LocalError | DamagedError:
        self._look(name)
        return DamagedError(name, f"cannot be read: {error.strerror}")

    def _failed(self, name: str, error: OSError) -> LocalError:
        if error.errno in _NO_ROOM:
            message = (
                f"{self.place} is full; make room or name fewer titles, and repeat the command: "
                "what was whole on it stays"
            )
            return StoreFullError(message, reason="stick_full")
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            message = f"{self.place} cannot be written to: {error.strerror}; unlock the stick or name another"
            return UsageError(message, reason="read_only")
        return self._lost(name, error.strerror or str(error))

    def _lost(self, name: str, why: str) -> LocalError:
        message = (
            f"the stick at {self.place} was pulled out or fails at {name or 'its folder'} ({why}); nothing "
            "is lost: put it back and repeat the command, which goes on from there"
        )
        return LocalError(message, reason="stick_lost")

    def _discard(self, draft: Path) -> None:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk; file systems that have no such thing refuse."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


def _size(size_bytes: int) -> str:
    if size_bytes < 1_000_000_000:  # noqa: PLR2004 - one GB
        return f"{size_bytes / 1e6:.1f} MB"
    return f"{size_bytes / 1e9:.1f} GB"
