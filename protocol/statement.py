"""The statement: what a month's settlement says, and the signed head of its report directory.

``Line``s are the leaves: one per platform (publisher), payee and month of viewing, no viewer among
them. Everything else in a report is derived from statement and lines (``protocol/tables.py``), so
whoever checks one can write all the others again and compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from operator import lt
from typing import Annotated, Literal, TypeVar

from msgspec import Meta, MsgspecError, Raw, field, msgpack

from .codec import Message, decode, encode
from .errors import RemoteError
from .identity import Identity, Signed, domain, peer_id, unseal_any, verify
from .manifest import Count, Key, PayeeId
from .merkle import PROOF_LIMIT, leaf_hash, root_over
from .pulse import Hash
from .rules import Rules, rules_form

HEAD = "head.bin"
LEAVES = "leaves.bin"
CHECKPOINT = "checkpoint.note"
CONSISTENCY = "consistency.bin"
INTAKE = "intake.bin"
TICKETS = "tickets.bin"
PAGE = "index.html"
HEAD_LIMIT_BYTES = 4 << 20
LEAF_LIMIT_BYTES = 512
TICKET_ENTRY_BYTES = 18
MAX_FILES = 32
MAX_KEYS = 256
"""Keys of one relay in a month."""

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
    (reason code ``relay_rate``): it is not paid. ``relay`` is its first key, which names it; ``keys``
    are those it took later and served under.
    """

    relay: Key
    kbytes: Count
    cents: Count
    over_kbytes: Count = 0
    keys: Annotated[list[Key], Meta(max_length=MAX_KEYS)] = field(default_factory=list[Key])


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
    cut, which goes to nobody. ``previous`` is the digest of the statement before, zeros first.
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

    @property
    def forward_cents(self) -> int:
        """What of ``carried_cents`` joins the next pool: all but what the per-payer cap cut."""
        return self.carried_cents - (self.capped_cents if self.rules.keeps_capped else 0)


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


class Consistency(Message, frozen=True):
    """The intake log of the month settled before, and the proof that this month's only appends to it.

    ``month`` is empty, ``size`` 0 and ``root`` that of nothing where there is none; ``proof`` as in
    RFC 9162 section 2.1.4.
    """

    v: Literal[1]
    month: Annotated[str, Meta(pattern=r"^([0-9]{4}-(0[1-9]|1[0-2]))?\Z")]
    size: Count
    root: Hash
    proof: Annotated[list[Hash], Meta(max_length=PROOF_LIMIT)]


def log_name(settlement_key: bytes) -> str:
    """Return the name under which a report's checkpoint speaks of the intake log."""
    return f"farcast/{peer_id(settlement_key)}/intake"


def encoded(statement: Statement) -> bytes:
    """Return what a statement is named and signed by: its encoding, of version 1 without later fields."""
    return encode(_form(statement))


def read_statement(data: bytes) -> Statement:
    """Decode a statement of any version of the rules; raises ``RemoteError`` where it is none."""
    try:
        return decode(Statement, data, limit_bytes=HEAD_LIMIT_BYTES)
    except RemoteError:
        statement = _loosely(Statement, data)
        if statement is None or encoded(statement) != data:
            raise
        return statement


def digest(statement: Statement) -> bytes:
    """Return the name of a statement: SHA-256 over domain and encoding."""
    return digest_of(encoded(statement))


def digest_of(data: bytes) -> bytes:
    """Return the name of an encoded statement, whichever version wrote it."""
    return sha256(domain("settle") + data).digest()


def seal_head(head: Head, settlement: Identity) -> bytes:
    """Sign a report's head with the settlement key."""
    body = encode(_head_form(head))
    return encode(Signed(body, settlement.sign("settle", body)))


def open_head(data: bytes, settlement_keys: Sequence[bytes]) -> Head:
    """Verify a head against the origin's settlement keys; raises ``RemoteError``."""
    try:
        head = unseal_any("settle", Head, data, settlement_keys, "settlement", limit_bytes=HEAD_LIMIT_BYTES)
    except RemoteError:
        for key in settlement_keys:
            if (first := _first_head(data, key)) is not None:
                return first
        raise
    if head.statement.rules.v > 1:
        return head
    raise RemoteError("rules of version 1 with fields of a later one", reason="malformed")


