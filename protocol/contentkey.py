"""Content keys: how a ticket holder asks an origin for the keys of protected titles (``/v1/keys``).

A node signs its request over a nonce with the ticket's session key. A page in a browser, whose
player fetches a key like any file, proves instead that it has the ticket key, which never leaves
the holder: a ticket alone proves nothing, every relay that carries pulses has seen it.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta

from .codec import Message, decode
from .enrol import DAYS_AHEAD
from .errors import RemoteError
from .manifest import Count
from .ticket import DAY_MS

REQUEST_LIMIT_BYTES = 2_048
ANSWER_LIMIT_BYTES = 2_048
KEYS_AT_ONCE = 16
LEASE_MS = DAYS_AHEAD * DAY_MS
"""How long a key may be used without the origin being asked again: as long as tickets reach ahead."""
PROOF_WINDOW_MS = 300_000
"""How far a browser's clock may be from the origin's."""

KeyId = Annotated[bytes, Meta(min_length=16, max_length=16)]

_PROOF = re.compile(
    r"Farcast-Ticket ([A-Za-z0-9_-]{1,1400})\.(0|[1-9][0-9]{0,15})\.([A-Za-z0-9_-]{43})", re.IGNORECASE
)


class KeyRequest(Message, frozen=True):
    """``POST /v1/keys``, signed by the session key that the ticket names."""

    v: Literal[1]
    ticket: Annotated[bytes, Meta(max_length=1_024)]
    key_ids: Annotated[list[KeyId], Meta(min_length=1, max_length=KEYS_AT_ONCE)]


class KeyGrant(Message, frozen=True):
    """One key, and until when it may be used without asking again: milliseconds since 1970."""

    key_id: KeyId
    key: Annotated[bytes, Meta(min_length=16, max_length=16)]
    until_ms: Count


class KeyAnswer(Message, frozen=True):
    """One grant for each key asked for, in the same order."""

    v: Literal[1]
    grants: Annotated[list[KeyGrant], Meta(max_length=KEYS_AT_ONCE)]


class Lease(NamedTuple):
    """A key as its holder keeps it: when it was given, and until when it may be used without asking."""

    key_id: bytes
    key: bytes
    granted_ms: int
    until_ms: int


class TicketProof(NamedTuple):
    """What a browser sends as ``authorization`` of ``GET /v1/keys/{key id}``."""

    ticket: bytes
    at_ms: int
    mac: bytes

    def holds(self, ticket_key: bytes, key_id: bytes, now_ms: int) -> bool:
        """Say whether it was made with the ticket key, for this content key, and lately."""
        made = hmac.compare_digest(self.mac, _mac(ticket_key, key_id, self.at_ms))
        return made and abs(now_ms - self.at_ms) <= PROOF_WINDOW_MS


def open_key_request(data: bytes) -> KeyRequest:
    """Decode the body of ``POST /v1/keys``; raises ``RemoteError``."""
    return decode(KeyRequest, data, limit_bytes=REQUEST_LIMIT_BYTES)


def open_key_answer(data: bytes) -> KeyAnswer:
    """Decode the answer to ``POST /v1/keys``; raises ``RemoteError``."""
    return decode(KeyAnswer, data, limit_bytes=ANSWER_LIMIT_BYTES)


def prove_ticket(ticket: bytes, ticket_key: bytes, key_id: bytes, at_ms: int) -> str:
    """Return the ``authorization`` value by which a ticket's holder asks for one key."""
    return f"Farcast-Ticket {_text(ticket)}.{at_ms}.{_text(_mac(ticket_key, key_id, at_ms))}"


def open_ticket_proof(value: str) -> TicketProof:
    """Read such a value, nothing of it checked yet; raises ``RemoteError`` ``malformed``."""
    match = _PROOF.fullmatch(value)
    if match is None:
        raise RemoteError("an authorization that is no proof of a ticket", reason="malformed")
    return TicketProof(_bytes(match[1]), int(match[2]), _bytes(match[3]))


def _mac(ticket_key: bytes, key_id: bytes, at_ms: int) -> bytes:
    text = f"farcast/key/v1\0{key_id.hex()}\0{at_ms}"
    return hmac.digest(ticket_key, text.encode(), sha256)


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError as error:
        raise RemoteError("malformed base64url", reason="malformed") from error
    if _text(data) != text:
        raise RemoteError("base64url that is not canonical", reason="malformed")
    return data
