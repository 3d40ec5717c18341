r"""The journal: symbols that fell from the sky, kept on disk until their generation is whole.

One file a generation and sender, appended to as symbols come, so that neither a restart nor a carousel
that comes round once a day costs what was already heard. Nothing is promised for these bytes and each
is checked when it is read, so they are handed to the system and not waited for.

    file    = magic "FSJ\x01" | u16 length, sender | u16 length, signed descriptor | u32 CRC-32 of all before
    record  = FEC id 4 | symbol | u32 CRC-32 of both; a record that is cut or wrong ends the file
"""

from __future__ import annotations

import contextlib
import struct
from collections import OrderedDict
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, NamedTuple
from zlib import crc32

from ..protocol.errors import LocalError, RemoteError
from ..protocol.generation import FEC_ID_BYTES, GenerationDescriptor, read_descriptor

OPEN_FILES = 8
READ_RECORDS = 256
_MAGIC = b"FSJ\x01"
_SHORT = struct.Struct(">H")
_CRC = struct.Struct(">I")
_SUFFIX = ".symbols"


class Stored(NamedTuple):
    """What one file holds: the symbols' ids, in the order they came."""

    number: int
    sender: str
    envelope: bytes
    ids: list[int]


class Journal:
    """Symbols in ``folder``, one thread at a time; how many are kept is its user's to decide."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: OrderedDict[tuple[int, str], BinaryIO] = OrderedDict()
        self._starts: dict[tuple[int, str], tuple[int, int]] = {}

    def load(self) -> list[Stored]:
        """Return what an earlier run left, oldest first; torn tails are cut, files of no use removed.

        Raises:
            LocalError: ``journal`` where the folder cannot be used.

        """
        found: list[Stored] = []
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            for path in sorted(self._folder.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime_ns):
                stored = self._recover(path)
                if stored is None:
                    path.unlink()
                else:
                    found.append(stored)
        except OSError as error:
            raise self._trouble(error) from error
        return found

    def open(self, number: int, sender: str, envelope: bytes) -> None:
        """Begin a generation's symbols from one sender; raises ``LocalError``."""
        head = _MAGIC + b"".join(_SHORT.pack(len(part)) + part for part in (sender.encode(), envelope))
        head += _CRC.pack(crc32(head))
        key = (number, sender)
        self.drop(number, sender)
        path = self._path(number, sender)
        try:
            path.touch(mode=0o600)  # what a house hears is its own affair
            file = path.open("w+b", buffering=64 << 10)
            file.write(head)
        except OSError as error:
            raise self._trouble(error) from error
        self._starts[key] = (len(head), _record_bytes(read_descriptor(envelope)))
        self._keep_open(key, file)

    def add(self, number: int, sender: str, symbol: bytes) -> None:
        """Append one symbol, FEC id first; raises ``LocalError`` where the disk does not take it."""
        try:
            file = self._file((number, sender))
            file.write(symbol)
            file.write(_CRC.pack(crc32(symbol)))
        except OSError as error:
            raise self._trouble(error) from error

    def read(self, number: int, sender: str) -> Iterator[bytes]:
        """Give back the symbols of one sender, in the order they came."""
        key = (number, sender)
        start, size = self._starts[key]
        try:
            self._file(key).flush()
            with self._path(number, sender).open("rb") as file:
                file.seek(start)
                while batch := file.read(size * READ_RECORDS):
                    for at in range(0, len(batch) - size + 1, size):
                        yield batch[at : at + size - _CRC.size]
        except OSError as error:
            raise self._trouble(error) from error

    def drop(self, number: int, sender: str) -> None:
        """Forget one sender's symbols of a generation."""
        key = (number, sender)
        file = self._open.pop(key, None)
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()
        self._starts.pop(key, None)
        with contextlib.suppress(OSError):
            self._path(number, sender).unlink(missing_ok=True)

    def flush(self) -> None:
        """Hand everything to the system, so that our end loses nothing; raises ``LocalError``."""
        try:
            for file in self._open.values():
                file.flush()
        except OSError as error:
            raise self._trouble(error) from error

    def close(self) -> None:
        """Flush and close; what is there is found again by ``load``."""
        for file in self._open.values():
            with contextlib.suppress(OSError):
                file.close()
        self._open.clear()

    def _recover(self, path: Path) -> Stored | None:
        """Read a file's head and its records up to the first that is not whole."""
        with path.open("r+b", buffering=64 << 10) as file:
            head = _read_head(file)
            if head is None:
                return None
            sender, envelope, start = head
            try:
                descriptor = read_descriptor(envelope)
            except RemoteError:
                return None
            if self._path(descriptor.number, sender) != path:
                return None
            size = _record_bytes(descriptor)
            ids: list[int] = []
            while len(record := file.read(size)) == size:
                (crc,) = _CRC.unpack_from(record, size - _CRC.size)
                if crc != crc32(record[: -_CRC.size]) or record[0]:
                    break
                ids.append(int.from_bytes(record[1:FEC_ID_BYTES], "big"))
            file.truncate(start + len(ids) * size)
        self._starts[descriptor.number, sender] = (start, size)
        return Stored(descriptor.number, sender, envelope, ids)

    def _file(self, key: tuple[int, str]) -> BinaryIO:
        file = self._open.get(key)
        if file is None:
            file = self._path(*key).open("r+b", buffering=64 << 10)
            file.seek(0, 2)
            self._keep_open(key, file)
        self._open.move_to_end(key)
        return file

    def _keep_open(self, key: tuple[int, str], file: BinaryIO) -> None:
        self._open[key] = file
        if len(self._open) > OPEN_FILES:
            self._open.popitem(last=False)[1].close()

    def _path(self, number: int, sender: str) -> Path:
        return self._folder / f"{number:016x}-{sha256(sender.encode()).hexdigest()[:16]}{_SUFFIX}"

    def _trouble(self, error: OSError) -> LocalError:
        message = f"{self._folder}: {error.strerror or error}; symbols heard now do not survive a restart"
        return LocalError(message, reason="journal")


def _record_bytes(descriptor: GenerationDescriptor) -> int:
    return FEC_ID_BYTES + descriptor.symbol_bytes + _CRC.size


def _read_head(file: BinaryIO) -> tuple[str, bytes, int] | None:
    """Return sender, envelope and where the records begin; None where the head is not whole."""
    head = file.read(len(_MAGIC))
    parts: list[bytes] = []
    for _ in range(2):
        length = file.read(_SHORT.size)
        part = file.read(_SHORT.unpack(length)[0]) if len(length) == _SHORT.size else b""
        head += length + part
        parts.append(part)
    crc = file.read(_CRC.size)
    if not head.startswith(_MAGIC) or crc != _CRC.pack(crc32(head)):
        return None
    try:
        return parts[0].decode(), parts[1], len(head) + len(crc)
    except UnicodeDecodeError:
        return None
