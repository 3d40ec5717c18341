"""The index of a stick: what an export holds, told before anything is read.

Nobody signs it and nothing is believed for its sake: each file beside it is checked by itself, heads by
the origin's keys, pulses and acks by their signatures, blocks by their CIDs from what the catalog lists.
It says which titles should be there, so that a copy that broke off is told from a small one.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from .cid import Cid
from .codec import Message, decode, encode
from .errors import RemoteError
from .generation import origin_id
from .manifest import CidBytes, Count, Key, TitleId

INDEX_LIMIT_BYTES = 2 << 20
VOLUME_BYTES = 64 << 20
"""A volume's target size: below what any file system bounds, small to lose, large to write."""
MAX_VOLUMES = 9_999


class StickTitle(Message, frozen=True):
    """One title of an export: its manifest's binary CID, and its volumes ``0001.car`` and on."""

    title: TitleId
    manifest: CidBytes
    blocks: Count
    size_bytes: Count
    volumes: Annotated[int, Meta(ge=1, le=MAX_VOLUMES)]


class StickIndex(Message, frozen=True):
    """``box`` is the origin's box key, ``name`` its name, ``made_ms`` the time by the writer's clock."""

    v: Literal[1]
    box: Key
    name: Annotated[str, Meta(max_length=400)]
    made_ms: Count
    titles: Annotated[list[StickTitle], Meta(max_length=4_096)]

    @property
    def origin(self) -> bytes:
        """The origin id."""
        return origin_id(self.box)


def pack_index(index: StickIndex) -> bytes:
    """Encode an index."""
    return encode(index)


def open_index(data: bytes) -> StickIndex:
    """Decode an index.

    Raises:
        RemoteError: ``bad_index`` where a title stands twice or its manifest is no CID, or a codec reason.

    """
    index = decode(StickIndex, data, limit_bytes=INDEX_LIMIT_BYTES)
    if len({item.title for item in index.titles}) != len(index.titles):
        raise RemoteError("an index that names a title twice", reason="bad_index")
    for item in index.titles:
        try:
            Cid.decode(item.manifest)
        except RemoteError as error:
            raise RemoteError(f"an index whose {item.title} has no CID", reason="bad_index") from error
    return index
