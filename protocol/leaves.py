"""The leaves: all lines of a report column by column, a million of them in some 250 MB.

They are read from ``leaves.bin`` in pieces of any size, and stand in wherever lines do.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from itertools import islice
from operator import ne
from typing import Any, cast, overload

import msgspec
from msgspec.structs import astuple

from .codec import encode
from .errors import RemoteError
from .merkle import HASH_BYTES, proofs_over, root_over
from .shares import portions
from .statement import LEAF_LIMIT_BYTES, Line, Weight, read_lines, split_leaves

COUNT_LIMIT = 2**53
_PIECE_LINES = 8_192
_BLOCK = 2**12
_LONG = 2**16
_HEAD = b"\x99\xc4\x20"
"""How a line begins: an array of nine, of which the first is a byte string of 32."""
_PAYEE = "[a-z0-9][a-z0-9._-]{0,62}"
_PAYEES = re.compile(f"{_PAYEE}(?:\n{_PAYEE})*+")
_MONTH = re.compile("[0-9]{4}-(?:0[1-9]|1[0-2])")
_START = len(_HEAD) + 32
_NIL = b"\xc0"
_FIELDS = msgspec.msgpack.Decoder(list[str | Weight | None])
_Columns = tuple[Any, ...]
"""The nine columns of ``Line``, in its order."""


class Leaves(Sequence[Line]):
    """Lines in the order of a report; each column is a public list or array of that length.

    Platforms and months are few, so equal ones are one object. The tree is hashed as leaves come in, in
    complete subtrees of ``_BLOCK``, while they are in the processor's cache.
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
        self._hashes = bytearray()
        self._blocks: list[bytes] = []
        self._open: list[bytes] = []
        self._known: dict[bytes, bytes] = {}
        self._months: dict[str, str] = {}
        waiting = iter(lines)
        while piece := list(islice(waiting, _PIECE_LINES)):
            self._extend(_columns(piece), [encode(line) for line in piece])

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
            if leaves:
                columns = _read(leaves)
                found._extend(columns or _columns(read_lines(leaves, len(found))), leaves)
        if rest:
            raise RemoteError(f"leaf {len(found)} is cut short", reason="malformed")
        return found

    @cached_property
    def payees(self) -> int:
        """How many payees there are, once all lines are in."""
        return len(set(self.payee))

    def key(self, place: int) -> tuple[bytes, str, str]:
        """Return what a leaf is sorted by."""
        return self.platform[place], self.payee[place], self.month[place]

    def root(self) -> bytes:
        """Return the RFC 9162 tree hash over the leaves."""
        return root_over([*self._blocks, *([root_over(self._open)] if self._open else [])])

    def proofs(self, places: Sequence[int]) -> list[list[bytes]]:
        """Return the inclusion proofs of the leaves at ``places``."""
        hashes = [bytes(self._hashes[at : at + HASH_BYTES]) for at in range(0, len(self._hashes), HASH_BYTES)]
        return proofs_over(hashes, places) if places else []

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
        if all(map(ne, payees, payees[1:])):
            return portions(cents, weights)
        starts = [0, *(place for place, other in enumerate(map(ne, payees, payees[1:]), 1) if other)]
        runs = [weights[start:end] for start, end in zip(starts, [*starts[1:], len(payees)], strict=True)]
        shares: list[int] = []
        for run, part in zip(runs, portions(cents, [sum(run) for run in runs]), strict=True):
            shares += [part] if len(run) == 1 else portions(part, run)
        return shares

    def _extend(self, columns: _Columns, leaves: Iterable[bytes]) -> None:
        platform, payee, month, weight, share, paid, held, capped, per_payer = columns
        self.platform += map(self._known.setdefault, platform, platform)
        self.payee += payee
        self.month += map(self._months.setdefault, month, month)
        self.weight.extend(weight)
        self.share_cents.extend(share)
        self.paid_cents.extend(paid)
        self.held_cents.extend(held)
        self.capped_cents.extend(capped)
        self.per_payer_cents.extend(per_payer)
        hashes = [sha256(b"\0" + leaf).digest() for leaf in leaves]
        self._hashes += b"".join(hashes)
        self._open += hashes
        while len(self._open) >= _BLOCK:
            self._blocks.append(root_over(self._open[:_BLOCK]))
            del self._open[:_BLOCK]

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


def _columns(lines: Sequence[Line]) -> _Columns:
    platform, payee, month, *numbers = zip(*map(astuple, lines), strict=True)
    return platform, payee, month, *(array("q", column) for column in numbers)


def _read(leaves: list[bytes]) -> _Columns | None:
    """Decode many leaves at once where all of them are canonical lines as ``Line`` bounds them, else None.

    Their platforms are cut out, a nil is put in front of what follows, and all of it is read as one array:
    nils stand in every ninth place alone, so each leaf has nine fields.
    """
    heads = [leaf[:_START] for leaf in leaves]
    known = {head: head[len(_HEAD) :] for head in set(heads)}
    body = _NIL + _NIL.join([leaf[_START:] for leaf in leaves])
    head = _array(9 * len(leaves))
    try:
        fields = _FIELDS.decode(head + body)
        nils, payees, months = fields[0::9], cast("list[str]", fields[1::9]), cast("list[str]", fields[2::9])
        numbers = [array("q", cast("list[int]", fields[place::9])) for place in range(3, 9)]
        sound = (
            all(each.startswith(_HEAD) and len(each) == _START for each in known)
            and max(map(len, leaves)) <= LEAF_LIMIT_BYTES
            and nils.count(None) == len(leaves)
            and _PAYEES.fullmatch(joined := "\n".join(payees)) is not None
            and joined.count("\n") == len(payees) - 1
            and all(map(_MONTH.fullmatch, set(months)))
            and all(max(column) < COUNT_LIMIT for column in numbers[1:])
            and encode(fields) == head + body
        )
    except (msgspec.MsgspecError, TypeError, ValueError):
        return None
    return ([known[each] for each in heads], payees, months, *numbers) if sound else None


def _array(size: int) -> bytes:
    """Return the msgpack head of an array, as short as it can be."""
    return encode([None] * size)[:-size] if size < _LONG else b"\xdd" + size.to_bytes(4, "big")


def leaves_of(lines: Sequence[Line]) -> Leaves:
    """Return ``lines`` as leaves, which they may be already."""
    return lines if isinstance(lines, Leaves) else Leaves(lines)
