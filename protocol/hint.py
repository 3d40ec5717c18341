"""Hints: untrusted news between boxes of one origin, told by whoever has it to whoever listens.

A hint carries what its maker signed, so it proves itself or is thrown away; who told it never counts.
It makes a box look sooner, or tells it where to look, and nothing else.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from .codec import Message, decode
from .generation import OriginId
from .manifest import Key

Topic = Literal["head", "relay"]
"""``head``: the catalog's signed checkpoint note. ``relay``: a relay's signed record."""
TOPICS: tuple[Topic, ...] = ("head", "relay")

NEWS_LIMIT_BYTES = 1_024
HINT_LIMIT_BYTES = NEWS_LIMIT_BYTES + 64
HINTS_A_POST = 8
POST_LIMIT_BYTES = HINTS_A_POST * (HINT_LIMIT_BYTES + 3) + 16
PATH = "/v1/hints"


class Hint(Message, frozen=True):
    """One piece of news of the origin ``net``: what its maker signed, whole."""

    v: Literal[1]
    net: OriginId
    topic: Topic
    news: Annotated[bytes, Meta(min_length=1, max_length=NEWS_LIMIT_BYTES)]


class HintPost(Message, frozen=True):
    """Several encoded hints at once, as ``POST /v1/hints`` takes them; a bad one spoils only itself."""

    v: Literal[1]
    hints: Annotated[
        list[Annotated[bytes, Meta(max_length=HINT_LIMIT_BYTES)]],
        Meta(min_length=1, max_length=HINTS_A_POST),
    ]


class GossipPlace(Message, frozen=True):
    """Where a box's gossip process listens (``GET /v1/hints``): the TCP port and the peer id's key there."""

    v: Literal[1]
    port: Annotated[int, Meta(ge=1, le=65_535)]
    key: Key


def open_hint(data: bytes) -> Hint:
    """Decode a hint; what it says is not verified by that.

    Raises:
        RemoteError: ``too_large`` or a codec reason.

    """
    return decode(Hint, data, limit_bytes=HINT_LIMIT_BYTES)


def open_post(data: bytes) -> HintPost:
    """Decode a post, not the hints in it; raises ``RemoteError`` as ``open_hint``."""
    return decode(HintPost, data, limit_bytes=POST_LIMIT_BYTES)


def open_place(data: bytes) -> GossipPlace:
    """Decode where a gossip process listens; raises ``RemoteError`` as ``open_hint``."""
    return decode(GossipPlace, data, limit_bytes=HINT_LIMIT_BYTES)
