"""The leaves: all lines of a report column by column, a million of them in some 250 MB.

They are read from ``leaves.bin`` in pieces of any size, and stand in wherever lines do.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import islice
from operator import ne
from typing import Any, overload

from msgspec.structs import astuple

from .codec import decode_all, encode
from .errors import RemoteError
from .merkle import proofs_over, root_over
from .shares import portions
from .statement import LEAF_LIMIT_BYTES, Line, read_lines, split_leaves

KEY_BYTES = 32
WEIGHT_LIMIT, COUNT_LIMIT = 2**63, 2**53
_PIECE_LINES = 8_192
_PAYEE = "[a-z0-9][a-z0-9._-]{0,62}"
_PAYEES = re.compile(f"{_PAYEE}(?:\n{_PAYEE})*+")
_MONTH = re.compile("[0-9]{4}-(?:0[1-9]|1[0-2])")
_Row = tuple[bytes, str, str, int, int, int, int, int, int]
"""A line as ``Line`` lists its fields, read without its bounds: those are looked at by column."""


class Leaves(Sequence[Line]):
    """Lines in the order of a report; each column is a public list or array of that length.

    ``hashes`` are the leaves' RFC 9162 hashes. Platforms and months are few, so equal ones are one object.
    """

    def __init__(self, lines: Iterable[Line] = ()) -> None:
        self.platform: list[bytes] = []
        self.payee: list[str] = []
        self.month: list[str] = []
        self.weight = array("q")
        self.share_cents = array("q")
        self.paid_cents = array("q")
        self.held_cents = array("q")
        self.capped_cents = array("q")
        self.per_payer_cents = array("q")
        self.hashes: list[bytes] = []
        self._known: dict[bytes, bytes] = {}
        self._months: dict[str, str] = {}
        waiting = iter(lines)
        while piece := list(islice(waiting, _PIECE_LINES)):
            self._extend([astuple(line) for line in piece], [encode(line) for line in piece])

    @classmethod
    def read(cls, pieces: Iterable[bytes]) -> Leaves:
        """Read ``leaves.bin``, whose bytes come in any ``pieces``.

        Raises:
            RemoteError: ``malformed`` or another codec reason, naming the leaf.

        """
        found = cls()
        rest = b""
        for piece in pieces:
            leaves, rest = split_leaves(rest + piece)
            rows = _rows(leaves)
            if rows is None:
                rows = [astuple(line) for line in read_lines(leaves, len(found))]
            found._extend(rows, leaves)
        if rest:
            raise RemoteError(f"leaf {len(found)} is cut short", reason="malformed")
        return found

    def root(self) -> bytes:
        """Return the RFC 9162 tree hash over the leaves."""
        return root_over(self.hashes)

    def proofs(self, places: Sequence[int]) -> list[list[bytes]]:
        """Return the inclusion proofs of the leaves at ``places``."""
        return proofs_over(self.hashes, places)

    def places_of(self, payee: str) -> list[int]:
        """Return where the lines of ``payee`` are."""
        return [place for place, name in enumerate(self.payee) if name == payee]

    def platforms(self) -> Iterator[range]:
        """Yield the places of each platform's lines; the leaves must be in order."""
        start = 0
        while start < len(self):
            end = bisect_right(self.platform, self.platform[start], start)
            yield range(start, end)
            start = end

    def pooled(self, pool_cents: int) -> list[int]:
        """Apportion the pool platform -> payee -> month of viewing; the leaves must be in order."""
        groups = list(self.platforms())
        weights = [sum(self.weight[group.start : group.stop]) for group in groups]
        shares: list[int] = []
        for group, cents in zip(groups, portions(pool_cents, weights), strict=True):
            shares += self._by_payee(group, cents)
        return shares

    def _by_payee(self, group: range, cents: int) -> list[int]:
        payees = self.payee[group.start : group.stop]
        weights = self.weight[group.start : group.stop]
        starts = [0, *(place for place, other in enumerate(map(ne, payees, payees[1:]), 1) if other)]
        if len(starts) == len(payees):
            return portions(cents, weights)
        runs = [weights[start:end] for start, end in zip(starts, [*starts[1:], len(payees)], strict=True)]
        shares: list[int] = []
        for run, part in zip(runs, portions(cents, [sum(run) for run in runs]), strict=True):
            shares += [part] if len(run) == 1 else portions(part, run)
        return shares

    def _extend(self, rows: Sequence[tuple[Any, ...]], leaves: Iterable[bytes]) -> None:
        if not rows:
            return
        platform, payee, month, weight, share, paid, held, capped, per_payer = zip(*rows, strict=True)
        self.platform += map(self._known.setdefault, platform, platform)
        self.payee += payee
        self.month += map(self._months.setdefault, month, month)
        self.weight.extend(weight)
        self.share_cents.extend(share)
        self.paid_cents.extend(paid)
        self.held_cents.extend(held)
        self.capped_cents.extend(capped)
        self.per_payer_cents.extend(per_payer)
        self.hashes += [sha256(b"\0" + leaf).digest() for leaf in leaves]

    def __len__(self) -> int:
        return len(self.payee)

    @overload
    def __getitem__(self, place: int) -> Line: ...
    @overload
    def __getitem__(self, place: slice) -> list[Line]: ...
    def __getitem__(self, place: int | slice) -> Line | list[Line]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        return Line(
            self.platform[place],
            self.payee[place],
            self.month[place],
            self.weight[place],
            self.share_cents[place],
            self.paid_cents[place],
            self.held_cents[place],
            self.capped_cents[place],
            self.per_payer_cents[place],
        )

    def __iter__(self) -> Iterator[Line]:
        return map(
            Line, self.platform, self.payee, self.month, self.weight, self.share_cents, self.paid_cents,
            self.held_cents, self.capped_cents, self.per_payer_cents,
        )  # fmt: skip


def _rows(leaves: list[bytes]) -> list[tuple[Any, ...]] | None:
    """Decode many leaves at once where all of them are lines as ``Line`` bounds them, else None."""
    if not leaves:
        return []
    try:
        rows = decode_all(_Row, leaves, limit_bytes=LEAF_LIMIT_BYTES)
    except RemoteError:
        return None
    platforms, payees, months, weights, *cents = zip(*rows, strict=True)
    sound = (
        {len(platform) for platform in set(platforms)} == {KEY_BYTES}
        and _PAYEES.fullmatch("\n".join(payees)) is not None
        and all(map(_MONTH.fullmatch, set(months)))
        and 0 <= min(weights) <= max(weights) < WEIGHT_LIMIT
        and all(0 <= min(column) <= max(column) < COUNT_LIMIT for column in cents)
    )
    return rows if sound else None


def leaves_of(lines: Sequence[Line]) -> Leaves:
    """Return ``lines`` as leaves, which they may be already."""
    return lines if isinstance(lines, Leaves) else Leaves(lines)
