"""The TUF target ``origin.msgpack``: which online keys and addresses an origin uses now."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from .codec import Message, decode
from .directory import Endpoint
from .manifest import Key, Text

KEYRING_TARGET = "origin.msgpack"
KEYRING_LIMIT_BYTES = 64 << 10

Keys = Annotated[list[Key], Meta(min_length=1, max_length=16)]


class Keyring(Message, frozen=True):
    """The origin's public face; trusted because TUF delivered it.

    ``box`` is the key of the origin's listener; each of the others lists the keys accepted now, the
    newest first. ``endpoints`` are where the origin listens, ``cdn`` base URLs of pull zones.
    """

    v: Literal[1]
    name: Text
    box: Key
    catalog: Keys
    ticket: Keys
    intake: Keys
    settlement: Keys
    publishers: Keys
    endpoints: Annotated[list[Endpoint], Meta(max_length=16)]
    cdn: Annotated[list[Annotated[str, Meta(max_length=400)]], Meta(max_length=16)]


def open_keyring(data: bytes) -> Keyring:
    """Decode the target; raises ``RemoteError`` with a codec reason."""
    return decode(Keyring, data, limit_bytes=KEYRING_LIMIT_BYTES)
