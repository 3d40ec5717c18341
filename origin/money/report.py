"""The report directory: everything a month's settlement says, signed, readable and checkable.

Written beside its place and renamed, so a report is whole or not there. The same settlement gives
the same bytes, on any machine and at any time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from ...protocol.errors import LocalError
from ...protocol.identity import Identity
from ...protocol.statement import (
    HEAD,
    INTAKE,
    LEAVES,
    PAGE,
    TICKETS,
    FileHash,
    Head,
    Line,
    Statement,
    pack_lines,
    seal_head,
)
from ...protocol.tables import TABLES
from .page import page


class Report(NamedTuple):
    """A settlement with what binds it to the intake log: leaf hashes of its entries, its tickets."""

    statement: Statement
    lines: Sequence[Line]
    intake: bytes
    tickets: bytes


def report_files(report: Report, settlement: Identity) -> dict[str, bytes]:
    """Return every file of the report directory by name; the head is signed last, over the others."""
    as_of = datetime.fromtimestamp(report.statement.as_of_ms // 1_000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    files = {name: write(report.statement, report.lines) for name, write in TABLES.items()}
    files[LEAVES] = pack_lines(report.lines)
    files[INTAKE] = report.intake
    files[TICKETS] = report.tickets
    files[PAGE] = page(report.statement, report.lines, as_of)
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
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o755)
        for name, data in report_files(report, settlement).items():
            with (draft / name).open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        _sync(draft)
        if target.exists():
            target.rename(old)
        draft.rename(target)
        _sync(folder)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        if old.exists() and not target.exists():
            old.rename(target)
        message = f"the report {target} cannot be written: {error.strerror}"
        raise LocalError(message, reason="report") from error
    shutil.rmtree(old, ignore_errors=True)
    return target


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
