"""Volumes: the blocks of one title cut into CARs that any IPFS tool reads.

The cut is a function of the title alone, so that an export which is repeated finds its volumes again. A
reader goes on behind a block whose bytes are wrong; where a length is wrong the rest of that volume is
lost, which is why volumes are small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

from ...protocol.car import CID_LIMIT_BYTES, HEADER_LIMIT_BYTES, header, section
from ...protocol.cid import Cid, read_varint, varint
from ...protocol.errors import RemoteError
from ...protocol.stick import MAX_VOLUMES, VOLUME_BYTES
from ...protocol.unixfs import BLOCK_LIMIT_BYTES, Block

_VARINT_BYTES = 9


class Volume(NamedTuple):
    """One CAR of a title: its number from 1, the root it names, its blocks in order, its size in bytes."""

    number: int
    root: Cid
    cids: tuple[Cid, ...]
    size_bytes: int

    @property
    def file(self) -> str:
        """Its name in the title's folder."""
        return f"{self.number:04}.car"


def plan(root: Cid, sizes: Iterable[tuple[Cid, int]], volume_bytes: int = VOLUME_BYTES) -> list[Volume]:
    """Cut blocks, with their sizes in bytes, into volumes of at least one block and about ``volume_bytes``.

    Raises:
        RemoteError: ``too_large`` past ``MAX_VOLUMES``.

    """
    volumes: list[Volume] = []
    start_bytes = len(header([root]))
    cids, size_bytes = list[Cid](), start_bytes
    for cid, block_bytes in sizes:
        length = len(cid.encode_as_read()) + block_bytes
        cost = len(varint(length)) + length
        if cids and size_bytes + cost > volume_bytes:
            volumes.append(Volume(len(volumes) + 1, root, tuple(cids), size_bytes))
            cids, size_bytes = [], start_bytes
        cids.append(cid)
        size_bytes += cost
    if cids:
        volumes.append(Volume(len(volumes) + 1, root, tuple(cids), size_bytes))
    if len(volumes) > MAX_VOLUMES:
        raise RemoteError(f"{root} fills more than {MAX_VOLUMES} volumes", reason="too_large")
    return volumes


def pieces(volume: Volume, load: Callable[[Cid], bytes]) -> Iterator[bytes]:
    """Yield a volume's bytes; ``load`` returns a block and raises where it has gone."""
    yield header([volume.root])
    for cid in volume.cids:
        yield section(cid, load(cid))


def sections(file: BinaryIO, wanted: Callable[[Cid], bool]) -> Iterator[Block]:
    """Yield the blocks of a CAR that are ``wanted``, not yet verified; the others are not even read.

    Raises:
        RemoteError: ``malformed`` or ``truncated``: what comes after cannot be told.
        OSError: the file cannot be read there.

    """
    if (length := _length(file, HEADER_LIMIT_BYTES)) is None:
        raise RemoteError("is empty", reason="truncated")
    _exactly(file, length)
    while (length := _length(file, BLOCK_LIMIT_BYTES + CID_LIMIT_BYTES)) is not None:
        start = file.tell()
        ahead = _exactly(file, min(length, CID_LIMIT_BYTES))
        try:
            cid, used = Cid.read(ahead)
        except RemoteError as error:
            raise RemoteError("has a block without a name", reason="malformed") from error
        if wanted(cid):
            rest = length - len(ahead)
            yield cid, ahead[used:] + (_exactly(file, rest) if rest else b"")
        else:
            file.seek(start + length - 1)
            _exactly(file, 1)  # a cut there is seen too


def is_whole(file: BinaryIO, volume: Volume) -> bool:
    """Say whether a file is the volume, every block of it checked."""
    found: list[Cid] = []
    try:
        for cid, data in sections(file, lambda _: True):
            if not cid.matches(data):
                return False
            found.append(cid)
    except (RemoteError, OSError):
        return False
    return _same(found, volume.cids)


def _same(found: Sequence[Cid], cids: Sequence[Cid]) -> bool:
    return len(found) == len(cids) and all(one == other for one, other in zip(found, cids, strict=True))


def _length(file: BinaryIO, limit_bytes: int) -> int | None:
    """Read the length before a section; None at the end of the file."""
    number = bytearray()
    while len(number) < _VARINT_BYTES:
        byte = file.read(1)
        if not byte:
            if number:
                raise RemoteError("ends in the middle", reason="truncated")
            return None
        number += byte
        if byte[0] < 0x80:  # noqa: PLR2004 - the last byte of a varint has no top bit
            break
    try:
        length, _ = read_varint(bytes(number), 0)
    except RemoteError as error:
        raise RemoteError("has a length that is none", reason="malformed") from error
    if not 0 < length <= limit_bytes:
        raise RemoteError(f"has a section of {length} bytes", reason="malformed")
    return length


def _exactly(file: BinaryIO, size_bytes: int) -> bytes:
    data = file.read(size_bytes)
    if len(data) < size_bytes:
        raise RemoteError("ends in the middle", reason="truncated")
    return data
