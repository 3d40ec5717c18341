"""The content witness, the origin's side: which pulses are looked at, and what their witness shows.

A sample that nobody can foretell is recomputed over the origin's own blocks. A false witness is a
verdict; what cannot be told (no witness, no beacon, a block no longer here) never is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import NamedTuple

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ...protocol.pulse import NO_WITNESS, Pulse, Viewing, may_witness, witness

ONE_IN = 1_000
"""Of so many pulses one is looked at."""
CANDIDATES = 512
"""Blocks hashed for one pulse at most; of two-second segments 300 are within reach."""

SOUND, FALSE = "sound", "false"
NOT_MADE, NO_BEACON, UNKNOWN_TITLE, NO_BLOCK = "not_made", "no_beacon", "unknown_title", "no_block"
RESULTS = (SOUND, FALSE, NOT_MADE, NO_BEACON, UNKNOWN_TITLE, NO_BLOCK)


class Sample:
    """Chooses one pulse in a thousand by a hash under a key that only the origin has."""

    def __init__(self, secret: bytes, one_in: int = ONE_IN) -> None:
        """Derive the key from the origin's ticket ``secret`` (HKDF, RFC 5869)."""
        info = b"farcast/witness-sample/v1\0"
        self._key = HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret)
        self._one_in = one_in

    def __contains__(self, pulse: Pulse) -> bool:
        mark = blake2b(pulse.tid + pulse.seq.to_bytes(4, "big"), key=self._key, digest_size=8).digest()
        return int.from_bytes(mark, "big") % self._one_in == 0


class Segment(NamedTuple):
    """A media segment of the rendition a pulse names: where it begins, and its file's CID as bytes."""

    start_ms: int
    file: bytes


def nearest(segments: Iterable[Segment], position_ms: int) -> list[Segment]:
    """Return the segments whose first block may be a pulse's witness, the likeliest first.

    That is the one playing, then those ahead, which a player fetches, then those behind.
    """
    found = [one for one in segments if may_witness(one.start_ms, position_ms)]
    behind = sorted((one for one in found if one.start_ms <= position_ms), reverse=True)
    ahead = sorted(one for one in found if one.start_ms > position_ms)
    return [*behind[:1], *ahead, *behind[1:]]


def judge(
    pulse: Pulse,
    viewing: Viewing,
    beacon: Callable[[int], bytes | None],
    blocks: Callable[[Viewing], Iterator[bytes | None] | None],
) -> str:
    """Return what a pulse's witness shows, one of ``RESULTS``.

    ``beacon`` gives a beacon's value by its number; ``blocks`` the candidates, None for one that is not
    here any more, or None where the title is unknown.
    """
    if viewing.witness == NO_WITNESS:
        return NOT_MADE
    value = beacon(pulse.beacon)
    if value is None:
        return NO_BEACON
    candidates = blocks(viewing)
    if candidates is None:
        return UNKNOWN_TITLE
    missing = False
    for number, block in enumerate(candidates):
        if number == CANDIDATES:
            return NO_BLOCK
        if block is None:
            missing = True
        elif witness(value, pulse.tid, pulse.seq, block) == viewing.witness:
            return SOUND
    return NO_BLOCK if missing else FALSE
