"""Tickets: the right of one account to be counted on one UTC day, under a key made for that day.

The ticket names a session key the node made, so that days cannot be linked by outsiders; who it is
for is sealed under a key only the origin has. The symmetric ticket key that comes with it is
derived from the ticket id, so issuing needs no table (HKDF, RFC 5869).
"""

from __future__ import annotations

from typing import Annotated, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Meta

from .codec import Message, decode, encode
from .errors import RemoteError
from .identity import Identity, Signed, unseal_any
from .manifest import Key

DAY_MS = 86_400_000
DAY_GRACE_MS = 300_000
"""A ticket holds from five minutes before its UTC day to five minutes after it."""
MAX_SEQ = 2_000

Tid = Annotated[bytes, Meta(min_length=16, max_length=16)]
Day = Annotated[int, Meta(ge=0, le=2**16 - 1)]


class Holder(Message, frozen=True):
    """Who a ticket is for: a random account pseudonym and the index of the device."""

    account: Annotated[bytes, Meta(min_length=16, max_length=16)]
    device: Annotated[int, Meta(ge=0, le=2**16 - 1)]


class Ticket(Message, frozen=True):
    """The signed ticket (kind ``ticket``); ``day`` counts UTC days since 1970."""

    v: Literal[1]
    tid: Tid
    day: Day
    session: Key
    sealed: Annotated[bytes, Meta(max_length=64)]

    def valid_at(self, at_ms: int) -> bool:
        """Say whether ``at_ms`` lies in the ticket's day, with the grace on both ends."""
        start = self.day * DAY_MS
        return start - DAY_GRACE_MS <= at_ms < start + DAY_MS + DAY_GRACE_MS


class TicketGrant(Message, frozen=True):
    """What the origin hands out: the signed ticket and its symmetric key."""

    ticket: bytes
    key: Annotated[bytes, Meta(min_length=32, max_length=32)]


class TicketOffice:
    """The origin's side: issues tickets and recognises their holders; keeps no state."""

    def __init__(self, signer: Identity, secret: bytes) -> None:
        self._signer = signer
        self._secret = secret
        self._box = ChaCha20Poly1305(self._derive(b"farcast/ticket-seal/v1\0"))

    def issue(self, tid: bytes, day: int, session: bytes, holder: Holder) -> TicketGrant:
        """Issue a ticket under the fresh random id ``tid``."""
        sealed = self._box.encrypt(tid[:12], encode(holder), tid)
        ticket = Ticket(1, tid, day, session, sealed)
        return TicketGrant(self._signer.seal("ticket", ticket), self.key(tid))

    def key(self, tid: bytes) -> bytes:
        """Derive the symmetric ticket key of ``tid`` again."""
        return self._derive(b"farcast/ticket-key/v1\0" + tid)

    def holder(self, ticket: Ticket) -> Holder:
        """Say who a verified ticket is for; raises ``RemoteError`` ``bad_seal``."""
        try:
            data = self._box.decrypt(ticket.tid[:12], ticket.sealed, ticket.tid)
        except InvalidTag as error:
            raise RemoteError("a ticket whose sealed part is not ours", reason="bad_seal") from error
        return decode(Holder, data)

    def _derive(self, info: bytes) -> bytes:
        return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(self._secret)


def open_ticket(data: bytes, keys: list[bytes]) -> tuple[Ticket, Signed]:
    """Verify a ticket against the origin's accepted ticket keys.

    Raises:
        RemoteError: ``bad_signature`` or a codec reason.

    """
    return unseal_any("ticket", Ticket, data, keys, "ticket", limit_bytes=1_024), decode(Signed, data)
