"""Sharded (HAMT) directories: where a name lies, and the blocks of one (UnixFS specification).

The position is read from murmur3-x64-64 of the name, most significant bits first, as many bits a
level as the fanout has; a link is named by its position in upper-case hex, and an entry's link by
the position and then the entry's name. A name lies in the outermost shard in which no other name
has its position, so that the blocks do not depend on the order in which names were added.
"""

from __future__ import annotations

from collections.abc import Iterable

from .cid import DAG_PB, Cid, varint
from .dagpb import Link, encode
from .errors import LocalError, RemoteError

MURMUR3_X64_64 = 0x22
FANOUT = 256
"""What Kubo and the profile ``unixfs-v1-2025`` write."""
FANOUT_LIMIT = 1_024
HASH_BITS = 64

_MASK = 2**64 - 1
_C1, _C2 = 0x87C37B91114253D5, 0x4CF5AD432745937F
_MIX1, _MIX2 = 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53
_LANE_BYTES, _BLOCK_BYTES = 8, 16


def prefixes(name: str, fanout: int) -> list[str]:
    """Return the link prefixes that lead to ``name``, outermost first.

    Raises:
        RemoteError: ``malformed`` where the fanout is no power of two from 8 to 1,024.

    """
    bits = fanout.bit_length() - 1
    if not 8 <= fanout <= FANOUT_LIMIT or fanout != 1 << bits:  # noqa: PLR2004 - the least Kubo takes
        raise RemoteError(f"a sharded directory of fanout {fanout}", reason="malformed")
    width = prefix_chars(fanout)
    hashed = murmur3(name.encode())
    return [
        f"{hashed >> (HASH_BITS - bits * level) & fanout - 1:0{width}X}"
        for level in range(1, HASH_BITS // bits + 1)
    ]


def write(entries: Iterable[Link], fanout: int = FANOUT) -> list[tuple[Cid, bytes, int]]:
    """Return the shards that hold ``entries``: CID, block and cumulative size each, the root last.

    Raises:
        LocalError: ``bad_name`` where two names have one hash, so that no shard can part them.

    """
    shards: list[tuple[Cid, bytes, int]] = []
    placed = [(prefixes(entry.name, fanout), entry) for entry in entries]
    _write(placed, 0, fanout, shards)
    return shards


def prefix_chars(fanout: int) -> int:
    """Return how many letters of a link's name are its position."""
    return len(f"{fanout - 1:X}")


def _write(
    placed: list[tuple[list[str], Link]], level: int, fanout: int, shards: list[tuple[Cid, bytes, int]]
) -> Link:
    """Add the shard of ``placed``, those below it first; returns a nameless link to it."""
    if level == len(placed[0][0] if placed else "-"):
        names = " and ".join(repr(entry.name) for _, entry in placed[:2])
        raise LocalError(f"{names} have one hash; rename one of them", reason="bad_name")
    slots: dict[str, list[tuple[list[str], Link]]] = {}
    for one in placed:
        slots.setdefault(one[0][level], []).append(one)
    links: list[Link] = []
    field = 0
    for prefix, inside in sorted(slots.items()):
        field |= 1 << int(prefix, 16)
        if len(inside) == 1:
            entry = inside[0][1]
            links.append(entry._replace(name=prefix + entry.name))
        else:
            links.append(_write(inside, level + 1, fanout, shards)._replace(name=prefix))
    bits = field.to_bytes((field.bit_length() + 7) // 8, "big")
    head = b"\x08\x05\x12" + varint(len(bits)) + bits
    block = encode(links, head + b"\x28" + varint(MURMUR3_X64_64) + b"\x30" + varint(fanout))
    cid, size = Cid.of(DAG_PB, block), len(block) + sum(link.tsize for link in links)
    shards.append((cid, block, size))
    return Link("", cid, size)


def murmur3(data: bytes) -> int:
    """Return the first 64 bits of MurmurHash3 x64-128 with seed 0."""
    one = two = 0
    whole = len(data) - len(data) % _BLOCK_BYTES
    for start in range(0, whole, _BLOCK_BYTES):
        one ^= _scramble_one(int.from_bytes(data[start : start + _LANE_BYTES], "little"))
        one = ((_rotate(one, 27) + two) * 5 + 0x52DCE729) & _MASK
        two ^= _scramble_two(int.from_bytes(data[start + _LANE_BYTES : start + _BLOCK_BYTES], "little"))
        two = ((_rotate(two, 31) + one) * 5 + 0x38495AB5) & _MASK
    tail = data[whole:]
    two ^= _scramble_two(int.from_bytes(tail[_LANE_BYTES:], "little"))
    one ^= _scramble_one(int.from_bytes(tail[:_LANE_BYTES], "little"))
    one, two = one ^ len(data), two ^ len(data)
    one = (one + two) & _MASK
    two = (two + one) & _MASK
    return (_finish(one) + _finish(two)) & _MASK


def _rotate(lane: int, bits: int) -> int:
    return (lane << bits | lane >> (HASH_BITS - bits)) & _MASK


def _scramble_one(lane: int) -> int:
    return _rotate(lane * _C1 & _MASK, 31) * _C2 & _MASK


def _scramble_two(lane: int) -> int:
    return _rotate(lane * _C2 & _MASK, 33) * _C1 & _MASK


def _finish(lane: int) -> int:
    for factor in (_MIX1, _MIX2):
        lane = (lane ^ lane >> 33) * factor & _MASK
    return lane ^ lane >> 33