def _first_head(data: bytes, key: bytes) -> Head | None:
    """Open a head whose statement was settled by rules of version 1; None where it is none."""
    signed = decode(Signed, data, limit_bytes=HEAD_LIMIT_BYTES)
    head = _loosely(Head, signed.body) if verify("settle", key, signed.body, signed.sig) else None
    return head if head is not None and encode(_head_form(head)) == signed.body else None


def _head_form(head: Head) -> Head | tuple[object, ...]:
    if head.statement.rules.v > 1:
        return head
    return head.v, Raw(encoded(head.statement)), head.files


def _form(statement: Statement) -> Statement | list[object]:
    """Return what is encoded for a statement; version 1 of the rules knew neither of the later fields."""
    if statement.rules.v > 1:
        return statement
    older: dict[str, object] = {
        "rules": rules_form(statement.rules),
        "relays": [(line.relay, line.kbytes, line.cents) for line in statement.relays],
    }
    return [older.get(name, getattr(statement, name)) for name in statement.__struct_fields__]


M = TypeVar("M", bound=Message)


def _loosely(kind: type[M], data: bytes) -> M | None:
    """Decode what may lack fields that were added at the ends of its parts; they have their defaults."""
    try:
        return msgpack.decode(data, type=kind)
    except (MsgspecError, ValueError, OverflowError, RecursionError):
        return None


def lines_root(lines: Iterable[Line]) -> bytes:
    """Return the RFC 9162 tree hash over the encoded lines."""
    return root_over([leaf_hash(encode(line)) for line in lines])


def pack_lines(lines: Iterable[Line]) -> bytes:
    """Return ``leaves.bin``: each encoded line behind its length in two bytes."""
    leaves = [encode(line) for line in lines]
    return b"".join(len(leaf).to_bytes(2, "big") + leaf for leaf in leaves)


def unpack_lines(data: bytes) -> list[Line]:
    """Read ``leaves.bin``.

    Raises:
        RemoteError: ``malformed`` or another codec reason, naming the leaf.

    """
    leaves, rest = split_leaves(data)
    lines = read_lines(leaves, 0)
    if rest:
        raise RemoteError(f"leaf {len(leaves)} is cut short", reason="malformed")
    return lines


def split_leaves(data: bytes) -> tuple[list[bytes], bytes]:
    """Part ``leaves.bin``, or a piece of it, into whole encoded lines and what is left over."""
    leaves: list[bytes] = []
    at, end = 0, len(data) - 2
    while at <= end:
        start = at + 2
        stop = start + (data[at] << 8 | data[at + 1])
        if stop > end + 2:
            break
        leaves.append(data[start:stop])
        at = stop
    return leaves, data[at:]


def read_lines(leaves: list[bytes], first: int) -> list[Line]:
    """Decode lines, the first of which is leaf ``first``; raises ``RemoteError``, naming the leaf."""
    lines: list[Line] = []
    for number, leaf in enumerate(leaves, first):
        try:
            lines.append(decode(Line, leaf, limit_bytes=LEAF_LIMIT_BYTES))
        except RemoteError as error:
            raise RemoteError(f"leaf {number} does not read: {error}", reason=error.reason) from error
    return lines


def ticket_name(tid: bytes) -> bytes:
    """Return the name under which ``tickets.bin`` lists a ticket, known only to who knows the id."""
    return sha256(b"farcast/ticket-name/v1\0" + tid).digest()[:16]


def pack_tickets(stored: dict[bytes, int]) -> bytes:
    """Return ``tickets.bin``: name and number of stored pulses of each ticket, sorted by name."""
    named = sorted((ticket_name(tid), count) for tid, count in stored.items())
    return b"".join(name + count.to_bytes(2, "big") for name, count in named)


def ticket_names(data: bytes) -> list[bytes]:
    """Return the names in ``tickets.bin``; raises ``RemoteError`` ``malformed`` unless sorted and whole."""
    names = [data[place : place + 16] for place in range(0, len(data), TICKET_ENTRY_BYTES)]
    if len(data) % TICKET_ENTRY_BYTES or not all(map(lt, names, names[1:])):
        raise RemoteError("the tickets are not whole, sorted entries", reason="malformed")
    return names


def unpack_tickets(data: bytes) -> dict[bytes, int]:
    """Read ``tickets.bin`` by ticket name; raises as ``ticket_names``."""
    return {
        name: int.from_bytes(data[place + 16 : place + TICKET_ENTRY_BYTES], "big")
        for place, name in zip(range(0, len(data), TICKET_ENTRY_BYTES), ticket_names(data), strict=True)
    }
