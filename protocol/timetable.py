"""The timetable: what a carousel sends next, told on the carousel itself.

It is an item of a generation that a catalog key signed, and says nothing that must be trusted: what it
names is checked by its hash when it comes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from .codec import Message, decode, encode
from .manifest import Count, TitleId

TURNS_LIMIT = 64
TIMETABLE_LIMIT_BYTES = 8 << 10


class Turn(Message, frozen=True):
    """One title: seconds from the timetable's time until it begins, and until one who then listens has it."""

    title: TitleId
    begins_s: Annotated[int, Meta(ge=0, le=2**32 - 1)]
    whole_s: Annotated[int, Meta(ge=0, le=2**32 - 1)]


class Timetable(Message, frozen=True):
    """The titles in the order they come, as planned at ``at_ms``; the first may be on air by then."""

    v: Literal[1]
    at_ms: Count
    rate_bps: Count
    turns: Annotated[list[Turn], Meta(max_length=TURNS_LIMIT)]


def pack_timetable(timetable: Timetable) -> bytes:
    """Encode a timetable as the data of its item."""
    return encode(timetable)


def read_timetable(data: bytes) -> Timetable:
    """Decode a timetable; raises ``RemoteError`` with a codec reason."""
    return decode(Timetable, data, limit_bytes=TIMETABLE_LIMIT_BYTES)
