"""CARs that an operator imported: whole verified blocks, kept from eviction under a label.

The blocks of label L are pinned as ``car/L``; once all of them are durable its roots are pinned as
``root/L``, which is what makes it an import. An import that broke off leaves whole blocks: doing it
again goes on where it was, because a block that is here is not written twice.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..node.blocks.store import DiskStore
from ..node.report import Report, quiet
from ..protocol.car import Reader
from ..protocol.cid import Cid
from ..protocol.errors import LocalError, RemoteError, StoreFullError, UsageError
from ..protocol.unixfs import Block

READ_BYTES = 4 << 20
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_BLOCKS, _ROOTS = "car/", "root/"
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")


class Imported(NamedTuple):
    """What one import did; ``new_blocks`` and ``new_bytes`` were not here before."""

    label: str
    roots: tuple[Cid, ...]
    blocks: int
    bytes: int
    new_blocks: int
    new_bytes: int

    def facts(self) -> dict[str, object]:
        """Return it as JSON shows it."""
        return {**self._asdict(), "roots": [str(root) for root in self.roots]}


class Imports:
    """The imports of one store; ``add`` is blocking, one at a time, and may be told to stop."""

    def __init__(self, store: DiskStore) -> None:
        self._store = store
        self._stopped = threading.Event()
        self._roots = {
            label.removeprefix(_ROOTS): tuple(cids)
            for label, cids in store.pinned().items()
            if label.startswith(_ROOTS)
        }

    @property
    def roots(self) -> list[Cid]:
        """Every root that was imported, once."""
        return [*dict.fromkeys(root for roots in self._roots.values() for root in roots)]

    def labels(self) -> list[str]:
        """Return the labels of what was imported, in order."""
        return sorted(self._roots)

    def stop(self) -> None:
        """Have an import under way end at its next block."""
        self._stopped.set()

    def add(self, path: Path, label: str, report: Report = quiet) -> Imported:
        """Bring every block of the CAR at ``path`` into the store and keep it.

        Raises:
            UsageError: no such file, or a label that is no name or names something else.
            RemoteError: the CAR is damaged or cut short; the whole blocks before that stay.
            StoreFullError: the quota or the disk has no room for all of it.

        """
        if not LABEL.fullmatch(label):
            raise UsageError("a label is letters, digits, dots and dashes, at most 64", reason="bad_label")
        known = f"{_BLOCKS}{label}" in self._store.pinned()
        try:
            done = self._read(path, label, report)
        except BaseException:
            if not known:  # what came stays as long as there is room, but nothing keeps it
                self._store.unpin(f"{_BLOCKS}{label}")
            raise
        self._store.sync()
        self._store.pin(f"{_ROOTS}{label}", done.roots)
        self._roots[label] = done.roots
        return done

    def _read(self, path: Path, label: str, report: Report) -> Imported:
        reader, count, new = Reader(), [0, 0], [0, 0]
        try:
            for data, done, total in _pieces(path):
                if total > self._store.quota_bytes:
                    message = (
                        f"{path} has {total} bytes, more than the quota of {self._store.quota_bytes}; "
                        "raise [store] quota_bytes"
                    )
                    raise StoreFullError(message)
                blocks = [block for block in reader.push(data) if not block[0].is_identity]
                self._check_label(label, reader.roots)
                self._keep(label, blocks, count, new)
                report("importing", done, total)
            reader.finish()
        except RemoteError as error:
            message = (
                f"{path} is damaged after {count[0]} whole blocks: {error}; fetch it anew and repeat this"
            )
            raise RemoteError(message, reason=error.reason) from error
        roots = tuple(dict.fromkeys(reader.roots or ()))
        return Imported(label, roots, count[0], count[1], new[0], new[1])

    def _check_label(self, label: str, roots: Sequence[Cid] | None) -> None:
        held = self._roots.get(label)
        if held is not None and roots is not None and {*held} != {*roots}:
            message = f"the label {label} is of another import already; name another with --label"
            raise UsageError(message, reason="label_taken")

    def _keep(self, label: str, blocks: Sequence[Block], count: list[int], new: list[int]) -> None:
        if blocks:  # pinned first, so that the import does not push itself out
            self._store.pin(f"{_BLOCKS}{label}", [cid for cid, _ in blocks])
        for cid, data in blocks:
            if self._stopped.is_set():
                raise LocalError("the import was stopped; repeat it to go on", reason="stopped")
            fresh = self._store.put(cid, data, hashed=True)  # the reader has compared the hash
            for sums in (count, new)[: 1 + fresh]:
                sums[0] += 1
                sums[1] += len(data)


def _pieces(path: Path) -> Iterator[tuple[bytes, int, int]]:
    """Yield the file in pieces, with how many bytes have come and how many there are."""
    try:
        with path.open("rb", buffering=0) as file:
            total = path.stat().st_size
            while data := file.read(READ_BYTES):
                yield data, file.tell(), total
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", reason="unreadable") from error


def label_of(path: Path) -> str:
    """Return the label a CAR gets where none is named: its file's name, as far as a label may have it."""
    return _UNFIT.sub("-", path.name.removesuffix(".car")).strip("-._")[:64] or "car"
