"""What a box and its gossip process tell each other: one message a datagram on a SEQPACKET pair.

The process talks to strangers, so the box believes it no more than them: every message is bounded,
strictly decoded, and paced by whoever reads it.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from ...protocol.errors import RemoteError
from ...protocol.hint import HINT_LIMIT_BYTES

T = TypeVar("T")

VERSION = 1
"""Of these messages; a process of another version is not used."""
MESSAGE_LIMIT_BYTES = HINT_LIMIT_BYTES + 256

Text = Annotated[str, Meta(max_length=200)]
Bytes = Annotated[bytes, Meta(max_length=HINT_LIMIT_BYTES)]
PeerName = Annotated[bytes, Meta(min_length=1, max_length=64)]


class Tell(msgspec.Struct, tag="tell", frozen=True, array_like=True, forbid_unknown_fields=True):
    """Box: tell this encoded hint."""

    hint: Bytes


class Dial(msgspec.Struct, tag="dial", frozen=True, array_like=True, forbid_unknown_fields=True):
    """Box: connect to this multiaddr, peer id included."""

    address: Text


class Shun(msgspec.Struct, tag="shun", frozen=True, array_like=True, forbid_unknown_fields=True):
    """Box: have nothing more to do with this peer."""

    peer: PeerName


class Up(msgspec.Struct, tag="up", frozen=True, array_like=True, forbid_unknown_fields=True):
    """Process: it runs, listens on ``port`` (0: nowhere) and is known by the Ed25519 key ``key``."""

    version: int
    port: Annotated[int, Meta(ge=0, le=65_535)]
    key: Annotated[bytes, Meta(min_length=32, max_length=32)]


class Alive(msgspec.Struct, tag="alive", frozen=True, array_like=True, forbid_unknown_fields=True):
    """Process: it still runs and has so many peers."""

    peers: Annotated[int, Meta(ge=0, le=1_000_000)]


class Heard(msgspec.Struct, tag="heard", frozen=True, array_like=True, forbid_unknown_fields=True):
    """Process: ``author`` told this."""

    hint: Bytes
    author: PeerName


class Down(msgspec.Struct, tag="down", frozen=True, array_like=True, forbid_unknown_fields=True):
    """Process: it ends now; ``reason`` is ``missing``, ``port`` or ``crash``."""

    reason: Annotated[str, Meta(pattern="^(missing|port|crash)$")]
    why: Text


ToProcess = Tell | Dial | Shun
ToBox = Up | Alive | Heard | Down
_ENCODER = msgspec.msgpack.Encoder()
_OF_BOX: msgspec.msgpack.Decoder[ToProcess] = msgspec.msgpack.Decoder(ToProcess)
_OF_PROCESS: msgspec.msgpack.Decoder[ToBox] = msgspec.msgpack.Decoder(ToBox)


def pack(message: ToProcess | ToBox) -> bytes:
    """Encode a message."""
    return _ENCODER.encode(message)


def read_of_box(data: bytes) -> ToProcess:
    """Decode what the box says; raises ``RemoteError`` ``bad_message``."""
    return _read(_OF_BOX, data)


def read_of_process(data: bytes) -> ToBox:
    """Decode what the process says; raises ``RemoteError`` ``bad_message``."""
    return _read(_OF_PROCESS, data)


def _read(decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T:
    if len(data) > MESSAGE_LIMIT_BYTES:
        raise RemoteError("a message between box and gossip process is too large", reason="bad_message")
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, ValueError) as error:
        message = f"no message between box and gossip process: {error}"
        raise RemoteError(message, reason="bad_message") from error
