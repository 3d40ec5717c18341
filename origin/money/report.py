"""The report directory: everything a month's settlement says, signed, readable and checkable.

Written beside its place and renamed, so a report is whole or not there; file by file and piece by
piece, so a million payees need no more memory than their lines. The same settlement gives the same
bytes, on any machine and at any time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from ...protocol.codec import encode
from ...protocol.errors import LocalError
from ...protocol.identity import Identity
from ...protocol.leaves import leaves_of
from ...protocol.merkle import EMPTY_ROOT, HASH_BYTES, Tree
from ...protocol.note import Checkpoint, seal
from ...protocol.statement import (
    CHECKPOINT,
    CONSISTENCY,
    HEAD,
    INTAKE,
    LEAVES,
    PAGE,
    TICKETS,
    Consistency,
    FileHash,
    Head,
    Line,
    Statement,
    log_name,
    pack_lines,
    seal_head,
)
from ...protocol.tables import TABLES
from .page import page

_PIECE_LINES = 4_096


class Report(NamedTuple):
    """A settlement with what binds it to the intake log: leaf hashes of its entries, its tickets.

    ``before`` is the statement of the month settled before, if there is one.
    """

    statement: Statement
    lines: Sequence[Line]
    intake: bytes
    tickets: bytes
    before: Statement | None = None


def report_files(report: Report, settlement: Identity) -> dict[str, bytes]:
    """Return every file of the report directory by name; the head is signed last, over the others."""
    files = {name: b"".join(pieces) for name, pieces in _pieces(report, settlement).items()}
    hashes = [FileHash(name, len(data), sha256(data).digest()) for name, data in sorted(files.items())]
    files[HEAD] = seal_head(Head(1, report.statement, hashes), settlement)
    return files


def write_report(folder: Path, report: Report, settlement: Identity) -> Path:
    """Write the report as ``folder/<month>`` and return that path; a report that differs is replaced.

    Raises:
        LocalError: ``report`` where the disk does not take it; what was there before stays.

    """
    target = folder / report.statement.month
    draft = folder / f".{report.statement.month}.{os.getpid()}.new"
    old = folder / f".{report.statement.month}.{os.getpid()}.old"
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        _clear(folder, report.statement.month, target)
        draft.mkdir(mode=0o755)
        hashes = [_write(draft / name, pieces) for name, pieces in _pieces(report, settlement).items()]
        hashes.sort(key=lambda item: item.name)
        _write(draft / HEAD, [seal_head(Head(1, report.statement, hashes), settlement)])
        _sync(draft)
        if target.exists():
            target.rename(old)
        draft.rename(target)
        _sync(folder)
    except OSError as error:
        _clear(folder, report.statement.month, target)
        message = f"the report {target} cannot be written: {error.strerror}"
        raise LocalError(message, reason="report") from error
    _clear(folder, report.statement.month, target)
    return target


def _clear(folder: Path, month: str, target: Path) -> None:
    """Take away what is beside this month's report, a killed process's too; one moved aside comes back."""
    for left in sorted(folder.glob(f".{month}.*")):
        if left.suffix == ".old" and not target.exists():
            left.rename(target)
        else:
            shutil.rmtree(left, ignore_errors=True)


def _pieces(report: Report, settlement: Identity) -> Mapping[str, Iterable[bytes]]:
    """Return every file but the head, each in pieces."""
    s, lines = report.statement, leaves_of(report.lines)
    as_of = datetime.fromtimestamp(s.as_of_ms // 1_000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    name = log_name(settlement.key)
    return {
        **{name: map(str.encode, write(s, lines)) for name, write in TABLES.items()},
        LEAVES: _packed(lines),
        INTAKE: [report.intake],
        TICKETS: [report.tickets],
        CHECKPOINT: [seal(Checkpoint(name, s.log_size, s.log_root, s.as_of_ms), name, settlement)],
        CONSISTENCY: [encode(_consistency(report))],
        PAGE: [page(s, lines, as_of)],
    }


def _packed(lines: Iterable[Line]) -> Iterator[bytes]:
    waiting = iter(lines)
    while piece := list(islice(waiting, _PIECE_LINES)):
        yield pack_lines(piece)


def _consistency(report: Report) -> Consistency:
    before, intake = report.before, report.intake
    if before is None:
        return Consistency(1, "", 0, EMPTY_ROOT, [])
    tree = Tree(intake[start : start + HASH_BYTES] for start in range(0, len(intake), HASH_BYTES))
    return Consistency(
        1, before.month, before.log_size, before.log_root, tree.consistency_proof(before.log_size)
    )


def _write(path: Path, pieces: Iterable[bytes]) -> FileHash:
    """Write one file durably and return what the head says of it."""
    digest, size = sha256(), 0
    with path.open("xb") as file:
        for piece in pieces:
            file.write(piece)
            digest.update(piece)
            size += len(piece)
        file.flush()
        os.fsync(file.fileno())
    return FileHash(path.name, size, digest.digest())


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
