"""The home of a box: one folder, one owner at a time, one key.

``identity.key`` is written last, so a home either has it and is whole, or is no home yet.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from ..protocol.errors import LocalError, StoreFullError, UsageError
from ..protocol.identity import KEY_BYTES, Identity

Role = Literal["node", "relay", "origin"]

KEY_FILE = "identity.key"
ROLE_FILE = "role"
LOCK_FILE = "lock"
_BIRTH: Mapping[Role, str] = {
    "node": "farcast join LINK",
    "relay": "farcast relay join LINK",
    "origin": "farcast origin init",
}
_RUN: Mapping[Role, str] = {
    "node": "farcast run",
    "relay": "farcast relay run",
    "origin": "farcast origin run",
}
_PID_LIMIT_BYTES = 20


def default_home(role: Role, environ: Mapping[str, str]) -> Path:
    """Return the home used where none is named: FARCAST_HOME, else ``$XDG_DATA_HOME/farcast/<role>``."""
    if named := environ.get("FARCAST_HOME"):
        return Path(named)
    data = environ.get("XDG_DATA_HOME")
    base = Path(data) if data else Path(environ.get("HOME", "~")).expanduser() / ".local" / "share"
    return base / "farcast" / role


class HomeLock:
    """The right to use a home, held by one process; the system frees it when the process ends."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._fd = -1

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            UsageError: ``home_in_use`` while another process has it.

        """
        fd = os.open(self._home / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(fd, _PID_LIMIT_BYTES, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            message = (
                f"the home {self._home} is in use by process {pid}; stop it first or name another --home"
            )
            raise UsageError(message, reason="home_in_use") from None
        self._fd = fd
        with suppress(OSError):  # who holds it is only told to people; a full disk must not stop a box
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give the lock back; harmless where it is not held."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Birthplace:
    """A folder in which a box is being made: locked, and as it was before if the birth fails.

    Used as ``with Birthplace(path) as place``; after a birth that succeeded ``lock`` is still held.
    """

    def __init__(self, path: Path) -> None:
        """Make the folder where it is missing, and lock it.

        Raises:
            UsageError: where it is a file, cannot be made, or another process is at work in it.

        """
        if path.exists() and not path.is_dir():
            raise not_a_folder(path)
        self._path = path
        self._missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        self.lock = HomeLock(path)
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            held = {entry.name for entry in path.iterdir()}
            if not held:
                path.chmod(0o700)
            self.lock.acquire()
        except OSError as error:
            self._remove_folders()
            raise _cannot_be_made(path, error) from error
        # looked at again under the lock: another birth may just have succeeded here
        self._held = {entry.name for entry in path.iterdir()} - ({LOCK_FILE} - held)

    def restore(self) -> None:
        """Remove what was not there before; what was there is never touched."""
        for entry in self._path.iterdir():
            if entry.name in self._held:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                with suppress(OSError):
                    entry.unlink()
        self._remove_folders()

    def _remove_folders(self) -> None:
        for folder in self._missing:  # the innermost comes first
            with suppress(OSError):
                folder.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            return
        self.restore()
        self.lock.release()
        if isinstance(error, OSError):
            raise _cannot_be_made(self._path, error) from error


class Home:
    """An opened home: its folder, its role and its key, locked until ``close``."""

    def __init__(
        self,
        path: Path,
        role: Role,
        identity: Identity,
        lock: HomeLock,
        birthplace: Birthplace | None = None,
    ) -> None:
        self.path = path
        self.role: Role = role
        self.identity = identity
        self._lock = lock
        self._birthplace = birthplace

    @classmethod
    def create(cls, path: Path, role: Role, *, seed: bytes | None = None) -> Home:
        """Make a home for ``role`` with a fresh key (or the given 32-byte ``seed``) and open it.

        Raises:
            UsageError: where there is a home already, or the folder cannot be made.
            StoreFullError: the disk is full.

        """
        with Birthplace(path) as place:
            check_unborn(path)
            write_whole(path / ROLE_FILE, f"{role}\n".encode())
            write_whole(path / KEY_FILE, seed if seed is not None else secrets.token_bytes(KEY_BYTES))
            return cls(path, role, read_identity(path), place.lock, place)

    @classmethod
    def open(cls, path: Path, role: Role) -> Home:
        """Open and lock the home at ``path``.

        Raises:
            UsageError: no home there, another role's, in use, or its key is readable by others.
            LocalError: the folder cannot be written to.

        """
        if not (path / KEY_FILE).exists():
            raise no_home(path, role)
        found = _read_role(path)
        if found != role:
            message = f"{path} is the home of {_a(found)}, not of {_a(role)}; name another --home"
            raise UsageError(message, reason="wrong_role")
        identity = read_identity(path)
        lock = HomeLock(path)
        try:
            lock.acquire()
        except OSError as error:
            message = (
                f"the home {path} cannot be written to: {error.strerror}; mend that or name another --home"
            )
            raise LocalError(message, reason="no_home") from error
        return cls(path, role, identity, lock)

    def folder(self, name: str) -> Path:
        """Return the sub-folder ``name``, made with mode 700 where it is missing."""
        folder = self.path / name
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def unmake(self) -> None:
        """Undo ``create``: the folder is again what it was; a home that was only opened stays."""
        if self._birthplace is not None:
            self._birthplace.restore()

    def close(self) -> None:
        """Let others open the home."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_identity(path: Path) -> Identity:
    """Read the key of the home at ``path``, locked or not.

    Raises:
        UsageError: ``bad_key_file`` where it is missing, no key, or readable by others.

    """
    key = path / KEY_FILE
    try:
        with key.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            seed = file.read(KEY_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{key} cannot be read: {error.strerror}", reason="bad_key_file") from error
    if mode & 0o077:
        message = f"{key} can be read by others (mode {mode:o}); run `chmod 600 {key}`"
        raise UsageError(message, reason="bad_key_file")
    if len(seed) != KEY_BYTES:
        message = f"{key} is no key of {KEY_BYTES} bytes; bring it back from a backup"
        raise UsageError(message, reason="bad_key_file")
    return Identity(seed)


def write_whole(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace the file at ``path`` durably: it holds the old bytes or the new ones, never a part."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(fd, mode)
            os.fsync(fd)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read_role(path: Path) -> str:
    try:
        return (path / ROLE_FILE).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return "box of unknown role"


def check_unborn(path: Path) -> None:
    """Raise ``UsageError`` where a box lives in ``path`` already."""
    if not (path / KEY_FILE).exists():
        return
    role = _read_role(path)
    run = next((command for known, command in _RUN.items() if known == role), "farcast status")
    message = f"{path} is the home of {_a(role)} already; start it with `{run}` or name another --home"
    raise UsageError(message, reason="home_exists")


def no_home(path: Path, role: Role) -> UsageError:
    """Return the error of a command that needs a home of ``role`` where there is none."""
    message = f"there is no {role} at {path}; make one with `{_BIRTH[role]}` or name another --home"
    return UsageError(message, reason="no_home")


def not_running(path: Path, role: Role) -> UsageError:
    """Return the error of a command that needs the box in ``path`` to run."""
    if not (path / KEY_FILE).exists():
        return no_home(path, role)
    return UsageError(f"no box is running in {path}; start it with `{_RUN[role]}`", reason="not_running")


def not_a_folder(path: Path) -> UsageError:
    """Return the error of a home that is a file."""
    return UsageError(f"{path} is a file, but a home is a folder; name another --home", reason="no_home")


def _cannot_be_made(path: Path, error: OSError) -> LocalError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFullError(
            f"the home {path} cannot be made: the disk is full; make room", reason="disk_full"
        )
    return UsageError(
        f"the home {path} cannot be made: {error.strerror}; name another --home", reason="no_home"
    )


def _a(role: str) -> str:
    return f"an {role}" if role == "origin" else f"a {role}"
