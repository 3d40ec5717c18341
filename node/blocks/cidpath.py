"""Files and folders on disk as UnixFS blocks, the way ``ipfs add --recursive`` makes them."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO, FileIO
from itertools import repeat
from pathlib import Path

from ...protocol.cid import RAW, Bytes, Cid
from ...protocol.errors import LocalError, UsageError
from ...protocol.unixfs import CHUNK_BYTES, Entry, FileWriter, folder

WORKERS = 8
"""Files read at a time: most wait for the disk, which keeps several blocks in one go, the others hash."""
DEPTH_LIMIT = 32

Keep = Callable[[Cid, Bytes], object]
"""Takes every block of a file or folder, good until it returns; called from several threads at once."""
Read = Callable[[Path], bytes]
"""Gives a file's bytes where they are not what lies on the disk; called from several threads at once."""


class _Chunk(threading.local):
    """One chunk for each thread, read into again and again: new memory each time costs an eighth.

    It begins with a page of memory, so that a disk can take it from where it lies.
    """

    def __init__(self) -> None:
        self.view = memoryview(mmap.mmap(-1, CHUNK_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def cid_of(path: Path) -> Cid:
    """Return the CID that IPFS (profile ``unixfs-v1-2025``) gives to a file or folder; nothing is stored.

    Raises:
        UsageError: there is nothing at ``path``.
        LocalError: something in it cannot be read or is neither a file nor a folder.

    """
    return add(path, lambda _cid, _data: None).cid


def add(path: Path, keep: Keep, read: Read | None = None) -> Entry:
    """Turn a file or folder into blocks and hand every one to ``keep``; returns its root entry.

    Names that start with a dot are left out below ``path``, as IPFS does. Files are read in
    several threads, each with one chunk in memory; the result does not depend on their order.
    With ``read``, a file's bytes are what that returns of it, in memory whole.

    Raises:
        UsageError: there is nothing at ``path``.
        LocalError: something in it cannot be read or is neither a file nor a folder.

    """
    if not path.exists():
        raise UsageError(f"{path} does not exist", reason="unreadable")
    chunk = _Chunk()
    if not path.is_dir():
        return _file(path, keep, read, chunk)
    folders = _folders(path, 0)
    files = [file for _, children in folders for file in children if not file.is_dir()]
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="add") as pool:
        try:
            read_in = pool.map(_file, files, repeat(keep), repeat(read), repeat(chunk))
            entries = dict(zip(files, read_in, strict=True))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for place, children in folders:  # the deepest first
        blocks, entries[place] = folder({child.name: entries[child] for child in children})
        for block in blocks:
            keep(*block)
    return entries[path]


def _folders(path: Path, depth: int) -> list[tuple[Path, list[Path]]]:
    """Return the folder and those below it, each with its children, the deepest first."""
    if depth > DEPTH_LIMIT:
        raise LocalError(f"{path} lies more than {DEPTH_LIMIT} folders deep", reason="too_deep")
    try:
        children = sorted(child for child in path.iterdir() if not child.name.startswith("."))
    except OSError as error:
        raise LocalError(f"{path} cannot be read: {error.strerror}", reason="unreadable") from error
    below: list[tuple[Path, list[Path]]] = []
    for child in children:
        if child.is_symlink() or not (child.is_file() or child.is_dir()):
            message = f"{child} is neither a file nor a folder; replace it by what it stands for"
            raise LocalError(message, reason="unreadable")
        if not child.name.isprintable():
            raise LocalError(f"{str(child)!r} has a name that is not printable text", reason="bad_name")
        if child.is_dir():
            below += _folders(child, depth + 1)
    return [*below, (path, children)]


def _file(path: Path, keep: Keep, read: Read | None, chunk: _Chunk) -> Entry:
    writer, view = FileWriter(), chunk.view
    try:
        with BytesIO(read(path)) if read else path.open("rb", buffering=0) as file:
            while size_bytes := _fill(view, file):
                data = view[:size_bytes]
                cid = Cid.of(RAW, data)
                keep(cid, data)
                for block in writer.chunk(cid, size_bytes):
                    keep(*block)
    except OSError as error:
        raise LocalError(f"{path} cannot be read: {error.strerror}", reason="unreadable") from error
    blocks, entry = writer.finish()
    for block in blocks:
        keep(*block)
    return entry


def _fill(view: memoryview, file: BytesIO | FileIO) -> int:
    """Read until ``view`` is full or the file ends; returns how many bytes that were."""
    size_bytes = 0
    while more := file.readinto(view[size_bytes:]):
        size_bytes += more
    return size_bytes
