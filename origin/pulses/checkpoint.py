"""The checkpoint: the state of admission at one end of the intake log, so that a start reads only the rest.

Derived and never needed: where it is missing, of another version, or of segment files that are no
longer as they were (name, size, time of change), the whole log is read again, and checked again.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from zlib import crc32

import msgspec

from .dossier import Dossier
from .segments import Place, Resume

VERSION = 3
FILE = "checkpoint"


class State(msgspec.Struct, array_like=True):
    """What the intake knows after an entry: dossiers by ticket, open sessions, counts, charges."""

    at_ms: int
    known: dict[bytes, Dossier]
    open: dict[bytes, int]
    charged: dict[bytes, int]
    accepted: dict[str, int]
    rejected: dict[str, int]
    duplicate: int
    condemned: list[bytes]


class Checkpoint(msgspec.Struct, array_like=True):
    """A state, the end of the log it belongs to, and the segment files up to there as they were."""

    version: int
    files: list[tuple[str, int, int]]
    end: Place
    chain: bytes
    leaves: bytes
    state: State


def save(folder: Path, segments: Path, resume: Resume, state: State) -> None:
    """Write the checkpoint; where the disk has no room there is none. Raises nothing of the disk."""
    found = Checkpoint(VERSION, _files(segments), resume.end, resume.chain, b"".join(resume.leaves), state)
    data = msgspec.msgpack.encode(found)
    path = folder / FILE
    part = path.with_suffix(".part")
    with contextlib.suppress(OSError):
        try:
            with part.open("wb") as file:
                file.write(crc32(data).to_bytes(4, "big") + data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise


def load(folder: Path, segments: Path) -> tuple[Resume, State] | None:
    """Read the checkpoint; None where there is none that fits the segment files."""
    try:
        data = (folder / FILE).read_bytes()
        if crc32(data[4:]).to_bytes(4, "big") != data[:4]:
            return None
        found = msgspec.msgpack.decode(data[4:], type=Checkpoint)
    except (OSError, msgspec.MsgspecError):
        return None
    if found.version != VERSION or not _fits(found, _files(segments)):
        return None
    leaves = [found.leaves[at : at + 32] for at in range(0, len(found.leaves), 32)]
    return Resume(leaves, found.end, found.chain), found.state


def _fits(found: Checkpoint, files: list[tuple[str, int, int]]) -> bool:
    """Say whether all files before the last are as they were, and that one is no shorter."""
    if not found.files:
        return not files
    *before, (name, size, _) = found.files
    rest = files[len(before) :]
    return (
        files[: len(before)] == before
        and bool(rest)
        and (found.files[-1] == rest[0] or (rest[0][0] == name and rest[0][1] > size))
        and found.end == Place(name, size)
    )


def _files(segments: Path) -> list[tuple[str, int, int]]:
    found: list[tuple[str, int, int]] = []
    for path in sorted(segments.glob("*.seg")):
        stat = path.stat()
        found.append((path.name, stat.st_size, stat.st_mtime_ns))
    return found
