from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from farcast.protocol.audit import shares_of
from farcast.protocol.codec import encode
from farcast.protocol.errors import RemoteError
from farcast.protocol.leaves import Leaves
from farcast.protocol.merkle import leaf_hash, root_of, verify_inclusion
from farcast.protocol.statement import Line, pack_lines, unpack_lines

CENTS = st.integers(0, 2**53 - 1)
LINES = st.lists(
    st.builds(
        Line,
        st.sampled_from([b"\1" * 32, b"\2" * 32, b"\xc0" * 32]),
        st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True),
        st.sampled_from(["2026-10", "2026-11"]),
        st.integers(0, 2**63 - 1),
        *[CENTS] * 5,
    ),
    max_size=24,
)


def verdict(data: bytes, pieces: Sequence[bytes] | None = None) -> list[Line] | str:
    """Return the lines, or why there are none: read at once, or in pieces."""
    try:
        return unpack_lines(data) if pieces is None else list(Leaves.read(pieces))
    except RemoteError as error:
        return str(error)


@given(LINES, st.data())
def test_leaves_read_as_each_line_reads_in_whatever_pieces_they_come(
    lines: list[Line], data: st.DataObject
) -> None:
    packed = pack_lines(lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(packed)), max_size=5)))
    pieces = [packed[a:b] for a, b in zip([0, *cuts], [*cuts, len(packed)], strict=True)]
    leaves = Leaves.read(pieces)
    assert list(leaves) == lines
    assert leaves[:] == lines
    assert leaves.root() == root_of(encode(line) for line in lines)
    assert Leaves(lines).root() == leaves.root()


@given(LINES, st.data())
def test_what_is_no_line_alone_is_none_among_many_either(lines: list[Line], data: st.DataObject) -> None:
    packed = bytearray(pack_lines(lines) or b"\0\0")
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    assert verdict(bytes(packed), [bytes(packed)]) == verdict(bytes(packed))


def framed(*leaves: bytes) -> bytes:
    return b"".join(len(leaf).to_bytes(2, "big") + leaf for leaf in leaves)


GOOD = encode(Line(b"\1" * 32, "ann", "2026-11", 1, 1, 1, 0, 0, 1))
FIELDS = [b"\1" * 32, "ann", "2026-11", 1, 1, 1, 0, 0, 1]


@pytest.mark.parametrize(
    "leaves",
    [
        (GOOD, b""),
        (GOOD[:-1], GOOD[:1] + b"\1" + GOOD[1:]),  # a field pushed over the edge
        (GOOD + b"\1", b"\x99" + GOOD[2:]),
        (encode([*FIELDS, 1]), encode(FIELDS[:8])),
        (encode([*FIELDS[:8], True]),),
        (encode([*FIELDS[:8], 1.0]),),
        (encode([*FIELDS[:8], None]),),
        (encode([None, *FIELDS[1:]]),),
        (encode([b"\1" * 31, *FIELDS[1:]]),),
        (encode([*FIELDS[:8], 2**53]),),
        (encode([*FIELDS[:3], 2**63, *FIELDS[4:]]),),
        (encode([*FIELDS[:3], -1, *FIELDS[4:]]),),
        (encode([FIELDS[0], "an\nn", *FIELDS[2:]]),),
        (encode([FIELDS[0], "", *FIELDS[2:]]),),
        (encode([FIELDS[0], "ann\n", *FIELDS[2:]]),),
        (encode([*FIELDS[:2], "2026-11\n", *FIELDS[3:]]),),
        (GOOD[:-1] + b"\xcc\1",),  # a number longer than it must be
    ],
)
def test_leaves_that_are_lines_only_together_are_refused(leaves: tuple[bytes, ...]) -> None:
    data = framed(GOOD, *leaves, GOOD)
    told = verdict(data)
    assert isinstance(told, str)
    assert verdict(data, [data]) == told


@given(LINES, st.integers(0, 10**9))
def test_the_pool_is_split_by_column_as_by_name(lines: list[Line], pool_cents: int) -> None:
    keyed = {(line.platform, line.payee, line.month): line for line in lines}
    ordered = [keyed[key] for key in sorted(keyed)]
    shares = shares_of(pool_cents, {key: keyed[key].weight for key in sorted(keyed)})
    assert Leaves(ordered).pooled(pool_cents) == [shares[key] for key in sorted(keyed)]


def test_every_leaf_of_many_has_its_proof() -> None:
    line = Line(b"\1" * 32, "ann", "2026-11", 0, 0, 0, 0, 0, 0)
    lines = [replace(line, weight=number) for number in range(9_001)]  # more than two whole subtrees
    leaves = Leaves(lines)
    places = [0, 1, 4_095, 4_096, 8_191, 8_192, 9_000]
    for place, proof in zip(places, leaves.proofs(places), strict=True):
        assert verify_inclusion(leaf_hash(encode(lines[place])), place, len(lines), proof, leaves.root())
