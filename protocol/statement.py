"""The statement: what a month's settlement says, and the signed head of its report directory.

``Line``s are the leaves: one per platform (publisher), payee and month of viewing, no viewer among
them. Everything else in a report is derived from statement and lines (``protocol/tables.py``), so
whoever checks one can write all the others again and compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Annotated, Literal

from msgspec import Meta

from .codec import Message, decode, encode
from .errors import RemoteError
from .identity import Identity, domain, unseal
from .manifest import Count, Key, PayeeId
from .merkle import root_of
from .pulse import Hash
from .rules import Rules

HEAD = "head.bin"
LEAVES = "leaves.bin"
INTAKE = "intake.bin"
TICKETS = "tickets.bin"
PAGE = "index.html"
HEAD_LIMIT_BYTES = 4 << 20
LEAF_LIMIT_BYTES = 512
TICKET_ENTRY_BYTES = 18
MAX_FILES = 32

Weight = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Month = Annotated[str, Meta(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])\Z")]
Label = Annotated[str, Meta(min_length=1, max_length=40)]
FileName = Annotated[str, Meta(pattern=r"^[a-z0-9_]{1,40}\.[a-z]{2,12}\Z")]


class Line(Message, frozen=True):
    """One leaf: what a payee gets from one platform for one month of viewing.

    ``month`` before the statement's own marks a carry-in of late pulses. ``weight`` is viewed ms
    times basis points. ``share_cents`` = paid + held + capped; ``per_payer_cents`` what the line
    would be worth were each account's money split by its own viewing.
    """

    platform: Key
    payee: PayeeId
    month: Month
    weight: Weight
    share_cents: Count
    paid_cents: Count
    held_cents: Count
    capped_cents: Count
    per_payer_cents: Count


class RelayLine(Message, frozen=True):
    """What one relay served, as signed by viewers and acknowledged, and its pay.

    ``over_kbytes`` is what viewers signed beyond what the rules say its line could carry in a day
    (reason code ``relay_rate``): it is not paid.
    """

    relay: Key
    kbytes: Count
    cents: Count
    over_kbytes: Count = 0


class DayLine(Message, frozen=True):
    """One UTC day, or ``other`` for merged small ones; ``viewers`` 0 means too few to name."""

    day: Label
    viewers: Count
    pulses: Count
    viewed_ms: Count


class FlagLine(Message, frozen=True):
    """How many accounts a rule flagged, and the cents held because of it."""

    rule: Label
    accounts: Count
    held_cents: Count


class CodeLine(Message, frozen=True):
    """What was not counted, by reason code: pulses touched and milliseconds cut."""

    code: Label
    pulses: Count
    ms: Count


class Statement(Message, frozen=True):
    """A month's settlement as of ``as_of_ms`` over the first ``log_size`` entries of the intake log.

    ``pool`` = max(0, revenue - costs - relay pay - reserve) + ``brought`` (carried over to here
    before) = paid + held + carried; ``capped`` is the part of ``carried`` that the per-payer cap
    cut. ``previous`` is the digest of the statement before, zeros first.
    """

    v: Literal[1]
    month: Month
    as_of_ms: Count
    previous: Hash
    rules: Rules
    revenue_cents: Count
    booked_costs_cents: Count
    relay_pay_cents: Count
    reserve_cents: Count
    deficit_cents: Count
    brought_cents: Count
    pool_cents: Count
    paid_cents: Count
    held_cents: Count
    carried_cents: Count
    capped_cents: Count
    payers_known: bool
    accounts: Count
    pulses: Count
    viewed_ms: Count
    relays: Annotated[list[RelayLine], Meta(max_length=10_000)]
    days: Annotated[list[DayLine], Meta(max_length=100)]
    flags: Annotated[list[FlagLine], Meta(max_length=32)]
    uncounted: Annotated[list[CodeLine], Meta(max_length=64)]
    leaves: Count
    leaves_root: Hash
    log_size: Count
    log_root: Hash
    tickets_hash: Hash

    @property
    def costs_cents(self) -> int:
        """Booked costs and relay pay together."""
        return self.booked_costs_cents + self.relay_pay_cents


class FileHash(Message, frozen=True):
    """One file of the report directory."""

    name: FileName
    size: Count
    sha256: Hash


class Head(Message, frozen=True):
    """The signed head (kind ``settle``, settlement key): the statement and every other file's hash."""

    v: Literal[1]
    statement: Statement
    files: Annotated[list[FileHash], Meta(max_length=MAX_FILES)]


def digest(statement: Statement) -> bytes:
    """Return the name of a statement: SHA-256 over domain and encoding."""
    return sha256(domain("settle") + encode(statement)).digest()


def seal_head(head: Head, settlement: Identity) -> bytes:
    """Sign a report's head with the settlement key."""
    return settlement.seal("settle", head)


def open_head(data: bytes, settlement_keys: Sequence[bytes]) -> Head:
    """Verify a head against the origin's settlement keys; raises ``RemoteError``."""
    failure = RemoteError("no settlement key is known", reason="no_key")
    for key in settlement_keys:
        try:
            return unseal("settle", Head, data, key, limit_bytes=HEAD_LIMIT_BYTES)
        except RemoteError as error:
            failure = error
    raise failure


def lines_root(lines: Iterable[Line]) -> bytes:
    """Return the RFC 9162 tree hash over the encoded lines."""
    return root_of(encode(line) for line in lines)


def pack_lines(lines: Iterable[Line]) -> bytes:
    """Return ``leaves.bin``: each encoded line behind its length in two bytes."""
    leaves = [encode(line) for line in lines]
    return b"".join(len(leaf).to_bytes(2, "big") + leaf for leaf in leaves)


def unpack_lines(data: bytes) -> list[Line]:
    """Read ``leaves.bin``.

    Raises:
        RemoteError: ``malformed`` or another codec reason, naming the leaf.

    """
    lines: list[Line] = []
    offset = 0
    while offset < len(data):
        start = offset + 2
        offset = start + int.from_bytes(data[offset:start], "big")
        if offset > len(data) or start > len(data):
            raise RemoteError(f"leaf {len(lines)} is cut short", reason="malformed")
        try:
            lines.append(decode(Line, data[start:offset], limit_bytes=LEAF_LIMIT_BYTES))
        except RemoteError as error:
            raise RemoteError(f"leaf {len(lines)} does not read: {error}", reason=error.reason) from error
    return lines


def ticket_name(tid: bytes) -> bytes:
    """Return the name under which ``tickets.bin`` lists a ticket, known only to who knows the id."""
    return sha256(b"farcast/ticket-name/v1\0" + tid).digest()[:16]


def pack_tickets(stored: dict[bytes, int]) -> bytes:
    """Return ``tickets.bin``: name and number of stored pulses of each ticket, sorted by name."""
    named = sorted((ticket_name(tid), count) for tid, count in stored.items())
    return b"".join(name + count.to_bytes(2, "big") for name, count in named)


def unpack_tickets(data: bytes) -> dict[bytes, int]:
    """Read ``tickets.bin`` by ticket name; raises ``RemoteError`` ``malformed`` unless sorted and whole."""
    entries = [data[start : start + TICKET_ENTRY_BYTES] for start in range(0, len(data), TICKET_ENTRY_BYTES)]
    tickets = {entry[:16]: int.from_bytes(entry[16:], "big") for entry in entries}
    if len(data) % TICKET_ENTRY_BYTES or list(tickets) != sorted(tickets) or len(tickets) != len(entries):
        raise RemoteError("the tickets are not whole, sorted entries", reason="malformed")
    return tickets
