"""The leaves: all lines of a report column by column, a million of them in some 250 MB.

They are read from ``leaves.bin`` in pieces of any size, and stand in wherever lines do.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from operator import ne
from typing import overload

from .codec import encode
from .errors import RemoteError
from .merkle import leaf_hash, proofs_over, root_over
from .shares import portions
from .statement import Line, read_lines, split_leaves

_PIECE_LINES = 8_192


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
            self._extend(piece, [encode(line) for line in piece])

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
            found._extend(read_lines(leaves, len(found)), leaves)
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

    def _extend(self, lines: Sequence[Line], leaves: Iterable[bytes]) -> None:
        platform, month = self._known.setdefault, self._months.setdefault
        self.platform += [platform(line.platform, line.platform) for line in lines]
        self.payee += [line.payee for line in lines]
        self.month += [month(line.month, line.month) for line in lines]
        self.weight.extend([line.weight for line in lines])
        self.share_cents.extend([line.share_cents for line in lines])
        self.paid_cents.extend([line.paid_cents for line in lines])
        self.held_cents.extend([line.held_cents for line in lines])
        self.capped_cents.extend([line.capped_cents for line in lines])
        self.per_payer_cents.extend([line.per_payer_cents for line in lines])
        self.hashes += map(leaf_hash, leaves)

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


def leaves_of(lines: Sequence[Line]) -> Leaves:
    """Return ``lines`` as leaves, which they may be already."""
    return lines if isinstance(lines, Leaves) else Leaves(lines)
