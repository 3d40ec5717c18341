"""Where a name lies in a sharded (HAMT) directory: UnixFS specification, "HAMT Directory".

The position is read from murmur3-x64-64 of the name, most significant bits first, as many bits a
level as the fanout has; a link is named by its position in upper-case hex, and an entry's link by
the position and then the entry's name.
"""

from __future__ import annotations

from .errors import RemoteError

MURMUR3_X64_64 = 0x22
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


def prefix_chars(fanout: int) -> int:
    """Return how many letters of a link's name are its position."""
    return len(f"{fanout - 1:X}")


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
