"""The pipe between a box and its radio process: one message a datagram, on a SEQPACKET pair.

The process speaks with whoever is in range, so the box believes it no more than them: a message is a letter
and at most ``WORD_LIMIT_BYTES`` after it, and whoever reads paces.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from ...protocol.errors import RemoteError
from ...protocol.radio import DATAGRAM_LIMIT_BYTES

WORD_LIMIT_BYTES = DATAGRAM_LIMIT_BYTES
MESSAGE_LIMIT_BYTES = 1 + WORD_LIMIT_BYTES
VERSION = b"1"


class Letter(Enum):
    """What a message is; the box says only ``TELL``."""

    TELL = b"T"
    """Put this datagram on the air."""
    UP = b"U"
    """The process runs; its word is ``VERSION``."""
    ALIVE = b"A"
    """It still runs."""
    HEARD = b"H"
    """Somebody in range said this datagram."""
    DOWN = b"D"
    """It ends: a reason, a space, and why in words."""


class Message(NamedTuple):
    """One message."""

    letter: Letter
    word: bytes = b""

    def packed(self) -> bytes:
        """Encode it."""
        return self.letter.value + self.word


def read(data: bytes) -> Message:
    """Decode a message; raises ``RemoteError`` ``bad_message``."""
    try:
        letter = Letter(data[:1])
    except ValueError:
        raise RemoteError("the radio process said what no message is", reason="bad_message") from None
    if len(data) > MESSAGE_LIMIT_BYTES:
        raise RemoteError("the radio process said too much at once", reason="bad_message")
    return Message(letter, data[1:])
