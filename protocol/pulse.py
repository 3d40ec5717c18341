"""Pulses: what a viewer's node says of one minute of watching, signed by the day's session key.

In clear: what counting and ordering need. Encrypted under the ticket key: what was watched and who
served it, so that neighbours and relays that carry a pulse cannot read it. Each pulse names the
hash of the one before, so one valid signature vouches for all it links to.
"""

from __future__ import annotations

from hashlib import blake2b, sha256
from typing import Annotated, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from msgspec import Meta

from .codec import Message, decode, encode
from .errors import RemoteError
from .identity import Identity, Signed, domain, verify
from .manifest import Count
from .ticket import MAX_SEQ, Ticket, Tid

START, ACTIVE, RETURN, SWITCH = 1, 2, 3, 4
MAX_DELTA_MS = 121_000
BOX_PLAIN_BYTES = 176
"""Every box is padded to this length, so that its size says nothing."""
NO_WITNESS = bytes(16)
"""Where no beacon is known, or no block of the interval is held any more."""
WITNESS_REACH_MS = 300_000
"""How far from the position a segment may begin whose first block is a pulse's witness."""

_DOMAIN = domain("pulse")
_PULSE_HEAD, _BOX_HEAD = b"\x99", bytes([0xC4, BOX_PLAIN_BYTES + 16])
"""How an array of nine and the bytes of a box begin: a body is its clear part with the box behind it."""

Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]
U32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]


class Served(Message, frozen=True):
    """Kilobytes (1,000 B) a source brought since the last pulse; ``relay`` is the key's first 16 B."""

    tier: Annotated[int, Meta(ge=1, le=4)]
    relay: Annotated[bytes, Meta(max_length=16)]
    kbytes: U32


class Viewing(Message, frozen=True):
    """The encrypted part: state, what is watched and where in it, and who served it.

    ``manifest`` is the SHA-256 digest of the manifest block; ``position_ms`` media time;
    ``witness`` see ``witness``.
    """

    state: Annotated[int, Meta(ge=START, le=SWITCH)]
    manifest: Hash
    position_ms: U32
    rendition: Annotated[int, Meta(ge=0, le=255)]
    served: Annotated[list[Served], Meta(max_length=4)]
    witness: Annotated[bytes, Meta(min_length=16, max_length=16)]


class Pulse(Message, frozen=True, gc=False):
    """The signed body (kind ``pulse``).

    ``seq`` counts from 1 per ticket; ``at_ms`` is the node's clock; ``cum_ms`` and ``delta_ms``
    wall milliseconds in which playback advanced, this day so far and since the last pulse;
    ``beacon`` the newest beacon's number; ``prev`` the hash of the pulse before, or of the ticket.
    """

    v: Literal[1]
    tid: Tid
    seq: Annotated[int, Meta(ge=1, le=MAX_SEQ)]
    at_ms: Count
    cum_ms: U32
    delta_ms: Annotated[int, Meta(ge=0, le=MAX_DELTA_MS)]
    beacon: U32
    prev: Hash
    box: Annotated[bytes, Meta(min_length=BOX_PLAIN_BYTES + 16, max_length=BOX_PLAIN_BYTES + 16)]


def ticket_hash(ticket: Signed) -> bytes:
    """Return what the first pulse under a ticket names as ``prev``."""
    return sha256(domain("ticket") + ticket.body).digest()


def pulse_hash(body: bytes) -> bytes:
    """Return what the next pulse names as ``prev``: SHA-256 over domain and body."""
    return sha256(_DOMAIN + body).digest()


def witness(beacon_value: bytes, tid: bytes, seq: int, block: bytes) -> bytes:
    """Return the content witness: proof of having held ``block`` after the beacon was published.

    Keyed BLAKE2b (RFC 7693) with the beacon's value, the ticket id and the sequence number mixed
    into the person and the message; the origin recomputes it for a sample of pulses.
    """
    mac = blake2b(key=beacon_value, digest_size=16, person=b"farcast/witness\0"[:16])
    mac.update(tid + seq.to_bytes(4, "big"))
    mac.update(block)
    return mac.digest()


