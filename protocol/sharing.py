"""Sharing: what two neighbours say on a connection over which one title goes to both.

TLS with the ALPN name ``farcast-share/1`` on the public port. A frame is ``length u32 || kind u8 || body``,
the length that of kind and body. Blocks are named by their place in the title's list: manifest first, then
the folder depth first, each once. All but pieces are canonical msgpack.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Annotated, Literal

from msgspec import Meta

from .codec import Message

ALPN = "farcast-share/1"
SHARE_PATH = "/v1/share"
"""What a hello's proof names as its path; its method is ``SHARE``, its body the title."""
SHARE_METHOD = "SHARE"
HEAD_BYTES = 5
PIECE_HEAD_BYTES = 8
PIECE_BYTES = 64 << 10
FRAME_LIMIT_BYTES = 128 << 10
NONCE_BYTES = 16
TOLD_LIMIT = 4_096
BLOCKS_LIMIT = 400_000

Place = Annotated[int, Meta(ge=0, lt=BLOCKS_LIMIT)]
Places = Annotated[list[Place], Meta(max_length=TOLD_LIMIT)]
Marks = Annotated[bytes, Meta(max_length=BLOCKS_LIMIT // 8)]


class Kind(IntEnum):
    """What a frame's body is."""

    ALIVE = 0
    CHALLENGE = 1
    HELLO = 2
    WELCOME = 3
    REFUSAL = 4
    NEWS = 5
    ASK = 6
    WITHDRAWAL = 7
    LACK = 8
    PIECE = 9
    REFERRAL = 10


class Hello(Message, frozen=True):
    """The first word of whoever dialled: who it is, which title, and what it holds and is bringing.

    ``proof`` is a signed request's ``authorization`` value over the challenge; ``title`` the digest of the
    manifest's CID; ``marks`` has a bit a block, the first block's the highest of the first byte.
    """

    v: Literal[1]
    proof: Annotated[str, Meta(max_length=2_048)]
    title: Annotated[bytes, Meta(min_length=32, max_length=32)]
    marks: Marks
    claims: Places


class Welcome(Message, frozen=True):
    """The answer to a hello by a box that holds or wants the title."""

    v: Literal[1]
    marks: Marks
    claims: Places


class Refusal(Message, frozen=True):
    """The last word of a box that will not share; why, in a word."""

    reason: Annotated[str, Meta(max_length=32)]


class News(Message, frozen=True):
    """Blocks held now, blocks being brought for all, and blocks brought no longer."""

    held: Places
    claimed: Places
    given_up: Places


class Wish(Message, frozen=True):
    """Parts of 256 KiB of one block that are wanted; ``urgent``: somebody is about to watch them.

    ``sake``: 0 for the asker itself, 1 it claims the block for all, 2 likewise in place of one who is late.
    """

    block: Place
    parts: Annotated[list[Annotated[int, Meta(ge=0, le=7)]], Meta(max_length=8)]
    urgent: bool
    sake: Annotated[int, Meta(ge=0, le=2)]


class OneBlock(Message, frozen=True):
    """A block that is not wanted any more, or not here."""

    block: Place


class Referral(Message, frozen=True):
    """A claimed block was given to the neighbour of that key, who passes it on."""

    block: Place
    key: Annotated[bytes, Meta(min_length=32, max_length=32)]


def to_marks(held: Iterable[int], count: int) -> bytes:
    """Return one bit a block for the places in ``held``, of ``count`` blocks."""
    marks = bytearray(-(-count // 8))
    for place in held:
        marks[place >> 3] |= 0x80 >> (place & 7)
    return bytes(marks)


def from_marks(marks: bytes, count: int) -> list[int]:
    """Return the places that are marked; what is past ``count`` means nothing."""
    places: list[int] = []
    for index, byte in enumerate(marks[: -(-count // 8)]):
        if byte:
            places += [(index << 3) + bit for bit in range(8) if byte & (0x80 >> bit)]
    return [place for place in places if place < count]
