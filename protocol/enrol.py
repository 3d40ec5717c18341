"""Enrolment: what devices and relays ask of an origin, and its answers (``/v1/devices`` and friends).

None of these bodies is signed by itself: each travels as a signed request over a nonce
(``protocol/request.py``), so the asker's key is the one that signed the request.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from .codec import Message, decode
from .manifest import Count, Key
from .ticket import Day, TicketGrant

DAYS_AHEAD = 14
"""A node keeps tickets for at most this many days to come, so that it can be offline."""
ENROL_LIMIT_BYTES = 16 << 10
PADDING_LIMIT_BYTES = 2 << 20
CHECK_LIMIT_BYTES = PADDING_LIMIT_BYTES + 4_096

Token = Annotated[str, Meta(min_length=16, max_length=64, pattern=r"^[A-Za-z0-9_-]+\Z")]
TokenOrNone = Annotated[str, Meta(pattern=r"^([A-Za-z0-9_-]{16,64})?\Z")]
Wish = Literal["listed", "unlisted", "paused", "left"]


class DeviceRequest(Message, frozen=True):
    """``POST /v1/devices``: enrol ``device``, which also signs the request, with a one-time token."""

    v: Literal[1]
    token: Token
    device: Key


class DeviceAnswer(Message, frozen=True):
    """The index this device has among those of its account."""

    v: Literal[1]
    device: Annotated[int, Meta(ge=0, le=2**16 - 1)]


class TicketWish(Message, frozen=True):
    """One day and the public half of the session key the node made for it alone."""

    day: Day
    session: Key


class TicketRequest(Message, frozen=True):
    """``POST /v1/tickets``: at most today and the next ``DAYS_AHEAD`` days."""

    v: Literal[1]
    wishes: Annotated[list[TicketWish], Meta(min_length=1, max_length=DAYS_AHEAD + 1)]


class TicketAnswer(Message, frozen=True):
    """One grant per wish, in the same order."""

    v: Literal[1]
    grants: Annotated[list[TicketGrant], Meta(max_length=DAYS_AHEAD + 1)]


class RelayRequest(Message, frozen=True):
    """``POST /v1/relays``: a signed ``RelayRecord``; ``token`` is empty where the relay is known.

    ``wish`` is what the relay wants of the directory: to stand in it, to be enrolled without
    standing in it, to be out of it for a while, or to be gone from it.
    """

    v: Literal[2]
    token: TokenOrNone
    record: Annotated[bytes, Meta(max_length=4_096)]
    wish: Wish


class Fault(Message, frozen=True):
    """What the origin found when it dialled one of a record's endpoints (``host:port``), and could not.

    ``lost`` is ``both`` where the endpoint cannot be used at all, else the one protocol of two that
    does not come through.
    """

    endpoint: Annotated[str, Meta(min_length=1, max_length=270)]
    lost: Literal["both", "tcp", "udp"]
    why: Annotated[str, Meta(max_length=200)]


class RelayAnswer(Message, frozen=True):
    """Where the relay stands with this origin now, why, and what dialling it back has shown.

    ``listed`` says whether the directory has it from now on.
    """

    v: Literal[2]
    standing: Literal["pending", "approved", "refused"]
    reason: Annotated[str, Meta(max_length=400)]
    listed: bool
    faults: Annotated[list[Fault], Meta(max_length=8)]


class CheckRequest(Message, frozen=True):
    """``POST /v1/relays/check``: dial me back where this comes from, at ``port``, as the owner of ``key``.

    Signed by nobody: whoever asks can only have his own address dialled. ``padding`` measures the way up.
    """

    v: Literal[1]
    key: Key
    port: Annotated[int, Meta(ge=1, le=65_535)]
    padding: Annotated[bytes, Meta(max_length=PADDING_LIMIT_BYTES)]


class CheckAnswer(Message, frozen=True):
    """What the origin saw: the asker's address, and why TLS and QUIC did not come through (empty: they did).

    ``at_ms`` is the origin's clock, ``read_ms`` how long the request's body took to arrive, ``padding``
    as long as the request's.
    """

    v: Literal[1]
    seen: Annotated[str, Meta(max_length=64)]
    tcp: Annotated[str, Meta(max_length=200)]
    udp: Annotated[str, Meta(max_length=200)]
    at_ms: Count
    read_ms: Count
    padding: Annotated[bytes, Meta(max_length=PADDING_LIMIT_BYTES)]


def open_device_request(data: bytes) -> DeviceRequest:
    """Decode the body of ``POST /v1/devices``; raises ``RemoteError``."""
    return decode(DeviceRequest, data, limit_bytes=ENROL_LIMIT_BYTES)


def open_ticket_request(data: bytes) -> TicketRequest:
    """Decode the body of ``POST /v1/tickets``; raises ``RemoteError``."""
    return decode(TicketRequest, data, limit_bytes=ENROL_LIMIT_BYTES)


def open_relay_request(data: bytes) -> RelayRequest:
    """Decode the body of ``POST /v1/relays``; raises ``RemoteError``."""
    return decode(RelayRequest, data, limit_bytes=ENROL_LIMIT_BYTES)


def open_device_answer(data: bytes) -> DeviceAnswer:
    """Decode the answer to ``POST /v1/devices``; raises ``RemoteError``."""
    return decode(DeviceAnswer, data, limit_bytes=ENROL_LIMIT_BYTES)


def open_ticket_answer(data: bytes) -> TicketAnswer:
    """Decode the answer to ``POST /v1/tickets``; raises ``RemoteError``."""
    return decode(TicketAnswer, data, limit_bytes=ENROL_LIMIT_BYTES)


def open_relay_answer(data: bytes) -> RelayAnswer:
    """Decode the answer to ``POST /v1/relays``; raises ``RemoteError``."""
    return decode(RelayAnswer, data, limit_bytes=ENROL_LIMIT_BYTES)


def open_check_request(data: bytes) -> CheckRequest:
    """Decode the body of ``POST /v1/relays/check``; raises ``RemoteError``."""
    return decode(CheckRequest, data, limit_bytes=CHECK_LIMIT_BYTES)


def open_check_answer(data: bytes) -> CheckAnswer:
    """Decode the answer to ``POST /v1/relays/check``; raises ``RemoteError``."""
    return decode(CheckAnswer, data, limit_bytes=CHECK_LIMIT_BYTES)
