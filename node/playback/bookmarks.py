"""Bookmarks: where each title was left, on this box only, in one file that can be emptied.

Nothing here ever leaves the box: pulses are made elsewhere and of other facts.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import msgspec

from ...protocol.errors import LocalError, StoreFullError
from ..home import write_whole

log = logging.getLogger(__name__)

BOOKMARKS_KEPT = 200
EDGE_MS = 60_000
EDGE_PERCENT = 5
"""So near to either end, a minute or a twentieth, there is nothing to go on with."""
FILE_LIMIT_BYTES = 256 << 10


class Bookmark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a title was left: place and length in media ms, and when, in ms since 1970."""

    title: str
    position_ms: int
    duration_ms: int
    at_ms: int


class Bookmarks:
    """The places of at most 200 titles; every method blocks on the disk and is thread-safe."""

    def __init__(self, path: Path) -> None:
        """Keep them in the file ``path``, mode 600; one that cannot be read begins anew."""
        self._path = path
        self._lock = threading.Lock()
        self._marks = {mark.title: mark for mark in _read(path)}

    def note(self, mark: Bookmark) -> None:
        """Remember a place; one at an edge of the film forgets the title.

        Raises:
            LocalError: the file cannot be written; the place holds until this box stops.

        """
        edge_ms = min(EDGE_MS, mark.duration_ms * EDGE_PERCENT // 100)
        with self._lock:
            known = self._marks.pop(mark.title, None)
            if edge_ms < mark.position_ms < mark.duration_ms - edge_ms:
                self._marks[mark.title] = mark
            elif known is None:
                return
            while len(self._marks) > BOOKMARKS_KEPT:
                del self._marks[next(iter(self._marks))]
            self._write()

    def place(self, title: str) -> Bookmark | None:
        """Return where a title was left."""
        with self._lock:
            return self._marks.get(title)

    def newest(self) -> list[Bookmark]:
        """Return all of them, the newest first."""
        with self._lock:
            return [*reversed(self._marks.values())]

    def forget(self, title: str) -> None:
        """Forget one title; raises as ``note``."""
        with self._lock:
            if self._marks.pop(title, None) is not None:
                self._write()

    def clear(self) -> None:
        """Forget all, file included; raises ``LocalError`` where it cannot be removed."""
        with self._lock:
            self._marks.clear()
            try:
                self._path.unlink(missing_ok=True)
            except OSError as error:
                raise LocalError(f"{self._path} cannot be removed: {error.strerror}") from error

    def _write(self) -> None:
        try:
            write_whole(self._path, msgspec.json.encode([*self._marks.values()]))
        except OSError as error:
            message = f"{self._path} cannot be written: {error.strerror}; make room on that disk"
            raise StoreFullError(message, reason="disk_full") from error


def _read(path: Path) -> list[Bookmark]:
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(FILE_LIMIT_BYTES), type=list[Bookmark])[-BOOKMARKS_KEPT:]
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError) as error:
        log.warning("%s cannot be read (%s): continue watching begins anew", path, error)
        return []
