"""Symbols between neighbours: what one lacks of a generation, another may have heard.

The answer is no message: FEC ids and symbols one after the other, each as long as the asker's descriptor
says.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from .codec import Message, decode, encode

PATH = "/v1/symbols"
ASK_LIMIT_BYTES = 80 << 10
ASK_SYMBOLS = 800
"""At most so many a time: a megabyte."""
ANSWER_LIMIT_BYTES = ASK_SYMBOLS * 1_412
_HELD_LIMIT_BYTES = 1 << 16


class SymbolAsk(Message, frozen=True):
    """Which generation, the bitmap of the symbols held (id 0 the lowest bit of the first byte), how many."""

    v: Literal[1]
    number: Annotated[int, Meta(ge=0)]
    symbol_bytes: Annotated[int, Meta(ge=64, le=1_408, multiple_of=64)]
    held: Annotated[bytes, Meta(max_length=_HELD_LIMIT_BYTES)]
    most: Annotated[int, Meta(ge=1, le=ASK_SYMBOLS)]


def pack_ask(ask: SymbolAsk) -> bytes:
    """Encode what is asked for."""
    return encode(ask)


def read_ask(data: bytes) -> SymbolAsk:
    """Decode what is asked for; raises ``RemoteError`` with a codec reason."""
    return decode(SymbolAsk, data, limit_bytes=ASK_LIMIT_BYTES)