def may_witness(start_ms: int, position_ms: int) -> bool:
    """Say whether the first block of a segment that begins at ``start_ms`` may be a pulse's witness."""
    return abs(start_ms - position_ms) <= WITNESS_REACH_MS


class PulseSigner:
    """Makes one ticket's pulses: numbers, links, encrypts and signs them.

    ``seq``, ``cum_ms`` and ``prev`` continue where a stored session left off.
    """

    def __init__(
        self,
        ticket: bytes,
        key: bytes,
        session: Identity,
        *,
        seq: int = 0,
        cum_ms: int = 0,
        prev: bytes = b"",
    ) -> None:
        signed = decode(Signed, ticket)
        self.ticket = ticket
        self.body = decode(Ticket, signed.body)
        self._tid = self.body.tid
        self._box = ChaCha20Poly1305(key)
        self._session = session
        self.seq, self.cum_ms, self.prev = seq, cum_ms, prev or ticket_hash(signed)

    def sign(self, at_ms: int, delta_ms: int, beacon: int, viewing: Viewing) -> bytes:
        """Return the next signed pulse; the state moves on only when the bytes are made.

        Raises:
            RemoteError: ``spent`` where the ticket has no sequence number left.

        """
        seq = self.seq + 1
        if seq > MAX_SEQ:
            raise RemoteError("this day's ticket has no pulse left", reason="spent")
        delta = min(max(delta_ms, 0), MAX_DELTA_MS)
        clear = encode([1, self._tid, seq, at_ms, self.cum_ms + delta, delta, beacon, self.prev])
        box = self._box.encrypt(_nonce(seq), _pad(encode(viewing)), clear)
        body = _PULSE_HEAD + clear[1:] + _BOX_HEAD + box
        pulse = encode(Signed(body, self._session.sign("pulse", body)))
        self.seq, self.cum_ms, self.prev = seq, self.cum_ms + delta, pulse_hash(body)
        return pulse


def read_pulse(data: bytes) -> tuple[Pulse, Signed]:
    """Decode a signed pulse without checking its signature; raises ``RemoteError``."""
    signed = decode(Signed, data, limit_bytes=1_024)
    return decode(Pulse, signed.body), signed


def check_pulse(data: bytes, ticket: Ticket) -> Pulse:
    """Decode a pulse and verify that ``ticket``'s session key signed it.

    Raises:
        RemoteError: ``wrong_ticket``, ``bad_signature`` or a codec reason.

    """
    pulse, signed = read_pulse(data)
    if pulse.tid != ticket.tid:
        raise RemoteError("a pulse beside a ticket that is not its own", reason="wrong_ticket")
    if not verify("pulse", ticket.session, signed.body, signed.sig):
        raise RemoteError("a pulse not signed by its ticket's session key", reason="bad_signature")
    return pulse


def open_viewing(pulse: Pulse, key: bytes) -> Viewing:
    """Decrypt the encrypted part with the ticket key; raises ``RemoteError`` ``bad_box``."""
    clear = [
        1, pulse.tid, pulse.seq, pulse.at_ms, pulse.cum_ms, pulse.delta_ms, pulse.beacon, pulse.prev,
    ]  # fmt: skip
    try:
        plain = ChaCha20Poly1305(key).decrypt(_nonce(pulse.seq), pulse.box, encode(clear))
    except InvalidTag as error:
        raise RemoteError("a pulse whose encrypted part does not open", reason="bad_box") from error
    length = int.from_bytes(plain[:2], "big")
    if length > len(plain) - 2 or plain[2 + length :].strip(b"\0"):
        raise RemoteError("a pulse whose encrypted part is wrongly padded", reason="bad_box")
    return decode(Viewing, plain[2 : 2 + length])


def _nonce(seq: int) -> bytes:
    return seq.to_bytes(12, "big")


def _pad(plain: bytes) -> bytes:
    return (len(plain).to_bytes(2, "big") + plain).ljust(BOX_PLAIN_BYTES, b"\0")
