"""Columns: the intake log as Parquet, so that a month of many million pulses is settled in seconds.

Derived and rebuildable: parts are written for hours that the log has left, merged by day, and made
again where they are missing or belong to another log. Losing the folder costs time only.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, groupby, islice
from pathlib import Path

from ...protocol.errors import LocalError
from ...protocol.ticket import TicketOffice
from .evidence import Manifests
from .part import Part, merge_parts, read_part, write_part
from .rows import Names
from .segments import Entry, last_segment, read_entries, read_entry

COLUMNS = "columns"
MAX_PARTS = 32
"""Parts of the day that goes on; more of them become one."""
_SPILL = "spill"
_LOCK = "columns.lock"
"""Beside the folder: which process writes or reads the parts."""
WAIT_S = 600.0
LOOK_S = 0.05


class Columns:
    """The columns beside the intake log of ``segments``, in ``folder``; every method blocks.

    ``known`` finds a title's manifest by the digest of its block.
    """

    def __init__(self, segments: Path, folder: Path, office: TicketOffice, known: Manifests) -> None:
        self._segments = segments
        self._folder = folder
        self._office = office
        self._known = known
        self._lock = threading.RLock()
        self._depth = 0

    @property
    def segments(self) -> Path:
        """The folder of the log they are made of."""
        return self._segments

    @property
    def folder(self) -> Path:
        """Where the parts lie."""
        return self._folder

    @property
    def office(self) -> TicketOffice:
        """Who recognises the tickets' holders."""
        return self._office

    def catch_up(self) -> int:
        """Write the hours the log has left, and merge the days it has left; returns the entries covered.

        Raises:
            LocalError: where log or disk fail.

        """
        with self._alone():
            parts = self._parts()
            newest = last_segment(self._segments)
            entries = read_entries(self._segments, self._last(parts))
            for key, group in groupby(entries, key=lambda entry: _span(entry, newest)):
                if key == newest:
                    break
                parts.append(self._write(parts, group))
            for date, of_date in groupby(parts, key=lambda part: part.date):
                several = list(of_date)
                if len(several) > (1 if date < newest[:10] else MAX_PARTS):
                    merge_parts(self._folder, several)
            return parts[-1].head.end if parts else 0

    @contextmanager
    def whole(self) -> Generator[list[Part]]:
        """Yield parts that cover the whole log as it is now; nothing else touches them meanwhile.

        What is not in columns yet is read from the log into one more part.

        Raises:
            LocalError: where log or disk fail.

        """
        with self._alone():
            self.catch_up()
            parts = self._parts()
            tail = list(islice(entries := read_entries(self._segments, self._last(parts)), 1))
            if tail or not parts:
                parts.append(self._write(parts, chain(tail, entries)))
            yield parts

    @contextmanager
    def _alone(self) -> Generator[None]:
        """Let one thread of one process at a time touch the parts.

        Raises:
            LocalError: ``columns`` where another process does for ten minutes.

        """
        with self._lock:
            self._depth += 1
            try:
                if self._depth > 1:
                    yield
                    return
                with _locked(self._folder.with_name(_LOCK)):
                    yield
            finally:
                self._depth -= 1

    def _write(self, parts: Sequence[Part], entries: Iterable[Entry]) -> Part:
        titles = (bytes.fromhex(name) for part in parts for name in part.head.new_titles)
        relays = (bytes.fromhex(name) for part in parts for name in part.head.new_relays)
        names = Names(titles, relays, self._known)
        return write_part(self._folder, parts, entries, self._office, names)

    def _parts(self) -> list[Part]:
        """Return the parts that follow one another from the log's beginning; what is none of them goes."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            message = f"the columns cannot be written to {self._folder}: {error.strerror}"
            raise LocalError(message, reason="columns") from error
        found = [part for folder in self._folder.iterdir() if (part := read_part(folder)) is not None]
        kept: list[Part] = []
        for part in sorted(found, key=lambda part: (part.head.first, -part.head.end)):
            if part.head.first == (kept[-1].head.end if kept else 0):
                kept.append(part)
        while kept and kept[-1].head.end and self._last(kept) is None:
            kept.pop()  # of a log that was replaced since
        folders = {part.folder for part in kept}
        for folder in self._folder.iterdir():
            if folder not in folders and folder.name != _SPILL:
                with suppress(OSError):
                    shutil.rmtree(folder)
        return kept

    def _last(self, parts: Sequence[Part]) -> Entry | None:
        """Return the entry the parts end with, where it is still what it was."""
        if not parts or not parts[-1].head.end:
            return None
        entry = read_entry(self._segments, parts[-1].place)
        return entry if entry is not None and entry.chain.hex() == parts[-1].head.chain else None


def _span(entry: Entry, newest: str) -> str:
    """Return what of the log goes into one part: a whole day that is over, or an hour of the last one."""
    segment = entry.place.segment
    return segment[:10] if segment[:10] < newest[:10] else segment


@contextmanager
def _locked(path: Path) -> Generator[None]:
    """Hold the lock of a file over all processes; the system frees it when one dies."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LocalError(f"{path} cannot be opened: {error.strerror}", reason="columns") from error
    try:
        end = time.monotonic() + WAIT_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    message = f"another process uses the columns beside {path}; try again when it is done"
                    raise LocalError(message, reason="columns") from None
                time.sleep(LOOK_S)
        yield
    finally:
        os.close(fd)
