"""The hourly beacon: a random value nobody could know before, so a pulse that names it is younger."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from .codec import Message
from .identity import Identity, unseal
from .manifest import Count

HOUR_MS = 3_600_000


class Beacon(Message, frozen=True):
    """Beacon ``number`` = hours since 1970; published at ``at_ms`` (kind ``beacon``, catalog key)."""

    v: Literal[1]
    number: Annotated[int, Meta(ge=0, le=2**32 - 1)]
    value: Annotated[bytes, Meta(min_length=32, max_length=32)]
    at_ms: Count


def seal_beacon(at_ms: int, value: bytes, catalog: Identity) -> bytes:
    """Sign the beacon of the hour of ``at_ms`` over 32 fresh random bytes."""
    return catalog.seal("beacon", Beacon(1, at_ms // HOUR_MS, value, at_ms))


def open_beacon(data: bytes, catalog_key: bytes) -> Beacon:
    """Verify and decode; raises ``RemoteError``."""
    return unseal("beacon", Beacon, data, catalog_key, limit_bytes=512)
