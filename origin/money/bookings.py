"""Bookings: what comes in and goes out beside settlements, as lines that sum to zero. Pure.

A tip or a patron's sum goes to its payee less a fee, rounded down, so the odd cent is the payee's.
A collaboration is split by basis points, to the cent, by largest remainder. A refund turns the
lines of an earlier booking around.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ...protocol.errors import UsageError
from ...protocol.manifest import BASIS_POINTS
from ...protocol.shares import apportion
from .transaction import MAX_CENTS, Posting

RECEIVED = "assets:received"
REVENUE = "pool:revenue"
COSTS = "pool:costs"
FEES = "fees"
FEE_POINTS = 1_000
MAX_NOTE = 400
MAX_PAYEES = 64
REFUNDABLE = frozenset({"revenue", "cost", "tip", "patron", "collaboration"})

_PAYEE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass(frozen=True)
class Booking:
    """One booking: its kind and sum, its lines, and what else its memo says."""

    kind: str
    cents: int
    lines: tuple[Posting, ...]
    note: str = ""
    account: bytes | None = None
    more: Mapping[str, object] = field(default_factory=dict[str, object])

    def memo(self, month: str = "") -> str:
        """Return the memo of its transaction, for ``month`` or for when it is booked."""
        fields: dict[str, object] = {
            "memo": self.note,
            "account": self.account.hex() if self.account else None,
            "cents": self.cents,
            **self.more,
        }
        return json.dumps({**fields, "month": month} if month else fields)


def payable(payee: str) -> str:
    """Return the account of what is owed to a payee."""
    return f"payable:{payee}"


def revenue(cents: int, note: str = "", account: bytes | None = None) -> Booking:
    """Return income of the pool, perhaps of one account; zero says that there was none."""
    _check(cents, note, least=0)
    return Booking("revenue", cents, (Posting(RECEIVED, cents), Posting(REVENUE, -cents)), note, account)


def cost(cents: int, note: str = "") -> Booking:
    """Return a hub cost."""
    _check(cents, note, least=0)
    return Booking("cost", cents, (Posting(COSTS, cents), Posting(RECEIVED, -cents)), note)


def tip(cents: int, payee: str, note: str = "", account: bytes | None = None) -> Booking:
    """Return somebody's tip for a payee."""
    return _gift("tip", cents, payee, FEE_POINTS, note, account)


def patron(
    cents: int,
    payee: str,
    month: str,
    note: str = "",
    account: bytes | None = None,
    *,
    fee_points: int = FEE_POINTS,
) -> Booking:
    """Return what a patron gives a payee for a ``month``."""
    gift = _gift("patron", cents, payee, fee_points, note, account)
    return replace(gift, more={**gift.more, "for": month})


def collaboration(
    cents: int, split: Mapping[str, int], note: str = "", account: bytes | None = None
) -> Booking:
    """Return a sum split over payees by basis points."""
    _check(cents, note, least=1)
    if not 1 <= len(split) <= MAX_PAYEES or min(split.values()) < 1 or sum(split.values()) != BASIS_POINTS:
        message = (
            f"the shares sum to {sum(split.values())}, not to {BASIS_POINTS}; write them as "
            f"--split ada=6000,ben=4000, for at most {MAX_PAYEES} payees"
        )
        raise UsageError(message, reason="bad_split")
    parts = apportion(cents, {_payee(payee): points for payee, points in split.items()})
    lines = (
        Posting(RECEIVED, cents),
        *(Posting(payable(payee), -part) for payee, part in sorted(parts.items())),
    )
    return Booking("collaboration", cents, lines, note, account, {"split": dict(sorted(split.items()))})


def refund(
    number: int, kind: str, memo: str, lines: Sequence[Posting], note: str = "", *, is_open: bool
) -> Booking:
    """Return the inverse of transaction ``number``.

    While the original ``is_open``, not settled yet, it counts where the original does; afterwards it
    counts against the next settlement.

    Raises:
        UsageError: where that kind of transaction cannot be refunded.

    """
    if kind not in REFUNDABLE:
        message = (
            f"transaction {number} is a {kind}; only bookings are refunded: {', '.join(sorted(REFUNDABLE))}"
        )
        raise UsageError(message, reason="not_refundable")
    _check(0, note, least=0)
    fields = json.loads(memo)
    account = bytes.fromhex(fields["account"]) if fields.get("account") else None
    more = {"refunds": number, "of": kind, "open": is_open}
    inverse = tuple(Posting(line.account, -line.cents) for line in lines)
    return Booking("refund", -fields["cents"], inverse, note, account, more)


def parse_split(text: str) -> dict[str, int]:
    """Read ``ada=6000,ben=4000``.

    Raises:
        UsageError: where it is not written like this or names somebody twice.

    """
    split: dict[str, int] = {}
    for part in text.split(","):
        payee, sign, points = part.strip().partition("=")
        if not sign or not points.isascii() or not points.isdigit() or payee in split:
            message = f"{text!r} is no split; write each payee once with basis points: ada=6000,ben=4000"
            raise UsageError(message, reason="bad_split")
        split[_payee(payee)] = int(points)
    return split


def _gift(kind: str, cents: int, payee: str, fee_points: int, note: str, account: bytes | None) -> Booking:
    _check(cents, note, least=1)
    fee = cents * fee_points // BASIS_POINTS
    lines = (
        Posting(RECEIVED, cents),
        Posting(payable(_payee(payee)), fee - cents),
        Posting(FEES, -fee),
    )
    return Booking(kind, cents, lines, note, account, {"payee": payee, "fee_cents": fee})


def _payee(payee: str) -> str:
    if not _PAYEE.fullmatch(payee):
        raise UsageError(f"a payee id is lower-case letters, digits, dots and dashes, not {payee!r}")
    return payee


def _check(cents: int, note: str, *, least: int) -> None:
    if not least <= cents <= MAX_CENTS:
        raise UsageError(f"{cents} is no sum to book; name whole cents from {least} to {MAX_CENTS}")
    if len(note) > MAX_NOTE:
        raise UsageError(f"a memo has at most {MAX_NOTE} characters")
